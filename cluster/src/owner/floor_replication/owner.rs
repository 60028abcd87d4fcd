//! Floors at the owner: what its successors have to be told, and what they have acknowledged.

use std::sync::{
    Arc, PoisonError,
    atomic::{
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use tidegate_limiter::{
    Nanos,
    cluster::{KeyHash, Mark, Reserves},
};

use super::{BOUND, CHANGE, Raise, SILENT, Since, TakeoverState};
use crate::{
    ids::NodeStart,
    owner::{
        floors::{Agreement, SuccessorRef},
        slot_ownership::{Core, SlotOwnership},
    },
    slots::{SLOTS, SlotId},
};

impl SlotOwnership {
    /// The rules with floors are these from now on, as those domains have them since those entries of the log.
    pub(crate) fn set_reserves(&self, reserves: Arc<Reserves>, since: Since) {
        // Under the lock, so that nobody tells that all was told for these by what was told for those before.
        let mut core = self.core();
        let before = self.floors.reserves.swap(Arc::clone(&reserves));
        if *before != *reserves || core.tellings.since != since {
            core.tellings.since = since;
            core.tellings.begin_anew();
            self.count_complete(&core);
        }
    }

    /// Whether the rules with floors in force are those of a state in which the domains have these revisions.
    pub(crate) fn floors_are_of(&self, revision: impl Fn(&str) -> Option<u64>) -> bool {
        self.core().tellings.since.is_of(revision)
    }

    pub(crate) fn reserves(&self) -> Arc<Reserves> {
        self.floors.reserves.load_full()
    }

    /// Takes in who is to be told, after a change of the table.
    pub(in crate::owner) fn observe_successors(&self, core: &mut Core) {
        let me = core.node.me();
        for slot in 0..SLOTS {
            let naming = core.node.row(slot).and_then(|row| SuccessorRef::of(me, row));
            if core.tellings.tellers[slot].observe(naming) {
                self.rebind(slot, |binding| binding & !(BOUND | SILENT));
                self.floors.acknowledged.clear(slot);
            }
        }
        self.count_complete(core);
    }

    fn count_complete(&self, core: &Core) {
        let complete = core.tellings.tellers.iter().filter(|teller| teller.is_complete());
        self.floors.stats.set_complete(complete.count() as u64);
        self.floors.version.fetch_add(1, SeqCst);
    }

    pub(super) fn rebind(&self, slot: usize, change: impl Fn(u64) -> u64) {
        let binding = &self.floors.bindings[slot];
        binding.store(change(binding.load(Relaxed)) + CHANGE, SeqCst);
        fence(SeqCst);
    }

    /// Grows whenever there may be something else to do.
    pub(crate) fn version(&self) -> u64 {
        self.floors.version.load(SeqCst)
    }

    /// Who is to be told of slots of this node.
    pub(crate) fn successors(&self) -> Vec<NodeStart> {
        let core = self.core();
        let me = core.node.me();
        let rows = (0..SLOTS).filter_map(|slot| core.node.row(slot));
        let named = rows.filter(|row| row.owner == me).filter_map(|row| row.successor);
        let mut starts: Vec<NodeStart> = named.map(|next| next.node).collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// The slots of which this successor is to be told, and whether there is nothing to do about them.
    pub(crate) fn told_to(&self, successor: NodeStart) -> Vec<(u16, SuccessorRef, bool)> {
        let core = self.core();
        (0..SLOTS)
            .filter_map(|slot| {
                let next = core.node.row(slot)?.successor?;
                let teller = core.tellings.tellers[slot];
                let naming = teller.naming().filter(|_| next.node == successor)?;
                // Of a slot that is moving another one will be told.
                let is_moving = core.node.row(slot).is_some_and(|row| row.moving.is_some());
                Some((slot as u16, naming, teller.is_complete() || is_moving))
            })
            .collect()
    }

    /// A new attempt for these slots.
    pub(crate) fn attempt(&self, slots: &[(u16, SuccessorRef)]) -> Vec<(u16, Agreement)> {
        let mut core = self.core();
        core.tellings.attempts += 1;
        let (attempt, owner) = (core.tellings.attempts, core.node.me());
        slots.iter().map(|(slot, naming)| (*slot, Agreement { naming: *naming, attempt, owner })).collect()
    }

    /// Binds this node; returns the bonds that hold.
    pub(crate) fn bind(&self, bonds: &[(u16, Agreement)]) -> Vec<(u16, Agreement)> {
        let mut core = self.core();
        let is_stale = |bond: &Agreement| bond.attempt <= core.tellings.stale;
        let bonds: Vec<(u16, Agreement)> =
            bonds.iter().filter(|(_, bond)| !is_stale(bond)).copied().collect();
        let bind = |(slot, bond): &(u16, Agreement)| {
            let slot = usize::from(*slot);
            let was_bound = core.tellings.tellers[slot].bond().is_some();
            let binds = core.tellings.tellers[slot].bind(*bond);
            if binds && !was_bound {
                self.rebind(slot, |binding| binding | BOUND);
            }
            binds
        };
        bonds.into_iter().filter(bind).collect()
    }

    /// Frees this node from a bond of which the successor knows that it is not complete.
    pub(crate) fn free(&self, slot: u16, bond: Agreement) {
        let mut core = self.core();
        let slot = usize::from(slot);
        if core.tellings.tellers[slot].free(bond) {
            self.rebind(slot, |binding| binding & !(BOUND | SILENT));
            self.floors.acknowledged.clear(slot);
        }
    }

    /// What is said of these slots to who could begin from their floors: all was told.
    pub(crate) fn testament(&self, bonds: &[(u16, Agreement)]) -> Vec<(u16, Agreement, TakeoverState)> {
        let core = self.core();
        let (births, reserves) = (self.floors.births.load(), self.reserves());
        let current = |(slot, bond): &&(u16, Agreement)| {
            bond.attempt > core.tellings.stale
                && core.tellings.tellers[usize::from(*slot)].bond() == Some(*bond)
        };
        let tell = |(slot, bond): &(u16, Agreement)| {
            let (fingerprint, since) = (reserves.fingerprint(), core.tellings.since.number());
            let inheritance = match births.get(slot) {
                // Of rules that are others now it cannot be told how their buckets begun.
                Some(birth) if birth.rules != reserves => {
                    TakeoverState { fingerprint, since, before: Some(birth.begun), elder: None }
                }
                Some(birth) => TakeoverState {
                    fingerprint,
                    since,
                    before: birth.postponed_before(),
                    elder: Some((birth.elder.map_or(birth.heard, |(heard, _)| heard), birth.begun)),
                },
                None => {
                    let before = self.floor_of(usize::from(*slot));
                    TakeoverState { fingerprint, since, before, elder: None }
                }
            };
            (*slot, *bond, inheritance)
        };
        bonds.iter().filter(current).map(tell).collect()
    }

    /// The successor is complete.
    pub(crate) fn completed(&self, bonds: impl IntoIterator<Item = (u16, Agreement)>) {
        let mut core = self.core();
        for (slot, bond) in bonds {
            if bond.attempt > core.tellings.stale {
                core.tellings.tellers[usize::from(slot)].completed(bond);
            }
        }
        self.count_complete(&core);
    }

    /// What this successor has to be told of.
    pub(crate) fn take_raises(&self, successor: NodeStart, most: usize) -> Vec<Raise> {
        if self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Vec::new();
        }
        let core = self.core();
        let mut raises = self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        let naming = |key: &KeyHash| {
            let slot = SlotId::of(*key).index();
            let next = core.node.row(slot).and_then(|row| row.successor)?;
            core.tellings.tellers[slot].naming().filter(|_| next.node == successor)
        };
        // Of slots that are another's now, or that nobody takes over, nobody is told.
        raises.retain(|key, _| core.tellings.tellers[SlotId::of(*key).index()].naming().is_some());
        let keys: Vec<(KeyHash, SuccessorRef)> =
            raises.keys().filter_map(|key| Some((*key, naming(key)?))).take(most).collect();
        keys.into_iter()
            .filter_map(|(key, naming)| {
                let (rule, mark) = raises.remove(&key)?;
                Some(Raise { key, rule, mark, naming })
            })
            .collect()
    }

    /// What could not be told is still to be.
    pub(crate) fn put_back(&self, raises: &[Raise]) {
        raises.iter().for_each(|one| self.raise(one.key, one.rule, one.mark));
    }

    /// The successor has these. Returns the slots that there is no room for.
    pub(crate) fn acknowledge(&self, raises: &[Raise], now: Nanos) -> Vec<u16> {
        let core = self.core();
        let mut full = Vec::new();
        for one in raises {
            let slot = SlotId::of(one.key);
            let is_named = core.tellings.tellers[slot.index()].naming() == Some(one.naming);
            if is_named && !self.floors.acknowledged.note(slot.index(), one.key, one.mark, now) {
                full.push(slot.get());
            }
        }
        drop(core);
        self.floors.told.notify_waiters();
        full.dedup();
        full
    }

    /// Whether a bucket is acknowledged that far.
    pub(crate) fn is_acknowledged(&self, key: KeyHash, mark: Mark) -> bool {
        self.floors.acknowledged.get(SlotId::of(key).index(), key).is_some_and(|known| known >= mark)
    }

    /// How many charges have waited for their successor to be told.
    pub(crate) fn wants(&self) -> u64 {
        self.floors.wants.load(SeqCst)
    }

    /// Ends when more have than that.
    pub(crate) async fn urgent(&self, wants: u64) {
        let more = self.floors.urgent.notified();
        if self.wants() == wants {
            more.await;
        }
    }

    /// The slots whose charges wait for this successor.
    pub(crate) fn bound_to(&self, successor: NodeStart) -> Vec<u16> {
        let core = self.core();
        let is_bound = |slot: &usize| {
            let next = core.node.row(*slot).and_then(|row| row.successor);
            core.tellings.tellers[*slot].bond().is_some() && next.is_some_and(|next| next.node == successor)
        };
        (0..SLOTS).filter(is_bound).map(|slot| slot as u16).collect()
    }

    /// The successor of these slots is silent. True if the leader is too: then rules that are to stay available go on without
    /// either, until the successor is heard again.
    pub(crate) fn is_silent(&self, slots: &[u16], now: Nanos) -> bool {
        let _core = self.core();
        let is_cut_off = !self.has_session(now);
        if is_cut_off {
            slots.iter().for_each(|slot| self.rebind(usize::from(*slot), |binding| binding | SILENT));
        }
        is_cut_off
    }

    /// The successor is heard again: what was charged meanwhile has to be told.
    pub(crate) fn is_heard_again(&self, slots: &[u16]) {
        let mut core = self.core();
        core.tellings.begin_anew();
        self.count_complete(&core);
        slots.iter().for_each(|slot| self.rebind(usize::from(*slot), |binding| binding & !SILENT));
    }
}
