//! Streams through the proxy of a node: bytes in their order, each part when it may arrive.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, Semaphore, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{caller, passage::Passage};

/// Streams through one proxy at one time; more wait.
const MAX_STREAMS: usize = 1024;
/// What is read at once.
const PART_BYTES: usize = 16 << 10;
/// The same where the link is slow: about a packet.
const PACKET_BYTES: usize = 1448;
/// Parts of a stream that wait: a MiB. Beyond that nothing more is read.
const MAX_PARTS: usize = 64;
/// What a caller may have sent before the other side is asked, beyond which nothing more is read.
const MAX_EARLY_BYTES: usize = 64 << 10;
/// How long a node may take to accept.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Bytes, and when they may arrive.
type Part = (Instant, Vec<u8>);

/// Accepts streams for a node and hands on what is sent on them.
pub(super) async fn pass_on(to: u8, listener: TcpListener, passage: Arc<Passage>) {
    let room = Arc::new(Semaphore::new(MAX_STREAMS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            // Out of file descriptors, most likely: wait for some to come back.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let passage = Arc::clone(&passage);
        // Bounded by the room, and over with the runtime.
        tokio::spawn(async move {
            // Who is no node is not let in.
            if let Some(from) = caller::of(from, passage.proxy(to), &passage).await {
                // A stream that ends is not told of: both sides see it.
                let _ = pass(stream, from, to, &passage).await;
            }
            drop(permit);
        });
    }
}

async fn pass(stream: TcpStream, from: u8, to: u8, passage: &Passage) -> io::Result<()> {
    if passage.faults.refuses(from, to) {
        // At once, as if nobody listened.
        return stream.set_zero_linger();
    }
    stream.set_nodelay(true)?;
    let (mut caller_says, caller_hears) = stream.into_split();
    let Some(early) = until_open(&mut caller_says, from, to, passage).await else { return Ok(()) };
    // The caller has been let in at once: what a connection takes where nodes are far from each other comes here.
    let handshake = passage.faults.link(from, to).delay + passage.faults.link(to, from).delay;
    sleep(handshake).await;
    let socket = TcpSocket::new_v4()?;
    socket.bind((passage.proxy_address(from), 0).into())?;
    let Ok(Ok(stream)) = timeout(CONNECT_WITHIN, socket.connect(passage.node(to))).await else {
        // Nobody is there. That the caller is told so is an answer, which may not get through either.
        passage.faults.until_open(to, from).await;
        return Ok(());
    };
    stream.set_nodelay(true)?;
    let (node_says, node_hears) = stream.into_split();
    let lost = Notify::new();
    let both_ways = async {
        tokio::join!(
            one_way(caller_says, node_hears, early, (from, to), None, passage),
            one_way(node_says, caller_hears, Vec::new(), (to, from), Some(&lost), passage),
        )
    };
    tokio::select! {
        _ = both_ways => {}
        () = lost.notified() => {}
    }
    Ok(())
}

/// Waits until the other side can be reached at all. Returns what the caller has said meanwhile; `None`: it has gone.
async fn until_open(caller_says: &mut OwnedReadHalf, from: u8, to: u8, passage: &Passage) -> Option<Vec<u8>> {
    let mut early = Vec::new();
    let open = passage.faults.until_open(from, to);
    tokio::pin!(open);
    loop {
        tokio::select! {
            biased;
            () = &mut open => return Some(early),
            read = caller_says.read_buf(&mut early), if early.len() < MAX_EARLY_BYTES => match read {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            },
        }
    }
}

/// Hands on what one side says to the other, until it has said all or the other has gone. Where they are answers, `lost` is
/// told when one is not handed on: then the stream is of no use any more.
async fn one_way(
    says: OwnedReadHalf,
    hears: OwnedWriteHalf,
    early: Vec<u8>,
    way: (u8, u8),
    lost: Option<&Notify>,
    passage: &Passage,
) {
    let (parts, queue) = mpsc::channel(MAX_PARTS);
    tokio::join!(take_in(says, parts, early, way, passage), hand_out(queue, hears, way, lost, passage));
}

async fn take_in(
    mut says: OwnedReadHalf,
    parts: mpsc::Sender<Part>,
    early: Vec<u8>,
    (from, to): (u8, u8),
    passage: &Passage,
) {
    if !early.is_empty() && parts.send((Instant::now(), early)).await.is_err() {
        return;
    }
    let mut buffer = vec![0; PART_BYTES];
    // The first byte of a part comes after the last one of the part before.
    let mut latest = Instant::now();
    loop {
        let is_slow = passage.faults.link(from, to).kilobits.is_some();
        let at_once = if is_slow { PACKET_BYTES } else { PART_BYTES };
        let length = match says.read(&mut buffer[..at_once]).await {
            // Its end arrives as the bytes do, after all of them.
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        latest = latest.max(passage.faults.due(from, to, length).await);
        if parts.send((latest, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn hand_out(
    mut queue: mpsc::Receiver<Part>,
    mut hears: OwnedWriteHalf,
    (from, to): (u8, u8),
    lost: Option<&Notify>,
    passage: &Passage,
) {
    while let Some((due, part)) = queue.recv().await {
        sleep_until(due).await;
        if let Some(lost) = lost.filter(|_| passage.faults.loses_answer(from, to)) {
            // Whoever waits for it is told that the stream has failed, at once.
            let _ = hears.as_ref().set_zero_linger();
            // Dropped, it would say that it has told all.
            hears.forget();
            lost.notify_one();
            return;
        }
        let mut rest = &part[..];
        while !rest.is_empty() {
            passage.faults.until_open(from, to).await;
            // A node that does not read must not take in later what is written while it cannot be reached.
            tokio::select! {
                biased;
                () = passage.faults.until_cut(from, to) => {}
                written = hears.write(rest) => match written {
                    Ok(length) => rest = &rest[length..],
                    // It has gone; what else comes is dropped, and that it has gone is told the other way.
                    Err(_) => return,
                },
            }
        }
    }
    passage.faults.until_open(from, to).await;
    // It may have gone as well.
    let _ = hears.shutdown().await;
}
