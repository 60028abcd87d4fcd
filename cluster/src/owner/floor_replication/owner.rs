//! Floors at the owner: which its successors must receive, and what they have acknowledged.

use std::{
    collections::VecDeque,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
};

use tidegate_limiter::{
    Nanos,
    cluster::{KeyHash, Mark, Reserves},
};

use super::{CHANGE, MAX_FORMER, MAX_FORMER_RULES, Raise, SILENT, Side, Since, TakeoverState, bits};
use crate::{
    ids::NodeStart,
    owner::{
        floors::{Agreement, SuccessorRef},
        slot_ownership::{Core, SlotOwnership},
        takeover::{RuleChanges, TakeoverBasis},
    },
    slots::{SLOTS, SlotId},
};

impl SlotOwnership {
    /// The rules with floors are these from now on, as those domains have them since those entries of the log.
    pub(crate) fn set_reserves(&self, reserves: Arc<Reserves>, since: Since) {
        // Under the lock, so that nobody says that all floors were sent for these by what was sent for those before.
        let mut core = self.core();
        let before = self.floors.reserves.swap(Arc::clone(&reserves));
        let is_other = *before != *reserves || core.agreements.since.domains != since.domains;
        core.agreements.since = since;
        if is_other {
            self.add_former_reserves(before);
            core.agreements.begin_anew();
            self.count_complete(&core);
        }
    }

    /// These rules are about to be in force: what they change changes now.
    pub(crate) fn note_changes(&self, reserves: &Reserves, now: Nanos) {
        let begun = self.floors.bases.load().values().map(|basis| basis.begun).min();
        let mut changes = RuleChanges::clone(&self.floors.changes.load());
        changes.note(&self.reserves(), reserves, begun, now);
        self.floors.changes.store(Arc::new(changes));
    }

    /// These rules were in force before, later than those of which this was said so far.
    pub(crate) fn add_former_reserves(&self, reserves: Arc<Reserves>) {
        let mut former = self.former();
        let known = former.iter().position(|known| *known == reserves);
        let reserves = known.and_then(|known| former.remove(known)).unwrap_or(reserves);
        former.push_back(reserves);
        // Those that slots of this node were begun under stay, however many are written.
        let mut needed: Vec<Arc<Reserves>> = Vec::new();
        for basis in self.floors.bases.load().values() {
            if !needed.iter().any(|known| Arc::ptr_eq(known, &basis.rules)) {
                needed.push(Arc::clone(&basis.rules));
            }
        }
        let (mut count, mut rules) = (0, 0);
        let mut is_kept = |known: &Arc<Reserves>| {
            (count, rules) = (count + 1, rules + known.count());
            count == 1 || count <= MAX_FORMER && rules <= MAX_FORMER_RULES || needed.contains(known)
        };
        let mut kept: VecDeque<_> = former.drain(..).rev().filter(&mut is_kept).collect();
        kept.make_contiguous().reverse();
        *former = kept;
    }

    /// The rules of that number, if they are in force or were lately.
    pub(crate) fn reserves_of(&self, number: u64) -> Option<Arc<Reserves>> {
        let (in_force, former) = (self.reserves(), self.former());
        let known = || [&in_force].into_iter().chain(former.iter().rev());
        // Who knows of no others with the same quanta calls them by their fingerprint.
        let exact = known().find(|one| one.number() == number);
        exact.or_else(|| known().find(|one| one.fingerprint() == number)).cloned()
    }

    /// What rules are called that a slot was begun under, for others who may know them too. Earlier versions know them by their
    /// fingerprint.
    pub(crate) fn number_of(&self, rules: &Reserves) -> u64 {
        let (in_force, former) = (self.reserves(), self.former());
        let looks_so = |one: &&Arc<Reserves>| one.fingerprint() == rules.fingerprint();
        let mut alike = [&in_force].into_iter().chain(former.iter()).filter(looks_so);
        if alike.all(|one| one.number() == rules.number()) { rules.fingerprint() } else { rules.number() }
    }

    fn former(&self) -> MutexGuard<'_, VecDeque<Arc<Reserves>>> {
        self.floors.former.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the rules in force are those of a state in which the domains have these revisions, the last of which is `newest`.
    pub(crate) fn floors_are_of(&self, revision: impl Fn(&str) -> Option<u64>, newest: Option<u64>) -> bool {
        self.core().agreements.since.is_of(revision, newest)
    }

    pub(crate) fn reserves(&self) -> Arc<Reserves> {
        self.floors.reserves.load_full()
    }

    /// Takes in who keeps floors of which slots, after a change of the table.
    pub(in crate::owner) fn observe_successors(&self, core: &mut Core) {
        let me = core.node.me();
        for slot in 0..SLOTS {
            let row = core.node.row(slot).copied();
            let successor = row.as_ref().and_then(|row| SuccessorRef::of(me, row));
            let disk = row.as_ref().and_then(|row| self.disk_ref(me, row));
            for (side, named) in [(Side::Successor, successor), (Side::Disk, disk)] {
                if core.agreements.side_mut(side).senders[slot].observe(named) {
                    self.unbind(slot, side);
                }
            }
        }
        core.agreements.forget_inherited();
        self.count_complete(core);
    }

    /// This side does not bind the owner any more.
    pub(super) fn unbind(&self, slot: usize, side: Side) {
        let (bound, silent) = bits(side);
        self.rebind(slot, |binding| binding & !(bound | silent));
        self.floors.acknowledged.clear(slot, side);
    }

    pub(super) fn count_complete(&self, core: &Core) {
        let complete = |side: Side| {
            let senders = &core.agreements.side(side).senders;
            senders.iter().filter(|sender| sender.is_complete()).count() as u64
        };
        self.floors.stats.set_complete(complete(Side::Successor));
        self.floors.stats.set_on_disk(complete(Side::Disk));
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
                let sender = core.agreements.side(Side::Successor).senders[slot];
                let successor_ref = sender.successor_ref().filter(|_| next.node == successor)?;
                // A slot that is moving will have another one.
                let is_moving = core.node.row(slot).is_some_and(|row| row.moving.is_some());
                Some((slot as u16, successor_ref, sender.is_complete() || is_moving))
            })
            .collect()
    }

    /// A new attempt for these slots.
    pub(crate) fn attempt(&self, side: Side, slots: &[(u16, SuccessorRef)]) -> Vec<(u16, Agreement)> {
        let mut core = self.core();
        let owner = core.node.me();
        let agreements = core.agreements.side_mut(side);
        agreements.attempts += 1;
        let attempt = agreements.attempts;
        slots
            .iter()
            .map(|(slot, successor_ref)| (*slot, Agreement { successor_ref: *successor_ref, attempt, owner }))
            .collect()
    }

    /// Binds this node; returns the agreements that hold.
    pub(crate) fn bind(&self, side: Side, agreements: &[(u16, Agreement)]) -> Vec<(u16, Agreement)> {
        let mut core = self.core();
        agreements.iter().filter(|(slot, one)| self.bind_one(&mut core, side, *slot, *one)).copied().collect()
    }

    pub(super) fn bind_one(&self, core: &mut Core, side: Side, slot: u16, agreement: Agreement) -> bool {
        let known = core.agreements.side_mut(side);
        let sender = &mut known.senders[usize::from(slot)];
        let was_bound = sender.agreement().is_some();
        let binds = agreement.attempt > known.stale && sender.bind(agreement);
        if binds && !was_bound {
            self.rebind(usize::from(slot), |binding| binding | bits(side).0);
        }
        binds
    }

    /// Frees this node from an agreement of which that side knows that it is not complete.
    pub(crate) fn free(&self, side: Side, slot: u16, agreement: Agreement) {
        let mut core = self.core();
        if core.agreements.side_mut(side).senders[usize::from(slot)].free(agreement) {
            self.unbind(usize::from(slot), side);
        }
    }

    /// The state of these slots for who could begin from their floors: all of these were sent.
    pub(crate) fn takeover_states(
        &self,
        side: Side,
        agreements: &[(u16, Agreement)],
        now: Nanos,
    ) -> Vec<(u16, Agreement, TakeoverState)> {
        let core = self.core();
        let (bases, reserves, changes) =
            (self.floors.bases.load(), self.reserves(), self.floors.changes.load());
        // Most slots were begun at once.
        let mut told: Vec<(&TakeoverBasis, Option<Nanos>)> = Vec::new();
        let mut told_of = |basis| match told.iter().find(|(known, _)| *known == basis) {
            Some((_, before)) => *before,
            None => {
                let before = TakeoverBasis::told(basis, &reserves, &changes, now);
                told.push((basis, before));
                before
            }
        };
        let current = |(slot, agreement): &&(u16, Agreement)| core.agreements.holds(side, *slot, agreement);
        let mut state_of = |(slot, agreement): &(u16, Agreement)| {
            let (fingerprint, since) = (reserves.fingerprint(), core.agreements.since.number());
            let state = match bases.get(slot) {
                Some(basis) => {
                    let (before, earlier) = (told_of(basis), basis.takeovers());
                    TakeoverState { fingerprint, since, before, earlier }
                }
                None => {
                    let before = self.floor_of(usize::from(*slot));
                    TakeoverState { fingerprint, since, before, earlier: Vec::new() }
                }
            };
            (*slot, *agreement, state)
        };
        agreements.iter().filter(current).map(&mut state_of).collect()
    }

    /// That side is complete.
    pub(crate) fn completed(&self, side: Side, agreements: impl IntoIterator<Item = (u16, Agreement)>) {
        let mut core = self.core();
        for (slot, agreement) in agreements {
            if core.agreements.holds(side, slot, &agreement) {
                core.agreements.side_mut(side).senders[usize::from(slot)].completed(agreement);
            }
        }
        self.count_complete(&core);
    }

    /// The floors that this successor must receive.
    pub(crate) fn take_raises(&self, successor: NodeStart, most: usize) -> Vec<Raise> {
        self.take_raises_of(Side::Successor, most, |core, slot| {
            core.node.row(slot).and_then(|row| row.successor).is_some_and(|next| next.node == successor)
        })
    }

    pub(super) fn take_raises_of(
        &self,
        side: Side,
        most: usize,
        is_wanted: impl Fn(&Core, usize) -> bool,
    ) -> Vec<Raise> {
        let raises = || self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        if raises()[side as usize].is_empty() {
            return Vec::new();
        }
        let core = self.core();
        let mut raises = raises();
        let raises = &mut raises[side as usize];
        let senders = &core.agreements.side(side).senders;
        let named = |key: &KeyHash| senders[SlotId::of(*key).index()].successor_ref();
        // Floors of slots that are another's now, or that nobody takes over, are sent to nobody.
        raises.retain(|key, _| named(key).is_some());
        let is_wanted = |key: &&KeyHash| is_wanted(&core, SlotId::of(**key).index());
        let keys: Vec<(KeyHash, SuccessorRef)> =
            raises.keys().filter(is_wanted).filter_map(|key| Some((*key, named(key)?))).take(most).collect();
        keys.into_iter()
            .filter_map(|(key, successor_ref)| {
                let (rule, mark) = raises.remove(&key)?;
                Some(Raise { key, rule, mark, successor_ref })
            })
            .collect()
    }

    /// What could not be sent is still to be.
    pub(crate) fn put_back(&self, side: Side, raises: &[Raise]) {
        raises.iter().for_each(|one| self.raise(one.key, one.rule, one.mark, bits(side).0));
    }

    /// That side has these. Returns the slots that there is no room for.
    pub(crate) fn acknowledge(&self, side: Side, raises: &[Raise], now: Nanos) -> Vec<u16> {
        let core = self.core();
        let mut full = Vec::new();
        for one in raises {
            let slot = SlotId::of(one.key);
            let sender = core.agreements.side(side).senders[slot.index()];
            let is_named = sender.successor_ref() == Some(one.successor_ref);
            if is_named && !self.floors.acknowledged.note(slot.index(), one.key, side, one.mark, now) {
                full.push(slot.get());
            }
        }
        drop(core);
        self.floors.acknowledgements.notify_waiters();
        full.dedup();
        full
    }

    /// How far that side has acknowledged a bucket.
    pub(crate) fn acknowledged_by(&self, side: Side, key: KeyHash) -> Option<Mark> {
        self.floors.acknowledged.get(SlotId::of(key).index(), key, &[side]).filter(|mark| mark.get() != 0)
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
            core.agreements.side(Side::Successor).senders[*slot].agreement().is_some()
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
        core.agreements.side_mut(Side::Successor).begin_anew();
        self.count_complete(&core);
        slots.iter().for_each(|slot| self.rebind(usize::from(*slot), |binding| binding & !SILENT));
    }
}
