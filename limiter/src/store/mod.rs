//! The buckets of a node, shared by all of its threads.
//!
//! Only buckets in debt are kept: a full one looks the same as one never seen. Each is 16 bytes, fingerprint and state,
//! in the table of a shard. A check of one bucket that is there finds and charges it without a lock (`table.rs` says why
//! that is right). One of several locks their shards, in the order of their numbers, takes the states out, decides about
//! all of them and then charges all or none. The logs of `sliding_log` are kept beside.
//!
//! Memory is bounded ([`StoreConfig::max_memory`]), and shared out by rule: each that has buckets can keep as many as an equal part
//! of the memory holds, whatever others do, and more where others leave some. A rule that needs still more lets go of its own,
//! those first that are used the least, and says what that means ([`OnMemoryFull`]). `sweep.rs` and `classes.rs` say how.

mod assigned;
mod budget;
mod charging;
mod classes;
mod handover;
mod holds;
mod journal;
mod level;
mod locked;
mod many;
mod near;
mod pages;
mod shard;
mod sweep;
mod table;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
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
    classes::Classes,
    holds::{Holds, Keys},
    locked::Locked,
    near::Hint,
    shard::{MAX_SPARED, Shard},
    table::{Table, table_key},
};
pub use self::{
    handover::{Bucket, Held, LetGo},
    holds::HoldId,
    level::level,
    sweep::Swept,
};
use crate::{
    Algorithm, Charge, Cost, Decision, KeyHash, Limit, Nanos, OnMemoryFull, RuleId, Rules, algorithm,
    decision::{Answer, Asked},
};

/// Holds past their deadline that are closed on the way to a new one.
const HOLDS_AT_ONCE: usize = 64;

/// How a store is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes that the buckets may take, all told: tables and logs, what is known of charges that can be undone, and what of these is there twice for a moment while it is
    /// made anew. At least a few hundred for each shard. Each rule with buckets, and all limits together that come with
    /// checks, can have an equal part of it.
    pub max_memory: usize,
    /// How many parts are locked by themselves; rounded up to a power of two, at least 16. More of them let more threads work
    /// side by side, and make the longest step of growing and sweeping shorter. As many rules, less four and at most 1,020,
    /// have a part of the memory by themselves; those beyond share one with each other (or two, one for each
    /// [`OnMemoryFull`]).
    pub shards: usize,
}

/// Memory of a shard, about. A check that fills one waits while the whole shard is looked at, and so does each that needs its lock:
/// 2 ms with 32,000 buckets, of one rule or a thousand; it was 33 ms where 16 GiB were in 1,024 shards.
const SHARD_MEMORY: usize = 1 << 20;
/// As many as there can be classes.
const LEAST_SHARDS: usize = 1 << classes::MAX_CLASS_BITS;

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
    /// Also of those that were given up and are still read.
    table_bytes: Arc<AtomicUsize>,
    log_bytes: AtomicUsize,
    classes: Classes,
    /// Buckets that were removed although they knew of something, of rules that forget and of those that are strict.
    let_go: [AtomicU64; 2],
    /// A lock of its own, never taken together with that of a shard.
    holds: Mutex<Holds>,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Buckets with a state of their own, logs included.
    pub buckets: usize,
    /// Bytes that all buckets take: tables and logs.
    pub bytes: usize,
    /// Of these, bytes of logs.
    pub log_bytes: usize,
    /// Buckets for which there was no room, since the start, of rules with [`OnMemoryFull::Forget`] and of limits that came
    /// with checks: each was a full one again.
    pub forgotten: u64,
    /// Buckets for which there was no room, since the start, of rules with [`OnMemoryFull::Strict`]: each may since have been
    /// stricter than it should be.
    pub folded: u64,
    /// Charges that may still be undone.
    pub holds: usize,
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
            let_go: Default::default(),
            holds: Mutex::new(Holds::new(budget.holds)),
        }
    }

    /// Says which rules there are, and what happens with the buckets of each when there is no room for all: from now on. Rules
    /// that are not among them, and limits that come with checks, forget.
    pub fn set_rules(&self, rules: &Rules) {
        self.set_policies(rules.all().map(|rule| (rule.id(), rule.on_memory_full())));
    }

    /// As if all rules were one, and not strict: for tests, which are to find it.
    #[doc(hidden)]
    pub fn share_memory_among_all(&self) {
        self.classes.share_among_all();
    }

    pub(crate) fn set_policies(&self, rules: impl Iterator<Item = (RuleId, OnMemoryFull)>) {
        self.classes.set_rules(rules);
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
    /// charged, or when too many charges can be undone already: these then stay, whatever becomes of the request. What can be
    /// undone has a thirty-second of the memory, at most 32 MiB: so many times 512 bytes.
    pub fn hold(
        &self,
        charges: &[Charge],
        now: Nanos,
        until: Nanos,
        decisions: &mut SmallVec<[Decision; 4]>,
    ) -> (bool, Option<HoldId>) {
        let hold = self.reserve(charges.len(), now);
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

    /// Gives units back to a bucket, never more than it has given. One that is not in memory gets none.
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

    /// Forgets what a bucket knows: it is a full one, also where it had been let go of.
    pub fn reset(&self, key: KeyHash) {
        let mut locked = self.lock(key);
        let key = table_key(key);
        locked.forget_journal(key);
        locked.remove_log(key);
        locked.change(key, |_| 0);
        if self.classes.has_marks(self.earliest.load(Relaxed)) {
            let spared = &mut locked.shard.spared;
            if spared.len() >= MAX_SPARED {
                spared.clear();
            }
            spared.insert(key);
        }
    }

    /// What the store holds. It looks at each shard shortly.
    pub fn stats(&self) -> StoreStats {
        let buckets = (0..self.budget.shards)
            .map(|number| self.lock_number(number).shard)
            .map(|shard| shard.buckets + shard.logs.len())
            .sum();
        let log_bytes = self.log_bytes.load(Relaxed);
        let [forgotten, folded] = [0, 1].map(|place: usize| self.let_go[place].load(Relaxed));
        StoreStats {
            buckets,
            bytes: self.table_bytes.load(Relaxed) + log_bytes,
            log_bytes,
            forgotten,
            folded,
            holds: self.holds().len(),
        }
    }

    /// The id for a hold, after making room by closing some of those whose time is over.
    fn reserve(&self, charges: usize, now: Nanos) -> Option<u64> {
        self.close_expired(now, HOLDS_AT_ONCE);
        self.holds().reserve(charges)
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

    fn new_table(&self, slots: usize) -> Table {
        Table::with_slots(slots, self.budget.class_bits, &self.table_bytes)
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
        // There are at least 16 shards, a power of two of them.
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
