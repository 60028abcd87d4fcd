//! Floors where checks meet them: how far a charge may go, what is to be told to successors, and what this node was told as
//! one. `floors` says when either counts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tidegate_limiter::{
    Charge, Consistency, Cost, Decision, Floor, KeyHash, Limit, Mark, Nanos, Reserve, Reserves,
};
use tokio::sync::Notify;

use super::{
    acknowledged::Acknowledged,
    floors::{Bond, Naming},
    rights::{Claim, Core, Rights},
    table::Holder,
};
use crate::{
    slots::{SLOTS, SlotId},
    stats::FloorStats,
};

/// What a charge sees of the agreement with the successor. The other bits count changes.
const BOUND: u64 = 1;
/// The slot was begun from floors.
const BORN: u64 = 2;
/// The successor is silent, and so is the leader.
const SILENT: u64 = 4;
const CHANGE: u64 = 8;

/// Buckets that wait to be told of. Beyond that a charge that needs it is held, and asks again.
const MAX_RAISES: usize = 1 << 16;
/// Owners of which it is known when they were heard of.
const MAX_OWNERS: usize = 1024;

/// This node's floors: those that it tells, and those that it was told.
#[derive(Debug)]
pub(super) struct Floors {
    /// For each slot: [`BOUND`], [`BORN`], [`SILENT`].
    bindings: Box<[AtomicU64]>,
    acknowledged: Acknowledged,
    /// Of the slots that were begun from floors.
    births: ArcSwap<BTreeMap<u16, Arc<Birth>>>,
    /// The rules in force that have floors.
    reserves: ArcSwap<Reserves>,
    raises: Mutex<HashMap<KeyHash, Mark>>,
    /// Some charge waits for what is among the raises; so many did.
    urgent: Notify,
    wants: AtomicU64,
    /// More is acknowledged.
    told: Notify,
    /// Counts changes of what there is to do.
    version: AtomicU64,
    stats: Arc<FloorStats>,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            bindings: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            acknowledged: Acknowledged::default(),
            births: ArcSwap::default(),
            reserves: ArcSwap::default(),
            raises: Mutex::default(),
            urgent: Notify::new(),
            wants: AtomicU64::new(0),
            told: Notify::new(),
            version: AtomicU64::new(0),
            stats: Arc::default(),
        }
    }
}

/// How a slot was begun from floors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Birth {
    /// The rules that had floors then: buckets of others count as used up.
    pub(crate) rules: Arc<Reserves>,
    /// When the owner before was heard of for the last time.
    pub(crate) heard: Nanos,
    pub(crate) begun: Nanos,
    /// When the owner before had counted all buckets as used up.
    pub(crate) before: Option<Nanos>,
    /// The same two instants of the owner before, if it had begun from floors too.
    pub(crate) elder: Option<(Nanos, Nanos)>,
}

impl Birth {
    /// With the rules in force; `None` if those of that fingerprint were others: then its buckets count as used up.
    pub(crate) fn with(self, fingerprint: u64, rules: Arc<Reserves>) -> Option<Arc<Self>> {
        (rules.fingerprint() == fingerprint).then(|| Arc::new(Self { rules, ..self }))
    }

    /// `None`: the bucket counts as used up when the slot was begun.
    fn at_least(&self, reserve: Reserve, limit: &Limit) -> Option<Mark> {
        if !self.rules.contains(reserve) {
            return None;
        }
        // A window that has ended while nobody could tell counts as used up, to the next owner too.
        if let Some((heard, begun)) = self.elder
            && reserve.at_least(limit, heard, begun).is_none()
            && reserve.at_least(limit, begun, self.begun).is_some()
        {
            return None;
        }
        reserve.at_least(limit, self.heard, self.begun)
    }
}

/// What a claim says of the floors, for a charge whose rule has some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    reserve: Reserve,
    at_most: Mark,
    binding: u64,
    /// It is decided beyond the floors: neither the leader nor the successor answers, and the rule is to stay available.
    beyond: bool,
}

/// What an owner says when it has told all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inheritance {
    /// Of the rules that have floors, as the owner had them.
    pub(crate) fingerprint: u64,
    /// When the owner had counted all buckets as used up.
    pub(crate) before: Option<Nanos>,
    pub(crate) elder: Option<(Nanos, Nanos)>,
}

/// When an owner was alive for sure, as its successor knows.
#[derive(Debug, Clone, Copy)]
struct Heard {
    /// The last answer to it, and when it was given.
    answer: (u64, Nanos),
    alive: Option<Nanos>,
}

/// What is known under the lock of [`Rights`].
#[derive(Debug)]
pub(super) struct Tellings {
    tellers: Box<[super::floors::Teller]>,
    attempts: u64,
    /// Attempts up to this one do not count any more.
    stale: u64,
    inheritances: BTreeMap<u16, Inheritance>,
    heard: BTreeMap<Holder, Heard>,
}

impl Default for Tellings {
    fn default() -> Self {
        Self {
            tellers: (0..SLOTS).map(|_| Default::default()).collect(),
            attempts: 0,
            stale: 0,
            inheritances: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }
}

/// A bucket that is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) key: KeyHash,
    pub(crate) mark: Mark,
    pub(crate) naming: Naming,
}

/// The way of a check.
impl Rights {
    /// What is said of a bucket beside what is known of it here.
    #[inline]
    pub(crate) fn bounds(
        &self,
        claim: &mut Claim,
        charge: &Charge,
        reserve: Option<Reserve>,
        now: Nanos,
    ) -> Option<Floor> {
        match reserve {
            None => claim.floor.map(Floor::empty_at),
            Some(reserve) => self.bounds_of(claim, charge, reserve, now),
        }
    }

    fn bounds_of(&self, claim: &mut Claim, charge: &Charge, reserve: Reserve, now: Nanos) -> Option<Floor> {
        let slot = claim.slot.index();
        let binding = self.floors.bindings[slot].load(Acquire);
        let (mut empty_at, mut at_least) = (claim.floor, Mark::default());
        if binding & BORN != 0
            && let Some(birth) = self.floors.births.load().get(&claim.slot.get())
            && let Some(mark) = birth.at_least(reserve, &charge.limit)
        {
            (empty_at, at_least) = (birth.before, mark);
        }
        let mut told = Told { reserve, at_most: Mark::new(u64::MAX), binding, beyond: false };
        if binding & BOUND != 0 && charge.cost != Cost::PEEK {
            let is_cut_off = binding & SILENT != 0 && !self.has_session(now);
            told.beyond = is_cut_off && claim.consistency == Consistency::Available;
            if !told.beyond {
                let acknowledged = self.floors.acknowledged.get(slot, charge.key);
                told.at_most = reserve.at_most(&charge.limit, acknowledged, now);
            }
        }
        claim.told = Some(told);
        (empty_at.is_some() || at_least != Mark::default() || told.at_most != Mark::new(u64::MAX))
            .then(|| Floor::between(empty_at, at_least, told.at_most))
    }

    /// Whether the agreement is what it was when the charge was made. The caller has made a fence.
    #[inline]
    pub(super) fn is_as_told(&self, claim: &Claim, now: Nanos) -> bool {
        claim.told.is_none_or(|told| {
            let binding = self.floors.bindings[claim.slot.index()].load(Acquire);
            binding == told.binding && !(told.beyond && self.has_session(now))
        })
    }

    /// A charge counts: tells the successor more, if that is near what it knows.
    #[inline]
    pub(crate) fn spent(&self, claim: &Claim, charge: &Charge, decision: &Decision, now: Nanos) {
        if let Some(told) = claim.told
            && told.binding & BOUND != 0
            && !told.beyond
            && charge.cost != Cost::PEEK
        {
            let mark = told.reserve.mark(&charge.limit, charge.cost, decision, now);
            if decision.allowed && told.reserve.is_near(mark, told.at_most) {
                self.raise(charge.key, told.reserve.ahead(mark));
            }
        }
    }

    /// A charge is [held](Decision::is_held): has its successor told, at once.
    pub(crate) fn want(&self, claim: &Claim, charge: &Charge, decision: &Decision, now: Nanos) {
        if let Some(told) = claim.told.filter(|_| decision.is_held()) {
            let mark = told.reserve.mark(&charge.limit, charge.cost, decision, now);
            self.raise(charge.key, told.reserve.ahead(mark));
            self.floors.stats.count_held();
            self.floors.wants.fetch_add(1, SeqCst);
            self.floors.urgent.notify_waiters();
        }
    }

    fn raise(&self, key: KeyHash, mark: Mark) {
        let mut raises = self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = raises.get_mut(&key) {
            *known = mark.max(*known);
        } else if raises.len() < MAX_RAISES {
            raises.insert(key, mark);
        }
    }

    /// Wakes who waits for more to be acknowledged.
    pub(crate) fn acknowledgements(&self) -> &Notify {
        &self.floors.told
    }

    /// What is counted of floors.
    pub(crate) fn floor_stats(&self) -> &Arc<FloorStats> {
        &self.floors.stats
    }

    /// The rule with that number, if it has floors.
    pub(crate) fn reserve(&self, rule: u64) -> Option<Reserve> {
        self.floors.reserves.load().get(rule)
    }
}

/// The owner's side.
impl Rights {
    /// The rules with floors are these from now on.
    pub(crate) fn set_reserves(&self, reserves: Arc<Reserves>) {
        let before = self.floors.reserves.swap(Arc::clone(&reserves));
        if *before != *reserves {
            let mut core = self.core();
            core.tellings.begin_anew();
            self.count_complete(&core);
        }
    }

    pub(crate) fn reserves(&self) -> Arc<Reserves> {
        self.floors.reserves.load_full()
    }

    /// Takes in who is to be told, after a change of the table.
    pub(super) fn observe_successors(&self, core: &mut Core) {
        let me = core.node.me();
        for slot in 0..SLOTS {
            let naming = core.node.row(slot).and_then(|row| Naming::of(me, row));
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

    fn rebind(&self, slot: usize, change: impl Fn(u64) -> u64) {
        let binding = &self.floors.bindings[slot];
        binding.store(change(binding.load(Relaxed)) + CHANGE, SeqCst);
        fence(SeqCst);
    }

    /// Grows whenever there may be something else to do.
    pub(crate) fn version(&self) -> u64 {
        self.floors.version.load(SeqCst)
    }

    /// Who is to be told of slots of this node.
    pub(crate) fn successors(&self) -> Vec<Holder> {
        let core = self.core();
        let me = core.node.me();
        let rows = (0..SLOTS).filter_map(|slot| core.node.row(slot));
        let named = rows.filter(|row| row.owner == me).filter_map(|row| row.successor);
        let mut holders: Vec<Holder> = named.map(|next| next.holder).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// The slots of which this successor is to be told, and whether there is nothing to do about them.
    pub(crate) fn told_to(&self, successor: Holder) -> Vec<(u16, Naming, bool)> {
        let core = self.core();
        (0..SLOTS)
            .filter_map(|slot| {
                let next = core.node.row(slot)?.successor?;
                let teller = core.tellings.tellers[slot];
                let naming = teller.naming().filter(|_| next.holder == successor)?;
                // Of a slot that is moving another one will be told.
                let is_moving = core.node.row(slot).is_some_and(|row| row.moving.is_some());
                Some((slot as u16, naming, teller.is_complete() || is_moving))
            })
            .collect()
    }

    /// A new attempt for these slots.
    pub(crate) fn attempt(&self, slots: &[(u16, Naming)]) -> Vec<(u16, Bond)> {
        let mut core = self.core();
        core.tellings.attempts += 1;
        let (attempt, owner) = (core.tellings.attempts, core.node.me());
        slots.iter().map(|(slot, naming)| (*slot, Bond { naming: *naming, attempt, owner })).collect()
    }

    /// Binds this node; returns the bonds that hold.
    pub(crate) fn bind(&self, bonds: &[(u16, Bond)]) -> Vec<(u16, Bond)> {
        let mut core = self.core();
        let is_stale = |bond: &Bond| bond.attempt <= core.tellings.stale;
        let bonds: Vec<(u16, Bond)> = bonds.iter().filter(|(_, bond)| !is_stale(bond)).copied().collect();
        let bind = |(slot, bond): &(u16, Bond)| {
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
    pub(crate) fn free(&self, slot: u16, bond: Bond) {
        let mut core = self.core();
        let slot = usize::from(slot);
        if core.tellings.tellers[slot].free(bond) {
            self.rebind(slot, |binding| binding & !(BOUND | SILENT));
            self.floors.acknowledged.clear(slot);
        }
    }

    /// What is said of these slots to who could begin from their floors: all was told.
    pub(crate) fn testament(&self, bonds: &[(u16, Bond)]) -> Vec<(u16, Bond, Inheritance)> {
        let core = self.core();
        let (births, reserves) = (self.floors.births.load(), self.reserves());
        let current = |(slot, bond): &&(u16, Bond)| {
            bond.attempt > core.tellings.stale
                && core.tellings.tellers[usize::from(*slot)].bond() == Some(*bond)
        };
        let tell = |(slot, bond): &(u16, Bond)| {
            let fingerprint = reserves.fingerprint();
            let inheritance = match births.get(slot) {
                // Of rules that are others now it can not be told how their buckets begun.
                Some(birth) if birth.rules != reserves => {
                    Inheritance { fingerprint, before: Some(birth.begun), elder: None }
                }
                Some(birth) => Inheritance {
                    fingerprint,
                    before: birth.before,
                    elder: Some((birth.elder.map_or(birth.heard, |(heard, _)| heard), birth.begun)),
                },
                None => Inheritance { fingerprint, before: self.floor_of(usize::from(*slot)), elder: None },
            };
            (*slot, *bond, inheritance)
        };
        bonds.iter().filter(current).map(tell).collect()
    }

    /// The successor is complete.
    pub(crate) fn completed(&self, bonds: impl IntoIterator<Item = (u16, Bond)>) {
        let mut core = self.core();
        for (slot, bond) in bonds {
            if bond.attempt > core.tellings.stale {
                core.tellings.tellers[usize::from(slot)].completed(bond);
            }
        }
        self.count_complete(&core);
    }

    /// What this successor has to be told of.
    pub(crate) fn take_raises(&self, successor: Holder, most: usize) -> Vec<Raise> {
        if self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Vec::new();
        }
        let core = self.core();
        let mut raises = self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        let naming = |key: &KeyHash| {
            let slot = SlotId::of(*key).index();
            let next = core.node.row(slot).and_then(|row| row.successor)?;
            core.tellings.tellers[slot].naming().filter(|_| next.holder == successor)
        };
        // Of slots that are another's now, or that nobody takes over, nobody is told.
        raises.retain(|key, _| core.tellings.tellers[SlotId::of(*key).index()].naming().is_some());
        let keys: Vec<(KeyHash, Naming)> =
            raises.keys().filter_map(|key| Some((*key, naming(key)?))).take(most).collect();
        keys.into_iter()
            .filter_map(|(key, naming)| Some(Raise { key, mark: raises.remove(&key)?, naming }))
            .collect()
    }

    /// What could not be told is still to be.
    pub(crate) fn put_back(&self, raises: &[Raise]) {
        raises.iter().for_each(|one| self.raise(one.key, one.mark));
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
    pub(crate) fn bound_to(&self, successor: Holder) -> Vec<u16> {
        let core = self.core();
        let is_bound = |slot: &usize| {
            let next = core.node.row(*slot).and_then(|row| row.successor);
            core.tellings.tellers[*slot].bond().is_some() && next.is_some_and(|next| next.holder == successor)
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

/// The successor's side.
impl Rights {
    /// An owner says something; `answer` is the number of the last answer that it has got.
    pub(crate) fn hear(&self, owner: Holder, answer: u64, now: Nanos) {
        let mut core = self.core();
        let heard = &mut core.tellings.heard;
        if heard.len() > MAX_OWNERS {
            heard.clear();
        }
        let known = heard.entry(owner).or_insert(Heard { answer: (0, now), alive: None });
        // It was alive when it got that answer, which was not before it was given.
        if answer != 0 && known.answer.0 == answer {
            known.alive = known.alive.max(Some(known.answer.1));
        }
    }

    /// The owner is being answered; by this number.
    pub(crate) fn answer(&self, owner: Holder, now: Nanos) -> u64 {
        let mut core = self.core();
        let known = core.tellings.heard.entry(owner).or_insert(Heard { answer: (0, now), alive: None });
        known.answer = (known.answer.0 + 1, now);
        known.answer.0
    }

    /// An owner begins to tell of these slots.
    pub(crate) fn begin_hearing(&self, bonds: &[(u16, Bond)]) {
        let mut core = self.core();
        bonds.iter().for_each(|(slot, bond)| core.node.heir(*slot).begin(*bond));
    }

    /// An owner has told all of these slots.
    pub(crate) fn complete_hearing(&self, testament: &[(u16, Bond, Inheritance)]) {
        let mut core = self.core();
        for (slot, bond, inheritance) in testament {
            if core.node.heir(*slot).complete(*bond) {
                core.tellings.inheritances.insert(*slot, *inheritance);
            }
        }
    }

    /// How this node begins a slot from the floors of that owner; `None`: its buckets count as used up.
    pub(super) fn birth(&self, core: &Core, slot: usize, owner: Holder, now: Nanos) -> Option<Birth> {
        let inheritance = core.tellings.inheritances.get(&(slot as u16))?;
        let heard = core.tellings.heard.get(&owner)?.alive?;
        let rules = self.reserves();
        (inheritance.fingerprint == rules.fingerprint() && !rules.is_empty()).then_some(Birth {
            rules,
            heard,
            begun: now,
            before: inheritance.before,
            elder: inheritance.elder,
        })
    }

    /// A new tenure of these slots; `None`: not from floors. Before a check can claim them.
    pub(super) fn bear(&self, slots: &[(usize, Option<Arc<Birth>>)]) {
        let mut births = BTreeMap::clone(&self.floors.births.load());
        for (slot, birth) in slots {
            match birth {
                Some(birth) => births.insert(*slot as u16, Arc::clone(birth)),
                None => births.remove(&(*slot as u16)),
            };
        }
        self.floors.births.store(Arc::new(births));
        for (slot, birth) in slots {
            let born = if birth.is_some() { BORN } else { 0 };
            self.rebind(*slot, |binding| binding & !BORN | born);
        }
    }

    /// How this slot was begun.
    pub(crate) fn birth_of(&self, slot: u16) -> Option<Arc<Birth>> {
        self.floors.births.load().get(&slot).cloned()
    }

    /// How long time is to stand still for the buckets of slots that are begun from floors: nobody can tell what the shares of
    /// others admitted meanwhile.
    pub(super) fn unheard(births: &[(usize, Option<Arc<Birth>>)]) -> Duration {
        let born = births.iter().filter_map(|(_, birth)| birth.as_ref());
        born.map(|birth| birth.begun.saturating_since(birth.heard)).max().unwrap_or_default()
    }
}

impl Tellings {
    /// No successor is complete any more, until all is told again.
    fn begin_anew(&mut self) {
        self.stale = self.attempts;
        for teller in &mut self.tellers {
            teller.doubt();
        }
    }
}
