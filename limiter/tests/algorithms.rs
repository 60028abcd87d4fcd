//! Each algorithm beside a model that is obviously right: unbounded integers and the full list of what was admitted.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit, Nanos,
    cluster::{Charge, Floor, KeyHash, RuleId, Store, StoreConfig},
    rules::{Mode, Period},
};

/// 2027-01-15, at the start of a second but not of a minute.
const START: u64 = 1_800_000_007_000_000_000;
const SECOND: u64 = 1_000_000_000;
const YEAR: u64 = 365 * 86_400 * SECOND;

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, Nanos::new(START))
}

fn charge(limit: Limit, cost: u64) -> Charge {
    let key = KeyHash::from_raw(0x9e37_79b9_7f4a_7c15);
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

fn limit(algorithm: Algorithm, count: u64, period: Period) -> Limit {
    Limit::new(algorithm, count, period, None).unwrap()
}

/// What a person would keep: everything that was admitted.
trait Model {
    /// Units that are taken at `now`, as a fraction: numerator and denominator.
    fn used(&self, now: u64, limit: &Limit) -> (u128, u128);
    fn admit(&mut self, now: u64, cost: u64);

    fn allows(&self, now: u64, limit: &Limit, cost: u64) -> bool {
        let (used, denominator) = self.used(now, limit);
        used + u128::from(cost) * denominator <= u128::from(limit.burst_size()) * denominator
    }

    fn remaining(&self, now: u64, limit: &Limit) -> u64 {
        let (used, denominator) = self.used(now, limit);
        ((u128::from(limit.burst_size()) * denominator).saturating_sub(used) / denominator) as u64
    }
}

/// Token and leaky bucket: the debt, replayed from the first request on.
#[derive(Default)]
struct Debts(Vec<(u64, u64)>);

impl Model for Debts {
    fn used(&self, now: u64, limit: &Limit) -> (u128, u128) {
        // Debt in units times nanoseconds of the period.
        let (count, period) = (u128::from(limit.count()), limit.window().as_nanos());
        let (mut debt, mut last) = (0u128, 0u64);
        for (at, cost) in self.0.iter().copied().chain([(now, 0)]) {
            debt = debt.saturating_sub(u128::from(at - last) * count) + u128::from(cost) * period;
            last = at;
        }
        (debt, period)
    }

    fn admit(&mut self, now: u64, cost: u64) {
        self.0.push((now, cost));
    }
}

/// Fixed and sliding window: what was admitted in each window, and how many 64ths of it had begun with the last unit.
struct Windows {
    algorithm: Algorithm,
    length: u64,
    used: HashMap<u64, (u64, u64)>,
}

impl Windows {
    fn new(algorithm: Algorithm, length: u64) -> Self {
        Self { algorithm, length, used: HashMap::new() }
    }

    fn in_window(&self, window: u64) -> (u64, u64) {
        self.used.get(&window).copied().unwrap_or((0, 64))
    }
}

impl Model for Windows {
    fn used(&self, now: u64, _: &Limit) -> (u128, u128) {
        let (window, since) = (now / self.length, now % self.length);
        let (current, _) = self.in_window(window);
        if self.algorithm == Algorithm::FixedWindow {
            return (current.into(), 1);
        }
        // The window before comes back evenly until it has gone on for as long as that one until its last unit.
        let (previous, places) = self.in_window(window - 1);
        let last = u128::from(places * self.length);
        let left = last.saturating_sub(u128::from(64 * since));
        (u128::from(current) * last + u128::from(previous) * left, last)
    }

    fn admit(&mut self, now: u64, cost: u64) {
        let (window, since) = (now / self.length, now % self.length);
        let (previous, _) = self.in_window(window - 1);
        let (units, places) = self.used.entry(window).or_insert((0, 1));
        *units += cost;
        // It is known where both windows have few units.
        let place = if previous.max(*units) > 31 { 64 } else { (64 * since).div_ceil(self.length) };
        *places = place.max(*places);
    }
}

/// Sliding log: the list.
#[derive(Default)]
struct List(Vec<(u64, u64)>);

impl Model for List {
    fn used(&self, now: u64, limit: &Limit) -> (u128, u128) {
        let memory = limit.window().as_nanos() as u64;
        let counts = self.0.iter().filter(|(at, _)| at + memory > now);
        (counts.map(|(_, cost)| u128::from(*cost)).sum(), 1)
    }

    fn admit(&mut self, now: u64, cost: u64) {
        self.0.push((now, cost));
    }
}

fn model(algorithm: Algorithm, period: u64) -> Box<dyn Model> {
    match algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => Box::<Debts>::default(),
        Algorithm::FixedWindow | Algorithm::SlidingWindow => Box::new(Windows::new(algorithm, period)),
        Algorithm::SlidingLog => Box::<List>::default(),
        other => unreachable!("nobody has said what {other} promises"),
    }
}

/// Pauses of all sizes, with some that end where a window does.
fn pauses() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0u64..1_000,
        0u64..SECOND,
        0u64..20 * SECOND,
        (1u64..10).prop_map(|seconds| seconds * SECOND),
        (1u64..4).prop_map(|years| years * YEAR),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(u64, u64, Option<u64>)>> {
    let costs = prop_oneof![8 => 1u64..4, 2 => 0u64..40, 1 => Just(1 << 53)];
    prop::collection::vec((pauses(), costs, prop::option::weighted(0.05, 1u64..64)), 1..120)
}

/// Runs both side by side. Counts of at most 256 and rates of whole nanoseconds, so that nothing is rounded.
fn run(algorithm: Algorithm, seconds: u64, steps: Vec<(u64, u64, Option<u64>)>) -> Result<(), TestCaseError> {
    let (store, period) = (store(), Period::Fixed(Duration::from_secs(seconds * 64)));
    let mut model = model(algorithm, seconds * 64 * SECOND);
    let mut limit = limit(algorithm, 32, period);
    let mut now = START;
    for (pause, cost, change) in steps {
        now += pause;
        // A bucket's debt is kept in time, so another rate is another number of units; there only the burst changes.
        if let Some(count) = change {
            limit = if algorithm.has_burst() {
                Limit::new(algorithm, 32, period, Some(count)).unwrap()
            } else {
                self::limit(algorithm, count, period)
            };
        }
        let decision = store.check(&charge(limit, cost), Nanos::new(now));
        let asked = cost.max(1);
        prop_assert_eq!(decision.allowed, model.allows(now, &limit, asked), "{:?} at {}", decision, now);
        if let Some(wait) = decision.retry_after {
            let wait = wait.as_nanos() as u64;
            prop_assert!(model.allows(now + wait, &limit, asked), "{wait} is not enough");
            prop_assert!(!model.allows(now + wait - 1, &limit, asked), "{wait} is too much");
        } else {
            prop_assert_eq!(
                !decision.allowed,
                asked > limit.burst_size(),
                "only what can never pass has no wait"
            );
        }
        if algorithm == Algorithm::LeakyBucket && decision.allowed && cost > 0 {
            let (work, period) = model.used(now, &limit);
            let delay = work.div_ceil(u128::from(limit.count()));
            prop_assert_eq!(decision.delay.as_nanos(), delay, "{} of {}", work, period);
        } else {
            prop_assert_eq!(decision.delay, Duration::ZERO);
        }
        if decision.allowed && cost > 0 {
            model.admit(now, cost);
        }
        prop_assert_eq!(decision.remaining, model.remaining(now, &limit));
        prop_assert_eq!(decision.limit, limit.burst_size());
        let reset = now + decision.reset_after.as_nanos() as u64;
        prop_assert_eq!(model.used(reset, &limit).0, 0, "all is there again after the reset");
        if decision.reset_after > Duration::ZERO {
            prop_assert!(model.used(reset - 1, &limit).0 > 0, "and not before");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_token_bucket_is_its_model(seconds in 1u64..4, steps in steps()) {
        run(Algorithm::TokenBucket, seconds, steps)?;
    }

    #[test]
    fn a_leaky_bucket_is_its_model(seconds in 1u64..4, steps in steps()) {
        run(Algorithm::LeakyBucket, seconds, steps)?;
    }

    #[test]
    fn a_fixed_window_is_its_model(seconds in 1u64..4, steps in steps()) {
        run(Algorithm::FixedWindow, seconds, steps)?;
    }

    #[test]
    fn a_sliding_window_is_its_model(seconds in 1u64..4, steps in steps()) {
        run(Algorithm::SlidingWindow, seconds, steps)?;
    }

    #[test]
    fn a_sliding_log_is_its_model(seconds in 1u64..4, steps in steps()) {
        run(Algorithm::SlidingLog, seconds, steps)?;
    }

    /// Above 256 units the window before is rounded up by at most 1/128.
    #[test]
    fn a_large_sliding_window_stays_within_its_error(
        count in 257u64..1_000_000,
        steps in prop::collection::vec((0u64..SECOND, 1u64..400_000), 1..100),
    ) {
        let store = store();
        let limit = limit(Algorithm::SlidingWindow, count, Period::Fixed(Duration::from_secs(3)));
        let (mut windows, mut now) = (Windows::new(Algorithm::SlidingWindow, 3 * SECOND), START);
        for (pause, cost) in steps {
            now += pause;
            let decision = store.check(&charge(limit, cost), Nanos::new(now));
            let window = now / windows.length;
            let before = windows.in_window(window - 1);
            if decision.allowed {
                prop_assert!(windows.allows(now, &limit, cost));
            } else {
                windows.used.insert(window - 1, (before.0 + before.0 / 128, before.1));
                prop_assert!(!windows.allows(now, &limit, cost));
                windows.used.insert(window - 1, before);
            }
            if decision.allowed {
                windows.admit(now, cost);
            }
        }
    }

    /// Every algorithm, every interval: never more than the documented bound. Any rate, time that goes back too.
    #[test]
    fn no_interval_admits_more_than_the_bound(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        count in prop_oneof![1u64..12, 1u64..100, 1u64..10_000_000, 1u64..1 << 40],
        millis in 100u64..10_000,
        steps in prop::collection::vec((0u64..2 * SECOND, 0u64..120, prop::bool::weighted(0.1)), 1..80),
    ) {
        let store = store();
        let limit = limit(algorithm, count, Period::Fixed(Duration::from_millis(millis)));
        let period = u128::from(millis) * 1_000_000;
        let (mut now, mut admitted) = (START, Vec::<(u64, u64)>::new());
        for (pause, percent, back) in steps {
            let cost = ((u128::from(count) * u128::from(percent)).div_ceil(100)).min(1 << 53) as u64;
            now += pause;
            let told = if back { now - pause / 2 } else { now };
            if store.check(&charge(limit, cost), Nanos::new(told)).allowed {
                // Time that goes back counts as the latest instant at which the bucket gave something.
                let latest = admitted.last().map_or(told, |(latest, _)| told.max(*latest));
                admitted.push((latest, cost));
            }
        }
        for first in 0..admitted.len() {
            let mut sum = 0u128;
            for last in first..admitted.len() {
                sum += u128::from(admitted[last].1);
                let length = u128::from(admitted[last].0 - admitted[first].0);
                let count = u128::from(count);
                let bound = match algorithm {
                    Algorithm::FixedWindow => count * (length / period + 2) * period,
                    Algorithm::SlidingLog => count * (length / period + 1) * period,
                    _ => count * (period + length),
                };
                prop_assert!(sum * period <= bound, "{sum} in {length} ns");
            }
        }
    }

    /// No instant, cost or limit overflows, and nothing is ever admitted beyond the limit.
    #[test]
    fn the_edges_hold(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        count in prop_oneof![Just(1u64), Just(1 << 53), 1u64..1 << 53],
        period in prop_oneof![
            Just(Period::Day), Just(Period::Month), Just(Period::Fixed(Duration::from_millis(100))),
            Just(Period::Fixed(Duration::from_secs(31 * 86_400))), Just(Period::Fixed(Duration::from_secs(3_650 * 86_400))),
            Just("1/week".parse::<Limit>().unwrap().period()),
            Just("1/day timezone Europe/Paris starts 2026-01-31T06:00".parse::<Limit>().unwrap().period()),
            Just("1/month timezone Pacific/Apia starts 2026-01-31".parse::<Limit>().unwrap().period()),
            Just("1/year timezone Asia/Tokyo starts 2024-02-29".parse::<Limit>().unwrap().period()),
            Just("1/90d fixed_window starts 2026-03-17".parse::<Limit>().unwrap().period()),
        ],
        steps in prop::collection::vec(
            (prop_oneof![Just(0u64), Just(u64::MAX), Just(u64::MAX / 4), any::<u64>(), START..START + YEAR],
             prop_oneof![Just(0u64), Just(1), Just(1 << 53), 0u64..1 << 53],
             prop::option::of(any::<u64>())),
            1..40),
    ) {
        let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, Nanos::new(0));
        let algorithm = match period {
            Period::Calendar(_) if algorithm.has_burst() => Algorithm::FixedWindow,
            Period::Calendar(_) => Algorithm::SlidingWindow,
            _ => algorithm,
        };
        let limit = limit(algorithm, count, period);
        for (now, cost, floor) in steps {
            let one = Charge { floor: floor.map(|at| Floor::empty_at(Nanos::new(at))), ..charge(limit, cost) };
            let decision = store.check(&one, Nanos::new(now));
            prop_assert!(!decision.allowed || cost <= count);
            prop_assert!(decision.remaining <= decision.limit);
            prop_assert!(decision.allowed || decision.retry_after.is_some() == (cost <= count));
            store.refund(one.key, &limit, one.cost, Nanos::new(now));
            store.sweep(Nanos::new(now));
        }
    }
}

#[test]
fn calendar_windows_end_with_the_day_and_the_month() {
    // 2028-02-28 23:00:00 UTC, in a leap year.
    let evening = 1_835_391_600 * SECOND;
    let hours = |hours: u64| Nanos::new(evening + hours * 3600 * SECOND);
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let store = Store::new(StoreConfig::default(), hours(0));
        let daily = charge(limit(algorithm, 10, Period::Day), 10);
        assert!(store.check(&daily, hours(0)).allowed);
        let denied = store.check(&daily, hours(0));
        // The last unit was in the 62nd of 64 parts of the day.
        let wait = if algorithm == Algorithm::FixedWindow { 3600 } else { 3600 + 62 * 86_400 / 64 };
        assert_eq!(denied.retry_after, Some(Duration::from_secs(wait)), "{algorithm}");

        let store = Store::new(StoreConfig::default(), hours(0));
        let monthly = charge(limit(algorithm, 10, Period::Month), 10);
        assert!(store.check(&monthly, hours(0)).allowed);
        assert!(!store.check(&monthly, hours(24)).allowed, "the 29th is February too");
        let next = if algorithm == Algorithm::FixedWindow { 0 } else { 62 * 31 * 86_400 / 64 };
        let wait = Duration::from_secs(25 * 3600 + next);
        assert_eq!(store.check(&monthly, hours(0)).retry_after, Some(wait));
        assert!(store.check(&monthly, hours(0).saturating_add(wait)).allowed);
    }
}

#[test]
fn a_bucket_that_was_empty_elsewhere_is_not_fuller_here() {
    for algorithm in Algorithm::ALL {
        let store = store();
        let limit = limit(algorithm, 10, Period::Fixed(Duration::from_secs(10)));
        let at = |seconds: u64| Nanos::new(START / (10 * SECOND) * 10 * SECOND + (20 + seconds) * SECOND);
        let look_at = |now: Nanos, floor: u64| -> Decision {
            let look = Charge { floor: Some(Floor::empty_at(at(floor))), ..charge(limit, 0) };
            store.check(&look, now)
        };
        let look = |seconds: u64, floor: u64| look_at(at(seconds), floor);
        assert_eq!(look(5, 5).remaining, 0, "{algorithm}");
        assert!(!look(5, 5).allowed, "{algorithm}");
        let wait = look(5, 5).retry_after.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(10), "{algorithm} {wait:?}");
        assert!(look_at(at(5).saturating_add(wait), 5).allowed, "{algorithm}");
        assert_eq!(look(45, 5).remaining, 10, "{algorithm}: long ago");
        assert!(!look(5, 30).allowed, "{algorithm}: the floor may lie ahead");
    }
}

#[test]
fn time_that_goes_back_admits_no_more_than_time_that_stands_still() {
    for algorithm in Algorithm::ALL {
        let store = store();
        let limit = limit(algorithm, 5, Period::Fixed(Duration::from_secs(1)));
        let at = |millis: u64| Nanos::new(START + 60 * SECOND + millis * 1_000_000);
        for _ in 0..5 {
            assert!(store.check(&charge(limit, 1), at(1_005)).allowed, "{algorithm}");
        }
        for earlier in [1_004, 999, 500, 0] {
            assert!(!store.check(&charge(limit, 1), at(earlier)).allowed, "{algorithm}");
        }
        // Even when the bucket is no more: it was removed because it was full at a later instant.
        store.sweep(at(10_000));
        assert_eq!(store.stats().buckets, 0, "{algorithm}");
        let admitted = (0..10).filter(|_| store.check(&charge(limit, 1), at(1_500)).allowed).count();
        assert_eq!(admitted, 5, "{algorithm}");
    }
}

#[test]
fn a_log_of_very_many_requests_stays_bounded_and_only_gets_stricter() {
    let store = Store::new(StoreConfig { max_memory: 64 << 20, shards: 4 }, Nanos::new(START));
    let limit = limit(Algorithm::SlidingLog, 1 << 40, Period::Fixed(Duration::from_secs(3600)));
    for step in 0..300_000 {
        assert!(store.check(&charge(limit, 1), Nanos::new(START + step)).allowed);
    }
    assert!(store.stats().log_bytes < 3 << 20, "{:?}", store.stats());
    let look = store.check(&charge(limit, 0), Nanos::new(START + 300_000));
    assert_eq!(look.limit - look.remaining, 300_000);
}
