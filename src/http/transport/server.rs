//! Serves HTTP on the accept loop. It is generic over the service, so that a benchmark can put another one behind the very
//! same loop.

use std::{convert::Infallible, sync::Arc};

use super::{
    connection::serve_connection,
    service::{ConnectionService, Limits, TransportError},
};
use crate::{
    accept::{AcceptOptions, ServerStats, accept},
    ending::Ending,
    tls::{Acceptor, Socket},
    turns::Turn,
};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::Service,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};

/// Serves until `ending` says stop, then waits for the requests in flight. Connection number i is served on worker i modulo their
/// number, by what `service` makes for that worker; over TLS if there is an acceptor.
pub async fn serve<S, B>(
    listener: TcpListener,
    workers: Vec<Handle>,
    service: impl Fn(usize) -> S,
    limits: Limits,
    stats: Arc<ServerStats>,
    tls: Option<Arc<Acceptor>>,
    ending: Ending,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + ConnectionService
        + Clone
        + Send
        + Sync
        + Unpin
        + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let services: Vec<S> = (0..workers.len()).map(service).collect();
    let options = AcceptOptions {
        what: "HTTP",
        is_http: true,
        drain_timeout: limits.drain_timeout,
        too_many: S::final_response(TransportError::TooManyConnections),
        stats,
    };
    let stop = ending.stopped().clone();
    let serve = move |worker: usize, mut tcp: TcpStream, turn: Arc<Turn>| {
        let (service, ending, tls) = (services[worker].clone(), ending.clone(), tls.clone());
        async move {
            let Some(service) = service.begin(&mut tcp).await else { return };
            if let Some(client) = service.announced() {
                turn.announce(client);
            }
            drop(turn);
            let Some(tls) = tls else {
                return serve_connection(Socket::plain(tcp), service, limits, ending).await;
            };
            let not_tls = |_: &[u8]| S::final_response(TransportError::PlainText);
            if let Some(stream) = tls.handshake(tcp, &ending, not_tls).await {
                let service = service.identified(stream.certificate().cloned());
                serve_connection(stream, service, limits, ending).await;
            }
        }
    };
    accept(listener, workers, options, serve, stop).await;
}
