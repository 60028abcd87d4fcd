//! Errors of the handshake with a peer: what the peer hears of each, and how metrics count it.

use tidegate_proto::{CodecError, Greeting, GreetingError, Kind, RecordError, Refusal};
use tidegate_tls::tls_error;

use super::HANDSHAKE_DEADLINE;

/// Why a stream to or from a peer was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the stream broke: {0}")]
    Io(std::io::Error),
    #[error("the peer closed the stream in the middle of the handshake")]
    Closed,
    #[error("{0}")]
    Greeting(#[from] GreetingError),
    #[error("{0:?} instead of {1}")]
    NotGreeted(Greeting, &'static str),
    #[error("{0}")]
    Record(RecordError),
    #[error("a message of the handshake cannot be read: {0}")]
    Codec(#[from] CodecError),
    #[error("a {found:?} frame instead of {expected:?}")]
    Unexpected { found: Kind, expected: Kind },
    #[error("the peer belongs to the cluster {theirs:?}, this node to {ours:?} (--cluster-name)")]
    OtherCluster { theirs: String, ours: String },
    #[error(
        "the peer has another cluster key, or the bytes were changed on the way: give all nodes the same \
         --cluster-key-file (`openssl rand -hex 32` makes a key)"
    )]
    OtherKey,
    #[error("the peer's name {0:?} is not a valid node name")]
    Name(String),
    #[error("the address answers as {found}, not as {expected}")]
    OtherNode { found: String, expected: String },
    #[error("the peer has this node's own name, {0}: give one of them another --name")]
    OwnName(String),
    #[error("TLS with the peer failed: {}", explain_tls(.0))]
    Tls(std::io::Error),
    #[error(
        "the peer's certificate is for {found}, not for {expected}: a node needs one with its own name in it (`tidegate cert node \
         --name {expected}`)"
    )]
    OtherCertificate { found: String, expected: String },
    #[error("the peer has shown no certificate that can be read")]
    NoCertificate,
    #[error(
        "the peer does not speak TLS, which this node demands (--peer-tls-cert there, or --peer-tls optional here)"
    )]
    PlainText,
    #[error("the peer refused: {0}")]
    Turned(Refusal),
    #[error("the peer refused: {0:?}")]
    Refused(String),
    #[error("no answer within {HANDSHAKE_DEADLINE:?}")]
    Timeout,
}

impl From<std::io::Error> for HandshakeError {
    /// In TLS 1.3 a caller hears only when it reads that its certificate was refused.
    fn from(error: std::io::Error) -> Self {
        if tls_error(&error).is_some() { Self::Tls(error) } else { Self::Io(error) }
    }
}

impl From<RecordError> for HandshakeError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Seal => Self::OtherKey,
            other => Self::Record(other),
        }
    }
}

impl HandshakeError {
    /// The word for it in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Io(_) | Self::Closed => "closed",
            Self::Greeting(GreetingError::Version { .. }) => "wire_version",
            Self::Greeting(GreetingError::Magic(_)) => "foreign",
            Self::Greeting(GreetingError::Unknown(_))
            | Self::NotGreeted(..)
            | Self::Record(_)
            | Self::Codec(_)
            | Self::Unexpected { .. }
            | Self::Name(_) => "malformed",
            Self::OtherCluster { .. } => "other_cluster",
            Self::OtherKey => "wrong_key",
            Self::OtherNode { .. } | Self::OwnName(_) => "other_node",
            Self::Tls(_) => "tls",
            Self::OtherCertificate { .. } | Self::NoCertificate => "certificate",
            Self::PlainText => "plain_text",
            Self::Turned(_) | Self::Refused(_) => "refused",
            Self::Timeout => "timeout",
        }
    }

    /// Whether a node of Tidegate is there, and this one is none of its cluster's, or of another version.
    pub(crate) fn is_refusal(&self) -> bool {
        if let Self::Tls(error) = self {
            return tls_error(error).is_some();
        }
        matches!(
            self,
            Self::OtherCluster { .. }
                | Self::OtherKey
                | Self::OtherCertificate { .. }
                | Self::NoCertificate
                | Self::Turned(_)
                | Self::Refused(_)
                | Self::Greeting(GreetingError::Version { .. })
        )
    }

    /// The refusal that goes to a peer before it has proved its key. `None`: the peer would not understand one, or does not listen.
    pub(in crate::link) fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::PlainText => Refusal::NeedsTls,
            Self::Greeting(GreetingError::Version { .. }) => Refusal::WireVersion,
            Self::OtherKey => Refusal::WrongKey,
            Self::Timeout => Refusal::Timeout,
            Self::Io(_) | Self::Closed | Self::Tls(_) | Self::Turned(_) | Self::Refused(_) => return None,
            Self::Greeting(GreetingError::Magic(_)) => return None,
            _ => Refusal::Malformed,
        })
    }
}

/// The words for what TLS found, which lie a level deeper.
fn explain_tls(error: &std::io::Error) -> String {
    match tls_error(error) {
        Some(error) => error.to_string(),
        None => format!("{error} (a node without --peer-tls-cert ends a stream so)"),
    }
}
