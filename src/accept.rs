//! The accept loop of every front end: takes connections and hands them to the worker threads in turn.
//!
//! Not `axum::serve`: that leaves Nagle's algorithm on (pipelined checks fall to a third), has no limits on a
//! connection, and no workers.

use std::{
    io,
    net::{self, IpAddr},
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

use crate::{
    connections::{Connections, NoPlace},
    turns::Turn,
};

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
    /// The places of all front ends.
    places: Arc<Connections>,
    accepted: AtomicU64,
    refused: AtomicU64,
    refused_clients: AtomicU64,
    noisy: AtomicU64,
    accept_errors: AtomicU64,
}

impl ServerStats {
    /// Of a front end that has some of these places.
    pub(crate) fn of(places: &Arc<Connections>) -> Self {
        Self { places: Arc::clone(places), ..Self::default() }
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

    /// Connections that were refused because their client had as many as one can have.
    pub fn refused_clients(&self) -> u64 {
        self.refused_clients.load(Relaxed)
    }

    /// Connections that were closed because their client sent too much that asks for nothing.
    pub fn noisy(&self) -> u64 {
        self.noisy.load(Relaxed)
    }

    /// Counts one of those, and says so now and then.
    pub(crate) fn count_noisy(&self, protocol: &'static str, client: IpAddr) {
        let so_far = self.noisy.fetch_add(1, Relaxed);
        if so_far.is_multiple_of(1000) {
            let closed = so_far + 1;
            tracing::warn!(
                protocol,
                closed,
                %client,
                "a client has sent more than a connection may that asks for nothing (frames of control, empty commands): closed"
            );
        }
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
    /// All places are for it; else some are kept for HTTP.
    pub(crate) is_http: bool,
    /// For what is being answered when the server stops.
    pub(crate) drain_timeout: Duration,
    /// What one connection too many is told.
    pub(crate) too_many: Bytes,
    pub(crate) stats: Arc<ServerStats>,
}

/// Accepts until `stop`, then waits for the connections to end. Connection number i is served on worker i modulo their number,
/// by `serve`, which is to end soon after `stop`, whenever it is its client's turn. Who has connected before is let in: the system has told them that they are.
pub(crate) async fn accept<S>(
    listener: TcpListener,
    workers: Vec<Handle>,
    options: AcceptOptions,
    serve: impl Fn(usize, TcpStream, Arc<Turn>) -> S + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) where
    S: Future<Output = ()> + Send,
{
    let AcceptOptions { what, is_http, drain_timeout, too_many, stats } = options;
    let connections = TaskTracker::new();
    let mut turns = (0..workers.len()).cycle();
    let mut let_in = |stream: net::TcpStream, client: IpAddr| {
        let open = Open::count(&stats, client, is_http);
        let Ok(open) = open.inspect_err(|reason| count_refused(what, *reason, client, is_http, &stats))
        else {
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
        let turn = stats.places.turn(workers.len(), worker, client);
        let of_requests = Arc::clone(&turn);
        let serving = async move {
            let _open = open;
            // The stream must be known to the runtime of the thread that serves it.
            if let Ok(stream) = TcpStream::from_std(stream)
                && stream.set_nodelay(true).is_ok()
            {
                serve(worker, stream, of_requests).await;
            }
        };
        connections.spawn_on(turn.take(serving), &workers[worker]);
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Ok(stream) = stream.into_std() {
                    let_in(stream, peer.ip());
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
            let Ok((stream, peer)) = listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok() {
                let_in(stream, peer.ip());
            }
        }
    }
    connections.close();
    // What is left then is cut off when the workers end.
    let _ = timeout(drain_timeout, connections.wait()).await;
}

/// Counts a connection that is not let in, and says so now and then.
fn count_refused(what: &'static str, reason: NoPlace, client: IpAddr, is_http: bool, stats: &ServerStats) {
    let count = match reason {
        NoPlace::OfAll => &stats.refused,
        NoPlace::OfClient => &stats.refused_clients,
    };
    let so_far = count.fetch_add(1, Relaxed);
    if !so_far.is_multiple_of(1000) {
        return;
    }
    let refused = so_far + 1;
    match reason {
        NoPlace::OfAll => tracing::warn!(
            protocol = what,
            refused,
            allowed = stats.places.cap(is_http),
            "too many connections (--max-connections, or what the limit of open files leaves): refusing"
        ),
        NoPlace::OfClient => tracing::warn!(
            protocol = what,
            refused,
            %client,
            "a client has as many connections as one can have (--max-connections-per-client): refusing"
        ),
    }
}

/// Counts one open connection for as long as it lives.
struct Open {
    stats: Arc<ServerStats>,
    client: Option<IpAddr>,
}

impl Open {
    fn count(stats: &Arc<ServerStats>, client: IpAddr, is_http: bool) -> Result<Self, NoPlace> {
        let client = stats.places.enter(client, is_http)?;
        stats.open.fetch_add(1, Relaxed);
        stats.accepted.fetch_add(1, Relaxed);
        Ok(Self { stats: Arc::clone(stats), client })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Relaxed);
        self.stats.places.leave(self.client);
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
