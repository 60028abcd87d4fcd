//! Serves gRPC on the accept loop.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};

use super::{
    connection::{self, DRAIN_TIMEOUT},
    front::Front,
};
use crate::{
    accept::{AcceptOptions, accept},
    ending::Ending,
    node::Node,
    parts::Room,
    tls::{Acceptor, Socket},
};

/// Bytes of answers that clients do not take, of all of them.
const UNSENT_BYTES: usize = 64 << 20;
/// The same of one client: more than one connection can have.
const CLIENT_UNSENT_BYTES: usize = UNSENT_BYTES / 4;

/// Serves until `ending` says stop.
pub(crate) async fn serve(
    listener: TcpListener,
    workers: Vec<Handle>,
    node: Arc<Node>,
    tls: Option<Arc<Acceptor>>,
    ending: Ending,
) {
    let unsent = Room::new(UNSENT_BYTES, CLIENT_UNSENT_BYTES);
    let front = |worker| Front::new(Arc::clone(&node), worker, Arc::clone(&unsent));
    let fronts: Vec<Front> = (0..workers.len()).map(front).collect();
    let options = AcceptOptions {
        what: "gRPC",
        is_http: false,
        drain_timeout: DRAIN_TIMEOUT,
        too_many: too_many_connections(),
        stats: Arc::clone(&node.grpc),
    };
    let stop = ending.stopped().clone();
    let serve = move |worker: usize, tcp: TcpStream, turn| {
        let (front, ending, tls) = (fronts[worker].clone(), ending.clone(), tls.clone());
        async move {
            let stream = match tls {
                None => Some(Socket::plain(tcp)),
                Some(tls) => tls.handshake(tcp, &ending, not_tls).await,
            };
            if let Some(stream) = stream {
                connection::serve(stream, front.in_turn(turn), ending).await;
            }
        }
    };
    accept(listener, workers, options, serve, stop).await;
}

fn too_many_connections() -> Bytes {
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    const WHY: &[u8] =
        b"this node has as many connections as it takes (--max-connections); reuse them, or ask another node";
    goaway(ENHANCE_YOUR_CALM, WHY)
}

/// What a client is told that begins with something else than TLS.
fn not_tls(begins: &[u8]) -> Bytes {
    const INADEQUATE_SECURITY: u32 = 0xc;
    const HTTP_1: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nThis port speaks gRPC, that is HTTP/2, over TLS. HTTP is one port below.\n";
    if begins.starts_with(b"PRI") {
        goaway(INADEQUATE_SECURITY, b"this port speaks TLS")
    } else {
        Bytes::from_static(HTTP_1)
    }
}

/// What HTTP/2 says to a connection that it does not take: empty settings, and a GOAWAY with the reason, of at most 240 bytes.
fn goaway(code: u32, why: &[u8]) -> Bytes {
    const SETTINGS: [u8; 9] = [0, 0, 0, 0x4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 0x7;
    let length = (8 + why.len()) as u8;
    let mut frames = SETTINGS.to_vec();
    frames.extend([0, 0, length, GOAWAY, 0, 0, 0, 0, 0]);
    frames.extend(0_u32.to_be_bytes());
    frames.extend(code.to_be_bytes());
    frames.extend(why);
    frames.into()
}
