//! The buckets of a node, shared by all of its threads.
//!
//! Only buckets in debt are kept: a full one looks the same as one never seen. Each is 16 bytes, fingerprint and state,
//! in the shards of a dashmap; a check locks the shards of its buckets, in the order of their numbers, decides about all
//! of them and then charges all or none.
//!
//! Memory is bounded ([`StoreConfig::max_memory`]). When a shard is full, the state of a further bucket goes into a
//! [`sketch`] of fixed size, which can confuse it with others and then makes it stricter, never looser: dropping the
//! bucket instead would refill it.

mod holds;
mod sketch;

use std::{
    hash::{BuildHasher, Hasher},
    sync::{Mutex, OnceLock, PoisonError},
};

use dashmap::{DashMap, RwLockWriteGuard, SharedValue};
use hashbrown::raw::RawTable;
use smallvec::SmallVec;

pub use self::holds::HoldId;
use self::{holds::Holds, sketch::Sketch};
use crate::{
    Charge, Cost, Decision, KeyHash, Limit, Mode, Nanos,
    algorithm::gcra::{self, Step},
    limit::TICKS_PER_NANO,
};

/// Bytes that a bucket takes at worst: 17 in a table that is just over half of its most filled.
const BYTES_PER_BUCKET: usize = 39;
/// The part of the memory that the sketch may take: one in so many.
const SKETCH_PART: usize = 8;

/// How a store is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes that the buckets may take, all told.
    pub max_memory: usize,
    /// How many parts are locked by themselves; rounded up to a power of two. More of them let more threads work side
    /// by side and make sweeping one shorter.
    pub shards: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { max_memory: 256 << 20, shards: 1024 }
    }
}

/// The buckets.
#[derive(Debug)]
pub struct Store {
    buckets: DashMap<u64, u64, Unhashed>,
    /// Buckets that one shard may hold.
    shard_capacity: usize,
    /// For the buckets beyond that; made when the first comes.
    sketch: OnceLock<Sketch>,
    sketch_bytes: usize,
    /// Charges that may be undone. A lock of its own, taken before those of shards: it is only for checks whose
    /// buckets have several owners, and the order of charges and undos must be the same for all of them.
    holds: Mutex<Holds>,
    /// The instant that states are counted from.
    origin: u64,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Buckets with a state of their own.
    pub buckets: usize,
    /// Bytes that they take, tables and sketch together.
    pub bytes: usize,
    /// States that went into the sketch since the start.
    pub folded: u64,
}

type Shard<'a> = RwLockWriteGuard<'a, RawTable<(u64, SharedValue<u64>)>>;

impl Store {
    /// An empty store. States are counted from `origin`; no later instant may be further away than 26 years.
    pub fn new(config: StoreConfig, origin: Nanos) -> Self {
        let shards = config.shards.next_power_of_two().max(2);
        let sketch_bytes = config.max_memory / SKETCH_PART;
        let capacity = (config.max_memory - sketch_bytes) / BYTES_PER_BUCKET;
        Self {
            buckets: DashMap::with_hasher_and_shard_amount(Unhashed, shards),
            shard_capacity: (capacity / shards).max(1),
            sketch: OnceLock::new(),
            sketch_bytes,
            holds: Mutex::default(),
            origin: origin.get(),
        }
    }

    /// Decides about one bucket, and charges it if it allows.
    pub fn check(&self, charge: &Charge, now: Nanos) -> Decision {
        let mut shard = self.lock(self.shard_of(charge.key));
        let step = self.decide(&shard, charge, self.ticks(now));
        if step.decision.allowed && charge.cost != Cost::PEEK {
            self.put(&mut shard, charge.key, step.tat, self.ticks(now));
        }
        step.decision
    }

    /// Decides about all buckets of a check at once. True if every one that is enforced allows; then all of those are
    /// charged, and of those in shadow mode each one that allows. Otherwise none is. Appends a decision for each.
    pub fn check_all(&self, charges: &[Charge], now: Nanos, decisions: &mut SmallVec<[Decision; 4]>) -> bool {
        if let [charge] = charges {
            let decision = self.check(charge, now);
            decisions.push(decision);
            return decision.allowed || charge.mode == Mode::Shadow;
        }
        self.charge_all(charges, now, decisions).is_some()
    }

    /// As [`Store::check_all`], but what was charged can be undone until `until`. There is no id when nothing was
    /// charged, or when too many charges can be undone already: these then stay.
    pub fn hold(
        &self,
        charges: &[Charge],
        now: Nanos,
        until: Nanos,
        decisions: &mut SmallVec<[Decision; 4]>,
    ) -> (bool, Option<HoldId>) {
        let mut holds = self.holds();
        match self.charge_all(charges, now, decisions) {
            Some(charged) => (true, holds.add(charged, self.ticks(now), self.ticks(until))),
            None => (false, None),
        }
    }

    /// Takes back what was charged under `hold`, once, because the request did not run after all. A bucket gets back no
    /// more than it would hold had the charge never been made.
    pub fn undo(&self, hold: HoldId, now: Nanos) {
        let now = self.ticks(now);
        let mut holds = self.holds();
        // The last first: of two charges of one bucket only the later one's end depends on the other.
        for charged in holds.take(hold, now).into_iter().rev() {
            // Had the charge not been made, the bucket would have been full for a part of the time since then, and what
            // refilled in that part is lost either way. So no more is given back than the bucket has been in debt at
            // each instant since, which is at least what its known state leaves now.
            let credit = charged.ticks.min(charged.full_at.saturating_sub(now));
            let mut shard = self.lock(self.shard_of(charged.key));
            let key = charged.key.get();
            if let Some((_, state)) = shard.get_mut(key, |(known, _)| *known == key) {
                let tat = state.get_mut();
                *tat = tat.saturating_sub(credit);
                holds.note_lowered(charged.key, credit, Some(hold));
            }
        }
    }

    /// Gives units back to a bucket, as far as it has debts.
    pub fn refund(&self, key: KeyHash, limit: &Limit, cost: Cost, now: Nanos) {
        let mut holds = self.holds();
        let mut shard = self.lock(self.shard_of(key));
        let bits = key.get();
        if let Some((_, state)) = shard.get_mut(bits, |(known, _)| *known == bits) {
            let tat = state.get_mut();
            let before = *tat;
            *tat = before.saturating_sub(limit.interval().saturating_mul(cost.get())).max(self.ticks(now));
            holds.note_lowered(key, before.saturating_sub(*tat), None);
        }
    }

    /// Forgets a bucket: it is full again (unless its state has gone into the sketch).
    pub fn reset(&self, key: KeyHash) {
        let mut holds = self.holds();
        self.buckets.remove(&key.get());
        // Nothing charged before is there to be given back.
        holds.note_lowered(key, u64::MAX, None);
    }

    /// Removes the buckets that are full again. One shard is locked at a time, for some microseconds; call it every few
    /// seconds from a thread that serves nobody.
    pub fn sweep(&self, now: Nanos) {
        let now = self.ticks(now);
        self.buckets.retain(|_, tat| *tat > now);
    }

    /// What the store holds. It looks at each shard: for metrics, not for the way of a check.
    pub fn stats(&self) -> StoreStats {
        let entry = size_of::<(u64, u64)>() + 1;
        let tables: usize = self.buckets.shards().iter().map(|shard| shard.read().buckets() * entry).sum();
        let sketch = self.sketch.get();
        StoreStats {
            buckets: self.buckets.len(),
            bytes: tables + sketch.map_or(0, Sketch::bytes),
            folded: sketch.map_or(0, Sketch::folded),
        }
    }

    /// Charges all buckets or none, with all their shards locked. Returns what was charged.
    fn charge_all(
        &self,
        charges: &[Charge],
        now: Nanos,
        decisions: &mut SmallVec<[Decision; 4]>,
    ) -> Option<SmallVec<[Charged; 4]>> {
        let now = self.ticks(now);
        let mut numbers: SmallVec<[usize; 4]> =
            charges.iter().map(|charge| self.shard_of(charge.key)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        // Always in this order: two checks that need the same shards can not wait for each other.
        let mut shards: SmallVec<[(usize, Shard<'_>); 4]> =
            numbers.into_iter().map(|number| (number, self.lock(number))).collect();

        let mut charged: SmallVec<[Charged; 4]> = SmallVec::new();
        let mut allowed = true;
        for charge in charges {
            let place = place_of(&shards, self.shard_of(charge.key));
            let mut step = self.decide(&shards[place].1, charge, now);
            // The same bucket may be charged twice by one check.
            if let Some(earlier) = charged.iter().rev().find(|earlier| earlier.key == charge.key) {
                let floor = charge.floor.map(|floor| self.ticks(floor));
                step = gcra::decide(&charge.limit, earlier.full_at, floor, charge.cost, now);
            }
            decisions.push(step.decision);
            if step.decision.allowed {
                let ticks = charge.limit.interval() * charge.cost.get();
                charged.push(Charged { key: charge.key, ticks, full_at: step.tat });
            } else if charge.mode == Mode::Enforce {
                allowed = false;
            }
        }
        if !allowed {
            return None;
        }
        for charged in charged.iter().filter(|charged| charged.ticks > 0) {
            let place = place_of(&shards, self.shard_of(charged.key));
            self.put(&mut shards[place].1, charged.key, charged.full_at, now);
        }
        Some(charged)
    }

    fn decide(&self, shard: &Shard<'_>, charge: &Charge, now: u64) -> Step {
        let key = charge.key.get();
        let known = shard.get(key, |(known, _)| *known == key).map(|(_, state)| *state.get());
        let tat = known.unwrap_or_else(|| self.sketch.get().map_or(0, |sketch| sketch.estimate(charge.key)));
        gcra::decide(&charge.limit, tat, charge.floor.map(|floor| self.ticks(floor)), charge.cost, now)
    }

    fn put(&self, shard: &mut Shard<'_>, key: KeyHash, tat: u64, now: u64) {
        let bits = key.get();
        if let Some((_, state)) = shard.get_mut(bits, |(known, _)| *known == bits) {
            *state.get_mut() = tat;
        } else if shard.len() < self.shard_capacity {
            shard.insert(bits, (bits, SharedValue::new(tat)), |(key, _)| *key);
        } else if tat > now {
            // Under the shard's lock, so that two checks of this bucket can not both miss each other.
            self.sketch.get_or_init(|| Sketch::new(self.sketch_bytes)).raise(key, tat);
        }
    }

    /// Dashmap looks for the shard in the bits below the top seven, its tables use the lowest and the top seven: all of
    /// them are equally random in a fingerprint.
    fn shard_of(&self, key: KeyHash) -> usize {
        self.buckets.determine_shard(key.get() as usize)
    }

    fn lock(&self, number: usize) -> Shard<'_> {
        self.buckets.shards()[number].write()
    }

    fn holds(&self) -> std::sync::MutexGuard<'_, Holds> {
        // A panic while it was held leaves at worst a hold that is not adjusted; none is expected.
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticks(&self, instant: Nanos) -> u64 {
        instant.get().saturating_sub(self.origin).saturating_mul(TICKS_PER_NANO)
    }
}

/// One bucket's part of a check that was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charged {
    pub(crate) key: KeyHash,
    /// What was added to its state.
    pub(crate) ticks: u64,
    /// Its state after that: until then it is never full.
    pub(crate) full_at: u64,
}

fn place_of(shards: &[(usize, Shard<'_>)], number: usize) -> usize {
    shards.iter().position(|(known, _)| *known == number).expect("the shards of all charges are locked")
}

/// Fingerprints are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct Unhashed;

/// Hands the bits through.
#[derive(Debug, Default)]
struct Bits(u64);

impl BuildHasher for Unhashed {
    type Hasher = Bits;

    fn build_hasher(&self) -> Bits {
        Bits(0)
    }
}

impl Hasher for Bits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for fingerprints; any function of the bytes is right.
        self.0 = bytes.iter().fold(self.0, |bits, byte| bits.rotate_left(8) ^ u64::from(*byte));
    }
}
