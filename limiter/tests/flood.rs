//! A flood of keys, and what it may not change: decisions beside those of a store with room for all.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Bucket, Charge, KeyHash, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

const START: Nanos = Nanos::new(1_800_000_000_000_000_000);
/// Room for some 17,000 buckets, or 300 logs.
const SMALL: usize = 512 << 10;

/// Two rules that forget and two that are strict, by their numbers.
struct Setup {
    rules: Rules,
}

impl Setup {
    fn new() -> Self {
        let yaml = "rules:
  - { name: a, key: [k], limit: 1000/1d }
  - { name: b, key: [k], limit: 1000/1d }
  - { name: c, key: [k], limit: 1000/1d, on_memory_full: strict }
  - { name: d, key: [k], limit: 1000/1d, on_memory_full: strict }
";
        Self { rules: Rules::from_yaml(yaml, &HashSecret::new([7; 16])).unwrap() }
    }

    fn store(&self, max_memory: usize) -> Store {
        let store = Store::new(StoreConfig { max_memory, shards: 16 }, START);
        store.set_rules(&self.rules);
        store
    }

    /// `None`: the limit comes with the check.
    fn charge(&self, rule: Option<usize>, key: u64, limit: &str, algorithm: Algorithm) -> Charge {
        let limit = Limit::parse(limit, None, algorithm).unwrap();
        let rule = rule.map_or(RuleId::INLINE, |rule| self.rules.rules("default")[rule].id());
        let bits = key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rule.get();
        let bits = (bits ^ (bits >> 29) ^ algorithm as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let windows = matches!(algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow);
        let key = KeyHash::from_raw((bits ^ (bits >> 32)) & !1 | u64::from(windows));
        Charge { key, rule, limit, cost: Cost::ONE, mode: Mode::Enforce, floor: None, ban: None }
    }
}

fn at(millis: u64) -> Nanos {
    START.saturating_add(Duration::from_millis(millis))
}

fn units(units: u64, charge: Charge) -> Charge {
    Charge { cost: Cost::new(units).unwrap(), ..charge }
}

/// The limits of the reviews' floods, by rule and inline, of all kinds.
const FLOODS: [(Option<usize>, &str, Algorithm); 6] = [
    (Some(0), "1000/1d", Algorithm::TokenBucket),
    (Some(0), "10/1m", Algorithm::SlidingLog),
    (Some(0), "5/1d", Algorithm::FixedWindow),
    (Some(2), "5/1d", Algorithm::TokenBucket),
    (Some(2), "10/1m", Algorithm::SlidingLog),
    (None, "1/31d", Algorithm::TokenBucket),
];

#[test]
fn a_flood_changes_no_decision_about_another_rule_nor_about_limits_that_come_with_the_check() {
    let setup = Setup::new();
    for (flooded, flood, algorithm) in FLOODS {
        let store = setup.store(SMALL);
        let others = [
            (Some(1), Algorithm::TokenBucket),
            (Some(3), Algorithm::SlidingWindow),
            (None, Algorithm::SlidingLog),
        ];
        let others = others.map(|(rule, kind)| if rule == flooded { (Some(1), kind) } else { (rule, kind) });
        // Some are there before the flood, and have taken three of ten.
        let old = |(rule, kind), key| setup.charge(rule, key, "10/1m", kind);
        for other in others {
            (0..60).for_each(|key| assert!(store.check(&units(3, old(other, key)), START).allowed));
        }
        for key in 0..60_000 {
            store.check(&setup.charge(flooded, key, flood, algorithm), START);
            if key % 1_000 == 0 {
                store.sweep(START);
            }
        }
        for other in others {
            for key in 0..60 {
                let decision = store.check(&old(other, key), START);
                assert!(decision.allowed && !decision.assumed, "{other:?} after {flood}");
                assert_eq!(decision.remaining, 6, "{other:?} after {flood}");
                let new = store.check(&old(other, 1_000 + key), START);
                assert!(new.allowed && new.remaining == 9 && !new.assumed, "{other:?} after {flood}");
            }
        }
        let stats = store.stats();
        // A strict rule of logs is closed by the first that it lets go of: no more come then.
        let least = if (flooded, algorithm) == (Some(2), Algorithm::SlidingLog) { 0 } else { 10_000 };
        assert!(stats.forgotten + stats.folded > least, "{stats:?}");
        assert!(stats.bytes <= SMALL || bytes_when_freed(&store) <= SMALL, "{stats:?}");
    }
}

/// What a store takes when the tables that it gave up are freed: they count until then, and a thread of another test that was put
/// to sleep in the middle of a check keeps them.
fn bytes_when_freed(store: &Store) -> usize {
    let look = |_| {
        std::thread::sleep(Duration::from_millis(5));
        // Each look at a shard is also one at what can be freed.
        (0..64).map(|_| store.stats().bytes).min().unwrap()
    };
    (0..2_000).map(look).find(|bytes| *bytes <= SMALL).unwrap_or(usize::MAX)
}

#[test]
fn a_key_that_was_never_seen_is_a_full_bucket_in_a_flooded_rule_that_forgets() {
    let setup = Setup::new();
    for (rule, flood, algorithm) in FLOODS.into_iter().filter(|(rule, ..)| *rule != Some(2)) {
        let store = setup.store(SMALL);
        for key in 0..60_000 {
            let decision = store.check(&setup.charge(rule, key, flood, algorithm), at(key / 1_000));
            assert!(decision.allowed && !decision.assumed, "key {key} of {flood}");
            assert_eq!(decision.remaining, decision.limit - 1, "key {key} of {flood}");
        }
    }
}

#[test]
fn in_a_flooded_rule_an_exhausted_key_stays_exhausted_and_one_that_goes_on_is_counted() {
    let setup = Setup::new();
    for rule in [0, 2] {
        for algorithm in Algorithm::ALL {
            // A key is counted that comes again before as many others as there is room for. Of logs that is for far fewer.
            let pause = if algorithm == Algorithm::SlidingLog { 100 } else { 1_000 };
            let store = setup.store(SMALL);
            let one = |key| setup.charge(Some(rule), key, "20/1h", algorithm);
            assert!(store.check(&units(20, one(1)), START).allowed);
            let mut admitted = 0;
            for key in 0..60_000 {
                store.check(&one(1_000 + key), at(key / 100));
                if key % pause == 0 {
                    assert!(!store.check(&units(20, one(1)), at(key / 100)).allowed, "{algorithm}");
                    admitted += u64::from(store.check(&one(2), at(key / 100)).allowed);
                }
            }
            // A strict rule of logs, or of windows that slide, is closed by the first that it lets go of: no more come then.
            let closes = matches!(algorithm, Algorithm::SlidingLog | Algorithm::SlidingWindow);
            let least = if rule == 2 && closes { 0 } else { 10_000 };
            let stats = store.stats();
            assert!(stats.forgotten + stats.folded > least, "{algorithm}: {stats:?}");
            assert_eq!(admitted, 20, "{algorithm}: of a key that came after each {pause} others");
        }
    }
}

#[test]
fn in_a_flooded_strict_rule_a_key_is_denied_no_longer_than_its_own_limit_takes_to_refill() {
    let setup = Setup::new();
    // A limit of a day floods; the others are those of overrides, or the rule's own.
    for (own, refill, burst) in [("5/1d", 86_400_000, 5), ("100/1s", 1_000, 100), ("10/1h", 3_600_000, 10)] {
        let store = setup.store(SMALL);
        for key in 0..200_000 {
            store.check(&setup.charge(Some(2), key, "5/1d", Algorithm::TokenBucket), at(0));
        }
        assert!(store.stats().folded > 10_000);
        let newcomer = |key: u64| setup.charge(Some(2), 1 << 32 | key, own, Algorithm::TokenBucket);
        let mut denied = 0;
        for key in 0..100 {
            let first = store.check(&newcomer(key), at(0));
            if !first.allowed {
                denied += 1;
                assert!(first.assumed);
                assert!(first.retry_after.unwrap() <= Duration::from_millis(refill));
            }
        }
        assert!(store.check(&units(burst - 1, newcomer(100)), at(2 * refill)).allowed, "{own}");
        // Those of the flood that were let go of cannot have been these.
        assert_eq!(denied, if own == "5/1d" { 100 } else { 0 }, "{own}");
    }
}

#[test]
fn what_had_to_be_assumed_says_so_and_a_reset_undoes_it() {
    let setup = Setup::new();
    for algorithm in Algorithm::ALL {
        let store = setup.store(SMALL);
        let one = |key: u64| setup.charge(Some(2), key, "2/1d", algorithm);
        (0..60_000).for_each(|key| _ = store.check(&units(2, one(key)), START));
        let newcomer = one(1 << 32);
        let denied = store.check(&newcomer, at(10));
        assert!(!denied.allowed && denied.assumed, "{algorithm}: {denied:?}");
        store.reset(newcomer.key);
        let look = store.check(&units(0, newcomer), at(20));
        assert!(look.allowed && look.remaining == 2 && !look.assumed, "{algorithm}: {look:?}");
        // It stays so, whatever is swept.
        (0..64).for_each(|_| _ = store.sweep(at(5_000)));
        assert!(store.check(&units(2, newcomer), at(5_000)).allowed, "{algorithm}");
        assert!(!store.check(&newcomer, at(5_001)).allowed, "{algorithm}");
    }
}

#[test]
fn what_a_strict_rule_has_let_go_of_travels_with_its_buckets_and_no_other_rule_hears_of_it() {
    let setup = Setup::new();
    for algorithm in Algorithm::ALL {
        let (from, to) = (setup.store(SMALL), setup.store(16 << 20));
        let one = |rule, key| setup.charge(Some(rule), key, "2/1d", algorithm);
        for key in 0..60_000 {
            from.check(&units(2, one(2, key)), START);
        }
        (0..100).for_each(|key| assert!(from.check(&one(3, key), START).allowed));
        let mut buckets: Vec<Bucket> = Vec::new();
        from.buckets(START, |_| true, |bucket| buckets.push(bucket));
        assert!(buckets.iter().all(|bucket| bucket.rule == one(2, 0).rule || bucket.rule == one(3, 0).rule));
        buckets.iter().for_each(|bucket| to.take_over(bucket, at(1)));
        from.let_go(START).iter().for_each(|let_go| to.take_over_let_go(let_go, at(1)));
        for key in 0..60_000 {
            assert!(!to.check(&one(2, key), at(2)).allowed, "{algorithm}");
        }
        for key in 0..200 {
            assert!(to.check(&one(3, key), at(2)).allowed, "{algorithm}");
            assert!(to.check(&one(1, key), at(2)).allowed, "{algorithm}");
        }
        assert!(to.let_go(at(4 * 86_400_000)).is_empty());
    }
}

#[test]
fn long_logs_are_thinned_out_before_anything_of_them_is_forgotten() {
    let setup = Setup::new();
    let store = setup.store(1 << 20);
    let one = |key| setup.charge(Some(0), key, "2000/1h", Algorithm::SlidingLog);
    for key in 0..40 {
        (0..2_000).for_each(|step| assert!(store.check(&one(key), at(step)).allowed));
    }
    assert!((0..40).all(|key| !store.check(&one(key), at(2_000)).allowed));
    assert_eq!(store.stats().forgotten, 0);
    (0..64).for_each(|_| _ = store.sweep(at(2_000)));
    assert!(store.stats().log_bytes <= 1 << 17, "{:?}", store.stats());
    // The last entry counts for an hour, the first ones for no longer than a little more.
    assert!((0..40).all(|key| store.check(&one(key), at(3_600_000 + 2_000)).allowed));
}

fn steps() -> impl Strategy<Value = Vec<(u64, u64, usize, Algorithm, u64)>> {
    let step = (0u64..40_000, 0u64..900, 0usize..4, prop::sample::select(Algorithm::ALL.to_vec()), 0u64..6);
    prop::collection::vec(step, 3_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// One rule is flooded; the others have few keys. What the small store says of these is what a store says that has room for
    /// all. Of the flooded one: if it is strict, it admits nothing that the large one does not (which is charged the same); if it
    /// forgets, a key that was never seen finds a full bucket.
    #[test]
    fn a_small_store_is_as_a_large_one_but_for_the_rule_that_is_flooded(
        flooded in 0usize..4, kind in prop::sample::select(Algorithm::ALL.to_vec()), steps in steps(),
    ) {
        let setup = Setup::new();
        let (small, large) = (setup.store(128 << 10), setup.store(16 << 20));
        let (mut now, mut next) = (0, 1 << 32);
        for (place, (pause, key, rule, algorithm, cost)) in steps.into_iter().enumerate() {
            now += pause / 100;
            for _ in 0..2 {
                let flood = setup.charge(Some(flooded), next, "6/1h", kind);
                let in_small = small.check(&flood, at(now));
                let in_large = large.check(&flood, at(now));
                if flooded < 2 {
                    prop_assert_eq!(in_small, in_large);
                } else if !in_small.allowed {
                    prop_assert!(in_small.assumed);
                    // Both are to know the same of it.
                    large.reset(flood.key);
                }
                next += 1;
            }
            let charge = units(cost, setup.charge(Some(rule), key % 12, "6/1m", algorithm));
            if rule != flooded {
                prop_assert_eq!(small.check(&charge, at(now)), large.check(&charge, at(now)), "step {}", place);
            } else if flooded >= 2 {
                let in_small = small.check(&charge, at(now));
                if in_small.allowed {
                    prop_assert!(large.check(&charge, at(now)).allowed, "step {}: {:?}", place, in_small);
                }
            }
            if place % 50 == 0 {
                small.sweep_some(at(now), 64);
            }
        }
        let let_go = small.stats().forgotten + small.stats().folded;
        prop_assert!(let_go > 0, "{:?}", small.stats());
        prop_assert_eq!(large.stats().forgotten + large.stats().folded, 0);
    }
}
