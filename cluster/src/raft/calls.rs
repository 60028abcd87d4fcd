//! Calls between the members of the group: Raft's own messages, and those that bring a change to the leader.
//!
//! A stream carries one call at a time: a `Call` frame, then its `Reply`. A call that is given up, for whatever reason,
//! takes its stream with it: an answer that comes late can then not be taken for that of another call. Each call names
//! the cluster and the node that it is meant for, so that what lies on a disk of another cluster, or was lost with a
//! disk, is never mixed in.

#[cfg(test)]
mod adoption;
mod caller;
mod connections;
mod round_trip;
mod sane;
mod senders;
mod server;
mod wire;

use std::{io, time::Duration};

use openraft::{
    error::{InstallSnapshotError, RaftError},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};
use tidegate_proto::{CodecError, Kind, MAX_CALL_BYTES, RecordError, frame::Message};

pub(crate) use self::server::{CallServer, serve_calls};
pub(super) use self::{
    caller::{Asked, Caller, Callers, introduce},
    connections::Connections,
    sane::{Absurd, Position, is_absurd},
};
use super::{Group, command::{Outcome, RuleWrite}, election::Question, formation::Proposal, moves::{HandOver, HandedOver}, survey::Introduction, tell::Words};
use crate::{ids::{ClusterId, NodeId}, member::MemberRow};
use crate::{ids::Holder, link::HandshakeError, owner::{rights::Refusal, table::SlotMove}, stats::{CallKind, StreamError}};

/// What one member asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    Append(AppendEntriesRequest<Group>),
    Vote(VoteRequest<NodeId>),
    Snapshot(InstallSnapshotRequest<Group>),
    /// Asks to found a cluster together.
    Found(Proposal),
    /// Asks the leader to write.
    Write {
        write: RuleWrite,
        patience_ms: u64,
    },
    /// Asks the leader up to where a reader must have applied the log to see all that was acknowledged before.
    ReadIndex {
        patience_ms: u64,
    },
    /// Asks about how many buckets the rules with these names have.
    Touched {
        domain: String,
        rules: Vec<String>,
    },
    /// Says to the leader who this node is, where, and up to where it has applied the log; asks for a session if it could
    /// decide.
    Renew {
        row: MemberRow,
        wants: bool,
        applied: u64,
    },
    /// Says to the leader that these moves are done.
    Moved(Vec<SlotMove>),
    /// Asks the leader to give all slots of a node to others, or to let it have some again.
    Drain {
        holder: Holder,
        on: bool,
    },
    /// Says to the leader that a node which is gone will not come back.
    Evict(NodeId),
    /// Asks the target of these moves to promise not to take the slots.
    Refuse(Vec<SlotMove>),
    /// Hands buckets over.
    HandOver(HandOver),
    /// Asks whether this node would vote for who asks.
    MayStand(Question),
    /// Tells a successor floors.
    Tell(Words),
    /// Asks the leader to name no successor of these slots: theirs does not answer.
    Strike {
        successor: Holder,
        slots: Vec<u16>,
    },
    /// Asks for nothing but an answer.
    Reach,
    /// Asks a node, whichever it is, whether it belongs to a cluster.
    Introduce,
    /// Gives a founding up that this node has proposed.
    Release(ClusterId),
}

impl Call {
    fn kind(&self) -> CallKind {
        match self {
            Self::Append(_) | Self::Vote(_) | Self::Snapshot(_) | Self::MayStand(_) | Self::Reach => {
                CallKind::Log
            }
            Self::Renew { .. } => CallKind::Session,
            Self::HandOver(_) | Self::Moved(_) | Self::Refuse(_) => CallKind::Move,
            Self::Tell(_) | Self::Strike { .. } => CallKind::Floor,
            _ => CallKind::Other,
        }
    }

    /// Whether the time until the answer is that of the network: neither a disk nor a third node is waited for.
    fn waits_for_network_only(&self) -> bool {
        matches!(self, Self::Tell(_) | Self::Reach)
    }

    /// Whether nothing has to be done for the answer. A disk that is slow for a moment may be waited for all the same, and so may a
    /// third node that is asked for a moment.
    fn is_answered_at_once(&self) -> bool {
        match self {
            Self::Append(request) => request.entries.is_empty(),
            Self::MayStand(_) | Self::Tell(_) => true,
            _ => false,
        }
    }
}

/// A call with its address.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) cluster: ClusterId,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) call: Call,
}

impl Message for Envelope {
    const KIND: Kind = Kind::Call;
    const MAX_BYTES: usize = MAX_CALL_BYTES;
}

/// The answer to a call, in the order of the calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    Snapshot(Result<InstallSnapshotResponse<NodeId>, RaftError<NodeId, InstallSnapshotError>>),
    Found(Result<(), String>),
    Write(Result<Outcome, NotServed>),
    ReadIndex(Result<u64, NotServed>),
    Touched(Vec<Vec<u8>>),
    Renew(Result<Renewal, NotServed>),
    /// For [`Call::Moved`] and [`Call::Drain`]: it is written.
    Written(Result<(), NotServed>),
    Refuse(Refusal),
    HandOver(HandedOver),
    MayStand(bool),
    /// The number of this answer; `None`: that was for another start of this node.
    Told(Option<u64>),
    /// It was not looked at, for this reason.
    Refused(String),
    Reached,
    Introduced(Introduction),
    Released,
}

impl Message for Reply {
    const KIND: Kind = Kind::Reply;
    const MAX_BYTES: usize = MAX_CALL_BYTES;
}

/// What the leader says to a node that asks for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Renewal {
    /// It is granted, confirmed at this index of the log.
    Granted(u64),
    /// The node has not applied the log up to here, where its last session was granted.
    Behind(u64),
    /// It is not granted, for now.
    NotGranted,
}

/// Why the leader did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NotServed {
    /// It is not the leader. Nothing was done.
    NotLeader,
    /// It could not say in time whether it was done.
    Unknown,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("a message can not be read: {0}")]
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

impl CallFault {
    /// As what it is counted; `None`: streams break, and peers are silent.
    fn stream_error(&self) -> Option<StreamError> {
        match self {
            Self::Record(error) => Some(StreamError::from(*error)),
            Self::Codec(_) => Some(StreamError::Malformed),
            Self::Mismatch => Some(StreamError::Unexpected),
            Self::CutOff => Some(StreamError::CutOff),
            _ => None,
        }
    }
}
