//! Floors where checks meet them: how far a charge may go, what is to be told to successors, and what this node was told as
//! one. `floors` says when either counts.

mod owner;
mod successor;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, SeqCst},
        },
    },
};

use arc_swap::ArcSwap;
use tidegate_limiter::{
    Algorithm, Charge, Consistency, Cost, Decision, Floor, KeyHash, Limit, Mark, Nanos, Reserve, Reserves,
    RuleId,
};
use tokio::sync::Notify;

use super::{
    acknowledged::Acknowledged,
    floors::Naming,
    rights::{Claim, Rights},
    table::Holder,
};
use crate::{slots::SLOTS, stats::FloorStats};

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
    raises: Mutex<HashMap<KeyHash, (RuleId, Mark)>>,
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

    /// `None`: the bucket is exhausted when the slot was begun.
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
        let mark = reserve.at_least(limit, self.heard, self.begun)?;
        // The owner before, if it had taken over from floors too, need not have told what it assumed itself.
        let assumed = self.elder.and_then(|(heard, begun)| reserve.at_least(limit, heard, begun));
        let is_of_window = limit.algorithm() == Algorithm::FixedWindow;
        let assumed = assumed.filter(|_| !is_of_window).unwrap_or_default();
        Some(mark.max(assumed.postponed(self.begun.saturating_since(self.heard))))
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
    /// [Since](Since::number) when it had them.
    pub(crate) since: u64,
    /// When the owner had counted all buckets as used up.
    pub(crate) before: Option<Nanos>,
    pub(crate) elder: Option<(Nanos, Nanos)>,
}

/// Since which entries of the log the domains whose rules have floors have these rules.
///
/// An owner admits without telling its successor while no rule has floors. When the same rules are back, the successor may
/// still have what it was told before, all of it, by the same bond. So **floors count only under the very writes of the rules
/// under which they were told**. By their content the rules of before and after can not be told apart; by their place in the
/// log they can, also at a node that has skipped what was in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Since(BTreeMap<Arc<str>, u64>);

impl Since {
    pub(crate) fn new(domains: impl IntoIterator<Item = (Arc<str>, u64)>) -> Self {
        Self(domains.into_iter().collect())
    }

    /// Whether each of these domains has that revision.
    fn is_of(&self, revision: impl Fn(&str) -> Option<u64>) -> bool {
        self.0.iter().all(|(domain, since)| revision(domain) == Some(*since))
    }

    /// A number that differs where these do.
    fn number(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for (domain, since) in &self.0 {
            hasher.update(&(domain.len() as u64).to_le_bytes());
            hasher.update(domain.as_bytes());
            hasher.update(&since.to_le_bytes());
        }
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes"))
    }
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
    since: Since,
    inheritances: BTreeMap<u16, Inheritance>,
    heard: BTreeMap<Holder, Heard>,
}

impl Default for Tellings {
    fn default() -> Self {
        Self {
            tellers: (0..SLOTS).map(|_| Default::default()).collect(),
            attempts: 0,
            stale: 0,
            since: Since::default(),
            inheritances: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }
}

/// A bucket that is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) key: KeyHash,
    pub(crate) rule: RuleId,
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
                self.raise(charge.key, charge.rule, told.reserve.ahead(mark));
            }
        }
    }

    /// A charge is [held](Decision::is_held): has its successor told, at once.
    pub(crate) fn want(&self, claim: &Claim, charge: &Charge, decision: &Decision, now: Nanos) {
        if let Some(told) = claim.told.filter(|_| decision.is_held()) {
            let mark = told.reserve.mark(&charge.limit, charge.cost, decision, now);
            self.raise(charge.key, charge.rule, told.reserve.ahead(mark));
            self.floors.stats.count_held();
            self.floors.wants.fetch_add(1, SeqCst);
            self.floors.urgent.notify_waiters();
        }
    }

    fn raise(&self, key: KeyHash, rule: RuleId, mark: Mark) {
        let mut raises = self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = raises.get_mut(&key) {
            *known = mark.max(*known);
        } else if raises.len() < MAX_RAISES {
            raises.insert(key, (rule, mark));
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

impl Tellings {
    /// No successor is complete any more, until all is told again.
    fn begin_anew(&mut self) {
        self.stale = self.attempts;
        for teller in &mut self.tellers {
            teller.doubt();
        }
    }
}
