//! Forgetting buckets of which somebody else knows more.
//!
//! What another store has let go of is known by marks, and these count for buckets that are not in memory. So an older copy of
//! such a bucket must not be in memory where marks arrive, not even one that knows of nothing.

use std::sync::atomic::{Ordering::SeqCst, fence};

use super::{Store, classes::Class, locked::Locked, table::table_key};
use crate::{KeyHash, Nanos};

impl Store {
    /// Forgets all that is known of the wanted buckets: states, logs, charges that could be undone, and that they were reset. It
    /// looks at every bucket, and locks each shard for as long as that takes. How many were forgotten.
    ///
    /// `wanted` is asked with the shard locked, after the state was taken out: a bucket that it does not want has lost no charge,
    /// and what was charged before it says so is forgotten. Charges that are made at the same time, and are to count, must not be
    /// made before it says so.
    pub fn forget(&self, wanted: impl Fn(KeyHash) -> bool, now: Nanos) -> usize {
        (0..self.budget.shards).map(|number| self.lock_number(number).forget(&wanted, now)).sum()
    }

    /// Whether a bucket is in memory, though it may know of nothing: then nothing is assumed of it.
    pub fn is_known(&self, key: KeyHash) -> bool {
        let (locked, key) = (self.lock(key), table_key(key));
        locked.table.get(key).is_some() || locked.shard.logs.contains_key(&key)
    }

    /// A bucket that came from another store has been let go of there since: what it knew then is known by marks, which have come.
    /// So it counts as used as any that its rule has let go of, if that is strict.
    pub fn let_go_elsewhere(&self, key: KeyHash, now: Nanos) {
        let mut locked = self.lock(key);
        let (now, table_key) = (self.not_before(now), table_key(key));
        let Some(class) = locked.table.class_of(table_key) else { return };
        let latest = locked.latest_assumed(table_key, class, now);
        locked.forget_journal(table_key);
        locked.change(table_key, |state| state.max(latest));
    }
}

impl Locked<'_> {
    fn forget(&mut self, wanted: &impl Fn(KeyHash) -> bool, now: Nanos) -> usize {
        let now = self.store.not_before(now);
        let is_wanted = |key: &u64| wanted(KeyHash::from_raw(*key));
        let logs: Vec<u64> = self.shard.logs.keys().copied().filter(is_wanted).collect();
        for key in &logs {
            self.shard.journals.remove(key);
            self.remove_log(*key);
        }
        self.shard.spared.retain(|key| !is_wanted(key));
        let mut forgotten = logs.len();
        if self.table.entries(self.upper()).any(|entry| is_wanted(&entry.key)) {
            let mut gone: Vec<u64> = Vec::new();
            self.rebuild(0, now, |entry| {
                // Who charged a bucket without the lock has seen that it is to count; then so does whoever has its state.
                fence(SeqCst);
                let stays = !is_wanted(&entry.key);
                if !stays {
                    gone.push(entry.key);
                }
                stays
            });
            for key in &gone {
                self.shard.journals.remove(key);
            }
            forgotten += gone.len();
        }
        forgotten
    }

    /// How late the state of a bucket may be that its rule has let go of, whatever its limit is.
    fn latest_assumed(&self, key: u64, class: Class, now: u64) -> u64 {
        let classes = &self.store.classes;
        if classes.forgets(class) || !classes.has_marks(now) {
            return 0;
        }
        classes.assumed(class, KeyHash::from_raw(key).is_of_window(), u64::MAX, now)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        thread,
    };

    use super::*;
    use crate::{Algorithm, Charge, Cost, Limit, Mode, RuleId, StoreConfig};

    const START: Nanos = Nanos::new(1_800_000_000_000_000_000);

    fn charge(key: u64, algorithm: Algorithm) -> Charge {
        let windows = matches!(algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow);
        let key = KeyHash::from_raw(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1 | u64::from(windows));
        let limit = Limit::parse("1000000/1d", None, algorithm).unwrap();
        Charge { key, rule: RuleId::INLINE, limit, cost: Cost::ONE, mode: Mode::Enforce, floor: None }
    }

    #[test]
    fn nothing_is_left_of_the_wanted_buckets_and_the_others_lose_nothing() {
        for algorithm in Algorithm::ALL {
            let store = Store::new(StoreConfig { max_memory: 16 << 20, shards: 16 }, START);
            let until = START.saturating_add(std::time::Duration::from_secs(5));
            let mut holds = Vec::new();
            for key in 1..900 {
                let (_, hold) = store.hold(&[charge(key, algorithm)], START, until, &mut Default::default());
                holds.extend(hold);
            }
            let is_wanted = |key: KeyHash| key.get() >> 20 & 1 == 1;
            let wanted = (1..900).filter(|key| is_wanted(charge(*key, algorithm).key)).count();
            assert_eq!(store.forget(is_wanted, START), wanted);
            assert_eq!(store.stats().buckets, 899 - wanted);
            let left =
                |key| store.check(&Charge { cost: Cost::PEEK, ..charge(key, algorithm) }, START).remaining;
            for key in 1..900 {
                let key_hash = charge(key, algorithm).key;
                assert_eq!(store.is_known(key_hash), !is_wanted(key_hash));
                assert_eq!(left(key), if is_wanted(key_hash) { 1_000_000 } else { 999_999 }, "{algorithm}");
            }
            holds.into_iter().for_each(|hold| store.undo(hold, START));
            assert!((1..900).all(|key| left(key) == 1_000_000), "{algorithm}: what is there can be undone");
            assert_eq!(store.forget(is_wanted, START), 0);
        }
    }

    #[test]
    fn a_charge_that_is_made_after_a_bucket_is_to_count_is_not_forgotten() {
        for round in 0..200 {
            let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 16 }, START);
            let one = charge(7 + round, Algorithm::TokenBucket);
            (0..5).for_each(|_| assert!(store.check(&one, START).allowed));
            let (goes, counted) = (AtomicBool::new(true), AtomicU64::new(0));
            thread::scope(|scope| {
                scope.spawn(|| store.forget(|_| goes.load(SeqCst), START));
                scope.spawn(|| {
                    goes.store(false, SeqCst);
                    for _ in 0..100 {
                        assert!(store.check(&one, START).allowed);
                        counted.fetch_add(1, Relaxed);
                    }
                });
            });
            let left = store.check(&Charge { cost: Cost::PEEK, ..one }, START).remaining;
            assert!(left <= 1_000_000 - counted.load(Relaxed), "{left}");
        }
    }
}
