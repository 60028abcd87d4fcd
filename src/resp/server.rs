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
    tls::{Acceptor, Socket},
};

/// For what is being answered when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection is asked by the kernel after this whether somebody is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What a client is told that speaks no TLS.
const NOT_TLS: &[u8] = b"-ERR this port speaks TLS (rediss://, redis-cli --tls)\r\n";

/// Serves until `ending` says stop.
pub(crate) async fn serve(
    listener: TcpListener,
    workers: Vec<Handle>,
    node: Arc<Node>,
    tls: Option<Arc<Acceptor>>,
    ending: Ending,
) {
    let options = AcceptOptions {
        what: "Redis protocol",
        is_http: false,
        drain_timeout: DRAIN_TIMEOUT,
        too_many: Bytes::from_static(b"-ERR max number of clients reached (--max-connections)\r\n"),
        stats: Arc::clone(&node.resp),
    };
    let stop = ending.stopped().clone();
    let stopping = Stopping::of(ending.clone());
    let told = stopping.clone();
    let room = Room::default();
    let serve = move |worker: usize, tcp: TcpStream, _| {
        // Without it connections of hosts that have gone stay a little longer.
        let _ = SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        let (node, told, tls, ending) = (Arc::clone(&node), told.clone(), tls.clone(), ending.clone());
        let room = room.clone();
        async move {
            let stream = match tls {
                None => Some(Socket::plain(tcp)),
                Some(tls) => tls.handshake(tcp, &ending, |_| Bytes::from_static(NOT_TLS)).await,
            };
            if let Some(stream) = stream {
                serve_connection(stream, node, worker, room, told).await;
            }
        }
    };
    tokio::join!(stopping.follow(), accept(listener, workers, options, serve, stop));
}
