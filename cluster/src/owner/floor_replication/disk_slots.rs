//! What is known of slots whose floors are on the owner's own disk.

use std::{collections::BTreeMap, time::Duration};

use tidegate_limiter::Nanos;

use crate::{
    ids::NodeStart,
    owner::floors::{Agreement, SuccessorRef},
};

/// What is known of slots that began from the disk.
#[derive(Debug, Default)]
pub(super) struct DiskSlots {
    /// Bound from the beginning, and not yet under the name of this start on the disk.
    pub(super) inherited: BTreeMap<u16, Agreement>,
    /// An earlier start had begun these from the disk's floors, and charged within them: the disk is to name it.
    pub(super) renamed: Vec<(u16, NodeStart, u64)>,
    /// Whether the log was read.
    pub(super) has_table: bool,
    /// Slots that do not begin before the disk says nothing of them, and since when some wait.
    refused: Vec<u16>,
    since: Option<Nanos>,
    /// Those that the disk is being made to forget.
    dropping: Vec<u16>,
}

impl DiskSlots {
    /// These are to begin, and what the disk has of them does not count.
    pub(super) fn refuse(&mut self, slots: Vec<u16>, now: Nanos) {
        self.since = self.since.filter(|_| !slots.is_empty()).or((!slots.is_empty()).then_some(now));
        self.refused = slots;
    }

    pub(super) fn is_dropping(&self, slot: u16) -> bool {
        self.dropping.binary_search(&slot).is_ok()
    }

    /// Those that have waited for so long, without those whose floors count by now (in order): from now on none of them begins from the
    /// disk.
    pub(super) fn take_refused(&mut self, patience: Duration, counting: &[u16], now: Nanos) -> Vec<u16> {
        let is_due = self.since.is_some_and(|since| since.saturating_add(patience) <= now);
        if is_due && self.dropping.is_empty() {
            self.dropping = std::mem::take(&mut self.refused);
            self.dropping.retain(|slot| counting.binary_search(slot).is_err());
            self.since = None;
        }
        self.dropping.clone()
    }

    /// The disk says nothing any more of those that it was made to forget.
    pub(super) fn dropped(&mut self) {
        (self.refused, self.since, self.dropping) = (Vec::new(), None, Vec::new());
    }
}

/// A slot that is to be kept on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskSlot {
    pub(crate) slot: u16,
    pub(crate) successor_ref: SuccessorRef,
    /// It has all floors already, and this agreement binds.
    pub(crate) inherited: Option<Agreement>,
}
