//! What a test may see of a node from inside.

use std::sync::Arc;

use tidegate_limiter::cluster::{Consistency, KeyHash};

use crate::{
    Clock,
    ids::{ClusterId, NodeId},
    owner::slot_ownership::SlotOwnership,
    rules::{ledger::Ledger, status::GroupRole},
    slots::SlotId,
};

/// Looks into a node that runs.
#[derive(Clone)]
pub struct Probe {
    pub(crate) ownership: Arc<SlotOwnership>,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

impl Probe {
    /// Whether this node would decide at this instant a check of a `strict` rule about this key.
    pub fn decides_strictly(&self, key: KeyHash) -> bool {
        self.ownership.claim(SlotId::of(key), Consistency::Strict, self.clock.now()).is_ok()
    }

    /// Whether this node has a session at this instant.
    pub fn has_session(&self) -> bool {
        self.ownership.has_session(self.clock.now())
    }

    /// The index up to which this node has applied the log.
    pub fn applied(&self) -> u64 {
        self.ledger.applied().index
    }

    /// The epoch of the slot of a key, as far as this node has applied the log; `None`: no slot has an owner yet.
    pub fn epoch(&self, key: KeyHash) -> Option<u64> {
        let applied = self.ledger.applied();
        let slots = &applied.state.slots;
        slots.is_assigned().then(|| slots.row(SlotId::of(key).index()).map(|row| row.epoch)).flatten()
    }

    /// Whether this node leads the Raft group, as far as it knows.
    pub fn leads(&self) -> bool {
        self.ledger.status().role == GroupRole::Leader
    }

    /// The highest vote that this node has given: the term and for whom. `None` while Raft does not run or has just begun.
    pub fn vote(&self) -> Option<(u64, NodeId)> {
        self.ledger.vote()
    }

    /// The cluster that this node has a part in.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.ledger.group()
    }
}
