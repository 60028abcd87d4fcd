//! A stream with calls on it.

use bytes::{Buf as _, BytesMut};
use serde::de::DeserializeOwned;
use tidegate_proto::{
    Kind, MAX_CALL_BYTES, codec,
    frame::{self, Message},
    peer::Refused,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::CallFault;
use crate::fabric;

pub(super) fn encode<M: Message>(message: &M) -> Result<BytesMut, CallFault> {
    let mut bytes = BytesMut::new();
    frame::put(message, &mut bytes)?;
    Ok(bytes)
}

/// A stream of calls.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: fabric::Stream,
    pub(super) unread: BytesMut,
}

impl Wire {
    pub(super) async fn send<M: Message>(&mut self, message: &M) -> Result<(), CallFault> {
        self.send_bytes(&encode(message)?).await
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), CallFault> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next message, and how many bytes it took; `None` at the end of the stream.
    pub(super) async fn receive<M: DeserializeOwned>(
        &mut self,
        expected: Kind,
    ) -> Result<Option<(M, usize)>, CallFault> {
        loop {
            if let Some(frame) = frame::first(&self.unread, MAX_CALL_BYTES)? {
                let message = match frame.kind {
                    kind if kind == expected => Ok(codec::decode(frame.payload)?),
                    Kind::Refused => Err(CallFault::Refused(codec::decode::<Refused>(frame.payload)?.reason)),
                    _ => Err(CallFault::Mismatch),
                };
                let length = frame.length;
                self.unread.advance(length);
                return message.map(|message| Some((message, length)));
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        }
    }
}
