//! A store: its shards, and what they share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use sdd::AtomicShared;

use super::{
    budget::Budget, class::MAX_CLASS_BITS, classes::Classes, holds::Holds, known_limits::KnownLimits,
    prefetch::Hint, shard::Shard, table::Table,
};
use crate::{KeyHash, Nanos};

/// How a store is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes that the buckets may take in all: tables and logs, what is known of charges that can be undone, and what of these is
    /// there twice for a moment while it is made anew. At least a few hundred for each shard. Each rule with buckets, and all
    /// limits together that come with checks, can have an equal part of it.
    pub max_memory: usize,
    /// How many parts are locked by themselves; rounded up to a power of two, at least 16. More of them let more threads work
    /// side by side, and make the longest step of growing and sweeping shorter. As many rules, less four and at most 1,020,
    /// have a part of the memory by themselves; those beyond share one with each other (or two, one for each
    /// [`OnMemoryFull`](crate::rules::OnMemoryFull)).
    pub shards: usize,
}

/// Memory of a shard, about. A check that fills one waits while the whole shard is looked at, and so does each that needs its lock:
/// 2 ms with 32,000 buckets, of one rule or a thousand; it was 33 ms where 16 GiB were in 1,024 shards.
const SHARD_MEMORY: usize = 1 << 20;
/// As many as there can be classes.
const LEAST_SHARDS: usize = 1 << MAX_CLASS_BITS;

impl StoreConfig {
    /// For so many bytes, with as many shards as keep the longest wait for one short: 1,024, or more for more than 1 GiB.
    pub fn of_memory(max_memory: usize) -> Self {
        Self { max_memory, shards: (max_memory / SHARD_MEMORY).next_power_of_two().max(LEAST_SHARDS) }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self::of_memory(1 << 30)
    }
}

/// The buckets.
///
/// ```
/// use tidegate_limiter::{
///     Cost, Limit, Nanos,
///     cluster::{Charge, KeyHash, RuleId, Store, StoreConfig},
///     rules::Mode,
/// };
///
/// let now = Nanos::new(1_800_000_000_000_000_000);
/// let store = Store::new(StoreConfig::default(), now);
/// let charge = Charge {
///     key: KeyHash::from_raw(0x9e37_79b9_7f4a_7c15),
///     rule: RuleId::INLINE,
///     limit: Limit::per_second(10),
///     cost: Cost::new(4)?,
///     mode: Mode::Enforce,
///     floor: None,
///     ban: None,
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
    pub(super) tables: Box<[AtomicShared<Table>]>,
    /// Where their lines are, for prefetching them.
    pub(super) hints: Box<[Hint]>,
    pub(super) shards: Box<[Mutex<Shard>]>,
    pub(super) budget: Budget,
    /// Nothing is decided as if it were earlier: buckets that know of nothing at this instant may have been removed.
    pub(super) earliest: AtomicU64,
    /// The shard that is swept next.
    pub(super) cursor: AtomicUsize,
    /// Also of those that were given up and are still read.
    pub(super) table_bytes: Arc<AtomicUsize>,
    pub(super) log_bytes: AtomicUsize,
    pub(super) classes: Classes,
    /// Of the rules whose owner this store belongs to.
    pub(super) limits: KnownLimits,
    /// Buckets that were removed although they knew of something, of rules that forget and of those that are strict.
    pub(super) let_go: [AtomicU64; 2],
    /// That have begun.
    pub(super) bans: AtomicU64,
    /// A lock of its own, never taken together with that of a shard.
    pub(super) holds: Mutex<Holds>,
}

impl Store {
    /// An empty store. `now` is the earliest instant that it knows; an earlier one counts as this.
    pub fn new(config: StoreConfig, now: Nanos) -> Self {
        let budget = Budget::new(config.max_memory, config.shards);
        let table_bytes = Arc::default();
        let empty = || Table::with_slots(0, budget.class_bits, &table_bytes);
        Self {
            tables: (0..budget.shards).map(|_| AtomicShared::new(empty())).collect(),
            hints: (0..budget.shards).map(|_| Hint::default()).collect(),
            shards: (0..budget.shards).map(|_| Mutex::default()).collect(),
            budget,
            earliest: AtomicU64::new(now.ticks()),
            cursor: AtomicUsize::new(0),
            table_bytes,
            log_bytes: AtomicUsize::new(0),
            classes: Classes::new(budget.class_bits),
            limits: KnownLimits::default(),
            let_go: Default::default(),
            bans: AtomicU64::new(0),
            holds: Mutex::new(Holds::new(budget.holds)),
        }
    }

    pub(super) fn new_table(&self, slots: usize) -> Table {
        Table::with_slots(slots, self.budget.class_bits, &self.table_bytes)
    }

    /// By the upper bits; tables use the lower ones. All of them are equally random in a fingerprint.
    #[inline]
    pub(super) fn shard_of(&self, key: KeyHash) -> usize {
        // There are at least 16 shards, a power of two of them.
        (key.get() >> (u64::BITS - self.budget.shards.ilog2())) as usize
    }

    /// Asked with the shard locked, or of a bucket that was found: what was removed before was removed at an earlier instant
    /// than this.
    pub(super) fn not_before(&self, now: Nanos) -> u64 {
        now.ticks().max(self.earliest.load(Relaxed))
    }

    pub(super) fn holds(&self) -> MutexGuard<'_, Holds> {
        // Nothing in here is left half done by a panic.
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
