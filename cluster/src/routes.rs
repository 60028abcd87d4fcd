//! Where each slot's checks go: the slot table in force with the links to its members. Immutable but for what is known
//! of each peer's trouble; a change of the table is another `Routes`, swapped in whole.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidegate_limiter::Nanos;
use tokio_util::sync::DropGuard;

use crate::{
    ids::NodeId,
    link::{Link, LostSince},
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
    /// One link for each worker.
    pub(crate) links: Vec<Link>,
    /// Ends the links with the peer.
    pub(crate) _links_end: DropGuard,
    lost_since: Arc<LostSince>,
    /// Until then it is asked together with others, never before them.
    slow_until: AtomicU64,
}

/// For how long a peer that has not answered by half of the check timeout is not asked alone.
const SLOW_FOR: Duration = Duration::from_secs(5);

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

    /// Notes that the peer was not heard on the link of this worker, and returns since when that is so.
    pub(crate) fn note_loss(&self, worker: usize, now: Nanos) -> Nanos {
        self.lost_since.note(now, || self.links[worker].is_up())
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.links.iter().all(Link::is_up)
    }
}
