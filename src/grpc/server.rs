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
};

/// Serves until `ending` says stop.
pub(crate) async fn serve(listener: TcpListener, workers: Vec<Handle>, node: Arc<Node>, ending: Ending) {
    let fronts: Vec<Front> = (0..workers.len()).map(|worker| Front::new(Arc::clone(&node), worker)).collect();
    let options = AcceptOptions {
        what: "gRPC",
        is_http: false,
        drain_timeout: DRAIN_TIMEOUT,
        too_many: too_many_connections(),
        stats: Arc::clone(&node.grpc),
    };
    let stop = ending.stopped().clone();
    let serve = move |worker: usize, stream: TcpStream| {
        connection::serve(stream, fronts[worker].clone(), ending.clone())
    };
    accept(listener, workers, options, serve, stop).await;
}

/// What HTTP/2 says to a connection that it does not take: empty settings, and a GOAWAY with the reason.
fn too_many_connections() -> Bytes {
    const SETTINGS: [u8; 9] = [0, 0, 0, 0x4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 0x7;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    const WHY: &[u8] =
        b"this node has as many connections as it takes (--max-connections); reuse them, or ask another node";
    let length = (8 + WHY.len()) as u8;
    let mut frames = SETTINGS.to_vec();
    frames.extend([0, 0, length, GOAWAY, 0, 0, 0, 0, 0]);
    frames.extend(0_u32.to_be_bytes());
    frames.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frames.extend(WHY);
    frames.into()
}
