//! Where each slot's checks go: the slot table in force with the links to its members. Immutable but for what is known
//! of each peer's trouble; a change of the table is another `Routes`, swapped in whole.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tidegate_limiter::{KeyHash, Nanos};
use tokio_util::sync::DropGuard;

use crate::{
    link::Link,
    member::Member,
    ownership::Assignment,
    slots::{SlotId, SlotTable},
};

/// The slot table in force and the way to its members.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) assignment: Arc<Assignment>,
    /// This node's place among the members.
    pub(crate) me: usize,
    /// In the order of the members; `None` for this node.
    pub(crate) peers: Vec<Option<Arc<Peer>>>,
}

/// Where a key is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Here { floor: Option<Nanos> },
    There { member: usize },
}

impl Routes {
    pub(crate) fn place(&self, key: KeyHash) -> Place {
        let slot = SlotId::of(key);
        let member = self.table().owner_index(slot);
        if member == self.me {
            Place::Here { floor: self.assignment.floors[slot.index()] }
        } else {
            Place::There { member }
        }
    }

    pub(crate) fn table(&self) -> &SlotTable {
        &self.assignment.table
    }

    /// How many members share the slots.
    pub(crate) fn member_count(&self) -> u32 {
        self.peers.len() as u32
    }
}

/// Another member, with this node's links to it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) member: Member,
    /// One link for each lane.
    pub(crate) links: Vec<Link>,
    /// Ends the links with the peer.
    pub(crate) _links_end: DropGuard,
    lost_since: Arc<LostSince>,
}

/// Since when a peer has not decided what it should have: shares of its buckets count from there.
///
/// It ends with any sign of life, not only with a decision that came in time: a peer that lives may have given its whole burst
/// to others, so that a share from longer ago would come on top of that.
#[derive(Debug, Default)]
pub(crate) struct LostSince(AtomicU64);

impl LostSince {
    fn note(&self, now: Nanos) -> Nanos {
        match self.0.compare_exchange(0, now.get(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(since) => Nanos::new(since),
        }
    }

    /// The peer lives.
    pub(crate) fn clear(&self) {
        // Almost always it is 0 already; a write would cost the cache line of every lane.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

impl Peer {
    pub(crate) fn new(
        member: Member,
        links: Vec<Link>,
        lost_since: Arc<LostSince>,
        links_end: DropGuard,
    ) -> Self {
        Self { member, links, _links_end: links_end, lost_since }
    }

    /// Notes that the peer did not decide, and returns since when that is so.
    pub(crate) fn note_loss(&self, now: Nanos) -> Nanos {
        self.lost_since.note(now)
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.links.iter().all(Link::is_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_counts_from_its_first_check_until_a_sign_of_life() {
        let lost = LostSince::default();
        assert_eq!(lost.note(Nanos::new(5)), Nanos::new(5));
        assert_eq!(lost.note(Nanos::new(9)), Nanos::new(5));
        lost.clear();
        assert_eq!(lost.note(Nanos::new(70)), Nanos::new(70));
    }
}
