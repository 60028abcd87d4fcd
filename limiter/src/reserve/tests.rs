use proptest::prelude::*;

use super::*;
use crate::{Charge, Cost, HashSecret, KeyHash, Mode, Rules, Store, StoreConfig, Takeover, floor::Floor};

const START: u64 = 1_800_000_000_000_000_000;
const WITH_FLOORS: [Algorithm; 4] =
    [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];

fn store(now: Nanos) -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, now)
}

fn charge(limit: Limit, cost: u64, floor: Option<Floor>) -> Charge {
    let windows = matches!(limit.algorithm(), Algorithm::FixedWindow | Algorithm::SlidingWindow);
    let key = KeyHash::from_raw(0x9e37_79b9_7f4a_7c14 | u64::from(windows));
    Charge {
        key,
        rule: RuleId::INLINE,
        limit,
        cost: Cost::new(cost).unwrap(),
        mode: Mode::Enforce,
        floor,
        ban: None,
    }
}

#[test]
fn a_charge_beyond_what_the_successor_knows_is_held_and_passes_when_it_knows() {
    for algorithm in WITH_FLOORS {
        let now = Nanos::new(START);
        let limit = Limit::parse("160/1h", None, algorithm).unwrap();
        let reserve = Reserve::of(RuleId::from_raw(1), [&limit], true).unwrap();
        let store = store(now);
        let floor = |acknowledged| {
            Some(Floor::between(None, Mark::default(), reserve.at_most(&limit, acknowledged, now)))
        };
        let quantum = if algorithm == Algorithm::SlidingWindow { 5 } else { 10 };
        let one = charge(limit, quantum, floor(None));
        let first = store.check(&one, now);
        assert!(first.allowed, "{algorithm:?}: one quantum is free");
        let mark = reserve.mark(&one, &first, now, || store.mark(one.key, now));
        assert!(reserve.is_near(&limit, mark, reserve.at_most(&limit, None, now)));
        let more = charge(limit, 3, floor(None));
        let held = store.check(&more, now);
        assert!(held.is_held() && held.remaining == 160 - quantum, "{algorithm:?} {held:?}");
        let wanted = reserve.mark(&more, &held, now, || store.mark(one.key, now));
        assert!(store.check(&charge(limit, 3, floor(Some(wanted))), now).allowed, "{algorithm:?}");
        assert!(store.check(&charge(limit, 1, floor(Some(wanted))), now).is_held());
        // What the limit itself denies is no matter of floors.
        let all = floor(Some(Mark::new(u64::MAX)));
        assert!(store.check(&charge(limit, 157 - quantum, all), now).allowed);
        let denied = store.check(&charge(limit, 1, floor(Some(wanted))), now);
        assert!(!denied.allowed && !denied.is_held());
    }
}

#[test]
fn limits_that_come_with_checks_have_floors_where_those_of_rules_have_them() {
    let (now, reserves) = (Nanos::new(START), Reserves::of([(); 0].map(|()| (RuleId::INLINE, None, [])), []));
    assert!(!reserves.is_empty() && Reserves::default().is_empty());
    assert_ne!(reserves.fingerprint(), Reserves::default().fingerprint());
    let of = |text, burst, algorithm| Reserve::of_inline(&Limit::parse(text, burst, algorithm).unwrap());
    for (text, burst, algorithm) in [
        ("100/1s", None, Algorithm::TokenBucket),
        ("100/10s", None, Algorithm::LeakyBucket),
        ("100/10s", None, Algorithm::SlidingWindow),
        ("100/1d", None, Algorithm::SlidingLog),
        ("0/1d", None, Algorithm::TokenBucket),
    ] {
        assert_eq!(of(text, burst, algorithm), None, "{text} {algorithm:?}");
    }
    for (text, burst, algorithm) in [
        ("31/11s", None, Algorithm::TokenBucket),
        ("15/11s", None, Algorithm::LeakyBucket),
        ("100/1s", Some(2000), Algorithm::TokenBucket),
        ("7/1h", None, Algorithm::TokenBucket),
        ("1/1d", None, Algorithm::TokenBucket),
        ("40/11s", None, Algorithm::FixedWindow),
        ("100/day", None, Algorithm::FixedWindow),
        ("40/11s", None, Algorithm::SlidingWindow),
    ] {
        let limit = Limit::parse(text, burst, algorithm).unwrap();
        let reserve = of(text, burst, algorithm).unwrap();
        assert!(reserves.contains(reserve) && !Reserves::default().contains(reserve));
        // What was charged before it was known that there would be floors: each that is beyond a quantum is found.
        for cost in 1..=limit.burst_size() {
            let store = store(now);
            let one = charge(limit, cost, None);
            assert!(store.check(&one, now).allowed);
            let mut found = Vec::new();
            store.buckets(now, |_| true, |bucket| found.push(bucket));
            let (rule, held) = (found[0].rule, &found[0].held);
            let (state, floor) = (held.mark(now).unwrap(), reserves.floor_of(one.key, rule, held, now));
            let part = if algorithm == Algorithm::SlidingWindow { 2 * QUANTUM_PART } else { QUANTUM_PART };
            let is_needed = cost > (limit.burst_size() / part).max(1);
            assert!(floor.is_some() || !is_needed, "{text}: {cost} units");
            assert!(floor.is_none_or(|floor| floor >= state), "{text}: {cost} units");
            assert_eq!(Reserves::default().floor_of(one.key, rule, held, now), None);
        }
    }
}

#[test]
fn a_debt_that_is_postponed_lasts_longer_and_a_window_lies_where_it_lies() {
    let minute = Duration::from_secs(60);
    assert_eq!(Held::Debt(8).postponed(minute), Held::Debt(8 + 240_000_000_000));
    assert_eq!(Held::Window(8).postponed(minute), Held::Window(8));
}

#[test]
fn windows_that_end_between_the_last_floor_and_the_takeover_count_as_exhausted() {
    let limit = Limit::parse("160/1m", None, Algorithm::FixedWindow).unwrap();
    let reserve = Reserve::of(RuleId::from_raw(1), [&limit], true).unwrap();
    let at = |seconds: u64| Nanos::new(START + seconds * 1_000_000_000);
    assert!(reserve.at_least(&limit, at(10), at(50)).is_some());
    assert!(reserve.at_least(&limit, at(50), at(65)).is_none());
    let bucket = Limit::parse("160/1m", None, Algorithm::TokenBucket).unwrap();
    let of_bucket = Reserve::of(RuleId::from_raw(1), [&bucket], true).unwrap();
    assert!(of_bucket.at_least(&bucket, at(50), at(65)).is_some());
    // Where nobody gives shares of it, the new window has what the successor would believe anyway.
    let alone = Reserve::of(RuleId::from_raw(1), [&limit], false).unwrap();
    assert_eq!(alone.at_least(&limit, at(50), at(65)), Some(alone.at_most(&limit, None, at(65))));
    // A clock that was set back shows a window once more of which the floors are gone; not so within one window.
    assert!(alone.at_least(&limit, at(65), at(50)).is_none());
    assert!(alone.at_least(&limit, at(50), at(40)).is_some());
    let of_bucket = Reserve::of(RuleId::from_raw(1), [&bucket], false).unwrap();
    assert!(of_bucket.at_least(&bucket, at(65), at(50)).is_some());
}

/// Found by a review: a floor that ran ahead lay in the next window, nearly empty there.
#[test]
fn a_floor_of_a_window_lies_in_that_window_however_large_the_count() {
    for text in ["236000000000/1m", "239999999999/1m", "213333333333/1m", "400000000/100ms", "1000/1m"] {
        let now = Nanos::new(START);
        let limit = Limit::parse(text, None, Algorithm::FixedWindow).unwrap();
        let reserve = Reserve::of(RuleId::from_raw(1), [&limit], false).unwrap();
        let store = store(now);
        let end = window_end(limit.period(), now.ticks());
        let is_within = |mark: Mark| {
            let state = mark.get();
            end < state && window_end(limit.period(), end) > state
        };
        assert!(is_within(reserve.at_most(&limit, None, now)), "{text}");
        let all = Cost::new(limit.count()).unwrap();
        let decision = store.check(&charge(limit, all.get(), None), now);
        assert!(decision.allowed && decision.remaining == 0, "{text}");
        let mark = reserve.mark(&charge(limit, all.get(), None), &decision, now, || None);
        let ahead = reserve.ahead(&limit, mark, now);
        assert!(is_within(ahead), "{text}");
        let ahead = Held::Window(ahead.get()).mark_ahead(now).unwrap();
        assert!(is_within(ahead), "{text}");
        // Who begins from such a floor has nothing left in this window.
        let floor = Floor::between(None, ahead, Mark::new(u64::MAX));
        let next = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, now);
        let denied = next.check(&charge(limit, 1, Some(floor)), now);
        assert!(!denied.allowed && denied.remaining == 0, "{text} {denied:?}");
    }
}

/// Found by a review: shares of an idle bucket admitted what refilled in some seconds, and its new owner all but a quantum.
#[test]
fn what_shares_may_have_admitted_counts_as_used_and_not_more_than_a_burst() {
    let limit = Limit::parse("100/12s", None, Algorithm::TokenBucket).unwrap();
    let at = |millis: u64| Nanos::new(START + millis * 1_000_000);
    let left = |has_shares, heard, begun| {
        let reserve = Reserve::of(RuleId::from_raw(1), [&limit], has_shares).unwrap();
        let floor =
            Floor::between(None, reserve.at_least(&limit, heard, begun).unwrap(), Mark::new(u64::MAX));
        store(begun).check(&charge(limit, 0, Some(floor)), begun).remaining
    };
    // 100 units in 12 s are 37.5 in 4.5 s; a quantum is 6.
    assert_eq!(left(true, at(0), at(4_500)), 62);
    assert_eq!(left(true, at(0), at(100)), 94);
    assert_eq!(left(false, at(0), at(4_500)), 94);
    assert_eq!(left(true, at(0), at(60_000)), 0);
}

#[test]
fn rules_that_refill_for_long_replicate_floors_unless_said_otherwise() {
    let limit = |text, burst, algorithm| Limit::parse(text, burst, algorithm).unwrap();
    let of = |text, burst, algorithm| Takeover::default_of([&limit(text, burst, algorithm)]);
    assert_eq!(of("100/1s", None, Algorithm::TokenBucket), Takeover::Zero);
    assert_eq!(of("100/1s", Some(1000), Algorithm::TokenBucket), Takeover::Zero);
    assert_eq!(of("100/1m", None, Algorithm::TokenBucket), Takeover::Reserve);
    assert_eq!(of("1000/day", None, Algorithm::FixedWindow), Takeover::Reserve);
    assert_eq!(of("1000/1d", None, Algorithm::SlidingWindow), Takeover::Reserve);
    assert_eq!(of("1000/1d", None, Algorithm::SlidingLog), Takeover::Zero);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A successor that begins from what was acknowledged has never more left than a bucket that saw all charges.
    #[test]
    fn a_successor_that_begins_from_the_floor_admits_nothing_twice(
        algorithm in prop::sample::select(vec![
            Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow,
        ]),
        count in 1u64..200,
        burst in prop::option::of(1u64..300),
        steps in prop::collection::vec((0u64..400, 1u64..40, any::<bool>()), 1..60),
        gap in 0u64..5_000,
    ) {
        let burst = burst.filter(|_| algorithm.has_burst());
        let limit = Limit::new(algorithm, count, Period::Fixed(Duration::from_secs(20)), burst).unwrap();
        let reserve = Reserve::of(RuleId::from_raw(1), [&limit], true).unwrap();
        let mut now = Nanos::new(START);
        let (owner, truth, successor) = (store(now), store(now), store(now));
        let mut acknowledged: Option<Mark> = None;
        for (pause, cost, comes) in steps {
            now = now.saturating_add(Duration::from_millis(pause));
            let at_most = reserve.at_most(&limit, acknowledged, now);
            let one = charge(limit, cost, Some(Floor::between(None, Mark::default(), at_most)));
            let decision = owner.check(&one, now);
            let mark = reserve.mark(&one, &decision, now, || owner.mark(one.key, now));
            if decision.allowed {
                let same = truth.check(&charge(limit, cost, None), now);
                prop_assert!(same.allowed);
                prop_assert_eq!(same.remaining, decision.remaining);
            }
            // The floor is sent; it may get lost.
            if comes && (decision.is_held() || decision.allowed && reserve.is_near(&limit, mark, at_most)) {
                let floor = reserve.ahead(&limit, mark, now);
                successor.take_over(&crate::store::Bucket { key: one.key, rule: one.rule, held: floor.held(one.key, now) }, now);
                acknowledged = acknowledged.max(Some(floor));
            }
        }
        let heard = now;
        let begun = now.saturating_add(Duration::from_millis(gap));
        // Shares admit what refills, all of it at the last moment.
        if algorithm != Algorithm::FixedWindow {
            let refilled = u64::try_from(u128::from(count) * u128::from(gap) / 20_000).unwrap();
            for _ in 0..refilled {
                truth.check(&charge(limit, 1, None), begun);
            }
        }
        // As the store of floors is taken over: what is over is left out, and the rest stands still.
        let taken = store(begun);
        successor.buckets(begun, |_| true, |bucket| {
            let held = bucket.held.postponed(begun.saturating_since(heard));
            taken.take_over(&crate::store::Bucket { held, ..bucket }, begun);
        });
        let left = |store: &Store, floor| store.check(&charge(limit, 0, floor), begun).remaining;
        let floor = match reserve.at_least(&limit, heard, begun) {
            Some(at_least) => Floor::between(None, at_least, Mark::new(u64::MAX)),
            None => Floor::empty_at(begun),
        };
        prop_assert!(left(&taken, Some(floor)) <= left(&truth, None));
    }

    /// The same for all that the successor admits from then on, at any later time: in windows that slide it matters when units came.
    #[test]
    fn whatever_a_successor_admits_later_was_left(
        algorithm in prop::sample::select(WITH_FLOORS.to_vec()),
        count in 1u64..700,
        // It crashes after it was bound.
        steps in prop::collection::vec((0u64..4_000, 1u64..60, any::<bool>()), 6..60),
        gap in 0u64..25_000,
        later in prop::collection::vec((0u64..4_000, 1u64..60), 1..40),
    ) {
        let limit = Limit::new(algorithm, count, Period::Fixed(Duration::from_secs(20)), None).unwrap();
        let reserve = Reserve::of(RuleId::from_raw(1), [&limit], false).unwrap();
        let reserves = Reserves::of([(RuleId::from_raw(1), Some(reserve), [(0, &limit)])], []);
        let mut now = Nanos::new(START);
        let (owner, truth, successor) = (store(now), store(now), store(now));
        let mut acknowledged: Option<Mark> = None;
        let take = |floor: Mark, rule, key, now| {
            successor.take_over(&crate::store::Bucket { key, rule, held: floor.held(key, now) }, now);
        };
        for (place, (pause, cost, comes)) in steps.into_iter().enumerate() {
            now = now.saturating_add(Duration::from_millis(pause));
            // At first nothing binds it; then it sends what it knows.
            let is_bound = place > 4;
            if place == 5 {
                owner.buckets(now, |_| true, |bucket| {
                    let rule = RuleId::from_raw(1);
                    if let Some(floor) = reserves.floor_of(bucket.key, rule, &bucket.held, now) {
                        take(floor, rule, bucket.key, now);
                        acknowledged = Some(floor);
                    }
                });
            }
            let at_most = if is_bound { reserve.at_most(&limit, acknowledged, now) } else { Mark::new(u64::MAX) };
            let one = charge(limit, cost, Some(Floor::between(None, Mark::default(), at_most)));
            let decision = owner.check(&one, now);
            let mark = reserve.mark(&one, &decision, now, || owner.mark(one.key, now));
            if decision.allowed {
                prop_assert!(truth.check(&charge(limit, cost, None), now).allowed);
            }
            if comes && is_bound
                && (decision.is_held() || decision.allowed && reserve.is_near(&limit, mark, at_most))
            {
                let floor = reserve.ahead(&limit, mark, now);
                take(floor, one.rule, one.key, now);
                acknowledged = acknowledged.max(Some(floor));
                if decision.is_held() {
                    // Now it passes.
                    let at_most = reserve.at_most(&limit, acknowledged, now);
                    let again = charge(limit, cost, Some(Floor::between(None, Mark::default(), at_most)));
                    prop_assert!(owner.check(&again, now).allowed);
                    prop_assert!(truth.check(&charge(limit, cost, None), now).allowed);
                }
            }
        }
        let begun = now.saturating_add(Duration::from_millis(gap));
        let taken = store(begun);
        successor.buckets(begun, |_| true, |bucket| taken.take_over(&bucket, begun));
        let at_least = reserve.at_least(&limit, now, begun).unwrap();
        let mut now = begun;
        for (pause, cost) in later {
            now = now.saturating_add(Duration::from_millis(pause));
            let floor = Some(Floor::between(None, at_least, Mark::new(u64::MAX)));
            if taken.check(&charge(limit, cost, floor), now).allowed {
                prop_assert!(truth.check(&charge(limit, cost, None), now).allowed);
            }
        }
    }
}

#[test]
fn rules_with_the_same_quanta_and_other_limits_are_others() {
    let of = |text: &str| Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
    let rule = |fields: &str| of(&format!("rules: [{{ name: r, key: [], {fields} }}]"));
    for (one, other) in [
        ("limit: 1000/1h, algorithm: fixed_window", "limit: 1000/1d, algorithm: fixed_window"),
        ("limit: 1000/1d, algorithm: fixed_window", "limit: 1007/1d, algorithm: fixed_window"),
        ("limit: 16/1d", "limit: 16000/1d"),
        (
            "limit: 16/1d, overrides: [{ when: { plan: gold }, limit: 160/1d }]",
            "limit: 160/1d, overrides: [{ when: { plan: gold }, limit: 16/1d }]",
        ),
    ] {
        let [one, other] = [one, other].map(rule);
        let (then, now) = (one.reserves(), other.reserves());
        assert_eq!(then.fingerprint(), now.fingerprint(), "two nodes of which one is older agree");
        assert_ne!(then.number(), now.number());
        let (rule, same) = (&other.rules("default")[0], &one.rules("default")[0]);
        let (limit, known) = (rule.limit().unwrap(), same.limit().unwrap());
        let found = then.formerly(now, rule.id(), rule.reserve(), limit);
        assert!(matches!(found, Formerly::Other(..)), "{found:?}");
        assert_eq!(then.formerly(then, rule.id(), same.reserve(), known), Formerly::Same);
    }
}

#[test]
fn a_rule_that_only_denied_has_charged_nothing() {
    let of = |limit: &str| {
        let text = format!("rules: [{{ name: r, key: [], limit: {limit} }}]");
        Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap()
    };
    let now = of("100/1d");
    let rule = &now.rules("default")[0];
    let formerly = |then: &Rules| match then.reserves().formerly(
        now.reserves(),
        rule.id(),
        rule.reserve(),
        rule.limit().unwrap(),
    ) {
        Formerly::Absent => true,
        Formerly::Unknown => false,
        other => panic!("{other:?}"),
    };
    assert!(formerly(&of("0/1d")) && formerly(&of("deny")) && formerly(&of("unlimited")));
    assert!(!formerly(&of("100/1s")), "it had no floors, and may have been charged");
    assert_ne!(
        of("0/1d").reserves().fingerprint(),
        Rules::empty(&HashSecret::new([1; 16])).reserves().fingerprint()
    );
}

#[test]
fn of_a_rule_with_many_overrides_it_is_known_whose_limits_they_were_or_which() {
    let overrides = |count: u64, limits: u64| {
        let one =
            |number: u64| format!("{{ when: {{ path: /{number} }}, limit: {}/1d }}", 100 + number % limits);
        let overrides: Vec<String> = (0..count).map(one).collect();
        let text =
            format!("rules: [{{ name: r, key: [], limit: 50/1d, overrides: [{}] }}]", overrides.join(", "));
        Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap()
    };
    for (count, limits, known) in [(15, 15, 16), (60, 3, 61), (200, 3, 4), (40, 40, 0)] {
        let rules = overrides(count, limits);
        let (_, _, few) = rules.reserves().all().next().unwrap();
        assert_eq!(few.len(), known, "{count} overrides with {limits} limits");
    }
}
