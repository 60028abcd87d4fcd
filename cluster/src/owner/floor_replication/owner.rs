//! Floors at the owner: which its successors must receive, and what they have acknowledged.

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
        // Under the lock, so that nobody says that all floors were sent for these by what was sent for those before.
        let mut core = self.core();
        let before = self.floors.reserves.swap(Arc::clone(&reserves));
        if *before != *reserves || core.agreements.since != since {
            core.agreements.since = since;
            core.agreements.begin_anew();
            self.count_complete(&core);
        }
    }

    /// Whether the rules with floors in force are those of a state in which the domains have these revisions.
    pub(crate) fn floors_are_of(&self, revision: impl Fn(&str) -> Option<u64>) -> bool {
        self.core().agreements.since.is_of(revision)
    }

    pub(crate) fn reserves(&self) -> Arc<Reserves> {
        self.floors.reserves.load_full()
    }

    /// Takes in who the successors are, after a change of the table.
    pub(in crate::owner) fn observe_successors(&self, core: &mut Core) {
        let me = core.node.me();
        for slot in 0..SLOTS {
            let successor_ref = core.node.row(slot).and_then(|row| SuccessorRef::of(me, row));
            if core.agreements.senders[slot].observe(successor_ref) {
                self.rebind(slot, |binding| binding & !(BOUND | SILENT));
                self.floors.acknowledged.clear(slot);
            }
        }
        self.count_complete(core);
    }

    fn count_complete(&self, core: &Core) {
        let complete = core.agreements.senders.iter().filter(|sender| sender.is_complete());
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

    /// The successors of this node's slots.
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

    /// The slots whose floors this successor receives, and whether there is nothing to do about them.
    pub(crate) fn slots_for(&self, successor: NodeStart) -> Vec<(u16, SuccessorRef, bool)> {
        let core = self.core();
        (0..SLOTS)
            .filter_map(|slot| {
                let next = core.node.row(slot)?.successor?;
                let sender = core.agreements.senders[slot];
                let successor_ref = sender.successor_ref().filter(|_| next.node == successor)?;
                // A slot that is moving will have another one.
                let is_moving = core.node.row(slot).is_some_and(|row| row.moving.is_some());
                Some((slot as u16, successor_ref, sender.is_complete() || is_moving))
            })
            .collect()
    }

    /// A new attempt for these slots.
    pub(crate) fn attempt(&self, slots: &[(u16, SuccessorRef)]) -> Vec<(u16, Agreement)> {
        let mut core = self.core();
        core.agreements.attempts += 1;
        let (attempt, owner) = (core.agreements.attempts, core.node.me());
        slots
            .iter()
            .map(|(slot, successor_ref)| (*slot, Agreement { successor_ref: *successor_ref, attempt, owner }))
            .collect()
    }

    /// Binds this node; returns the agreements that hold.
    pub(crate) fn bind(&self, agreements: &[(u16, Agreement)]) -> Vec<(u16, Agreement)> {
        let mut core = self.core();
        let is_stale = |agreement: &Agreement| agreement.attempt <= core.agreements.stale;
        let agreements: Vec<(u16, Agreement)> =
            agreements.iter().filter(|(_, agreement)| !is_stale(agreement)).copied().collect();
        let bind = |(slot, agreement): &(u16, Agreement)| {
            let slot = usize::from(*slot);
            let was_bound = core.agreements.senders[slot].agreement().is_some();
            let binds = core.agreements.senders[slot].bind(*agreement);
            if binds && !was_bound {
                self.rebind(slot, |binding| binding | BOUND);
            }
            binds
        };
        agreements.into_iter().filter(bind).collect()
    }

    /// Frees this node from an agreement of which the successor knows that it is not complete.
    pub(crate) fn free(&self, slot: u16, agreement: Agreement) {
        let mut core = self.core();
        let slot = usize::from(slot);
        if core.agreements.senders[slot].free(agreement) {
            self.rebind(slot, |binding| binding & !(BOUND | SILENT));
            self.floors.acknowledged.clear(slot);
        }
    }

    /// The state of these slots for the successor that could begin from their floors: all of these were sent.
    pub(crate) fn takeover_states(
        &self,
        agreements: &[(u16, Agreement)],
    ) -> Vec<(u16, Agreement, TakeoverState)> {
        let core = self.core();
        let (bases, reserves) = (self.floors.bases.load(), self.reserves());
        let current = |(slot, agreement): &&(u16, Agreement)| {
            agreement.attempt > core.agreements.stale
                && core.agreements.senders[usize::from(*slot)].agreement() == Some(*agreement)
        };
        let state_of = |(slot, agreement): &(u16, Agreement)| {
            let (fingerprint, since) = (reserves.fingerprint(), core.agreements.since.number());
            let state = match bases.get(slot) {
                // For rules that are others now nothing is known of how their buckets began.
                Some(basis) if basis.rules != reserves => {
                    TakeoverState { fingerprint, since, before: Some(basis.begun), earlier: None }
                }
                Some(basis) => TakeoverState {
                    fingerprint,
                    since,
                    before: basis.postponed_before(),
                    earlier: Some((basis.earlier.map_or(basis.heard, |(heard, _)| heard), basis.begun)),
                },
                None => {
                    let before = self.floor_of(usize::from(*slot));
                    TakeoverState { fingerprint, since, before, earlier: None }
                }
            };
            (*slot, *agreement, state)
        };
        agreements.iter().filter(current).map(state_of).collect()
    }

    /// The successor is complete.
    pub(crate) fn completed(&self, agreements: impl IntoIterator<Item = (u16, Agreement)>) {
        let mut core = self.core();
        for (slot, agreement) in agreements {
            if agreement.attempt > core.agreements.stale {
                core.agreements.senders[usize::from(slot)].completed(agreement);
            }
        }
        self.count_complete(&core);
    }

    /// The floors that this successor must receive.
    pub(crate) fn take_raises(&self, successor: NodeStart, most: usize) -> Vec<Raise> {
        if self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Vec::new();
        }
        let core = self.core();
        let mut raises = self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        let successor_ref = |key: &KeyHash| {
            let slot = SlotId::of(*key).index();
            let next = core.node.row(slot).and_then(|row| row.successor)?;
            core.agreements.senders[slot].successor_ref().filter(|_| next.node == successor)
        };
        // Floors of slots that are another's now, or that nobody takes over, are sent to nobody.
        raises.retain(|key, _| core.agreements.senders[SlotId::of(*key).index()].successor_ref().is_some());
        let keys: Vec<(KeyHash, SuccessorRef)> =
            raises.keys().filter_map(|key| Some((*key, successor_ref(key)?))).take(most).collect();
        keys.into_iter()
            .filter_map(|(key, successor_ref)| {
                let (rule, mark) = raises.remove(&key)?;
                Some(Raise { key, rule, mark, successor_ref })
            })
            .collect()
    }

    /// What could not be sent is still to be.
    pub(crate) fn put_back(&self, raises: &[Raise]) {
        raises.iter().for_each(|one| self.raise(one.key, one.rule, one.mark));
    }

    /// The successor has these. Returns the slots that there is no room for.
    pub(crate) fn acknowledge(&self, raises: &[Raise], now: Nanos) -> Vec<u16> {
        let core = self.core();
        let mut full = Vec::new();
        for one in raises {
            let slot = SlotId::of(one.key);
            let is_named = core.agreements.senders[slot.index()].successor_ref() == Some(one.successor_ref);
            if is_named && !self.floors.acknowledged.note(slot.index(), one.key, one.mark, now) {
                full.push(slot.get());
            }
        }
        drop(core);
        self.floors.acknowledgements.notify_waiters();
        full.dedup();
        full
    }

    /// Whether a bucket is acknowledged that far.
    pub(crate) fn is_acknowledged(&self, key: KeyHash, mark: Mark) -> bool {
        self.floors.acknowledged.get(SlotId::of(key).index(), key).is_some_and(|known| known >= mark)
    }

    /// How many charges have waited for their floor to be replicated.
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
            core.agreements.senders[*slot].agreement().is_some()
                && next.is_some_and(|next| next.node == successor)
        };
        (0..SLOTS).filter(is_bound).map(|slot| slot as u16).collect()
    }

    /// The successor of these slots is silent. True if the leader is too: then rules that are to stay available go on without
    /// either, until the successor answers again.
    pub(crate) fn is_silent(&self, slots: &[u16], now: Nanos) -> bool {
        let _core = self.core();
        let is_cut_off = !self.has_session(now);
        if is_cut_off {
            slots.iter().for_each(|slot| self.rebind(usize::from(*slot), |binding| binding | SILENT));
        }
        is_cut_off
    }

    /// The successor answers again: floors that were passed meanwhile must be sent.
    pub(crate) fn is_heard_again(&self, slots: &[u16]) {
        let mut core = self.core();
        core.agreements.begin_anew();
        self.count_complete(&core);
        slots.iter().for_each(|slot| self.rebind(usize::from(*slot), |binding| binding & !SILENT));
    }
}
