//! How two nodes make sure of each other when a stream opens: `Hello`, `Welcome`, `Proof` (see `tidegate_proto::peer`).
//!
//! Both ends prove that they hold the same cluster key with a keyed hash (BLAKE3) over a label for the direction, both
//! nonces and both identities. Without a key the hash is keyed with zeros: then it only shows that neither end has one.
//! The stream itself is neither encrypted nor authenticated after that.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tidegate_proto::{
    CodecError, FrameError, Kind, MAX_HANDSHAKE_BYTES, codec, frame,
    peer::{Hello, Proof, Refused, Welcome},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{fabric, gossip::is_valid_name, member::MemberId};

/// A handshake that takes longer is given up, by both ends.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// Who this node is, for the nodes that it talks to.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) me: MemberId,
    pub(crate) cluster: String,
    pub(crate) key: [u8; 32],
}

/// Why a stream to or from a peer was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the peer closed the stream in the middle of the handshake")]
    Closed,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a message of the handshake can not be read: {0}")]
    Codec(#[from] CodecError),
    #[error("a {found:?} frame instead of {expected:?}")]
    Unexpected { found: Kind, expected: Kind },
    #[error("the peer belongs to the cluster {theirs:?}, this node to {ours:?} (--cluster-name)")]
    OtherCluster { theirs: String, ours: String },
    #[error("the peer has another cluster key (--cluster-key)")]
    OtherKey,
    #[error("the peer's name {0:?} is not a valid node name")]
    Name(String),
    #[error("the address answers as {found}, not as {expected}")]
    OtherNode { found: String, expected: String },
    #[error("the peer has this node's own name, {0}: give one of them another --name")]
    OwnName(String),
    #[error("the peer refused: {0:?}")]
    Refused(String),
    #[error("no answer within {HANDSHAKE_DEADLINE:?}")]
    Timeout,
}

impl HandshakeError {
    /// The word for it in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Io(_) | Self::Closed => "closed",
            Self::Frame(FrameError::Version { .. }) => "wire_version",
            Self::Frame(FrameError::Magic(_)) => "foreign",
            Self::Frame(_) | Self::Codec(_) | Self::Unexpected { .. } | Self::Name(_) => "malformed",
            Self::OtherCluster { .. } => "other_cluster",
            Self::OtherKey => "wrong_key",
            Self::OtherNode { .. } | Self::OwnName(_) => "other_node",
            Self::Refused(_) => "refused",
            Self::Timeout => "timeout",
        }
    }

    /// Whether a node of Tidegate is there, and this one is none of its cluster's, or of another version.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::OtherCluster { .. }
                | Self::OtherKey
                | Self::Refused(_)
                | Self::Frame(FrameError::Version { .. })
        )
    }

    /// Whether the peer should be told why; one that speaks something else would not understand.
    fn is_worth_telling(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::Closed | Self::Refused(_) | Self::Frame(FrameError::Magic(_)))
    }
}

/// The calling side: makes sure that `expected` is at the other end.
pub(crate) async fn call<S>(stream: &mut S, identity: &Identity, expected: &str) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let found = |welcome: &Welcome| match welcome.node == expected {
        true => Ok(()),
        false => {
            Err(HandshakeError::OtherNode { found: welcome.node.clone(), expected: expected.to_owned() })
        }
    };
    meet(stream, identity, found).await.map(drop)
}

/// The calling side, where any node of the cluster may be at the other end: returns which one is.
pub(crate) async fn greet<S>(stream: &mut S, identity: &Identity) -> Result<MemberId, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    meet(stream, identity, |_| Ok(())).await
}

async fn meet<S>(
    stream: &mut S,
    identity: &Identity,
    accept: impl Fn(&Welcome) -> Result<(), HandshakeError>,
) -> Result<MemberId, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let talk = async {
        let mut buffer = BytesMut::new();
        let hello = Hello {
            cluster: identity.cluster.clone(),
            node: identity.me.name.to_string(),
            incarnation: identity.me.incarnation,
            nonce: fabric::random_bytes(),
        };
        send(stream, &hello).await?;
        let welcome: Welcome = receive(stream, &mut buffer, Kind::Welcome).await?;
        if welcome.proof != proof(&identity.key, Side::Answering, &hello, &welcome) {
            return Err(HandshakeError::OtherKey);
        }
        accept(&welcome)?;
        let found = MemberId { name: welcome.node.as_str().into(), incarnation: welcome.incarnation };
        if found != identity.me {
            send(stream, &Proof { proof: proof(&identity.key, Side::Calling, &hello, &welcome) }).await?;
        }
        Ok(found)
    };
    let result = within_deadline(talk).await;
    tell(stream, result).await
}

/// The answering side: returns who called, and what the caller already sent after its proof.
pub(crate) async fn answer<S>(
    stream: &mut S,
    identity: &Identity,
) -> Result<(MemberId, BytesMut), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let talk = async {
        let mut buffer = BytesMut::new();
        let hello: Hello = receive(stream, &mut buffer, Kind::Hello).await?;
        if hello.cluster != identity.cluster {
            return Err(HandshakeError::OtherCluster {
                theirs: hello.cluster,
                ours: identity.cluster.clone(),
            });
        }
        let mut welcome = Welcome {
            node: identity.me.name.to_string(),
            incarnation: identity.me.incarnation,
            nonce: fabric::random_bytes(),
            proof: [0; 32],
        };
        welcome.proof = proof(&identity.key, Side::Answering, &hello, &welcome);
        send(stream, &welcome).await?;
        let theirs: Proof = receive(stream, &mut buffer, Kind::Proof).await?;
        if theirs.proof != proof(&identity.key, Side::Calling, &hello, &welcome) {
            return Err(HandshakeError::OtherKey);
        }
        if !is_valid_name(&hello.node) {
            return Err(HandshakeError::Name(hello.node));
        }
        // Two starts under one name talk: the older one learns that way, from the log, that it is over.
        if hello.node == *identity.me.name && hello.incarnation == identity.me.incarnation {
            return Err(HandshakeError::OwnName(hello.node));
        }
        Ok((MemberId { name: hello.node.into(), incarnation: hello.incarnation }, buffer))
    };
    let result = within_deadline(talk).await;
    tell(stream, result).await
}

enum Side {
    Calling,
    Answering,
}

/// Comparing proofs need not be constant-time: each is used once, with nonces of both ends.
fn proof(key: &[u8; 32], side: Side, hello: &Hello, welcome: &Welcome) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(match side {
        Side::Calling => b"calling  ",
        Side::Answering => b"answering",
    });
    hasher.update(&hello.nonce);
    hasher.update(&welcome.nonce);
    hasher.update(&hello.incarnation.to_le_bytes());
    hasher.update(&welcome.incarnation.to_le_bytes());
    for text in [&hello.cluster, &hello.node, &welcome.node] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

async fn within_deadline<T>(
    talk: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_DEADLINE, talk).await.unwrap_or(Err(HandshakeError::Timeout))
}

/// Tells the peer why the handshake failed, if it did, without waiting long for it to listen.
async fn tell<S, T>(stream: &mut S, result: Result<T, HandshakeError>) -> Result<T, HandshakeError>
where
    S: AsyncWrite + Unpin,
{
    if let Err(error) = &result
        && error.is_worth_telling()
    {
        let _ = tokio::time::timeout(Duration::from_millis(100), refuse(stream, error.to_string())).await;
    }
    result
}

/// Sends a last frame with the reason for closing the stream.
pub(crate) async fn refuse<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut reason: String,
) -> Result<(), HandshakeError> {
    reason.truncate(reason.floor_char_boundary(MAX_HANDSHAKE_BYTES / 2));
    send(stream, &Refused { reason }).await?;
    Ok(stream.shutdown().await?)
}

async fn send<S, M>(stream: &mut S, message: &M) -> Result<(), HandshakeError>
where
    S: AsyncWrite + Unpin,
    M: frame::Message,
{
    let mut bytes = BytesMut::new();
    frame::put(message, &mut bytes)?;
    Ok(stream.write_all(&bytes).await?)
}

async fn receive<S, M>(stream: &mut S, buffer: &mut BytesMut, expected: Kind) -> Result<M, HandshakeError>
where
    S: AsyncRead + Unpin,
    M: serde::de::DeserializeOwned,
{
    loop {
        if let Some(frame) = frame::first(buffer, MAX_HANDSHAKE_BYTES)? {
            let found = frame.kind;
            let message = match found {
                _ if found == expected => Ok(codec::decode(frame.payload)?),
                Kind::Refused => {
                    Err(HandshakeError::Refused(codec::decode::<Refused>(frame.payload)?.reason))
                }
                _ => Err(HandshakeError::Unexpected { found, expected }),
            };
            let length = frame.length;
            buffer.advance(length);
            return message;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, cluster: &str, key: u8) -> Identity {
        let me = MemberId { name: name.into(), incarnation: 5 };
        Identity { me, cluster: cluster.to_owned(), key: [key; 32] }
    }

    async fn meet(
        caller: Identity,
        answerer: Identity,
        expected: &str,
    ) -> (Result<(), HandshakeError>, Result<(MemberId, BytesMut), HandshakeError>) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        tokio::join!(call(&mut near, &caller, expected), answer(&mut far, &answerer))
    }

    #[tokio::test]
    async fn nodes_of_one_cluster_find_each_other() {
        let (called, answered) = meet(identity("n1", "c", 1), identity("n2", "c", 1), "n2").await;
        called.unwrap();
        let (who, rest) = answered.unwrap();
        assert_eq!((who.to_string(), rest.len()), ("n1@5".to_owned(), 0));
    }

    #[tokio::test]
    async fn another_key_is_named_on_both_sides() {
        let (called, answered) = meet(identity("n1", "c", 1), identity("n2", "c", 2), "n2").await;
        assert!(matches!(called, Err(HandshakeError::OtherKey)), "{called:?}");
        let Err(HandshakeError::Refused(reason)) = answered else { panic!("{answered:?}") };
        assert!(reason.contains("cluster key"), "{reason}");
    }

    #[tokio::test]
    async fn another_cluster_and_another_node_are_refused() {
        let (called, answered) = meet(identity("n1", "a", 1), identity("n2", "b", 1), "n2").await;
        assert!(matches!(called, Err(HandshakeError::Refused(_))), "{called:?}");
        assert!(matches!(answered, Err(HandshakeError::OtherCluster { .. })), "{answered:?}");

        let (called, _) = meet(identity("n1", "c", 1), identity("n3", "c", 1), "n2").await;
        assert!(matches!(called, Err(HandshakeError::OtherNode { .. })), "{called:?}");

        let (_, answered) = meet(identity("n2", "c", 1), identity("n2", "c", 1), "n2").await;
        assert!(matches!(answered, Err(HandshakeError::OwnName(_))), "{answered:?}");

        let mut later = identity("n2", "c", 1);
        later.me.incarnation += 1;
        let (called, answered) = meet(later, identity("n2", "c", 1), "n2").await;
        assert!(called.is_ok() && answered.is_ok(), "{called:?} {answered:?}");
    }

    #[tokio::test]
    async fn garbage_and_another_version_are_named() {
        for (bytes, word) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], "foreign"), (b"TG\x09\x01", "wire_version")] {
            let (mut near, mut far) = tokio::io::duplex(4096);
            near.write_all(bytes).await.unwrap();
            let error = answer(&mut far, &identity("n1", "c", 1)).await.unwrap_err();
            assert_eq!(error.as_str(), word, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_caller_is_given_up() {
        let (_near, mut far) = tokio::io::duplex(4096);
        let error = answer(&mut far, &identity("n1", "c", 1)).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Timeout));
    }
}
