//! A stream with calls on it.

use serde::de::DeserializeOwned;
use tidegate_proto::{
    Kind, MAX_CALL_BYTES, codec,
    frame::Message,
    peer::{Control, Refused},
    record::RECORD_HEADER_BYTES,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::error::CallError;
use crate::{
    link::{HandshakeError, Identity, PeerStream, Session, call_peer, introduce, must_be_for, welcome},
    member::MemberId,
};

/// A stream of calls.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: PeerStream,
    session: Session,
    /// Whom this node has called, and who has not welcomed it yet.
    expected: Option<String>,
}

impl Wire {
    /// For calls of a peer. What it has sent behind the frame that made the stream one for calls is in the session.
    pub(crate) fn accepted(stream: PeerStream, mut session: Session) -> Self {
        session.inbox.set_limit(MAX_CALL_BYTES);
        Self { stream, session, expected: None }
    }

    /// For calls of this node. It does not wait for the peer's welcome, which comes with the first answer at the latest.
    pub(crate) async fn open(
        mut stream: PeerStream,
        identity: &Identity,
        expected: &str,
    ) -> Result<Self, CallError> {
        let mut session = introduce(&mut stream, identity, Some(expected)).await?;
        session.outbox.put(&Control)?;
        // What comes next may be longer than the peer accepts before it has read this.
        session.outbox.seal();
        Ok(Self { stream, session, expected: Some(expected.to_owned()) })
    }

    /// For a call to whichever node is there, and which one that is.
    pub(crate) async fn open_to_anyone(
        mut stream: PeerStream,
        identity: &Identity,
    ) -> Result<(MemberId, Self), HandshakeError> {
        let (found, mut session) = call_peer(&mut stream, identity, None).await?;
        must_be_for(stream.certificate(), &found.name)?;
        session.outbox.put(&Control)?;
        session.outbox.seal();
        session.inbox.set_limit(MAX_CALL_BYTES);
        Ok((found, Self { stream, session, expected: None }))
    }

    /// Waits for the peer's welcome, if it has not come yet.
    pub(crate) async fn welcomed(&mut self) -> Result<(), CallError> {
        if let Some(peer) = &self.expected {
            welcome(&mut self.stream, &mut self.session, Some(peer)).await?;
            self.session.inbox.set_limit(MAX_CALL_BYTES);
            self.expected = None;
        }
        Ok(())
    }

    /// Returns how many bytes it took.
    pub(crate) async fn send<M: Message>(&mut self, message: &M) -> Result<usize, CallError> {
        let length = self.put(message)?;
        self.flush().await?;
        Ok(length)
    }

    /// Puts a message where [`Wire::flush`] sends it from; returns how many bytes it takes, with what was put before.
    pub(crate) fn put<M: Message>(&mut self, message: &M) -> Result<usize, CallError> {
        self.session.outbox.put(message)?;
        Ok(self.session.outbox.sealed().len())
    }

    pub(crate) async fn flush(&mut self) -> Result<(), CallError> {
        Ok(self.stream.write_all_buf(self.session.outbox.sealed()).await?)
    }

    /// The next message, and how many bytes it took; `None` at the end of the stream.
    pub(crate) async fn receive<M: DeserializeOwned>(
        &mut self,
        expected: Kind,
    ) -> Result<Option<(M, usize)>, CallError> {
        self.welcomed().await?;
        let inbox = &mut self.session.inbox;
        loop {
            if let Some(frame) = inbox.first()? {
                let message = match frame.kind {
                    kind if kind == expected => Ok(codec::decode(frame.payload)?),
                    Kind::Refused => Err(CallError::Refused(codec::decode::<Refused>(frame.payload)?.reason)),
                    _ => Err(CallError::Mismatch),
                };
                let length = frame.length;
                inbox.take(length);
                return message.map(|message| Some((message, length + RECORD_HEADER_BYTES)));
            }
            if self.stream.read_buf(inbox.unread()).await? == 0 {
                return if inbox.is_empty() { Ok(None) } else { Err(CallError::CutOff) };
            }
        }
    }

    /// Waits until something is there, or the stream ends: then false.
    pub(crate) async fn readable(&mut self) -> Result<bool, CallError> {
        let unread = self.session.inbox.unread();
        Ok(!unread.is_empty() || self.stream.read_buf(unread).await? > 0)
    }
}
