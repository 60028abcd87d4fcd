//! Where each slot's checks go: the slot table in force with the links to its members. Immutable but for what is known
//! of each peer's trouble; a change of the table is another `Routes`, swapped in whole.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tidegate_limiter::Nanos;
use tokio_util::sync::DropGuard;

use crate::{
    link::Link,
    member::Member,
    owner::Table,
    raft::{MemberRow, NodeId},
    slots::{SlotId, SlotTable},
};

/// The slot table that this node has applied, and the way to its members.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) table: Arc<SlotTable>,
    /// What this was made of.
    pub(crate) rows: Arc<Table>,
    pub(crate) rows_of: BTreeMap<NodeId, MemberRow>,
    /// This node's place among the members of the table; it always has one.
    pub(crate) me: usize,
    /// In the order of the members; `None` for this node.
    pub(crate) peers: Vec<Option<Arc<Peer>>>,
    /// Where slots are going: the place of the target.
    pub(crate) targets: BTreeMap<u16, usize>,
}

impl Routes {
    /// Where the log says that a slot is decided; `None`: at this node.
    pub(crate) fn owner(&self, slot: SlotId) -> Option<usize> {
        let member = self.table.owner_index(slot);
        (member != self.me).then_some(member)
    }

    /// Where a slot is going that is decided here no more.
    pub(crate) fn target(&self, slot: SlotId) -> Option<usize> {
        self.targets.get(&slot.get()).copied().filter(|member| *member != self.me)
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
    pub(crate) fn note(&self, now: Nanos) -> Nanos {
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
