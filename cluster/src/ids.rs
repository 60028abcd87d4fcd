//! What things are called in all of the cluster: nodes, clusters, revisions, leaders.

use std::{fmt, net::SocketAddr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

use crate::fabric;

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

/// A node from one start to the next: only this one has the buckets that it filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeStart {
    /// Its id in the Raft group.
    pub node: NodeId,
    /// Which of its starts.
    pub incarnation: u64,
}

/// Who leads, and since which election. There can be several leaders in a term, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader.
    pub leader: NodeId,
}

/// A node as the group's membership names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RaftNode {
    pub(crate) name: String,
    pub(crate) peer: SocketAddr,
}

impl Default for RaftNode {
    fn default() -> Self {
        Self { name: String::new(), peer: SocketAddr::from(([0, 0, 0, 0], 0)) }
    }
}

impl fmt::Display for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer)
    }
}

/// How many slots a member should own beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The heaviest.
    pub const MAX: u16 = 10_000;

    /// From 1 to [`Weight::MAX`].
    pub fn new(weight: u16) -> Option<Self> {
        NonZeroU16::new(weight).filter(|weight| weight.get() <= Self::MAX).map(Self)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl Default for Weight {
    /// Of a node that was told nothing else.
    fn default() -> Self {
        const { Self(NonZeroU16::new(100).expect("100 is not 0")) }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// No member has such a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no weight: from 1 to {max}", max = Weight::MAX)]
pub struct NoWeight(u16);

impl TryFrom<u16> for Weight {
    type Error = NoWeight;

    fn try_from(weight: u16) -> Result<Self, NoWeight> {
        Self::new(weight).ok_or(NoWeight(weight))
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.get()
    }
}
