//! Serves the Redis protocol on the accept loop.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};

use super::{connection::serve_connection, room::Room, stopping::Stopping};
use crate::{
    accept::{AcceptOptions, accept},
    ending::Ending,
    node::Node,
};

/// For what is being answered when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection is asked by the kernel after this whether somebody is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Serves until `ending` says stop.
pub(crate) async fn serve(
    listener: TcpListener,
    workers: Vec<Handle>,
    node: Arc<Node>,
    max_connections: u64,
    ending: Ending,
) {
    let options = AcceptOptions {
        what: "Redis protocol",
        max_connections,
        drain_timeout: DRAIN_TIMEOUT,
        too_many: Bytes::from_static(b"-ERR max number of clients reached (--max-connections)\r\n"),
        stats: Arc::clone(&node.resp),
    };
    let stop = ending.stopped().clone();
    let stopping = Stopping::of(ending);
    let told = stopping.clone();
    let room = Room::default();
    let serve = move |worker: usize, stream: TcpStream| {
        // Without it connections of hosts that have gone stay a little longer.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        serve_connection(stream, Arc::clone(&node), worker, room.clone(), told.clone())
    };
    tokio::join!(stopping.follow(), accept(listener, workers, options, serve, stop));
}
