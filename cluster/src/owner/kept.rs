//! What a node knew of its slots when it ended: what was saved, and what its disk has of floors.

use std::collections::BTreeMap;

use tidegate_limiter::Nanos;

use super::{
    table::{SlotRow, Start},
    takeover::TakeoverBasis,
};
use crate::ids::NodeStart;

/// What a node knew when it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Each slot that it owned.
    pub(crate) slots: BTreeMap<u16, KeptSlot>,
    /// Starts of this node, up to this one, that had read the floors on the disk and that the disk does not name itself. What such a
    /// start has begun from these floors, it has charged within them.
    pub(crate) readers: Vec<NodeStart>,
}

/// Of a slot that a node owned when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptSlot {
    /// As whom.
    pub(crate) start: NodeStart,
    /// The epoch of the row.
    pub(crate) epoch: u64,
    /// If it ended well.
    pub(crate) saved: Option<KeptBuckets>,
    /// What its disk had acknowledged before it counted.
    pub(crate) floors: Option<KeptFloors>,
}

/// Of a slot whose buckets were saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptBuckets {
    /// When its buckets count as exhausted (0: never).
    pub(crate) floor: u64,
    /// How it was begun from floors, if it was, with what the rules of then are called.
    pub(crate) basis: Option<(u64, TakeoverBasis)>,
}

/// Of a slot whose floors are on the disk; all of its instants are on this node's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptFloors {
    pub(crate) fingerprint: u64,
    pub(crate) since: u64,
    pub(crate) before: Option<Nanos>,
    pub(crate) earlier: Vec<(Nanos, Nanos)>,
    /// When the owner was alive for the last time. Where that is not known, it is the beginning of time.
    pub(crate) heard: Nanos,
    /// What its wall clock showed then: after now, if that was set back.
    pub(crate) shown: Nanos,
}

impl Kept {
    /// With what the disk has. What was saved knows more, and counts.
    pub(crate) fn with_floors(mut self, floors: Self) -> Self {
        for (slot, kept) in floors.slots {
            match self.slots.get_mut(&slot) {
                Some(saved) if (saved.start, saved.epoch) == (kept.start, kept.epoch) => {
                    saved.floors = kept.floors
                }
                Some(_) => {}
                None => drop(self.slots.insert(slot, kept)),
            }
        }
        self.readers = floors.readers;
        self
    }
}

/// Whether the owner of the row has begun from the floors that this start and epoch had on the disk, and charged within
/// them: it had read the disk, and took the slot from that one.
pub(crate) fn goes_on(row: &SlotRow, kept: (NodeStart, u64), readers: &[NodeStart]) -> bool {
    readers.contains(&row.owner)
        && matches!(row.start, Start::Drained { from, epoch, .. } if (from, epoch) == kept)
}
