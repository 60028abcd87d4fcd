//! Asks a node by HTTP, one request a connection.

mod tls;

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tidegate_tls::files::FileError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

pub(crate) use self::tls::TlsClient;

/// Bytes of an answer: the largest is all that a cluster's log adds up to, for a backup.
const MAX_ANSWER_BYTES: usize = 512 << 20;
const DEFAULT_PORT: u16 = 7800;
/// What is not written as it is in a path or a query.
const ENCODED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0:?} is no address of a node; write http://HOST:PORT or https://HOST:PORT (--node)")]
    Url(String),
    #[error("{0} does not answer: {1}")]
    Connect(String, io::Error),
    #[error("{0} broke off: {1}")]
    Http(String, Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} has not answered within {1:?}")]
    Timeout(String, Duration),
    #[error("{1} ({0})")]
    File(&'static str, FileError),
    #[error("the certificate of {0} is of an authority that is not known here: name it (--ca-file ca.crt)")]
    UnknownAuthority(String),
    #[error(
        "the certificate of {node} is for {names}, and not for {host}: ask the node by one of these names (--node)"
    )]
    OtherHost { node: String, host: String, names: String },
    #[error("the certificate of {0} has expired, or the clock of this machine is wrong")]
    ExpiredCertificate(String),
    #[error("there is no secure connection to {0}: {1}")]
    Certificate(String, String),
    #[error("{0} does not speak TLS: ask it by http://")]
    NotTls(String),
    #[error("{0} answers only clients that show a certificate (--client-cert, --client-key)")]
    NeedsCertificate(String),
    #[error(
        "{0} refuses the certificate in --client-cert: it is expired, not for clients, or of an authority that the node does not know"
    )]
    RefusesCertificate(String),
}

impl ClientError {
    /// Whether the same question would be in vain a moment later, too.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Connect(..) | Self::Http(..) | Self::Timeout(..))
    }
}

/// Where a node listens for HTTP.
#[derive(Debug, Clone)]
pub(crate) struct NodeAddress {
    /// As in a certificate.
    host: String,
    /// `HOST:PORT`.
    authority: String,
    is_https: bool,
    /// What it is asked by https with; none: as one without any options.
    tls: Option<TlsClient>,
}

impl std::str::FromStr for NodeAddress {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let fault = || ClientError::Url(text.to_owned());
        let url: Uri = text.parse().map_err(|_| fault())?;
        if !matches!(url.scheme_str(), None | Some("http" | "https")) || !matches!(url.path(), "" | "/") {
            return Err(fault());
        }
        let authority =
            url.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(fault)?;
        let port = match authority.as_str().strip_prefix(authority.host()).ok_or_else(fault)? {
            "" => DEFAULT_PORT,
            // Another port than the one that was meant may be that of another cluster.
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(fault)?,
        };
        if url.query().is_some() {
            return Err(fault());
        }
        Ok(Self {
            host: authority.host().to_owned(),
            authority: format!("{}:{port}", authority.host()),
            is_https: url.scheme_str() == Some("https"),
            tls: None,
        })
    }
}

impl From<std::net::SocketAddr> for NodeAddress {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), authority: address.to_string(), is_https: false, tls: None }
    }
}

impl std::fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// A call with all that belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Ask {
    fn new(method: Method, path: &[&str], body: Bytes) -> Self {
        let part = |part: &&str| percent_encoding::utf8_percent_encode(part, ENCODED).to_string();
        let target = format!("/{}", path.iter().map(part).collect::<Vec<_>>().join("/"));
        Self { method, target, headers: Vec::new(), body }
    }

    /// Gets something. The parts of the path are encoded here.
    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    /// Puts something.
    pub(crate) fn put(path: &[&str], body: String) -> Self {
        Self::new(Method::PUT, path, body.into())
    }

    /// Posts something.
    pub(crate) fn post(path: &[&str], body: String) -> Self {
        Self::new(Method::POST, path, body.into())
    }

    /// Takes something away.
    pub(crate) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path, Bytes::new())
    }

    pub(crate) fn with_query(mut self, query: Vec<(&'static str, String)>) -> Self {
        for (index, (name, value)) in query.into_iter().enumerate() {
            let sign = if index == 0 { '?' } else { '&' };
            let value = percent_encoding::utf8_percent_encode(&value, ENCODED);
            self.target.push_str(&format!("{sign}{name}={value}"));
        }
        self
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Makes a repeated write happen once.
    pub(crate) fn with_random_key(self) -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        self.with_header("idempotency-key", format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

/// What a node answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl NodeAddress {
    pub(crate) fn is_https(&self) -> bool {
        self.is_https
    }

    /// The same node, asked with these authorities and this certificate.
    #[must_use]
    pub(crate) fn with_tls(self, tls: TlsClient) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Gets something.
    pub(crate) async fn get(&self, path: &str, patience: Duration) -> Result<Reply, ClientError> {
        self.send(Method::GET, path, &[], Bytes::new(), patience).await
    }

    /// Asks for something.
    pub(crate) async fn ask(&self, ask: &Ask, patience: Duration) -> Result<Reply, ClientError> {
        self.send(ask.method.clone(), &ask.target, &ask.headers, ask.body.clone(), patience).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
        patience: Duration,
    ) -> Result<Reply, ClientError> {
        timeout(patience, self.exchange(method, path, headers, body))
            .await
            .unwrap_or_else(|_elapsed| Err(ClientError::Timeout(self.to_string(), patience)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Reply, ClientError> {
        let tcp = TcpStream::connect(&self.authority)
            .await
            .map_err(|error| ClientError::Connect(self.to_string(), error))?;
        if !self.is_https {
            return self.exchange_on(tcp, method, path, headers, body).await;
        }
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => TlsClient::new(None, None)?,
        };
        let stream = tls.connect(&self.to_string(), &self.host, tcp).await?;
        self.exchange_on(stream, method, path, headers, body).await
    }

    async fn exchange_on<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Reply, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
            tls::refusal_in(&self.to_string(), &*error)
                .unwrap_or_else(|| ClientError::Http(self.to_string(), error))
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.into()))?;
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| broken(error.into()))?;
        let exchange = async {
            let reply = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(broken)?;
            Ok(Reply { status, body: body.to_bytes() })
        };
        // The exchange makes progress only while the connection is driven.
        tokio::pin!(exchange);
        tokio::select! {
            reply = &mut exchange => reply,
            ended = connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(broken(error.into())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_url() {
        let address = |text: &str| text.parse::<NodeAddress>().map(|address| address.to_string());
        assert_eq!(address("http://127.0.0.1:7810").unwrap(), "http://127.0.0.1:7810");
        assert_eq!(address("http://[::1]:7810/").unwrap(), "http://[::1]:7810");
        assert_eq!(address("node-1").unwrap(), "http://node-1:7800");
        assert_eq!(address("https://node-1").unwrap(), "https://node-1:7800");
        for wrong in [
            "ftp://a",
            "http://a/b",
            "",
            "http://",
            "a b",
            "http://u@a",
            "http://a:99999",
            "http://a:7800x",
            "http://a:",
            "a:331000",
            "http://a?x=1",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
