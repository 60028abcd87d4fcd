//! Datagrams through the proxy of a node: one after the other, from whom they are, to where the node is.

use std::sync::Arc;

use tokio::{
    net::UdpSocket,
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};

use super::{faults::Fate, passage::Passage};

/// Longer ones do not exist.
const MAX_BYTES: usize = 65_536;
/// Datagrams that are late at one time; more are lost.
const MAX_LATE: usize = 1024;

/// Hands on what comes to the proxy of a node, by its socket. What a node has sent goes out of that of its own proxy, so that
/// it can be answered.
pub(super) async fn pass_on(to: u8, own: Arc<UdpSocket>, passage: Arc<Passage>) {
    let mut buffer = vec![0; MAX_BYTES];
    let late = Arc::new(Semaphore::new(MAX_LATE));
    loop {
        let (length, source) = match own.recv_from(&mut buffer).await {
            Ok(received) => received,
            // The node that an earlier one went to is down: that comes back as an error. Any other passes too.
            Err(_) => {
                sleep(std::time::Duration::from_millis(1)).await;
                continue;
            }
        };
        // What strangers send is nobody's.
        let Some(from) = passage.sender(source) else { continue };
        let Some(out) = passage.outgoing(from) else { continue };
        let Fate::Arrives { at, times } = passage.faults.fate(from, to, length) else { continue };
        let datagram = &buffer[..length];
        if at <= Instant::now() {
            deliver(&out, datagram, passage.node(to), times).await;
            continue;
        }
        let Ok(room) = Arc::clone(&late).try_acquire_owned() else { continue };
        let (datagram, passage) = (datagram.to_vec(), Arc::clone(&passage));
        // Bounded by the room for late ones, and over with the runtime.
        tokio::spawn(async move {
            sleep_until(at).await;
            if !passage.faults.stops(from, to) {
                deliver(&out, &datagram, passage.node(to), times).await;
            }
            drop(room);
        });
    }
}

async fn deliver(out: &UdpSocket, datagram: &[u8], to: std::net::SocketAddr, times: u8) {
    for _ in 0..times {
        // A node that is down takes none.
        let _ = out.send_to(datagram, to).await;
    }
}
