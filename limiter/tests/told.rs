//! What a decision tells comes true: a client that waits as told, and is alone, is admitted; what remains can be taken at once; a bucket
//! that is full can be emptied. All algorithms, all counts and bursts, any period, after any traffic.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Store, StoreConfig},
    rules::{Mode, Period, Unit, Zone},
};

/// 2027-01-15, at the start of a second but not of a minute.
const START: u64 = 1_800_000_007_000_000_000;
const MILLI: u64 = 1_000_000;

struct Client {
    store: Store,
    limit: Limit,
    now: u64,
}

impl Client {
    fn new(limit: Limit) -> Self {
        let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, Nanos::new(START));
        Self { store, limit, now: START }
    }

    fn at(&self, now: u64, cost: u64) -> Decision {
        let charge = Charge {
            key: KeyHash::from_raw(0x9e37_79b9_7f4a_7c15),
            rule: RuleId::INLINE,
            limit: self.limit,
            cost: Cost::new(cost).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        self.store.check(&charge, Nanos::new(now))
    }

    fn ask(&self, cost: u64) -> Decision {
        self.at(self.now, cost)
    }

    fn wait(&mut self, duration: Duration) {
        self.now += duration.as_nanos() as u64;
    }
}

fn parse(text: &str) -> Limit {
    text.parse().unwrap()
}

/// Each period also as windows that begin with their first charge.
fn limits() -> impl Strategy<Value = Limit> {
    let count = || {
        prop_oneof![1u64..40, 1u64..2_000, 1u64..20_000_000, 1u64..=1 << 53, Just(1 << 53), Just(1_000_003)]
    };
    let period = prop_oneof![
        4 => (100u64..5_000).prop_map(|millis| Period::Fixed(Duration::from_millis(millis))),
        2 => (100u64..31 * 86_400_000).prop_map(|millis| Period::Fixed(Duration::from_millis(millis))),
        1 => Just(Period::Day),
        1 => Just(Period::Month),
        1 => (
            prop::sample::select(vec![Unit::Day, Unit::Week, Unit::Month, Unit::Year]),
            prop::sample::select(vec!["UTC", "Europe/Paris", "America/Havana", "Pacific/Apia", "Asia/Kathmandu"]),
            prop::option::of(prop::sample::select(vec!["2026-01-31", "2024-02-29T06:30"])),
        ).prop_map(|(unit, zone, starts)| {
            let starts = starts.map(|date| date.parse().unwrap());
            Period::calendar(unit, Zone::named(zone).unwrap(), starts).unwrap()
        }),
    ];
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    (algorithm, count(), period, prop::option::of(count()), any::<bool>()).prop_filter_map(
        "it is a limit",
        |(algorithm, count, period, burst, from_first)| {
            let period = match period {
                Period::Fixed(length) if from_first && algorithm == Algorithm::FixedWindow => {
                    Period::from_first(length)
                }
                other => other,
            };
            Limit::new(algorithm, count, period, burst.filter(|_| algorithm.has_burst())).ok()
        },
    )
}

/// Pauses in 2^-20 of the period, or in nanoseconds; costs in 2^-20 of what fits, or in units.
fn steps() -> impl Strategy<Value = Vec<((bool, u64), (bool, u64))>> {
    let pause = prop_oneof![
        3 => Just((false, 0)),
        2 => (0u64..2_000).prop_map(|nanos| (false, nanos)),
        4 => (0u64..1 << 18).prop_map(|part| (true, part)),
        1 => (0u64..3 << 20).prop_map(|part| (true, part)),
    ];
    let cost = prop_oneof![
        3 => (1u64..4).prop_map(|units| (false, units)),
        4 => (0u64..1 << 19).prop_map(|part| (true, part)),
        1 => Just((true, 1 << 20)),
    ];
    prop::collection::vec((pause, cost), 1..60)
}

fn of(part: u64, whole: u64) -> u64 {
    ((u128::from(part) * u128::from(whole)) >> 20) as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_comes_true(limit in limits(), steps in steps(), late in 0u64..20, last in 1u64..=1 << 20) {
        let mut client = Client::new(limit);
        let (period, burst) = (limit.window().as_nanos() as u64, limit.burst_size());
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        let fixed = limit.algorithm() == Algorithm::FixedWindow;
        for ((in_parts, pause), (of_whole, cost)) in steps {
            client.now += if in_parts { of(pause, period) } else { pause };
            let cost = if of_whole { of(cost, burst).max(1) } else { cost };
            let before = client.ask(0);
            prop_assert_eq!(before.allowed, before.remaining >= 1, "{:?}", before);
            let decision = client.ask(cost);
            prop_assert_eq!(decision.allowed, cost <= before.remaining, "{} of {:?}", cost, before);
            if decision.allowed {
                admitted.push((client.now, cost));
                prop_assert!(decision.remaining <= before.remaining - cost, "{} of {:?}", cost, before);
            } else {
                prop_assert_eq!(decision.remaining, before.remaining);
                prop_assert_eq!(decision.retry_after.is_some(), cost <= burst);
                prop_assert!(decision.retry_after.is_none_or(|wait| wait > Duration::ZERO));
            }
        }

        // In any interval no more than the bound, in exact numbers.
        for first in 0..admitted.len() {
            let mut sum = 0;
            for last in first..admitted.len() {
                sum += u128::from(admitted[last].1);
                let (length, period) = (u128::from(admitted[last].0 - admitted[first].0), u128::from(period));
                let (count, burst) = (u128::from(limit.count()), u128::from(burst));
                let bound = match limit.algorithm() {
                    // The shortest month has 28 days, and so on.
                    _ if matches!(limit.period(), Period::Month | Period::Calendar(_)) => break,
                    Algorithm::FixedWindow => count * (length / period + 2) * period,
                    Algorithm::SlidingLog => count * (length / period + 1) * period,
                    _ => burst * period + count * length,
                };
                prop_assert!(sum * period <= bound, "{sum} in {length} ns");
            }
        }

        // Whoever waits as told, or a little longer, is admitted; whoever waits less is not.
        let cost = of(last, burst).max(1);
        let denied = client.ask(cost);
        if let Some(wait) = denied.retry_after {
            let earlier = client.now + wait.as_nanos() as u64 - 1;
            let is_rounded = limit.algorithm() == Algorithm::SlidingWindow && limit.count() > 256;
            let asked = client.at(earlier, cost);
            prop_assert!(is_rounded || !asked.allowed, "{:?} is too long: {:?}", wait, denied);
            if !asked.allowed {
                client.wait(wait);
                client.now += if late < 10 { 0 } else { of(1 << late, period) };
                let after = client.ask(cost);
                prop_assert!(after.allowed, "{:?} was not enough: {:?}", denied, after);
            }
        }

        // When all is there again, all can be taken.
        let used = client.ask(0);
        if used.reset_after > Duration::ZERO && !fixed {
            let earlier = client.at(client.now + used.reset_after.as_nanos() as u64 - 1, 0);
            prop_assert!(earlier.reset_after > Duration::ZERO, "{:?}", used);
        }
        client.wait(used.reset_after);
        prop_assert_eq!(client.ask(0).remaining, burst, "{:?}", used);
        let emptied = client.ask(burst);
        prop_assert!(emptied.allowed && emptied.remaining == 0, "{:?}", emptied);
    }
}

#[test]
fn a_window_after_one_that_was_nearly_full_keeps_its_word() {
    let mut client = Client::new(parse("10000/1m sliding_window"));
    assert!(client.ask(1).allowed);
    client.now += 60_301 * MILLI;
    assert!(client.ask(9_999).allowed);
    let denied = client.ask(1);
    assert!(!denied.allowed);
    client.wait(denied.retry_after.unwrap());
    assert!(client.ask(1).allowed, "{denied:?}");
}

#[test]
fn a_full_bucket_can_be_emptied_at_any_rate() {
    let tenth = Period::Fixed(Duration::from_millis(101));
    for algorithm in Algorithm::ALL {
        for count in [1, 29, 1_000_003, 40_000_001, 404_000_001, 1 << 40, (1 << 53) - 1, 1 << 53] {
            let bursts = if algorithm.has_burst() { vec![1, 2, 30, 1_000_003, count] } else { vec![count] };
            for burst in bursts {
                let Ok(limit) = Limit::new(algorithm, count, tenth, Some(burst)) else { continue };
                let mut client = Client::new(limit);
                for _ in 0..3 {
                    assert_eq!(client.ask(0).remaining, burst, "{limit:#}");
                    let all = client.ask(burst);
                    assert!(all.allowed && all.remaining == 0, "{limit:#}: {all:?}");
                    let none = client.ask(burst);
                    assert!(!none.allowed, "{limit:#}");
                    client.wait(all.reset_after);
                }
            }
        }
    }
}

/// Above 3.9 million units a second an interval is no whole number of ticks. Where that makes no odds, it is taken as one.
#[test]
fn units_of_fast_buckets_add_up() {
    let limit =
        Limit::new(Algorithm::TokenBucket, 1_000_003, Period::Fixed(Duration::from_millis(101)), Some(30))
            .unwrap();
    let client = Client::new(limit);
    for remaining in (0..30).rev() {
        let decision = client.ask(1);
        assert_eq!((decision.allowed, decision.remaining), (true, remaining));
    }
    assert!(!client.ask(1).allowed);
}
