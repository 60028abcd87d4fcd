//! The settings of a layer.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, Uri, header, request::Parts};
#[cfg(feature = "local")]
use tidegate_limiter::Limiter;

#[cfg(feature = "local")]
use crate::local::Local;
use crate::{
    layer::{AttributeOf, Decider, OnFailure, Shared, Tidegate},
    nodes::Nodes,
    refusal::Refusal,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(150);
const DEFAULT_IN_FLIGHT: usize = 1024;
const DEFAULT_PORT: u16 = 7800;
/// The domain of rules that name none.
const DEFAULT_DOMAIN: &str = "default";

/// What is wrong with the settings of a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No node was named.
    #[error("no node is given: name at least one, http://HOST:PORT")]
    NoNodes,
    /// It is no address of a node.
    #[error("{0:?} is no address of a node: write http://HOST:PORT")]
    Node(String),
    /// It cannot name a header.
    #[error("{0:?} cannot be the name of a header")]
    Header(String),
    /// The token cannot stand in a header.
    #[error("the token has a character that no token has")]
    Token,
    /// No check could be made.
    #[error("max_in_flight is 0: no check could be made")]
    NothingInFlight,
}

/// Settings of a layer; [`Builder::build`] makes it.
#[must_use = "it makes a layer by `build`"]
pub struct Builder {
    backend: Backend,
    domain: String,
    timeout: Duration,
    max_in_flight: usize,
    charge_once: bool,
    token: Option<String>,
    shared: Shared,
    headers: Vec<(String, String)>,
}

enum Backend {
    Nodes(Vec<String>),
    #[cfg(feature = "local")]
    Local(Box<Limiter>),
}

impl Tidegate {
    /// Asks Tidegate nodes, named by their HTTP address, `http://HOST:PORT`. With one node that is the nearest one; of
    /// several the less busy of two is asked, and another one if it does not answer.
    pub fn nodes(nodes: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(Backend::Nodes(nodes.into_iter().map(Into::into).collect()))
    }

    /// Asks nobody: the limiter is in this process, and its limits are this process's own.
    #[cfg(feature = "local")]
    pub fn local(limiter: Limiter) -> Builder {
        Builder::new(Backend::Local(Box::new(limiter)))
    }
}

impl Builder {
    fn new(backend: Backend) -> Self {
        Self {
            backend,
            domain: DEFAULT_DOMAIN.to_owned(),
            timeout: DEFAULT_TIMEOUT,
            max_in_flight: DEFAULT_IN_FLIGHT,
            charge_once: false,
            token: None,
            headers: Vec::new(),
            shared: Shared {
                attributes: usual(),
                cost: Arc::new(|_| 1),
                on_failure: OnFailure::default(),
                on_refused: None,
            },
        }
    }

    /// The domain whose rules are meant; `default` if not said. A local limiter has no domains.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// Adds an attribute, or replaces one of the usual ones (`method`, `path`, `host`). Requests for which it is `None` do
    /// not have it; rules that need it are not about them.
    ///
    /// The address of the client is not among the usual ones, because only you know which proxies are trusted. Of a connection that
    /// clients make themselves, in axum:
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// # use axum::extract::ConnectInfo;
    /// # use tidegate_tower::Tidegate;
    /// Tidegate::nodes(["http://127.0.0.1:7800"]).attribute("ip", |request| {
    ///     // The app is served by `into_make_service_with_connect_info::<SocketAddr>()`.
    ///     Some(request.extensions.get::<ConnectInfo<SocketAddr>>()?.ip().to_string())
    /// })
    /// # ;
    /// ```
    pub fn attribute(
        mut self,
        name: impl Into<String>,
        value: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        self.shared.attributes.retain(|(known, _)| *known != name);
        self.shared.attributes.push((name, Arc::new(value)));
        self
    }

    /// Makes a header an attribute. Clients can write what they like into headers: limit by one only if something that
    /// you trust sets or checks it.
    pub fn header(mut self, header: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.headers.push((header.into(), attribute.into()));
        self
    }

    /// What a request costs, in units; 1 if not said, 0 only looks.
    pub fn cost(mut self, cost: impl Fn(&Parts) -> u64 + Send + Sync + 'static) -> Self {
        self.shared.cost = Arc::new(cost);
        self
    }

    /// What happens when no node answers in time; by default the request runs.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.shared.on_failure = on_failure;
        self
    }

    /// What a request that does not run is answered, instead of problem+json (or a gRPC status): one that is over its limit, and
    /// with [`OnFailure::Deny`] one that nobody has decided about. The headers about limits, and about when to try again, are
    /// added unless the response has them.
    ///
    /// ```
    /// # use http::{Response, StatusCode};
    /// # use tidegate_tower::Tidegate;
    /// Tidegate::nodes(["http://127.0.0.1:7800"]).on_refused(|refusal| {
    ///     if refusal.is_grpc() || refusal.answer().is_none() {
    ///         return refusal.response(); // as without this
    ///     }
    ///     let mut response = Response::new(format!("{} is too busy", refusal.request().uri.path()).into());
    ///     *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    ///     response
    /// })
    /// # ;
    /// ```
    pub fn on_refused(
        mut self,
        response: impl Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.shared.on_refused = Some(Arc::new(response));
        self
    }

    /// How long a request waits for a decision at most, all attempts together; 150 ms if not said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many requests may wait for a decision at once; 1,024 if not said. For one more [`OnFailure`] decides.
    pub fn max_in_flight(mut self, max: usize) -> Self {
        self.max_in_flight = max;
        self
    }

    /// Gives each check a `request_id` of its own, so that a request for which a second node has to be asked is charged
    /// once. Otherwise it may be charged twice then, which is stricter than its limit. It makes each check a little dearer.
    pub fn charge_once(mut self) -> Self {
        self.charge_once = true;
        self
    }

    /// The token that is presented to nodes whose checks need one; it needs the role `check`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn build(mut self) -> Result<Tidegate, ConfigError> {
        for (header, attribute) in std::mem::take(&mut self.headers) {
            let name = HeaderName::try_from(&header).map_err(|_| ConfigError::Header(header))?;
            self = self.attribute(attribute, move |parts| text_of(parts, &name));
        }
        if self.max_in_flight == 0 {
            return Err(ConfigError::NothingInFlight);
        }
        let decider = match self.backend {
            #[cfg(feature = "local")]
            Backend::Local(limiter) => Decider::Local(Arc::new(Local::new(*limiter))),
            Backend::Nodes(nodes) => {
                if nodes.is_empty() {
                    return Err(ConfigError::NoNodes);
                }
                let token = self.token.as_deref().map(bearer).transpose()?;
                let check_calls = nodes.iter().map(|node| check_call(node)).collect::<Result<_, _>>()?;
                let nodes =
                    Nodes::new(check_calls, self.domain, self.timeout, self.max_in_flight, self.charge_once);
                Decider::Nodes(Arc::new(nodes.presenting(token)))
            }
        };
        Ok(Tidegate { decider, shared: Arc::new(self.shared) })
    }
}

/// How a token is presented. It is shown nowhere.
fn bearer(token: &str) -> Result<HeaderValue, ConfigError> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| ConfigError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a node answers checks.
fn check_call(node: &str) -> Result<Uri, ConfigError> {
    let error = || ConfigError::Node(node.to_owned());
    let url: Uri = node.parse().map_err(|_| error())?;
    let authority =
        url.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(error)?;
    if url.scheme_str() != Some("http") || !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(error());
    }
    let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
    format!("http://{}:{port}/v1/check", authority.host()).parse().map_err(|_| error())
}

/// What each request is asked about unless it is replaced.
fn usual() -> Vec<(String, AttributeOf)> {
    let host = |parts: &Parts| {
        let named = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        named.or_else(|| text_of(parts, &header::HOST))
    };
    vec![
        ("method".to_owned(), Arc::new(|parts: &Parts| Some(parts.method.as_str().to_owned()))),
        ("path".to_owned(), Arc::new(|parts: &Parts| Some(parts.uri.path().to_owned()))),
        ("host".to_owned(), Arc::new(host)),
    ]
}

/// A header that is there once, and text.
fn text_of(parts: &Parts, name: &HeaderName) -> Option<String> {
    let mut values = parts.headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    Some(value.to_str().ok()?.to_owned())
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("domain", &self.domain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: http::Request<()>) -> Parts {
        request.into_parts().0
    }

    fn facts(builder: Builder, parts: &Parts) -> Vec<(String, String)> {
        let mut attributes = builder.build().unwrap().shared.facts(parts).attributes;
        attributes.sort();
        attributes
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_request_is_asked_about_by_method_path_and_host_and_what_is_added() {
        let request = http::Request::post("/login?x=1").header("host", "a.example").header("x-user", "ada");
        let request = parts(request.body(()).unwrap());
        let builder = Tidegate::nodes(["http://n1"]).header("X-User", "user").attribute("path", |_| None);
        assert_eq!(
            facts(builder, &request),
            owned(&[("host", "a.example"), ("method", "POST"), ("user", "ada")])
        );
        let builder = Tidegate::nodes(["http://n1"]);
        assert_eq!(
            facts(builder, &request),
            owned(&[("host", "a.example"), ("method", "POST"), ("path", "/login")])
        );
    }

    #[test]
    fn a_header_that_is_there_twice_or_is_too_long_is_none() {
        let request = http::Request::get("/").header("x-user", "ada").header("x-user", "eve");
        let request = parts(request.header("x-key", "k".repeat(5000)).body(()).unwrap());
        let builder = Tidegate::nodes(["http://n1"]).header("x-user", "user").header("x-key", "key");
        assert_eq!(facts(builder, &request), owned(&[("method", "GET"), ("path", "/")]));
    }

    #[test]
    fn invalid_settings_are_errors() {
        let error = |builder: Builder| builder.build().unwrap_err();
        assert_eq!(error(Tidegate::nodes([] as [&str; 0])), ConfigError::NoNodes);
        for node in ["n1:7800", "https://n1", "http://n1/x", "http://u:p@n1", "http://"] {
            assert_eq!(error(Tidegate::nodes([node])), ConfigError::Node(node.to_owned()));
        }
        let builder = Tidegate::nodes(["http://n1"]);
        assert_eq!(error(builder.header("a b", "x")), ConfigError::Header("a b".to_owned()));
        assert_eq!(error(Tidegate::nodes(["http://n1"]).max_in_flight(0)), ConfigError::NothingInFlight);
        assert_eq!(check_call("http://[::1]").unwrap(), "http://[::1]:7800/v1/check");
        assert_eq!(check_call("http://n1:99/").unwrap(), "http://n1:99/v1/check");
    }
}
