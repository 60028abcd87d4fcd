//! A node as the others see it: by gossip, and by the log.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, NodeId, NodeStart, RaftNode, Weight};

/// A member's name with its incarnation: each start of a node is another identity, so that nothing meant for the node
/// before a restart reaches the one after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// The name, unique in the cluster.
    pub name: Arc<str>,
    /// Unix milliseconds of the node's start.
    pub incarnation: u64,
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.incarnation)
    }
}

/// How far a node is on its way through life, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It has found no cluster yet, and none has been formed.
    Joining,
    /// It takes part: it may own slots.
    Serving,
    /// It is about to stop: it owns no slots.
    Leaving,
}

impl MemberState {
    /// The word that gossip and `GET /v1/cluster` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Joining, Self::Serving, Self::Leaving].into_iter().find(|state| state.as_str() == word)
    }
}

/// A live node: what gossip last heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub id: MemberId,
    /// What it says of itself.
    pub state: MemberState,
    /// Where its peer port is.
    pub peer: SocketAddr,
    /// Where its HTTP port is, if it said so.
    pub http: Option<SocketAddr>,
    /// Where its gRPC port is, if it said so.
    pub grpc: Option<SocketAddr>,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// How many slots it should own beside the others.
    pub weight: Weight,
    /// Its id in the Raft group.
    pub node: Option<NodeId>,
    /// The cluster in whose Raft group it has a part.
    pub group: Option<ClusterId>,
    /// Up to which index of the log the rules are in force there.
    pub in_force: Option<u64>,
    /// Whether it expects others to found a cluster with (`--bootstrap-expect`).
    pub expects: bool,
}

impl Member {
    /// Whether it belongs to another cluster.
    pub(crate) fn is_foreign_to(&self, ours: Option<ClusterId>) -> bool {
        matches!((self.group, ours), (Some(theirs), Some(ours)) if theirs != ours)
    }

    /// As the log knows it.
    pub(crate) fn of(row: &MemberRow) -> Self {
        Self {
            id: MemberId { name: Arc::from(&*row.name), incarnation: row.incarnation },
            state: MemberState::Serving,
            peer: row.peer,
            http: None,
            grpc: None,
            zone: row.zone.clone(),
            weight: row.weight,
            node: Some(row.id),
            group: None,
            in_force: None,
            expects: false,
        }
    }

    /// As the Raft group's membership names it.
    pub(crate) fn raft_node(&self) -> RaftNode {
        RaftNode { name: self.id.name.to_string(), peer: self.peer }
    }
}

/// The nodes that gossip sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alive {
    pub(crate) members: Vec<Member>,
    /// A newer node that is said to have this node's name.
    pub(crate) name_conflict: Option<Member>,
}

/// A member as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Its id in the Raft group.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Grows with each of its starts.
    pub incarnation: u64,
    /// Its peer port.
    pub peer: SocketAddr,
    /// Its zone.
    pub zone: Option<String>,
    /// Whether it has what its buckets knew when it ended the last time.
    pub keeps: bool,
    /// How many slots it should own beside the others.
    pub weight: Weight,
}

impl MemberRow {
    /// As the group's membership names it.
    pub(crate) fn raft_node(&self) -> RaftNode {
        RaftNode { name: self.name.clone(), peer: self.peer }
    }

    /// The member from this start to the next.
    pub fn node_start(&self) -> NodeStart {
        NodeStart { node: self.id, incarnation: self.incarnation }
    }
}
