//! Beyond the budget, and over several buckets: never more than there is.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

const START: u64 = 1_800_000_007_000_000_000;

/// Every second key has windows of an hour, so that what is assumed of one comes from windows that do not line up with its own.
fn charge(key: u64, algorithm: Algorithm, cost: u64) -> Charge {
    let limit = Limit::parse(if key.is_multiple_of(2) { "10/1m" } else { "10/1h" }, None, algorithm).unwrap();
    let key = KeyHash::from_raw((key * 8 + algorithm as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
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

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(Algorithm::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A store with room for some dozens of buckets beside one with room for all: what the first admits, the second,
    /// which was charged the same, admits too.
    #[test]
    fn a_store_that_is_too_small_is_never_looser(
        mixed in any::<bool>(),
        one in algorithms(),
        steps in prop::collection::vec((0u64..400_000_000, 0u64..300, algorithms(), 1u64..6), 2_000),
    ) {
        let small = Store::new(StoreConfig { max_memory: 4 << 10, shards: 2 }, Nanos::new(START));
        let large = Store::new(StoreConfig { max_memory: 8 << 20, shards: 2 }, Nanos::new(START));
        let yaml = "rules: [{ name: r, key: [k], limit: 10/1m, on_memory_full: strict }]";
        let rules = Rules::from_yaml(yaml, &HashSecret::new([1; 16])).unwrap();
        small.set_rules(&rules);
        let rule = rules.rules("default")[0].id();
        let mut now = START;
        for (place, (pause, key, algorithm, cost)) in steps.into_iter().enumerate() {
            now += pause;
            let one = Charge { rule, ..charge(key, if mixed { algorithm } else { one }, cost) };
            if small.check(&one, Nanos::new(now)).allowed {
                prop_assert!(large.check(&one, Nanos::new(now)).allowed, "{:?} at step {place}", one);
            }
            if place % 100 == 0 {
                small.sweep(Nanos::new(now));
            }
        }
        prop_assert!(small.stats().folded > 0 && large.stats().folded == 0);
    }

    /// Several buckets of all algorithms, some of them twice: all are charged or none.
    #[test]
    fn a_check_charges_all_of_its_buckets_or_none(
        checks in prop::collection::vec(
            prop::collection::vec((0u64..2, algorithms(), 0u64..5, prop::bool::weighted(0.2)), 1..6), 1..20),
    ) {
        let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, Nanos::new(START));
        let now = Nanos::new(START);
        for check in checks {
            let charges: Vec<Charge> = check
                .into_iter()
                .map(|(key, algorithm, cost, shadow)| Charge {
                    mode: if shadow { Mode::Shadow } else { Mode::Enforce },
                    ..charge(key, algorithm, cost)
                })
                .collect();
            let remaining = |one: &Charge| store.check(&Charge { cost: Cost::PEEK, ..*one }, now).remaining;
            let before: Vec<u64> = charges.iter().map(remaining).collect();
            let mut decisions = SmallVec::new();
            let allowed = store.check_all(&charges, now, &mut decisions);
            prop_assert_eq!(decisions.len(), charges.len());
            let denies = charges.iter().zip(&decisions).any(|(one, it)| one.mode == Mode::Enforce && !it.allowed);
            prop_assert_eq!(allowed, !denies);
            for (place, one) in charges.iter().enumerate() {
                let taken: u64 = if allowed {
                    let same = charges.iter().zip(&decisions).filter(|(other, it)| other.key == one.key && it.allowed);
                    same.map(|(other, _)| other.cost.get()).sum()
                } else {
                    0
                };
                prop_assert_eq!(remaining(one), before[place] - taken);
            }
        }
    }
}
