//! Logs that are long, and logs that are asked for several periods.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Bucket, Charge, Held, KeyHash, RuleId, Store, StoreConfig},
    rules::Mode,
};

const START: Nanos = Nanos::new(1_800_000_007_000_000_000);
const DAY: u64 = 86_400_000;

fn at(millis: u64) -> Nanos {
    START.saturating_add(Duration::from_millis(millis))
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 64 << 20, shards: 4 }, START)
}

/// Always the same log.
fn charge(limit: &str, cost: u64) -> Charge {
    Charge {
        key: KeyHash::from_raw(0x9e37_79b9_7f4a_7c14),
        rule: RuleId::INLINE,
        limit: Limit::parse(limit, None, Algorithm::SlidingLog).unwrap(),
        cost: Cost::new(cost).unwrap(),
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    }
}

/// Where a rule has got another period, or a node still has the older rule.
#[test]
fn a_log_remembers_for_as_long_as_any_limit_asks_and_counts_what_each_asks_for() {
    let store = store();
    assert!(store.check(&charge("1000/1d", 990), START).allowed);
    let short = store.check(&charge("5/1s", 3), at(2_000));
    assert!(short.allowed && short.remaining == 2, "{short:?}");
    let denied = store.check(&charge("5/1s", 4), at(2_500));
    assert_eq!((denied.allowed, denied.retry_after), (false, Some(Duration::from_millis(500))));
    assert!(store.check(&charge("5/1s", 5), at(3_000)).allowed);
    store.sweep(at(60_000));
    let long = store.check(&charge("1000/1d", 3), at(60_000));
    assert_eq!((long.allowed, long.remaining), (false, 2));
    assert_eq!(long.retry_after, Some(Duration::from_millis(DAY - 60_000)));
    assert!(store.check(&charge("1000/1d", 2), at(60_000)).allowed);
    assert_eq!(store.check(&charge("1000/1d", 0), at(DAY)).remaining, 990);
}

#[test]
fn a_denied_check_of_a_long_log_costs_no_walk_through_it() {
    let store = store();
    (0..60_000).for_each(|step| assert!(store.check(&charge("60000/1h", 1), at(step)).allowed));
    // These take minutes if each of them looks at each entry.
    for round in 0..1_000_000 {
        let cost = 60_000 - round % 1_000;
        let denied = store.check(&charge("60000/1h", cost), at(60_000));
        // The newest `60,000 - cost` may still be there.
        let wait = Duration::from_millis(3_600_000 - 60_000 + cost - 1);
        assert_eq!((denied.allowed, denied.retry_after), (false, Some(wait)), "cost {cost}");
    }
}

#[test]
fn units_that_no_limit_has_room_for_overflow_nothing_and_close_the_log_for_one_period() {
    let most = Cost::MAX.get();
    for (memory, units) in [(u64::MAX, u64::MAX), (DAY * 4_000_000, most), (1, 1 << 62)] {
        let store = store();
        let entries: Vec<(u64, u64)> = (0..100_000).rev().map(|age| (age * 4_000, units)).collect();
        let held = Held::Log { memory, entries };
        store.take_over(&Bucket { key: charge("1/1s", 1).key, rule: RuleId::INLINE, held }, START);
        let all = format!("{most}/1h");
        let denied = store.check(&charge(&all, 1), at(1));
        assert_eq!((denied.allowed, denied.remaining), (false, 0), "{units} for {memory}");
        let wait = denied.retry_after.unwrap();
        assert!(Duration::from_secs(3_599) < wait && wait <= Duration::from_secs(3_600), "{wait:?}");
        assert!(store.check(&charge(&all, most), at(3_600_000)).allowed);
        assert!(!store.check(&charge(&all, 1), at(3_600_001)).allowed);
        // As much in each tenth of a second, remembered for a day.
        assert!(!store.check(&charge(&format!("{most}/1d"), 1), at(3_600_001)).allowed);
        for step in 1..2_000 {
            let short = charge(&format!("{most}/100ms"), most);
            assert!(store.check(&short, at(3_600_000 + 100 * step)).allowed, "step {step}");
            assert!(!store.check(&short, at(3_600_000 + 100 * step + 99)).allowed, "step {step}");
        }
        let closed = store.check(&charge(&format!("{most}/1d"), 1), at(3_800_000));
        let last = Duration::from_millis(3_600_000 + 199_900 + DAY - 3_800_000);
        assert_eq!(closed.retry_after, Some(last));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// One log asked for several periods beside the list of all that was admitted.
    #[test]
    fn a_log_that_is_asked_for_several_periods_counts_each_of_them(
        steps in prop::collection::vec((prop_oneof![Just(0), 0u64..300, 0u64..5_000], 0usize..3, 0u64..12), 1..100),
    ) {
        let limits = [("20/1m", 20, 60_000), ("9/1s", 9, 1_000), ("14/10s", 14, 10_000)];
        let store = store();
        // From here on it knows the longest of them.
        prop_assert!(store.check(&charge(limits[0].0, 1), START).allowed);
        let mut admitted = vec![(0, 1)];
        let mut now = 0;
        for (pause, which, cost) in steps {
            now += pause;
            let (limit, count, memory) = limits[which];
            let used = |now: u64| -> u64 {
                admitted.iter().filter(|(at, _)| at + memory > now).map(|(_, cost)| *cost).sum()
            };
            let decision = store.check(&charge(limit, cost), at(now));
            let asked = cost.max(1);
            prop_assert_eq!(decision.allowed, used(now) + asked <= count);
            if let Some(wait) = decision.retry_after {
                let then = now + wait.as_millis() as u64;
                prop_assert!(used(then) + asked <= count && used(then - 1) + asked > count);
            }
            let taken = if decision.allowed { cost } else { 0 };
            prop_assert_eq!(decision.remaining, count.saturating_sub(used(now) + taken));
            if taken > 0 {
                admitted.push((now, cost));
            }
            store.sweep(at(now));
        }
    }
}
