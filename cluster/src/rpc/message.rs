//! What nodes ask of each other, and what they answer. bincode numbers variants and writes fields in their order: new ones come
//! last (`golden.txt`).

use std::collections::BTreeMap;

use openraft::{
    LogId,
    error::{InstallSnapshotError, RaftError},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};
use tidegate_proto::{Kind, MAX_CALL_BYTES, frame::Message};

use super::buckets::{FloorUpdate, HandOver, HandedOver};
use crate::{
    ids::{ClusterId, NodeId, NodeStart, RaftNode},
    member::MemberRow,
    owner::{slot_ownership::Refusal, table::SlotMove},
    state::{
        command::{Action, Outcome, RuleWrite},
        types::Group,
    },
    stats::CallKind,
};

/// What one member asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
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
        start: NodeStart,
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
    UpdateFloors(FloorUpdate),
    /// Asks the leader to name no successor of these slots: theirs does not answer.
    Strike {
        successor: NodeStart,
        slots: Vec<u16>,
    },
    /// Asks for nothing but an answer.
    Reach,
    /// Asks a node, whichever it is, whether it belongs to a cluster.
    Introduce,
    /// Gives a founding up that this node has proposed.
    Release(ClusterId),
    /// Asks the leader to write what somebody asked for.
    Act {
        action: Action,
        patience_ms: u64,
    },
}

impl Call {
    pub(crate) fn kind(&self) -> CallKind {
        match self {
            Self::Append(_) | Self::Vote(_) | Self::Snapshot(_) | Self::MayStand(_) | Self::Reach => {
                CallKind::Log
            }
            Self::Renew { .. } => CallKind::Session,
            Self::HandOver(_) | Self::Moved(_) | Self::Refuse(_) => CallKind::Move,
            Self::UpdateFloors(_) | Self::Strike { .. } => CallKind::Floor,
            _ => CallKind::Other,
        }
    }

    /// Whether the time until the answer is that of the network: neither a disk nor a third node is waited for.
    pub(crate) fn waits_for_network_only(&self) -> bool {
        matches!(self, Self::UpdateFloors(_) | Self::Reach)
    }

    /// Whether nothing has to be done for the answer. A disk that is slow for a moment may be waited for all the same, and so may a
    /// third node that is asked for a moment.
    pub(crate) fn is_answered_at_once(&self) -> bool {
        match self {
            Self::Append(request) => request.entries.is_empty(),
            Self::MayStand(_) | Self::UpdateFloors(_) => true,
            _ => false,
        }
    }
}

/// Which part of a node answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Consensus, and the founding of a cluster.
    Raft,
    /// What is replicated, at the leader and elsewhere.
    Rules,
    /// Ownership, at the leader.
    Leader,
    /// Ownership, at the owner or at the node that is to have the slots.
    Owner,
}

impl Call {
    /// Who answers it.
    pub(crate) fn room(&self) -> Room {
        match self {
            Self::Append(_)
            | Self::Vote(_)
            | Self::Snapshot(_)
            | Self::Found(_)
            | Self::ReadIndex { .. }
            | Self::MayStand(_)
            | Self::Reach
            | Self::Introduce
            | Self::Release(_) => Room::Raft,
            Self::Write { .. } | Self::Act { .. } | Self::Touched { .. } => Room::Rules,
            Self::Renew { .. }
            | Self::Moved(_)
            | Self::Drain { .. }
            | Self::Evict(_)
            | Self::Strike { .. } => Room::Leader,
            Self::Refuse(_) | Self::HandOver(_) | Self::UpdateFloors(_) => Room::Owner,
        }
    }
}

/// A call with its address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) cluster: ClusterId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) call: Call,
}

impl Message for Envelope {
    const KIND: Kind = Kind::Call;
    const MAX_BYTES: usize = MAX_CALL_BYTES;
}

/// The answer to a call, in the order of the calls.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    Snapshot(Result<InstallSnapshotResponse<NodeId>, RaftError<NodeId, InstallSnapshotError>>),
    Found(Result<(), String>),
    /// For [`Call::Write`] and [`Call::Act`].
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
    FloorsUpdated(Option<u64>),
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
pub(crate) enum Renewal {
    /// It is granted, confirmed at this index of the log.
    Granted(u64),
    /// The node has not applied the log up to here, where its last session was granted.
    Behind(u64),
    /// It is not granted, for now.
    NotGranted,
}

/// Why the leader did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NotServed {
    /// It is not the leader. Nothing was done.
    NotLeader,
    /// It could not say in time whether it was done.
    Unknown,
}

/// What a node asks before it stands for election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The last entry of its log.
    pub(crate) last: Option<LogId<NodeId>>,
}

impl Question {
    /// The last entry of the log of who asks.
    pub(crate) fn last(&self) -> Option<LogId<NodeId>> {
        self.last
    }
}

/// A cluster that a node would found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) cluster: ClusterId,
    pub(crate) founders: BTreeMap<NodeId, RaftNode>,
}

/// Where a node stands between no cluster and one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// It belongs to none, and has promised nothing.
    Free,
    /// It is about to found one.
    Proposing,
    /// It has promised to found one with this proposer.
    Promised(NodeId),
    /// It belongs to this one.
    Bound(ClusterId),
}

/// What a node says of itself to one that asks before it founds a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) standing: Standing,
    /// Whether it has anything in its log.
    pub(crate) has_log: bool,
}
