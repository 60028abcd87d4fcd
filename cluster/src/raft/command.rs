//! What is written into the log, and what becomes of it.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::RaftNode;
use crate::{
    fabric,
    owner::{
        shares::ShareChange,
        table::{self, Holder},
    },
    placement::Weight,
};

/// Longest text of the rules of one domain, in bytes.
pub const MAX_RULES_BYTES: usize = 4 << 20;
/// Longest author or message of a change, in bytes.
pub const MAX_REMARK_BYTES: usize = 800;

/// A node for the Raft group: random, made once for a data directory, never used again after that is lost.
pub type NodeId = u64;

/// Tells clusters apart, also those of the same name: random, made when the cluster is founded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    pub(crate) fn random() -> Self {
        Self(fabric::random_bytes())
    }

    pub(crate) fn parse(hex: &str) -> Option<Self> {
        (hex.len() == 32).then_some(())?;
        u128::from_str_radix(hex, 16).ok().map(|bits| Self(bits.to_be_bytes()))
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The version of a domain's rules: the log index of their last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// The revision with this number.
    pub const fn new(index: u64) -> Self {
        Self(index)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One entry of the log. New ones are appended: the bytes of old ones lie on disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// The first entry of a cluster. A second one changes nothing.
    Found(Founding),
    /// Changes the rules of a domain.
    Write(RuleWrite),
    /// Says what is known of a member.
    Member(MemberRow),
    /// Takes a member out of the table.
    Forget(NodeId),
    /// Changes who owns which slot.
    Slots(table::Entry),
    /// Says whether a node wants to own nothing.
    Drain {
        /// Which one, until its next start.
        holder: Holder,
        /// Whether it does.
        on: bool,
    },
    /// Says that a node which is gone will not come back.
    Evict(NodeId),
    /// Changes which part of a lost bucket each node may give.
    Shares(ShareChange),
}

/// What a cluster is founded with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// What fingerprints of buckets are keyed with, so that who chooses the keys can not choose the buckets.
    pub hash_secret: [u8; 16],
}

impl fmt::Debug for Founding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Founding").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// How the rules of a domain came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Somebody wrote them.
    Apply,
    /// They are those of an earlier revision.
    Rollback {
        /// Which.
        to: Revision,
    },
}

/// What the rules of a domain must be for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Whatever they are.
    Any,
    /// There must be none.
    Absent,
    /// They must be at this revision.
    At(Revision),
}

/// How many rules a change touches, for the history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// New ones.
    pub added: u32,
    /// Those that are no longer there.
    pub removed: u32,
    /// Those that are different.
    pub changed: u32,
}

/// A change of a domain's rules, on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleWrite {
    /// Whose rules.
    pub domain: Arc<str>,
    /// The rules, whole, as text.
    pub text: Arc<str>,
    /// Where they come from.
    pub origin: Origin,
    /// What must be there for it to happen.
    pub expected: Expected,
    /// Makes a repeated write happen once.
    pub key: String,
    /// Who writes.
    pub author: String,
    /// Why.
    pub message: String,
    /// The node that took the write.
    pub node: String,
    /// When, by that node's clock, in Unix milliseconds. Told, never compared.
    pub at_ms: u64,
    /// How much it changes.
    pub extent: Extent,
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
    pub fn holder(&self) -> Holder {
        Holder { node: self.id, incarnation: self.incarnation }
    }
}

/// What became of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// There is nothing to tell.
    Done,
    /// The rules are what was written.
    Written(Written),
    /// Nothing was written: the rules are not what was expected.
    Mismatch {
        /// What they are.
        current: Option<Revision>,
    },
    /// Nothing was written: the same idempotency key came with another write before.
    KeyReused,
    /// Nothing was written: there is no room, for this reason.
    Full(String),
}

/// A write that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The revision with these rules.
    pub revision: Revision,
    /// The one before.
    pub previous: Option<Revision>,
    /// Whether the rules are others than before; if not, the revision is what it was.
    pub changed: bool,
}
