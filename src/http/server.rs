//! Serves HTTP on the accept loop. It is generic over the service, so that a benchmark can put another one behind the very
//! same loop.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::Service,
};
use hyper_util::service::TowerToHyperService;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;

use super::{connection::serve_connection, problem};
pub use super::{quick::Question, wire::Replies};
use crate::accept::{Doors, ServerStats, accept};

/// What a client may do, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time. One more is answered 503 and closed.
    pub max_connections: u64,
    /// Bytes of a request's first line and headers; beyond that 431.
    pub max_head_bytes: usize,
    /// Headers of a request; beyond that 431.
    pub max_headers: usize,
    /// From the first byte of a request to the end of its headers; then the connection is closed.
    pub head_timeout: Duration,
    /// Without a request; then the connection is closed.
    pub idle_timeout: Duration,
    /// For a client that does not take any of its answer; then the connection is closed.
    pub write_timeout: Duration,
    /// For requests that are being answered when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            max_head_bytes: problem::MAX_HEAD_BYTES,
            max_headers: problem::MAX_HEADERS,
            head_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(3),
        }
    }
}

/// How a service begins with a connection.
pub trait Begin: Sized {
    /// Makes of a lane's service the one for this connection, of which nothing has been read; `None` if it is to be closed.
    fn begin(&self, stream: &mut TcpStream) -> impl Future<Output = Option<Self>> + Send;

    /// Whether it knows what [`Begin::answer`] is to do; then connections begin there.
    const ANSWERS_CHECKS: bool = false;

    /// Answers a check.
    fn answer(&self, question: Question<'_>, replies: &mut Replies) -> impl Future<Output = ()> + Send {
        let _ = (question, replies);
        async {}
    }
}

/// Other services do not care whose connection it is.
impl<S: Clone + Send + Sync> Begin for TowerToHyperService<S> {
    async fn begin(&self, _: &mut TcpStream) -> Option<Self> {
        Some(self.clone())
    }
}

/// Serves until `stop`, then waits for the requests in flight. Connection number i is served on lane i modulo their
/// number, by what `service` makes for that lane.
pub async fn serve<S, B>(
    listener: TcpListener,
    lanes: Vec<Handle>,
    service: impl Fn(usize) -> S,
    limits: Limits,
    stats: Arc<ServerStats>,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Begin
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
    let services: Vec<S> = (0..lanes.len()).map(service).collect();
    let doors = Doors {
        what: "HTTP",
        max_connections: limits.max_connections,
        drain_timeout: limits.drain_timeout,
        too_many: problem::too_many_connections(),
        stats,
    };
    let stopping = stop.clone();
    let serve = move |lane: usize, mut stream: TcpStream| {
        let (service, stop) = (services[lane].clone(), stopping.clone());
        async move {
            if let Some(service) = service.begin(&mut stream).await {
                serve_connection(stream, service, limits, stop).await;
            }
        }
    };
    accept(listener, lanes, doors, serve, stop).await;
}
