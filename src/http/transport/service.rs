//! What the transport asks of the service behind it, and what it allows its clients.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper_util::service::TowerToHyperService;
use tidegate_tls::Certificate;
use tokio::net::TcpStream;

use super::reply::Replies;

/// Bytes of a request's first line and headers.
pub(in crate::http) const MAX_HEAD_BYTES: usize = 16 << 10;
/// Headers of a request.
pub(in crate::http) const MAX_HEADERS: usize = 64;

/// What a client may do, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request's first line and headers; beyond that 431.
    pub max_head_bytes: usize,
    /// Headers of a request; beyond that 431.
    pub max_headers: usize,
    /// From the first byte of a request to the end of its headers; then the connection is closed.
    pub head_timeout: Duration,
    /// Without a request; then the connection is closed.
    pub idle_timeout: Duration,
    /// For a client that does not take 64 KiB of its answer; then the connection is closed.
    pub write_timeout: Duration,
    /// For requests that are being answered when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: MAX_HEAD_BYTES,
            max_headers: MAX_HEADERS,
            head_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(3),
        }
    }
}

/// Which requests are answered without hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FastPath {
    /// The path of their target.
    pub path: &'static str,
    /// Bytes of the body of a `POST`.
    pub max_body_bytes: usize,
}

/// What such a request asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// What stands after the question mark of a `GET`.
    Query(Option<&'a str>),
    /// The body of a `POST`.
    Body(&'a [u8]),
}

/// What the head of such a request says about who asks: the values of these headers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// `X-Tidegate-Token`.
    pub token: Option<&'a [u8]>,
}

/// Which there are, without what they say: they are secrets.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("has_authorization", &self.authorization.is_some())
            .field("has_token", &self.token.is_some())
            .finish()
    }
}

/// Why a connection is closed, or not taken, though its client waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The client speaks no TLS where it has to.
    #[error("the client does not speak TLS")]
    PlainText,
    /// There are as many as are allowed.
    #[error("too many connections")]
    TooManyConnections,
    /// The head of a request is too large, or has too many headers.
    #[error("the head of a request is too large")]
    HeadTooLarge,
    /// The head of a request is not HTTP/1.1.
    #[error("the head of a request is not HTTP/1.1")]
    BadHead,
    /// The head of a request was not complete after so long.
    #[error("the head of a request was not complete after {0:?}")]
    SlowHead(Duration),
    /// The body of a request has a transfer coding that is not known, or not as it must be.
    #[error("the body of a request has an unknown transfer coding")]
    UnknownCoding,
    /// The body of a request ended before its end, or is not chunked as it should be.
    #[error("the body of a request broke off")]
    BrokenBody,
}

/// What is served on connections.
pub trait ConnectionService: Sized {
    /// Which requests [`ConnectionService::answer`] answers; then connections begin there.
    const FAST_PATH: Option<FastPath> = None;

    /// Makes of a worker's service the one for this connection, of which nothing has been read; `None` if it is to be closed.
    fn begin(&self, stream: &mut TcpStream) -> impl Future<Output = Option<Self>> + Send;

    /// The client for which the connection is, where a proxy at its other end has announced another one.
    fn announced(&self) -> Option<IpAddr> {
        None
    }

    /// The same, of a client that has shown this certificate.
    #[must_use]
    fn identified(self, certificate: Option<Arc<Certificate>>) -> Self {
        let _ = certificate;
        self
    }

    /// Answers a request of the fast path: appends a response.
    fn answer(
        &self,
        question: Question<'_>,
        credentials: Credentials<'_>,
        replies: &mut Replies,
    ) -> impl Future<Output = ()> + Send {
        let _ = (question, credentials, replies);
        async {}
    }

    /// The last response on a connection, as bytes; empty: it is closed without a word.
    fn final_response(error: TransportError) -> Bytes {
        let _ = error;
        Bytes::new()
    }
}

/// Other services do not care whose connection it is.
impl<S: Clone + Send + Sync> ConnectionService for TowerToHyperService<S> {
    async fn begin(&self, _: &mut TcpStream) -> Option<Self> {
        Some(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_printed() {
        let told = format!("{:?}", Credentials { authorization: Some(b"0123"), token: None });
        assert_eq!(told, "Credentials { has_authorization: true, has_token: false }");
    }
}
