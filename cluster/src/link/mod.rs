//! Connections between nodes: long-lived streams with many checks in flight on each.

mod handshake;
mod health;
mod in_flight;
mod outgoing;
mod stream;

use tidegate_proto::{RecordError, peer::Outcome};

pub(crate) use self::{
    handshake::{
        HandshakeError, Identity, Peer, Session, answer as answer_peer, call as call_peer, introduce,
        must_be_for, refuse as refuse_peer, welcome,
    },
    health::LostSince,
    outgoing::{Link, NotSent},
    stream::{PeerStream, accept as accept_peer, dial},
};
use crate::stats::StreamError;

/// An answer, with the id by which the check can be undone.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) outcome: Outcome,
}

impl From<RecordError> for StreamError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Seal => Self::Seal,
            RecordError::TooLong { .. } | RecordError::Frames | RecordError::Kind(_) => Self::Malformed,
        }
    }
}
