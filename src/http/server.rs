//! The accept loop: takes connections and hands them to the worker threads in turn.
//!
//! Not `axum::serve`: that leaves Nagle's algorithm on (pipelined checks fall to a third), has no limits on a
//! connection, and no lanes. It is generic over the service, so that a benchmark can put another one behind the very
//! same loop.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::Service,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{connection::serve_connection, problem};

/// The pause after the system refused to give a connection (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections above the cap that are told so at the same time; more are closed without a word.
const MAX_REFUSING: u64 = 64;
/// How long one of them may take to listen.
const REFUSE_TIMEOUT: Duration = Duration::from_millis(500);

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

/// What the accept loop counts.
#[derive(Debug, Default)]
pub struct ServerStats {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
}

impl ServerStats {
    /// Connections now.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections that were refused at the cap.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Times that the system did not give a connection that was there.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
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
        + Clone
        + Send
        + Unpin
        + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let services: Vec<S> = (0..lanes.len()).map(service).collect();
    let connections = TaskTracker::new();
    let mut turns = (0..lanes.len()).cycle();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                stats.accept_errors.fetch_add(1, Relaxed);
                // A client that gave up before it was accepted is no reason to pause.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Ok(open) = Open::count(&stats, limits.max_connections) else {
            refuse(stream, &stats, &connections);
            continue;
        };
        let Some(lane) = turns.next() else { return };
        // The stream must be known to the runtime of the thread that serves it.
        let Ok(stream) = stream.into_std() else { continue };
        let (service, stop) = (services[lane].clone(), stop.clone());
        connections.spawn_on(
            async move {
                let _open = open;
                if let Ok(stream) = TcpStream::from_std(stream)
                    && stream.set_nodelay(true).is_ok()
                {
                    serve_connection(stream, service, limits, stop).await;
                }
            },
            &lanes[lane],
        );
    }
    drop(listener);
    connections.close();
    // What is left then is cut off when the workers end.
    let _ = timeout(limits.drain_timeout, connections.wait()).await;
}

/// Counts one open connection for as long as it lives.
struct Open(Arc<ServerStats>);

impl Open {
    fn count(stats: &Arc<ServerStats>, max: u64) -> Result<Self, ()> {
        // Only the accept loop adds, so nothing can come between the two.
        if stats.open.load(Relaxed) >= max {
            return Err(());
        }
        stats.open.fetch_add(1, Relaxed);
        stats.accepted.fetch_add(1, Relaxed);
        Ok(Self(Arc::clone(stats)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Tells a client that there are too many.
fn refuse(mut stream: TcpStream, stats: &Arc<ServerStats>, connections: &TaskTracker) {
    let so_far = stats.refused.fetch_add(1, Relaxed);
    if so_far.is_multiple_of(1000) {
        tracing::warn!(refused = so_far + 1, "too many connections (--max-connections): refusing");
    }
    // Each lives for at most REFUSE_TIMEOUT, so they can not pile up beyond this.
    if (connections.len() as u64).saturating_sub(stats.open()) >= MAX_REFUSING {
        return;
    }
    connections.spawn(async move {
        let _ = timeout(REFUSE_TIMEOUT, async {
            stream.write_all(&problem::too_many_connections()).await?;
            stream.shutdown().await?;
            // Reading what the client sent keeps the kernel from resetting the connection before it has read this.
            let mut waste = [0; 1024];
            while stream.read(&mut waste).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    });
}
