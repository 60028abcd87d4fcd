//! The promise: a bucket that moves to another node admits nothing twice, also when the answers of its new owner are lost and what
//! was handed over is handed over again. A node joins through a proxy that ends the stream instead of passing half of the
//! answers to hand-overs.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::kit;
use tidegate_jepsen::cluster::{free_ports, wait_for};

const KEYS: usize = 40;
const LIMIT: u32 = 1000;
const RULES: &str = "rules:
  - { name: log, key: [log], limit: 1000/1d, algorithm: sliding_log, consistency: strict, on_owner_loss: deny }
  - { name: bucket, key: [bucket], limit: 1000/1d, consistency: strict, on_owner_loss: deny, takeover: zero }
";
/// One way.
const DELAY: Duration = Duration::from_millis(15);
const CALL: u8 = tidegate_proto::Kind::Call as u8;
const REPLY: u8 = tidegate_proto::Kind::Reply as u8;
const FRAME: usize = tidegate_proto::frame::FRAME_HEADER_BYTES;
const RECORD: usize = tidegate_proto::record::RECORD_HEADER_BYTES;
const GREETING: usize = tidegate_proto::greeting::GREETING_BYTES;
/// Where a call's payload says which one it is, behind the cluster and two nodes; and what it says there for buckets.
const WHICH: usize = 16 + 8 + 8;
const HAND_OVER: u32 = 12;

/// Finds the frames in what goes by.
#[derive(Default)]
struct Frames {
    unread: Vec<u8>,
    greeted: bool,
}

impl Frames {
    fn see(&mut self, bytes: &[u8], mut each: impl FnMut(u8, &[u8])) {
        self.unread.extend_from_slice(bytes);
        if !self.greeted {
            if self.unread.len() < GREETING {
                return;
            }
            self.unread.drain(..GREETING);
            self.greeted = true;
        }
        let length = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        while self.unread.len() >= RECORD {
            let end = RECORD + length(&self.unread);
            if self.unread.len() < end {
                return;
            }
            let record: Vec<u8> = self.unread.drain(..end).skip(RECORD).collect();
            let mut frames = &record[..];
            while let [kind, rest @ ..] = frames {
                let end = FRAME + length(rest);
                each(*kind, &frames[FRAME..end]);
                frames = &frames[end..];
            }
        }
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, mut look: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !look(&bytes[..count]) {
            // Whoever waits for the answer sees the end of the stream instead.
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
        thread::sleep(DELAY);
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Runs until the test's process ends.
fn proxy(at: SocketAddr, node: SocketAddr, lost: Arc<AtomicUsize>) {
    let listener = TcpListener::bind(at).unwrap();
    thread::spawn(move || {
        for caller in listener.incoming() {
            let Ok(caller) = caller else { continue };
            let Ok(callee) = TcpStream::connect(node) else { continue };
            let (mut near, mut far) = (caller.try_clone().unwrap(), callee.try_clone().unwrap());
            let hands_over = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&hands_over);
            thread::spawn(move || {
                let mut frames = Frames::default();
                pass(&mut near, &mut far, |bytes| {
                    frames.see(bytes, |kind, frame| {
                        if kind == CALL {
                            let which = u32::from_le_bytes(frame[WHICH..WHICH + 4].try_into().unwrap());
                            seen.store(which == HAND_OVER, SeqCst);
                        }
                    });
                    true
                });
            });
            let lost = Arc::clone(&lost);
            thread::spawn(move || {
                let (mut near, mut far, mut frames) = (caller, callee, Frames::default());
                pass(&mut far, &mut near, |bytes| {
                    let mut passes = true;
                    frames.see(bytes, |kind, _| {
                        if kind == REPLY && hands_over.swap(false, SeqCst) {
                            passes &= lost.fetch_add(1, SeqCst).is_multiple_of(2);
                        }
                    });
                    passes
                });
            });
        }
    });
}

#[test]
fn a_log_that_is_handed_over_twice_admits_nothing_twice() {
    let _machine = kit::alone();
    let mut cluster = kit::nodes(3, RULES);
    let lost = Arc::new(AtomicUsize::new(0));
    let admitted: Vec<AtomicU32> = (0..2 * KEYS).map(|_| AtomicU32::new(0)).collect();
    let wanted = AtomicBool::new(true);
    let path = |place: usize| {
        let attribute = if place < KEYS { "log" } else { "bucket" };
        format!("/v1/check?{attribute}=k{place}")
    };
    let nodes: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.http).collect();
    let (port, joined) =
        (free_ports(), cluster.nodes.iter().map(|node| node.peer.port() - 3).collect::<Vec<_>>());
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                let mut client = tidegate_jepsen::client::Client::new(*node, Duration::from_secs(5));
                let mut place = node.port() as usize;
                while wanted.load(SeqCst) {
                    place += 1;
                    let at = place % (2 * KEYS);
                    if client.get(&path(at)).is_ok_and(|answer| answer.status == 200) {
                        admitted[at].fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let end = kit::EndOnDrop(&wanted);
        thread::sleep(Duration::from_millis(500));
        let peer = port + 3;
        proxy(([127, 0, 0, 2], peer).into(), ([127, 0, 0, 1], peer).into(), Arc::clone(&lost));
        cluster.spawn(port, &joined, &["--advertise".to_owned(), "127.0.0.2".to_owned()]);
        wait_for("n4 owns its slots", Duration::from_secs(60), || {
            let owners = cluster.node("n1").slot_owners();
            owners.iter().filter(|owner| *owner == "n4").count() > 900 && cluster.node("n1").is_settled()
        });
        // All that is left is taken.
        let until = Instant::now() + Duration::from_secs(60);
        let sum = || admitted.iter().map(|one| one.load(SeqCst)).sum::<u32>();
        let mut before = 0;
        while Instant::now() < until && sum() != before {
            before = sum();
            thread::sleep(Duration::from_secs(3));
        }
        drop(end);
    });
    let counts: Vec<u32> = admitted.iter().map(|one| one.load(SeqCst)).collect();
    eprintln!("{} answers to hand-overs, half of them lost; {counts:?}", lost.load(SeqCst));
    assert!(lost.load(SeqCst) > 10, "the answers went through the proxy");
    // Of the other kind two units refill meanwhile.
    let most = |place: usize| if place < KEYS { LIMIT } else { LIMIT + 2 };
    let over: Vec<(usize, u32)> =
        counts.into_iter().enumerate().filter(|(place, count)| *count > most(*place)).collect();
    assert!(over.is_empty(), "more than {LIMIT}: {over:?}");
}
