//! Where each slot's checks go: the slot table in force with the links to its members. Immutable but for what is known
//! of each peer's trouble; a change of the table is another `Routes`, swapped in whole.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use tidegate_limiter::Nanos;
use tokio_util::sync::DropGuard;

use crate::{
    ids::NodeId,
    link::Link,
    member::{Member, MemberRow},
    owner::Table,
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

    /// How many members own slots: what shares must not divide by, as others give them too.
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
    /// Until then it is asked together with others, never before them.
    slow_until: AtomicU64,
}

/// For how long a peer that has not answered by half of the check timeout is not asked alone.
const SLOW_FOR: Duration = Duration::from_secs(5);

/// Since when a peer has not decided what it should have: shares of its buckets count from there.
///
/// It ends with any sign of life, not only with a decision that came in time: a peer that lives may have given its whole burst
/// to others, so that a share from longer ago would come on top of that. **It is nothing while the link is up**: a link that
/// is idle hears no signs of life, and what was noted then would be taken for the beginning of a loss much later.
#[derive(Debug, Default)]
pub(crate) struct LostSince(AtomicU64);

impl LostSince {
    fn note(&self, now: Nanos, is_up: impl FnOnce() -> bool) -> Nanos {
        let since = match self.0.compare_exchange(0, now.get(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(since) => Nanos::new(since),
        };
        // Either this finds the link up, or who brings it up finds what was noted; see `is_up_again`.
        fence(Ordering::SeqCst);
        if is_up() {
            self.clear();
            return now;
        }
        since
    }

    /// The link is up, and says so from now on.
    pub(crate) fn is_up_again(&self) {
        fence(Ordering::SeqCst);
        self.clear();
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
        Self { member, links, _links_end: links_end, lost_since, slow_until: AtomicU64::new(0) }
    }

    /// It did not answer within half of the check timeout.
    pub(crate) fn is_slow(&self, now: Nanos) {
        self.slow_until.store(now.saturating_add(SLOW_FOR).get(), Ordering::Relaxed);
    }

    /// Whether it may be asked before others are.
    pub(crate) fn may_be_asked_alone(&self, now: Nanos) -> bool {
        now.get() >= self.slow_until.load(Ordering::Relaxed)
    }

    /// Notes that the peer was not heard on the link of this lane, and returns since when that is so.
    pub(crate) fn note_loss(&self, lane: usize, now: Nanos) -> Nanos {
        self.lost_since.note(now, || self.links[lane].is_up())
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.links.iter().all(Link::is_up)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_loss_counts_from_its_first_check_until_a_sign_of_life() {
        let lost = LostSince::default();
        let down = |at| lost.note(Nanos::new(at), || false);
        assert_eq!(down(5), Nanos::new(5));
        assert_eq!(down(9), Nanos::new(5));
        lost.clear();
        assert_eq!(down(70), Nanos::new(70));
    }

    #[test]
    fn what_a_peer_with_an_open_link_did_not_decide_is_no_beginning_of_a_later_loss() {
        let lost = LostSince::default();
        assert_eq!(lost.note(Nanos::new(5), || true), Nanos::new(5));
        assert_eq!(lost.note(Nanos::new(90), || false), Nanos::new(90));
        lost.is_up_again();
        assert_eq!(lost.note(Nanos::new(95), || false), Nanos::new(95));
    }

    /// Whichever comes first, the link that comes up or the loss that is noted late: nothing stays.
    #[test]
    fn a_loss_that_is_noted_while_the_link_comes_up_does_not_stay() {
        for _ in 0..20_000 {
            let (lost, up) = (LostSince::default(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| lost.note(Nanos::new(5), || up.load(Ordering::Relaxed)));
                up.store(true, Ordering::Relaxed);
                lost.is_up_again();
            });
            assert_eq!(lost.0.load(Ordering::Relaxed), 0);
        }
    }
}
