//! HTTP to one node, over connections that stay open until it fails.
//!
//! **A node that fails is looked up again.** A name is resolved when a connection is opened, and kept connections go where the name
//! pointed then: while they are there, a node that came back with another address would not be found. So all of them are given
//! up with the first failure, and the next attempt resolves the name anew.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
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
}

impl NodeClient {
    pub(super) fn new(resolver: Resolver, connect_timeout: Duration) -> Self {
        let current = RwLock::new(Arc::new(client(&resolver, connect_timeout)));
        Self { current, resolver, connect_timeout }
    }

    pub(super) fn current(&self) -> Arc<HttpClient> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives up the connections by which the node could not be asked, unless that has been done: checks that fail together are
    /// one failure. What is under way over them goes on.
    pub(super) fn give_up(&self, failed: &Arc<HttpClient>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, failed) {
            *current = Arc::new(client(&self.resolver, self.connect_timeout));
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
