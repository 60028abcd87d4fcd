//! The accept loop of every front end: takes connections and hands them to the worker threads in turn.
//!
//! Not `axum::serve`: that leaves Nagle's algorithm on (pipelined checks fall to a third), has no limits on a
//! connection, and no workers.

use std::{
    io, net,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The pause after the system refused to give a connection (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that are let in after the end, because the system had taken them before: as many as may wait to be accepted.
const MAX_LAST: u32 = 4096;
/// Connections above the cap that are told so at the same time; more are closed without a word.
const MAX_REFUSING: u64 = 64;
/// How long one of them may take to listen.
const REFUSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What the accept loop counts.
#[derive(Debug, Default)]
pub struct ServerStats {
    open: AtomicU64,
    /// Open connections of all front ends that share one cap.
    all: Arc<AtomicU64>,
    accepted: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
}

impl ServerStats {
    /// Of a front end that shares its cap with another one.
    pub(crate) fn beside(other: &Self) -> Self {
        Self { all: Arc::clone(&other.all), ..Self::default() }
    }

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

/// Whom a front end lets in.
pub(crate) struct AcceptOptions {
    /// The front end, for the log.
    pub(crate) what: &'static str,
    /// Connections at a time, of all front ends that share `stats`.
    pub(crate) max_connections: u64,
    /// For what is being answered when the server stops.
    pub(crate) drain_timeout: Duration,
    /// What one connection too many is told.
    pub(crate) too_many: Bytes,
    pub(crate) stats: Arc<ServerStats>,
}

/// Accepts until `stop`, then waits for the connections to end. Connection number i is served on worker i modulo their number,
/// by `serve`, which is to end soon after `stop`. Who has connected before is let in: the system has told them that they are.
pub(crate) async fn accept<S>(
    listener: TcpListener,
    workers: Vec<Handle>,
    options: AcceptOptions,
    serve: impl Fn(usize, TcpStream) -> S + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) where
    S: Future<Output = ()> + Send,
{
    let AcceptOptions { what, max_connections, drain_timeout, too_many, stats } = options;
    let connections = TaskTracker::new();
    let mut turns = (0..workers.len()).cycle();
    let mut let_in = |stream: net::TcpStream| {
        let Some(open) = Open::count(&stats, max_connections) else {
            let so_far = stats.refused.fetch_add(1, Relaxed);
            if so_far.is_multiple_of(1000) {
                tracing::warn!(
                    protocol = what,
                    refused = so_far + 1,
                    allowed = max_connections,
                    "too many connections (--max-connections, or what the limit of open files leaves): refusing"
                );
            }
            // Each lives for at most REFUSE_TIMEOUT, so they cannot pile up beyond this.
            if (connections.len() as u64).saturating_sub(stats.open()) < MAX_REFUSING
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                connections.spawn(refuse(stream, too_many.clone()));
            }
            return;
        };
        let Some(worker) = turns.next() else { return };
        let serve = serve.clone();
        connections.spawn_on(
            async move {
                let _open = open;
                // The stream must be known to the runtime of the thread that serves it.
                if let Ok(stream) = TcpStream::from_std(stream)
                    && stream.set_nodelay(true).is_ok()
                {
                    serve(worker, stream).await;
                }
            },
            &workers[worker],
        );
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Ok(stream) = stream.into_std() {
                    let_in(stream);
                }
            }
            Err(error) => {
                stats.accept_errors.fetch_add(1, Relaxed);
                // A client that gave up before it was accepted is no reason to pause.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // Whoever has connected before.
    if let Ok(listener) = listener.into_std() {
        for _ in 0..MAX_LAST {
            let Ok((stream, _)) = listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok() {
                let_in(stream);
            }
        }
    }
    connections.close();
    // What is left then is cut off when the workers end.
    let _ = timeout(drain_timeout, connections.wait()).await;
}

/// Counts one open connection for as long as it lives.
struct Open(Arc<ServerStats>);

impl Open {
    fn count(stats: &Arc<ServerStats>, max: u64) -> Option<Self> {
        // Two front ends may add at the same time, so it is counted first and looked at then.
        if stats.all.fetch_add(1, Relaxed) >= max {
            stats.all.fetch_sub(1, Relaxed);
            return None;
        }
        stats.open.fetch_add(1, Relaxed);
        stats.accepted.fetch_add(1, Relaxed);
        Some(Self(Arc::clone(stats)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.all.fetch_sub(1, Relaxed);
    }
}

/// Tells a client why it is not let in.
pub(crate) async fn refuse(mut stream: TcpStream, why: Bytes) {
    let refusing = async {
        stream.write_all(&why).await?;
        stream.shutdown().await?;
        // Reading what the client sent keeps the kernel from resetting the connection before it has read this.
        let mut waste = [0; 1024];
        while stream.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that is gone has missed it.
    let _ = timeout(REFUSE_TIMEOUT, refusing).await;
}
