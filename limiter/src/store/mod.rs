//! The buckets of a node, shared by all of its threads.
//!
//! Only buckets in debt are kept: a full one looks the same as one never seen. Each is 16 bytes, fingerprint and state,
//! in the table of a shard. A check of one bucket that is there finds and charges it without a lock (`table.rs` says why
//! that is right). One of several locks their shards, in the order of their numbers, takes the states out, decides about
//! all of them and then charges all or none. The logs of `sliding_log` are kept beside.
//!
//! Memory is bounded ([`StoreConfig::max_memory`]). When a shard is full, some buckets go into a sketch of fixed size,
//! those first that will be full again the soonest. The sketch can confuse a bucket with others and then makes it
//! stricter, never looser: dropping it instead would refill it, which a flood of keys could exploit.

mod budget;
mod charging;
mod handover;
mod holds;
mod journal;
mod locked;
mod many;
mod near;
mod shard;
mod sketch;
mod sweep;
mod table;

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed},
    },
};

use sdd::{AtomicShared, Guard};
use smallvec::SmallVec;

pub(crate) use self::many::GROUP;
use self::{
    budget::Budget,
    holds::{Holds, Keys},
    locked::{Locked, table_key},
    near::Hint,
    shard::Shard,
    table::Table,
};
pub use self::{
    handover::{Bucket, Held},
    holds::HoldId,
    sweep::Swept,
};
use crate::{
    Algorithm, Charge, Cost, Decision, KeyHash, Limit, Nanos, algorithm,
    decision::{Answer, Asked},
};

/// Charges that can be undone at the same time; one more than that can not.
const MAX_HOLDS: usize = 1 << 16;
/// Holds past their deadline that are closed on the way to a new one.
const HOLDS_AT_ONCE: usize = 64;
/// Memory for each hold.
const HOLD_BYTES: usize = 512;

/// How a store is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes that the buckets may take, all told: tables, logs and the sketch. At least a few hundred for each shard.
    /// While a table is rebuilt, it is there twice for a moment; with all shards together that is a small part.
    pub max_memory: usize,
    /// How many parts are locked by themselves; rounded up to a power of two. More of them let more threads work side
    /// by side, and make the longest step of growing and sweeping shorter.
    pub shards: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { max_memory: 1 << 30, shards: 1024 }
    }
}

/// The buckets.
///
/// ```
/// use tidegate_limiter::{Algorithm, Charge, Cost, KeyHash, Limit, Mode, Nanos, RuleId, Store, StoreConfig};
///
/// let now = Nanos::new(1_800_000_000_000_000_000);
/// let store = Store::new(StoreConfig::default(), now);
/// let charge = Charge {
///     key: KeyHash::from_raw(0x9e37_79b9_7f4a_7c15),
///     rule: RuleId::INLINE,
///     limit: Limit::parse("10/1s", None, Algorithm::TokenBucket)?,
///     cost: Cost::new(4)?,
///     mode: Mode::Enforce,
///     floor: None,
/// };
/// assert_eq!(store.check(&charge, now).remaining, 6);
/// assert_eq!(store.check(&charge, now).remaining, 2);
/// assert_eq!(store.check(&charge, now).retry_after, Some(std::time::Duration::from_millis(200)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Store {
    /// One for each shard. They are apart from the locks, so that these pointers, which each check reads and nearly none
    /// changes, stay together in the nearest cache.
    tables: Box<[AtomicShared<Table>]>,
    /// Where their lines are, for who only wants them near.
    hints: Box<[Hint]>,
    shards: Box<[Mutex<Shard>]>,
    budget: Budget,
    /// Nothing is decided as if it were earlier: buckets that know of nothing at this instant may have been removed.
    earliest: AtomicU64,
    /// The shard that is swept next.
    cursor: AtomicUsize,
    table_bytes: AtomicUsize,
    log_bytes: AtomicUsize,
    sketch_bytes: AtomicUsize,
    folded: AtomicU64,
    /// A lock of its own, never taken together with that of a shard.
    holds: Mutex<Holds>,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Buckets with a state of their own, logs included.
    pub buckets: usize,
    /// Bytes that all buckets take: tables, logs and sketch.
    pub bytes: usize,
    /// Of these, bytes of logs.
    pub log_bytes: usize,
    /// Of these, bytes of the sketch.
    pub sketch_bytes: usize,
    /// States that went into the sketch since the start: each is a bucket that may since be stricter than it should be.
    pub folded: u64,
    /// Charges that may still be undone.
    pub holds: usize,
}

impl Store {
    /// An empty store. `now` is the earliest instant that it knows; an earlier one counts as this.
    pub fn new(config: StoreConfig, now: Nanos) -> Self {
        let budget = Budget::new(config.max_memory, config.shards);
        Self {
            tables: (0..budget.shards).map(|_| AtomicShared::new(Table::default())).collect(),
            hints: (0..budget.shards).map(|_| Hint::default()).collect(),
            shards: (0..budget.shards).map(|_| Mutex::default()).collect(),
            budget,
            earliest: AtomicU64::new(now.ticks()),
            cursor: AtomicUsize::new(0),
            table_bytes: AtomicUsize::new(0),
            log_bytes: AtomicUsize::new(0),
            sketch_bytes: AtomicUsize::new(0),
            folded: AtomicU64::new(0),
            holds: Mutex::new(Holds::new((config.max_memory / HOLD_BYTES).clamp(64, MAX_HOLDS))),
        }
    }

    /// Decides about one bucket, and charges it if it allows. A cost of 0 ([`Cost::PEEK`]) only looks: it is allowed if
    /// a cost of 1 would be.
    pub fn check(&self, charge: &Charge, now: Nanos) -> Decision {
        self.ask(&charge.asked(), now).decision()
    }

    #[inline]
    pub(crate) fn ask<'l>(&self, asked: &Asked<'l>, now: Nanos) -> Answer<'l> {
        self.charge_unlocked(asked, now).unwrap_or_else(|| self.charge_locked(asked, now))
    }

    /// Decides about all buckets of a check at once. True if every one that is enforced allows; then all of those are
    /// charged, and of those in shadow mode each one that allows. Otherwise none is. Appends a decision for each; if
    /// nothing was charged, they tell what remains without it.
    pub fn check_all(&self, charges: &[Charge], now: Nanos, decisions: &mut SmallVec<[Decision; 4]>) -> bool {
        if let [charge] = charges {
            let decision = self.check(charge, now);
            decisions.push(decision);
            return decision.allowed || charge.mode == crate::Mode::Shadow;
        }
        self.charge_all(charges, now, None, decisions).is_some()
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
        let hold = self.reserve(now);
        match self.charge_all(charges, now, hold, decisions) {
            None => (false, None),
            Some(keys) if keys.is_empty() => (true, None),
            Some(keys) => {
                let id = hold.inspect(|id| self.holds().add(*id, keys, until.ticks()));
                (true, id.map(HoldId))
            }
        }
    }

    /// Takes back what was charged under `hold`, once, because the request did not run after all. Each bucket is then
    /// what it would be had that charge never been made, and never fuller; what the bucket has forgotten since, because
    /// it ran full or its window ended, does not come back. Charges that were denied in between stay denied.
    pub fn undo(&self, hold: HoldId, now: Nanos) {
        let Some(keys) = self.holds().take(hold.0) else { return };
        for key in keys {
            let mut locked = self.lock(key);
            let now = self.not_before(now);
            locked.undo(table_key(key), hold.0, now);
        }
    }

    /// Says that what was charged under `hold` stays, so that others can be undone instead. Not needed: it stays after
    /// the deadline too.
    pub fn settle(&self, hold: HoldId) {
        let keys = self.holds().take(hold.0);
        self.close(hold.0, keys.unwrap_or_default());
    }

    /// Gives units back to a bucket, never more than it has given. A bucket in the sketch gets none.
    pub fn refund(&self, key: KeyHash, limit: &Limit, cost: Cost, now: Nanos) {
        let mut locked = self.lock(key);
        let now = self.not_before(now);
        let key = table_key(key);
        locked.forget_journal(key);
        if limit.algorithm() == Algorithm::SlidingLog {
            locked.refund_log(key, cost);
        } else {
            let refund = |state| algorithm::refund(limit, algorithm::nearest(limit, state, now), cost, now);
            locked.change(key, refund);
        }
    }

    /// Forgets what a bucket knows, as far as that is possible: one in the sketch stays as it is.
    pub fn reset(&self, key: KeyHash) {
        let mut locked = self.lock(key);
        let key = table_key(key);
        locked.forget_journal(key);
        locked.remove_log(key);
        locked.change(key, |_| 0);
    }

    /// What the store holds. It looks at each shard shortly.
    pub fn stats(&self) -> StoreStats {
        let buckets = (0..self.budget.shards)
            .map(|number| self.lock_number(number).shard)
            .map(|shard| shard.buckets + shard.logs.len())
            .sum();
        let (log_bytes, sketch_bytes) = (self.log_bytes.load(Relaxed), self.sketch_bytes.load(Relaxed));
        StoreStats {
            buckets,
            bytes: self.table_bytes.load(Relaxed) + log_bytes + sketch_bytes,
            log_bytes,
            sketch_bytes,
            folded: self.folded.load(Relaxed),
            holds: self.holds().len(),
        }
    }

    /// The id for a hold, after making room by closing some of those whose time is over.
    fn reserve(&self, now: Nanos) -> Option<u64> {
        self.close_expired(now, HOLDS_AT_ONCE);
        self.holds().reserve()
    }

    /// Each look closes at most one, so that no check waits for the holds of all others.
    fn close_expired(&self, now: Nanos, looks: usize) {
        let expired = self.holds().take_expired(now.ticks(), looks);
        expired.into_iter().for_each(|(id, keys)| self.close(id, keys));
    }

    fn close(&self, hold: u64, keys: Keys) {
        for key in keys {
            self.lock(key).close(table_key(key), hold);
        }
    }

    fn lock(&self, key: KeyHash) -> Locked<'_> {
        self.lock_number(self.shard_of(key))
    }

    fn lock_number(&self, number: usize) -> Locked<'_> {
        // A panic can leave a state taken out, and nothing passes then; see `Locked::take`.
        let shard = self.shards[number].lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.tables[number].get_shared(Acquire, &Guard::new());
        Locked { store: self, number, shard, table: table.expect("each shard has a table") }
    }

    /// By the upper bits; tables use the lower ones. All of them are equally random in a fingerprint.
    #[inline]
    fn shard_of(&self, key: KeyHash) -> usize {
        // There are at least two shards, a power of two of them.
        (key.get() >> (u64::BITS - self.budget.shards.ilog2())) as usize
    }

    /// Asked with the shard locked, or of a bucket that was found: what was removed before was removed at an earlier instant
    /// than this.
    fn not_before(&self, now: Nanos) -> u64 {
        now.ticks().max(self.earliest.load(Relaxed))
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        // Nothing in here is left half done by a panic.
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
