//! Serves HTTP on the accept loop. It is generic over the service, so that a benchmark can put another one behind the very
//! same loop.

use std::{convert::Infallible, sync::Arc};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::Service,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::serve_connection,
    service::{ConnectionService, Limits, TransportError},
};
use crate::accept::{AcceptOptions, ServerStats, accept};

/// Serves until `stop`, then waits for the requests in flight. Connection number i is served on worker i modulo their
/// number, by what `service` makes for that worker.
pub async fn serve<S, B>(
    listener: TcpListener,
    workers: Vec<Handle>,
    service: impl Fn(usize) -> S,
    limits: Limits,
    stats: Arc<ServerStats>,
    stop: CancellationToken,
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
        max_connections: limits.max_connections,
        drain_timeout: limits.drain_timeout,
        too_many: S::final_response(TransportError::TooManyConnections),
        stats,
    };
    let stopping = stop.clone();
    let serve = move |worker: usize, mut stream: TcpStream| {
        let (service, stop) = (services[worker].clone(), stopping.clone());
        async move {
            if let Some(service) = service.begin(&mut stream).await {
                serve_connection(stream, service, limits, stop).await;
            }
        }
    };
    accept(listener, workers, options, serve, stop).await;
}
