//! Why a call has no answer.

use std::{io, time::Duration};

use tidegate_proto::{CodecError, RecordError};

use super::sane::Absurd;
use crate::{link::HandshakeError, stats::StreamError};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("a message cannot be read: {0}")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("the stream ended in the middle of a record")]
    CutOff,
    #[error("the answer is refused: {0}")]
    Absurd(#[from] Absurd),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the peer refused: {0}")]
    Refused(String),
    #[error("the peer's answer is not one to this call")]
    Mismatch,
    #[error("this node belongs to no cluster yet")]
    Nowhere,
}

impl CallError {
    /// As what it is counted; `None`: streams break, and peers are silent.
    pub(crate) fn stream_error(&self) -> Option<StreamError> {
        match self {
            Self::Record(error) => Some(StreamError::from(*error)),
            Self::Codec(_) => Some(StreamError::Malformed),
            Self::Mismatch => Some(StreamError::Unexpected),
            Self::CutOff => Some(StreamError::CutOff),
            _ => None,
        }
    }
}
