//! What this process has got onto its disk, and must find there when it opens it again.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{LeaderId, LogId, Vote};

use crate::{ids::NodeId, raft::files::Snapshots};

/// What this process has got onto its disk: a disk that does not say so any more is not gone on with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promised(Arc<Mutex<Kept>>);

/// The last leader that the node has voted for, or followed, and the last entry of its log; ordered as Raft orders logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kept {
    leader: Option<LeaderId<NodeId>>,
    last: Option<LogId<NodeId>>,
}

impl Promised {
    /// Whether a disk that holds these lacks nothing.
    pub(super) fn are_kept(&self, leader: Option<LeaderId<NodeId>>, last: Option<LogId<NodeId>>) -> bool {
        let kept = self.kept();
        leader >= kept.leader && last >= kept.last
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_vote(&self, vote: &Vote<NodeId>) {
        let mut kept = self.kept();
        kept.leader = kept.leader.max(Some(vote.leader_id));
    }

    pub(crate) fn note_entry(&self, id: LogId<NodeId>) {
        self.kept().last = Some(id);
    }

    /// Entries are removed again: nothing is known of the last one until there is another.
    pub(crate) fn note_truncation(&self) {
        self.kept().last = None;
    }

    /// Entries up to there have been removed, because a snapshot has what they say: also entries that it does not.
    pub(crate) fn note_purge(&self, through: LogId<NodeId>, is_on_disk: bool) {
        let mut kept = self.kept();
        let last = kept.last.filter(|last| last.index > through.index);
        kept.last = last.or(Some(through).filter(|_| is_on_disk));
    }

    pub(crate) fn forget(&self) {
        *self.kept() = Kept::default();
    }
}

/// What lasts when a database is closed and opened again by this process.
#[derive(Debug, Clone)]
pub(crate) struct Lasting {
    pub(crate) snapshots: Snapshots,
    pub(super) promised: Promised,
}

impl Lasting {
    /// Of a directory that this process has not opened yet.
    pub(super) fn none(directory: &Path) -> Self {
        Self { snapshots: Snapshots::of(directory), promised: Promised::default() }
    }

    pub(super) fn in_memory() -> Self {
        Self { snapshots: Snapshots::Memory(Arc::default()), promised: Promised::default() }
    }
}
