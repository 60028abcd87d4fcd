//! What the store promises, against models that are obviously right.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit, Nanos,
    cluster::{Charge, HoldId, KeyHash, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode, Period},
};

const START: Nanos = Nanos::new(1_800_000_000_000_000_000);

fn store() -> Store {
    Store::new(StoreConfig { shards: 8, ..StoreConfig::default() }, START)
}

fn limit(count: u64, period: Duration, burst: u64) -> Limit {
    Limit::new(Algorithm::TokenBucket, count, Period::Fixed(period), Some(burst)).unwrap()
}

fn charge(key: u64, limit: Limit, cost: u64) -> Charge {
    // Spread as fingerprints are.
    let key = KeyHash::from_raw(key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Charge {
        key,
        rule: RuleId::INLINE,
        limit,
        cost: Cost::new(cost).unwrap(),
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    }
}

fn after(nanos: u64) -> Nanos {
    START.saturating_add(Duration::from_nanos(nanos))
}

fn all(store: &Store, charges: &[Charge], now: Nanos) -> (bool, SmallVec<[Decision; 4]>) {
    let mut decisions = SmallVec::new();
    let allowed = store.check_all(charges, now, &mut decisions);
    assert_eq!(decisions.len(), charges.len());
    (allowed, decisions)
}

fn hold(store: &Store, charges: &[Charge], now: Nanos) -> (bool, Option<HoldId>) {
    store.hold(charges, now, now.saturating_add(Duration::from_secs(3600)), &mut SmallVec::new())
}

/// A bucket as a person would write it: a level in units times nanoseconds, exactly.
#[derive(Clone)]
struct Level {
    count: u128,
    period: u128,
    full: u128,
    level: u128,
    at: u64,
}

impl Level {
    fn new(count: u64, period: Duration, burst: u64) -> Self {
        let full = u128::from(burst) * period.as_nanos();
        Self { count: count.into(), period: period.as_nanos(), full, level: full, at: 0 }
    }

    fn take(&mut self, cost: u64, now: u64) -> bool {
        self.level = self.full.min(self.level + u128::from(now - self.at) * self.count);
        self.at = now;
        let cost = u128::from(cost) * self.period;
        let allowed = cost <= self.level;
        if allowed {
            self.level -= cost;
        }
        allowed
    }

    fn remaining(&self) -> u64 {
        (self.level / self.period) as u64
    }
}

proptest! {
    /// Rates whose interval is a whole number of ticks are exact, decision by decision.
    #[test]
    fn a_token_bucket_equals_its_model(
        count in prop::sample::select(vec![1u64, 2, 4, 5, 10, 100, 1_000, 1_000_000]),
        seconds in 1u64..100,
        burst in 1u64..50,
        steps in prop::collection::vec((0u64..3_000_000_000, 0u64..60), 1..200),
    ) {
        let (store, period) = (store(), Duration::from_secs(seconds * 16));
        let limit = limit(count, period, burst);
        let mut model = Level::new(count, period, burst);
        let mut now = 0;
        for (pause, cost) in steps {
            now += pause;
            let decision = store.check(&charge(1, limit, cost), after(now));
            if cost == 0 {
                let mut look = model.clone();
                prop_assert_eq!(decision.allowed, look.take(1, now));
                model.take(0, now);
            } else {
                prop_assert_eq!(decision.allowed, model.take(cost, now));
            }
            prop_assert_eq!(decision.remaining, model.remaining());
            if let Some(wait) = decision.retry_after {
                let wait = wait.as_nanos() as u64;
                prop_assert!(model.clone().take(cost.max(1), now + wait));
                prop_assert!(!model.clone().take(cost.max(1), now + wait - 1));
            }
        }
    }

    /// Whatever the rate, what is admitted in any interval stays below the bound.
    #[test]
    fn no_interval_admits_more_than_burst_and_rate(
        count in 1u64..10_000_000,
        millis in 100u64..100_000,
        burst in 1u64..1_000,
        steps in prop::collection::vec((0u64..500_000_000, 0u64..300), 1..120),
    ) {
        let (store, period) = (store(), Duration::from_millis(millis));
        let limit = limit(count, period, burst);
        let mut now = 0;
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (pause, cost) in steps {
            now += pause;
            if store.check(&charge(1, limit, cost), after(now)).allowed {
                admitted.push((now, cost));
            }
        }
        for first in 0..admitted.len() {
            let mut sum = 0u128;
            for last in first..admitted.len() {
                sum += u128::from(admitted[last].1);
                let length = u128::from(admitted[last].0 - admitted[first].0);
                prop_assert!(sum * period.as_nanos() <= u128::from(burst) * period.as_nanos() + length * u128::from(count));
            }
        }
    }

    /// Undone charges give back no more than if they had never been made, whatever happened in between.
    #[test]
    fn an_undone_charge_leaves_at_most_what_would_be_there_without_it(
        burst in 1u64..20,
        steps in prop::collection::vec((0u64..3_000_000_000, 1u64..6, 0u8..4, any::<prop::sample::Index>()), 1..80),
    ) {
        let period = Duration::from_secs(16);
        let limit = limit(16, period, burst);
        let store = store();
        let mut now = 0;
        // (when, cost, whether it counts in the end)
        let mut history: Vec<(u64, u64, bool)> = Vec::new();
        let mut open: Vec<(HoldId, usize)> = Vec::new();
        for (pause, cost, what, which) in steps {
            now += pause;
            let one = charge(1, limit, cost);
            match what {
                0 if !open.is_empty() => {
                    let (id, place) = open.swap_remove(which.index(open.len()));
                    store.undo(id, after(now));
                    history[place].2 = false;
                }
                1 => if store.check(&one, after(now)).allowed {
                    history.push((now, cost, true));
                },
                _ => if let (true, Some(id)) = hold(&store, &[one], after(now)) {
                    open.push((id, history.len()));
                    history.push((now, cost, true));
                },
            }
            let mut without = Level::new(16, period, burst);
            for (at, cost, counts) in &history {
                if *counts {
                    prop_assert!(without.take(*cost, *at), "more was admitted than without the undone charges");
                }
            }
            without.take(0, now);
            let look = store.check(&charge(1, limit, 0), after(now));
            prop_assert!(look.remaining <= without.remaining(), "{} > {}", look.remaining, without.remaining());
        }
    }
}

#[test]
fn an_undo_at_once_gives_everything_back() {
    let store = store();
    let limit = limit(1, Duration::from_secs(60), 5);
    let (_, first) = hold(&store, &[charge(1, limit, 2)], after(0));
    let (_, second) = hold(&store, &[charge(1, limit, 3)], after(0));
    assert!(!store.check(&charge(1, limit, 1), after(0)).allowed);
    store.undo(second.unwrap(), after(1));
    assert_eq!(store.check(&charge(1, limit, 0), after(1)).remaining, 3);
    store.undo(first.unwrap(), after(1));
    assert_eq!(store.check(&charge(1, limit, 0), after(1)).remaining, 5);
    store.undo(first.unwrap(), after(1));
    assert_eq!(store.check(&charge(1, limit, 5), after(1)).remaining, 0, "twice does nothing");
}

#[test]
fn all_or_nothing_over_several_buckets() {
    let store = store();
    let (wide, narrow) = (limit(1, Duration::from_secs(60), 10), limit(1, Duration::from_secs(60), 1));
    let both = [charge(1, wide, 1), charge(2, narrow, 1)];
    assert!(all(&store, &both, after(0)).0);
    let (allowed, decisions) = all(&store, &both, after(0));
    assert!(!allowed && decisions[0].allowed && !decisions[1].allowed);
    assert_eq!(store.check(&charge(1, wide, 0), after(0)).remaining, 9, "the denied check cost nothing");

    // The same bucket twice in one check is charged twice.
    let twice = [charge(3, wide, 6), charge(3, wide, 6)];
    assert!(!all(&store, &twice, after(0)).0);
    assert!(all(&store, &[charge(3, wide, 5), charge(3, wide, 5)], after(0)).0);
    assert_eq!(store.check(&charge(3, wide, 0), after(0)).remaining, 0);
}

#[test]
fn a_shadow_rule_counts_and_never_denies() {
    let store = store();
    let narrow = limit(1, Duration::from_secs(60), 1);
    let shadow = Charge { mode: Mode::Shadow, ..charge(1, narrow, 1) };
    let real = charge(2, limit(1, Duration::from_secs(60), 2), 1);
    assert!(all(&store, &[shadow, real], after(0)).0);
    let (allowed, decisions) = all(&store, &[shadow, real], after(0));
    assert!(allowed && !decisions[0].allowed && decisions[1].allowed);
    assert!(!all(&store, &[shadow, real], after(0)).0);
    assert!(all(&store, &[shadow], after(0)).0, "alone it does not deny either");
}

#[test]
fn refund_and_reset_do_what_they_say() {
    let store = store();
    let limit = limit(1, Duration::from_secs(60), 5);
    let one = charge(1, limit, 5);
    assert!(store.check(&one, after(0)).allowed);
    store.refund(one.key, &limit, Cost::new(2).unwrap(), after(0));
    assert_eq!(store.check(&charge(1, limit, 0), after(0)).remaining, 2);
    store.refund(one.key, &limit, Cost::MAX, after(0));
    assert!(store.check(&one, after(0)).allowed);
    store.reset(one.key);
    assert!(store.check(&one, after(0)).allowed);
}

#[test]
fn buckets_that_have_been_full_again_for_a_second_are_swept_and_the_others_stay() {
    let store = store();
    let limit = limit(1, Duration::from_secs(1), 10);
    for key in 0..1_000 {
        assert!(store.check(&charge(key, limit, 1 + key % 10), after(0)).allowed);
    }
    assert_eq!(store.stats().buckets, 1_000);
    store.sweep(after(4_999_999_999));
    assert_eq!(store.stats().buckets, 700);
    store.sweep(after(5_000_000_000));
    assert_eq!(store.stats().buckets, 600);
    assert_eq!(store.check(&charge(9, limit, 0), after(5_000_000_000)).remaining, 5);
    store.sweep(after(60_000_000_000));
    assert_eq!(store.stats().buckets, 0);
}

#[test]
fn beyond_the_budget_memory_stays_flat_and_no_bucket_of_a_strict_rule_is_refilled() {
    let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 8 }, START);
    let yaml = "rules: [{ name: r, key: [k], limit: 1/1h, on_memory_full: strict }]";
    let rules = Rules::from_yaml(yaml, &HashSecret::new([1; 16])).unwrap();
    store.set_rules(&rules);
    let rule = rules.rules("default")[0].id();
    let charge = |key, limit, cost| Charge { rule, ..charge(key, limit, cost) };
    let limit = limit(1, Duration::from_secs(3600), 3);
    let mut admitted = 0;
    for _ in 0..5 {
        for key in 0..100_000 {
            admitted += u64::from(store.check(&charge(key, limit, 1), after(0)).allowed);
        }
    }
    let stats = store.stats();
    assert!(stats.bytes <= 1 << 20, "{stats:?}");
    assert!(stats.folded > 0);
    assert!(admitted <= 300_000, "{admitted}");
    assert!(admitted >= 60_000, "those with a bucket of their own are not hurt: {admitted}");
    for key in 0..100_000 {
        assert!(!store.check(&charge(key, limit, 3), after(0)).allowed, "nothing was refilled");
    }
}

#[test]
fn many_threads_admit_exactly_the_burst_also_over_several_buckets() {
    let store = Arc::new(store());
    let limit = limit(1, Duration::from_secs(3600), 1_000);
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                // Each thread names the two buckets in another order.
                let mut pair = [charge(1, limit, 1), charge(2, limit, 1)];
                if thread % 2 == 0 {
                    pair.reverse();
                }
                let mut admitted = 0;
                for _ in 0..1_000 {
                    admitted += u64::from(all(&store, &pair, after(0)).0);
                    let (taken, id) = hold(&store, &pair, after(0));
                    if let (true, Some(id)) = (taken, id) {
                        store.undo(id, after(0));
                    }
                }
                admitted
            })
        })
        .collect();
    let admitted: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    // A hold that is undone a moment later can deny another thread meanwhile, never admit too much.
    assert!((900..=1_000).contains(&admitted), "{admitted}");
}

#[test]
fn many_threads_on_few_buckets_lose_and_invent_nothing_while_tables_grow_and_are_swept() {
    let store = Store::new(StoreConfig { max_memory: 8 << 20, shards: 2 }, START);
    let limit = limit(1, Duration::from_secs(3600), 1_000);
    let admitted: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let mut admitted = 0;
                    for step in 0..20_000 {
                        // Ten buckets of all threads, 800,000 units asked for 10,000, and new ones that make tables grow.
                        for key in 0..10 {
                            admitted += u64::from(store.check(&charge(key, limit, 1), after(0)).allowed);
                        }
                        if step % 10 == 0 {
                            let own = charge(100 + thread * 20_000 + step, limit, 1);
                            assert!(store.check(&own, after(0)).allowed);
                        }
                        if step % 100 == 0 {
                            store.sweep(after(0));
                        }
                    }
                    admitted
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 10_000);
    assert_eq!(store.stats().buckets, 10 + 8_000);
    assert_eq!(store.stats().folded, 0);
}
