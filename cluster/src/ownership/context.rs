//! What the tasks of ownership share.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{buckets::Buckets, from_disk::DiskFloors, saved};
use crate::{
    owner::{leader::Leader, slot_ownership::SlotOwnership},
    raft::handle::Shared,
    rules_in_force::RulesInForce,
    stats::MoveStats,
};

/// What the tasks of ownership share.
pub(crate) struct Context {
    /// The Raft group, which says who owns what.
    pub(crate) group: Arc<Shared>,
    /// What this node owns.
    pub(crate) ownership: Arc<SlotOwnership>,
    /// What this node does about ownership while it leads.
    pub(crate) leader: Arc<Mutex<Leader>>,
    pub(crate) buckets: Buckets,
    pub(crate) rules: Arc<RulesInForce>,
    pub(crate) moves: Arc<MoveStats>,
    /// The floors on this node's disk, if it has one.
    pub(crate) disk: Option<Arc<DiskFloors>>,
}

impl Context {
    pub(crate) fn leader(&self) -> MutexGuard<'_, Leader> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides nothing any more, and saves the buckets for the next start. How many are saved.
    pub(crate) fn save(&self, directory: &Path) -> Result<usize, String> {
        saved::save(directory, &self.ownership, &self.buckets.store, self.group.clock.now())
    }
}
