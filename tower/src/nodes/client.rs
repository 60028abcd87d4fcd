//! HTTP to one node, over connections that stay open until it fails.
//!
//! **A node that fails is looked up again.** A name is resolved when a connection is opened, and kept connections go where the name
//! pointed then: while they are there, a node that came back with another address would not be found. So all of them are given
//! up when a check has failed and one that began after that has failed too, and the next attempt resolves the name anew. One
//! failure may be a pause of the node: new connections for all would be one more burden for it.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
    vec,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::{TokioExecutor, TokioTimer},
};
use tower_service::Service;

use super::choice::nanos;

/// Connections to a node that are kept open while nothing is asked, and for how long: less than the node keeps them.
const IDLE_CONNECTIONS: usize = 64;
const IDLE_FOR: Duration = Duration::from_secs(20);

pub(super) type HttpClient = Client<HttpConnector<Resolver>, Full<Bytes>>;

/// The connections to one node.
#[derive(Debug)]
pub(super) struct NodeClient {
    /// Nearly always read, and only for as long as a pointer is copied.
    current: RwLock<Arc<HttpClient>>,
    resolver: Resolver,
    connect_timeout: Duration,
    /// Nanoseconds after the layer was made at which a check over these connections failed, with none answered since; 0: none.
    failed_at: AtomicU64,
}

impl NodeClient {
    pub(super) fn new(resolver: Resolver, connect_timeout: Duration) -> Self {
        let current = RwLock::new(Arc::new(client(&resolver, connect_timeout)));
        Self { current, resolver, connect_timeout, failed_at: AtomicU64::new(0) }
    }

    pub(super) fn current(&self) -> Arc<HttpClient> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The node has answered over its connections.
    pub(super) fn answered(&self) {
        // Nearly always 0 already: a line of memory that is only read stays where all can read it.
        if self.failed_at.load(SeqCst) != 0 {
            self.failed_at.store(0, SeqCst);
        }
    }

    /// A check over these connections has failed that began then; both are times since the layer was made. Gives the connections
    /// up if it began so long `after` another one had failed: checks that fail together are one failure. What is under way over
    /// them goes on.
    pub(super) fn failed(&self, over: &Arc<HttpClient>, began: Duration, now: Duration, after: Duration) {
        if !Arc::ptr_eq(&self.current(), over) {
            return;
        }
        match self.failed_at.compare_exchange(0, nanos(now).max(1), SeqCst, SeqCst) {
            Err(failed_at) if nanos(began) >= failed_at.saturating_add(nanos(after)) => {}
            _ => return,
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, over) {
            *current = Arc::new(client(&self.resolver, self.connect_timeout));
            self.failed_at.store(0, SeqCst);
        }
    }
}

fn client(resolver: &Resolver, connect_timeout: Duration) -> HttpClient {
    let mut connector = HttpConnector::new_with_resolver(resolver.clone());
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(connector)
}

/// From the name of a node to its addresses.
#[derive(Clone)]
pub(crate) enum Resolver {
    /// As the system has it.
    System(GaiResolver),
    /// As a test has it.
    #[cfg(test)]
    Told(Arc<dyn Fn(&str) -> std::net::IpAddr + Send + Sync>),
}

impl Default for Resolver {
    fn default() -> Self {
        Self::System(GaiResolver::new())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Service<Name> for Resolver {
    /// The port is the caller's matter.
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::System(system) => system.poll_ready(context),
            #[cfg(test)]
            Self::Told(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, name: Name) -> Self::Future {
        match self {
            Self::System(system) => {
                let found = system.call(name);
                Box::pin(async move { Ok(found.await?.collect::<Vec<_>>().into_iter()) })
            }
            #[cfg(test)]
            Self::Told(told) => {
                let found = vec![SocketAddr::new(told(name.as_str()), 0)];
                Box::pin(async move { Ok(found.into_iter()) })
            }
        }
    }
}
