//! Periods from a millisecond to ten years, of which the state of a window of ten years lies up to thirty years ahead.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Store, StoreConfig},
    rules::{Mode, Period},
};

/// 2027-01-15.
const START: u64 = 1_800_000_000_000_000_000;
const DAY: u64 = 86_400_000_000_000;
const YEAR: u64 = 365 * DAY;

fn charge(limit: Limit, cost: u64) -> Charge {
    let (key, cost) = (KeyHash::from_raw(0x9e37_79b9_7f4a_7c14), Cost::new(cost).unwrap());
    Charge { key, rule: RuleId::INLINE, limit, cost, mode: Mode::Enforce, floor: None, ban: None }
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 1 }, Nanos::new(START))
}

#[test]
fn one_in_a_year_is_one_in_a_year() {
    let token = Limit::new(Algorithm::TokenBucket, 1, Period::Fixed(Duration::from_nanos(YEAR)), None);
    let window = Limit::new(Algorithm::FixedWindow, 1, Period::from_first(Duration::from_nanos(YEAR)), None);
    for limit in [token.unwrap(), window.unwrap()] {
        let store = store();
        let ask = |days| store.check(&charge(limit, 1), Nanos::new(START + days * DAY));
        assert!(ask(0).allowed);
        for days in [1, 100, 364] {
            let denied = ask(days);
            let left = Duration::from_nanos(YEAR - days * DAY);
            let wait = denied.retry_after.unwrap();
            assert!(!denied.allowed && wait >= left && wait <= left + Duration::from_nanos(YEAR / 1_000));
        }
        assert!(ask(366).allowed);
        assert!(!ask(366 + 364).allowed);
    }
}

fn periods() -> impl Strategy<Value = u64> {
    const DAY_MILLIS: u64 = 86_400_000;
    prop_oneof![1u64..100, 31 * DAY_MILLIS..=3_650 * DAY_MILLIS]
}

proptest! {
    #[test]
    fn no_interval_admits_more_than_the_bound(
        from_first in any::<bool>(),
        millis in periods(),
        count in prop_oneof![1u64..10, 1u64..1_000_000],
        // Thousandths of a period, hundredths of the count.
        steps in prop::collection::vec((0u64..1_500, 0u64..120), 1..60),
    ) {
        let length = Duration::from_millis(millis);
        let period = if from_first { Period::from_first(length) } else { Period::Fixed(length) };
        let algorithm = if from_first { Algorithm::FixedWindow } else { Algorithm::TokenBucket };
        let limit = Limit::new(algorithm, count, period, None).unwrap();
        let (store, period) = (store(), length.as_nanos());
        let (mut now, mut admitted) = (START, Vec::<(u64, u64)>::new());
        for (pause, percent) in steps {
            // The clock ends in 2116.
            now = (now + (period * u128::from(pause) / 1_000) as u64).min(START + 60 * YEAR);
            let cost = (count * percent).div_ceil(100);
            if store.check(&charge(limit, cost), Nanos::new(now)).allowed {
                admitted.push((now, cost));
            }
        }
        for first in 0..admitted.len() {
            let mut sum = 0;
            for (at, cost) in &admitted[first..] {
                sum += u128::from(*cost);
                let span = u128::from(at - admitted[first].0);
                let bound = match from_first {
                    true => u128::from(count) * (span / period + 2) * period,
                    false => u128::from(count) * (period + span),
                };
                prop_assert!(sum * period <= bound, "{sum} in {span} ns");
            }
        }
        // Whatever was taken, all of it is there again after a period: but for one in a thousand of a window that has more units
        // than instants to end at.
        let later = Nanos::new(now + (period + period / 1_000 + 1) as u64);
        let again = store.check(&charge(limit, 0), later).remaining;
        prop_assert!(again + count / 1_000 + 1 >= count, "{again} of {count}");
        prop_assert!(store.check(&charge(limit, again), later).allowed);
    }
}

proptest! {
    /// Windows and logs of a month to ten years.
    #[test]
    fn windows_and_logs_of_years_admit_no_more_than_the_bound(
        algorithm in prop::sample::select(vec![
            Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::SlidingLog,
        ]),
        days in 31u64..=3_650,
        millis in prop_oneof![Just(0u64), 0u64..86_400_000],
        count in prop_oneof![1u64..10, 1u64..1_000_000, Just(1 << 53)],
        steps in prop::collection::vec((0u64..1_500, 0u64..120), 1..40),
    ) {
        let length = Duration::from_millis((days * 86_400_000 + millis).min(3_650 * 86_400_000));
        let limit = Limit::new(algorithm, count, Period::Fixed(length), None).unwrap();
        let (store, period) = (store(), length.as_nanos());
        let (mut now, mut admitted) = (START, Vec::<(u64, u64)>::new());
        for (pause, percent) in steps {
            // Ten years need thirty of them until the clock ends.
            now = (now + (period * u128::from(pause) / 1_000) as u64).min(START + 30 * YEAR);
            let cost = (u128::from(count) * u128::from(percent)).div_ceil(100) as u64;
            let cost = cost.min(1 << 53);
            let look = store.check(&charge(limit, 0), Nanos::new(now));
            let decision = store.check(&charge(limit, cost), Nanos::new(now));
            let has_room = if cost == 0 { look.allowed } else { cost <= look.remaining };
            prop_assert_eq!(decision.allowed, has_room, "{:?} {}", look, cost);
            if decision.allowed {
                admitted.push((now, cost));
            } else if let Some(wait) = decision.retry_after {
                prop_assert!(wait <= 2 * length, "{wait:?}");
            }
        }
        for first in 0..admitted.len() {
            let mut sum = 0;
            for (at, cost) in &admitted[first..] {
                sum += u128::from(*cost);
                let span = u128::from(at - admitted[first].0);
                let bound = match algorithm {
                    Algorithm::FixedWindow => u128::from(count) * (span / period + 2) * period,
                    Algorithm::SlidingLog => u128::from(count) * (span / period + 1) * period,
                    _ => u128::from(count) * (period + span),
                };
                prop_assert!(sum * period <= bound, "{sum} in {span} ns");
            }
        }
        let later = Nanos::new(now + 2 * period as u64);
        prop_assert!(store.check(&charge(limit, count), later).allowed, "all of it is there again");
    }
}
