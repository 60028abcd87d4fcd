//! How two nodes make sure of each other when a stream opens.
//!
//! Each side sends a nonce (`tidegate_proto::greeting`). From the cluster key and both nonces, each derives two keys that
//! only this stream has, one for each direction; every record from then on carries a seal made with them
//! (`tidegate_proto::record`). The first record of the caller introduces it, that of the other side welcomes it: their seals
//! are the proofs that both hold the cluster key. **The caller proves first**: who does not hold the key gets a nonce and a
//! fixed word, and nothing to guess the key with. Without a cluster key the keys are derived from zeros: then a seal finds
//! accidents, and nothing else.
//!
//! Who is on the path of a stream sees what is on it, can end it, and can try keys against it: that is why a key should be
//! random, and long.

mod error;

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
use tidegate_proto::{
    Greeting, Inbox, Kind, MAX_HANDSHAKE_BYTES, MAX_PAYLOAD_BYTES, Outbox, Refusal, codec,
    greeting::NONCE_BYTES,
    peer::{Introduction, Refused, Welcome},
    record::SEAL_KEY_BYTES,
};
use tidegate_tls::Certificate;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) use self::error::HandshakeError;
use crate::{
    config::PeerTls, fabric, gossip::is_valid_name, ids::NodeId, key::KeyRing, member::MemberId,
    stats::PeerStats,
};

/// A handshake that takes longer is given up, by both ends.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// How long a peer is waited for when it is told why the stream ends.
const REFUSE_WITHIN: Duration = Duration::from_millis(100);

/// Who this node is, for the nodes that it talks to.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) me: MemberId,
    /// Its id in the Raft group.
    pub(crate) id: NodeId,
    pub(crate) cluster: String,
    pub(crate) keys: Arc<KeyRing>,
    /// What it shows its peers, and demands of them; none: streams are plain.
    pub(crate) tls: Option<PeerTls>,
    /// Where it counts what is wrong with streams.
    pub(crate) stats: Arc<PeerStats>,
}

/// A peer that has proved that it holds the cluster key, and what it says of itself under that seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) member: MemberId,
    /// Its id in the Raft group.
    pub(crate) id: NodeId,
}

/// Both directions of a stream whose keys are known.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
}

/// The calling side: greets `expected`, or whoever it is, and leaves an introduction in the outbox. What is put there after it may go along with it; only
/// the peer that is meant can read it as its own. What comes back is to be believed after [`welcome`] only.
pub(crate) async fn introduce<S>(
    stream: &mut S,
    identity: &Identity,
    expected: Option<&str>,
) -> Result<Session, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nonce = fabric::random_bytes();
    let mut unread = BytesMut::new();
    stream.write_all(&Greeting::Hello(nonce).to_bytes()).await?;
    let challenge = match greeting(stream, &mut unread).await? {
        Greeting::Challenge(challenge) => challenge,
        Greeting::Refusal(refusal) => return Err(HandshakeError::Turned(refusal)),
        other => return Err(HandshakeError::NotGreeted(other, "Challenge")),
    };
    let (mine, theirs) = session_keys(&identity.keys.to_seal(), &nonce, &challenge);
    let mut outbox = Outbox::new(mine);
    outbox.put(&Introduction {
        cluster: identity.cluster.clone(),
        node: identity.me.name.to_string(),
        incarnation: identity.me.incarnation,
        id: identity.id,
        to: expected.unwrap_or_default().to_owned(),
    })?;
    // A record of its own: it is read before the peer accepts longer ones.
    outbox.seal();
    Ok(Session { outbox, inbox: inbox(theirs, unread) })
}

/// The calling side: makes sure that `expected`, if it is anybody, is at the other end. Returns who is.
pub(crate) async fn welcome<S>(
    stream: &mut S,
    session: &mut Session,
    expected: Option<&str>,
) -> Result<MemberId, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        if Greeting::begins(session.inbox.unread())
            && let Some((greeting, _)) = Greeting::first(session.inbox.unread())?
        {
            // It is not sealed: whoever is on the path can say so, and ends a stream that way, as by cutting it.
            return Err(match greeting {
                Greeting::Refusal(refusal) => HandshakeError::Turned(refusal),
                other => HandshakeError::NotGreeted(other, "Welcome"),
            });
        }
        if !Greeting::begins(session.inbox.unread())
            && let Some(welcome) = message::<Welcome>(&mut session.inbox, Kind::Welcome)?
        {
            if let Some(expected) = expected.filter(|expected| *expected != welcome.node) {
                let (found, expected) = (welcome.node, expected.to_owned());
                return Err(HandshakeError::OtherNode { found, expected });
            }
            session.inbox.set_limit(MAX_PAYLOAD_BYTES);
            return Ok(MemberId { name: welcome.node.into(), incarnation: welcome.incarnation });
        }
        if stream.read_buf(session.inbox.unread()).await? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
}

/// The calling side, all of it. Returns who is at the other end; without `expected` that may be this node itself, which lets
/// nobody in who has its own name.
pub(crate) async fn call<S>(
    stream: &mut S,
    identity: &Identity,
    expected: Option<&str>,
) -> Result<(MemberId, Session), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let talk = async {
        let mut session = introduce(stream, identity, expected).await?;
        stream.write_all_buf(session.outbox.sealed()).await?;
        let found = welcome(stream, &mut session, expected).await?;
        Ok((found, session))
    };
    within_deadline(talk).await
}

/// The answering side: returns who called, with this certificate if it has shown one. What the caller already sent behind its
/// introduction is in the inbox.
pub(crate) async fn answer<S>(
    stream: &mut S,
    identity: &Identity,
    certificate: Option<&Certificate>,
) -> Result<(Peer, Session), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let met = within_deadline(meet(stream, identity)).await;
    let error = match met {
        Ok((introduction, mut session)) => match accept(&introduction, identity, certificate) {
            Ok(peer) => {
                session.outbox.put(&welcome_of(identity))?;
                stream.write_all_buf(session.outbox.sealed()).await?;
                session.inbox.set_limit(MAX_PAYLOAD_BYTES);
                return Ok((peer, session));
            }
            // It holds the key: it is told all.
            Err(error) => {
                if matches!(error, HandshakeError::OwnName(_)) {
                    // A node that asks an address who is there learns that it is itself.
                    session.outbox.put(&welcome_of(identity))?;
                }
                refuse(stream, &mut session.outbox, error.to_string()).await;
                error
            }
        },
        Err(error) => {
            if let Some(refusal) = error.refusal() {
                turn_away(stream, refusal).await;
            }
            error
        }
    };
    Err(error)
}

/// Lets the caller introduce itself.
async fn meet<S>(stream: &mut S, identity: &Identity) -> Result<(Introduction, Session), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut unread = BytesMut::new();
    let hello = match greeting(stream, &mut unread).await? {
        Greeting::Hello(nonce) => nonce,
        other => return Err(HandshakeError::NotGreeted(other, "Hello")),
    };
    let nonce = fabric::random_bytes();
    stream.write_all(&Greeting::Challenge(nonce).to_bytes()).await?;
    let session_with = |key: &[u8; 32], unread: BytesMut| {
        let (theirs, mine) = session_keys(key, &hello, &nonce);
        Session { outbox: Outbox::new(mine), inbox: inbox(theirs, unread) }
    };
    let keys = identity.keys.to_open();
    let mut session = session_with(&keys[0], unread);
    let mut other_keys = keys[1..].iter();
    loop {
        match message(&mut session.inbox, Kind::Introduction) {
            Ok(Some(introduction)) => return Ok((introduction, session)),
            Ok(None) => {}
            // What did not open is still there, for the next key.
            Err(HandshakeError::OtherKey) => {
                let key = other_keys.next().ok_or(HandshakeError::OtherKey)?;
                session = session_with(key, std::mem::take(session.inbox.unread()));
                continue;
            }
            Err(error) => return Err(error),
        }
        if stream.read_buf(session.inbox.unread()).await? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
}

fn welcome_of(identity: &Identity) -> Welcome {
    Welcome { node: identity.me.name.to_string(), incarnation: identity.me.incarnation }
}

/// Who has introduced itself, if this node talks to it.
fn accept(
    introduction: &Introduction,
    identity: &Identity,
    certificate: Option<&Certificate>,
) -> Result<Peer, HandshakeError> {
    let Introduction { cluster, node, incarnation, id, to } = introduction;
    if *cluster != identity.cluster {
        let (theirs, ours) = (cluster.clone(), identity.cluster.clone());
        return Err(HandshakeError::OtherCluster { theirs, ours });
    }
    if !is_valid_name(node) {
        return Err(HandshakeError::Name(node.clone()));
    }
    must_be_for(certificate, node)?;
    if !to.is_empty() && *to != *identity.me.name {
        let (found, expected) = (identity.me.name.to_string(), to.clone());
        return Err(HandshakeError::OtherNode { found, expected });
    }
    // Two starts under one name talk: the older one learns that way, from the log, that it is over.
    if *node == *identity.me.name && *incarnation == identity.me.incarnation {
        return Err(HandshakeError::OwnName(node.clone()));
    }
    let member = MemberId { name: node.as_str().into(), incarnation: *incarnation };
    Ok(Peer { member, id: *id })
}

/// Looks whether what a peer has shown is for the name that it has. Where there is no TLS, nothing was.
pub(crate) fn must_be_for(certificate: Option<&Certificate>, name: &str) -> Result<(), HandshakeError> {
    match certificate {
        Some(certificate) if !certificate.is_for_node(name) => Err(HandshakeError::OtherCertificate {
            found: match certificate.node_names() {
                [] => "no node".to_owned(),
                names => names.join(" or "),
            },
            expected: name.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The keys of the directions of one stream: first that of the caller, then that of the side that was called.
fn session_keys(
    key: &[u8; 32],
    hello: &[u8; NONCE_BYTES],
    challenge: &[u8; NONCE_BYTES],
) -> ([u8; SEAL_KEY_BYTES], [u8; SEAL_KEY_BYTES]) {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"tidegate peer stream, wire version 7");
    hasher.update(hello);
    hasher.update(challenge);
    let (mut caller, mut called) = ([0; SEAL_KEY_BYTES], [0; SEAL_KEY_BYTES]);
    let mut bytes = hasher.finalize_xof();
    bytes.fill(&mut caller);
    bytes.fill(&mut called);
    (caller, called)
}

fn inbox(key: [u8; SEAL_KEY_BYTES], unread: BytesMut) -> Inbox {
    let inbox = Inbox::new(key, unread, MAX_HANDSHAKE_BYTES);
    #[cfg(feature = "planted-bugs")]
    if crate::planted::PlantedBug::SealsNotChecked.is_on() {
        let mut inbox = inbox;
        inbox.believe_all();
        return inbox;
    }
    inbox
}

pub(super) async fn within_deadline<T>(
    talk: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_DEADLINE, talk).await.unwrap_or(Err(HandshakeError::Timeout))
}

/// Tells a caller that has proved nothing that the stream ends, without waiting long for it to listen.
pub(super) async fn turn_away<S: AsyncWrite + Unpin>(stream: &mut S, refusal: Refusal) {
    let bytes = Greeting::Refusal(refusal).to_bytes();
    let refusal = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(REFUSE_WITHIN, refusal).await;
}

/// Tells a peer why the stream ends, without waiting long for it to listen.
pub(crate) async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, outbox: &mut Outbox, mut reason: String) {
    reason.truncate(reason.floor_char_boundary(MAX_HANDSHAKE_BYTES / 2));
    if outbox.put(&Refused { reason }).is_err() {
        return;
    }
    let refusal = async {
        stream.write_all_buf(outbox.sealed()).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(REFUSE_WITHIN, refusal).await;
}

async fn greeting<S>(stream: &mut S, unread: &mut BytesMut) -> Result<Greeting, HandshakeError>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some((greeting, length)) = Greeting::first(unread)? {
            unread.advance(length);
            return Ok(greeting);
        }
        if stream.read_buf(unread).await? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
}

/// The next message, which must be of that kind.
fn message<M: serde::de::DeserializeOwned>(
    inbox: &mut Inbox,
    expected: Kind,
) -> Result<Option<M>, HandshakeError> {
    let Some(frame) = inbox.first()? else { return Ok(None) };
    let message = match frame.kind {
        found if found == expected => codec::decode(frame.payload)?,
        Kind::Refused => {
            return Err(HandshakeError::Refused(codec::decode::<Refused>(frame.payload)?.reason));
        }
        found => return Err(HandshakeError::Unexpected { found, expected }),
    };
    let length = frame.length;
    inbox.take(length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests;
