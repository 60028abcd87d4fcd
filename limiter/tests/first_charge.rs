//! The promise: a window that its first charge opens admits its count until it ends, and then the next charge opens another.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, Floor, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, LimitError, Mode, Period},
};

const START: u64 = 1_800_000_000_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn limit(count: u64, length: Duration) -> Limit {
    Limit::new(Algorithm::FixedWindow, count, Period::from_first(length), None).unwrap()
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 4 << 20, ..StoreConfig::default() }, Nanos::new(START))
}

fn charge(limit: Limit, cost: u64) -> Charge {
    let key = Rules::empty(&HashSecret::new([7; 16])).inline_key("d", "k", &limit);
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

fn at(since_start: Duration) -> Nanos {
    Nanos::new(START).saturating_add(since_start)
}

#[test]
fn only_a_fixed_window_can_be_opened() {
    for algorithm in Algorithm::ALL {
        let made = Limit::new(algorithm, 5, Period::from_first(SECOND), None);
        if algorithm == Algorithm::FixedWindow {
            assert_eq!(made.unwrap().to_string(), "5/1s from the first");
        } else {
            assert_eq!(made, Err(LimitError::FromFirst(algorithm)));
        }
    }
    // Windows that mean other things are other buckets.
    let aligned = Limit::new(Algorithm::FixedWindow, 5, Period::Fixed(SECOND), None).unwrap();
    assert_ne!(charge(limit(5, SECOND), 1).key, charge(aligned, 1).key);
    assert_ne!(charge(limit(5, SECOND), 1).key, charge(limit(5, 2 * SECOND), 1).key);
    assert_ne!(charge(limit(5, SECOND), 1).key, charge(limit(6, SECOND), 1).key);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Against the definition, except in the 1024th of a window in which it may or may not have ended.
    #[test]
    fn it_counts_from_its_first_charge(
        millis in prop::sample::select(vec![100_u64, 999, 1_000, 60_000, 31 * 86_400_000]),
        count in prop_oneof![1_u64..20, Just(200_000)],
        steps in prop::collection::vec((0_u64..1_500, 0_u64..8, any::<bool>()), 1..60),
    ) {
        let length = Duration::from_millis(millis);
        let (limit, store) = (limit(count, length), store());
        // In thousandths of a window.
        let step = length / 1_000;
        let slack = length / 1_024 + Duration::from_nanos(1);
        let (mut now, mut window): (Duration, Option<(Duration, u64)>) = (Duration::ZERO, None);
        for (pause, cost, is_long) in steps {
            now += step * u32::try_from(if is_long { pause } else { pause / 20 }).unwrap();
            let cost = if count > 1_000 { cost * 20_000 } else { cost };
            let (opened, used) = match window {
                Some((opened, _)) if now >= opened + length && now <= opened + length + slack => {
                    // Both would be right.
                    now = opened + length + slack + Duration::from_nanos(1);
                    (now, 0)
                }
                Some((opened, used)) if now < opened + length => (opened, used),
                _ => (now, 0),
            };
            let decision = store.check(&charge(limit, cost), at(now));
            prop_assert_eq!(decision.allowed, used + cost.max(1) <= count, "{} of {} at {:?}", used, count, now);
            let after = if decision.allowed { used + cost } else { used };
            prop_assert_eq!(decision.remaining, count - after);
            if after > 0 {
                let left = opened + length - now;
                prop_assert!(decision.reset_after >= left && decision.reset_after <= left + slack);
                window = Some((opened, after));
            }
            if let Some(wait) = decision.retry_after {
                let again = store.check(&charge(limit, cost), at(now + wait));
                prop_assert!(again.allowed, "it would pass then");
                now += wait;
                window = (cost > 0).then_some((now, cost));
            }
        }
    }

    /// A hold that is undone leaves what would be there without it.
    #[test]
    fn a_charge_is_undone_in_the_window_in_which_it_was_made(before in 0_u64..5, held in 1_u64..5, after in 0_u64..5) {
        let (limit, store, without) = (limit(20, SECOND), store(), store());
        for one in [&store, &without] {
            let _ = one.check(&charge(limit, before), at(Duration::ZERO));
        }
        let mut decisions = SmallVec::new();
        let now = at(Duration::from_millis(100));
        let (allowed, hold) = store.hold(&[charge(limit, held)], now, now.saturating_add(2 * SECOND), &mut decisions);
        prop_assert!(allowed);
        let now = at(Duration::from_millis(200));
        for one in [&store, &without] {
            let _ = one.check(&charge(limit, after), now);
        }
        store.undo(hold.unwrap(), now);
        let remaining = |store: &Store| store.check(&charge(limit, 0), now).remaining;
        prop_assert_eq!(remaining(&store), remaining(&without));
    }
}

#[test]
fn undoing_what_another_window_counted_changes_nothing() {
    let (limit, store) = (limit(5, SECOND), store());
    let mut decisions = SmallVec::new();
    let start = at(Duration::ZERO);
    let (_, hold) = store.hold(&[charge(limit, 3)], start, at(10 * SECOND), &mut decisions);
    let later = at(2 * SECOND);
    assert_eq!(store.check(&charge(limit, 2), later).remaining, 3);
    store.undo(hold.unwrap(), later);
    assert_eq!(store.check(&charge(limit, 0), later).remaining, 3);
}

#[test]
fn a_floor_closes_it_for_as_long_as_a_window_lasts() {
    let (limit, store) = (limit(5, SECOND), store());
    let closed = |cost| Charge { floor: Some(Floor::empty_at(at(Duration::ZERO))), ..charge(limit, cost) };
    for millis in [0, 500, 999] {
        let denied = store.check(&closed(1), at(Duration::from_millis(millis)));
        assert!(!denied.allowed);
        assert_eq!(denied.remaining, 0);
        let wait = denied.retry_after.unwrap();
        assert!(
            wait >= Duration::from_millis(1_000 - millis) && wait <= Duration::from_millis(1_001 - millis)
        );
    }
    assert_eq!(store.check(&closed(1), at(Duration::from_millis(1_002))).remaining, 4);
}

#[test]
fn what_was_let_go_of_by_a_strict_rule_is_never_looser() {
    let tiny = Store::new(StoreConfig { max_memory: 64 << 10, shards: 2 }, Nanos::new(START));
    let (limit, rules) = (limit(3, Duration::from_secs(60)), Rules::empty(&HashSecret::new([7; 16])));
    let strict = "rules: [{ name: r, key: [k], limit: 1/1m, on_memory_full: strict }]";
    let strict = Rules::from_yaml(strict, &HashSecret::new([7; 16])).unwrap();
    tiny.set_rules(&strict);
    let rule = strict.rules("default")[0].id();
    let charge =
        |key: u64| Charge { key: rules.inline_key("d", &key.to_string(), &limit), rule, ..charge(limit, 2) };
    for key in 0..20_000 {
        let _ = tiny.check(&charge(key), at(Duration::ZERO));
    }
    // Two of three are taken: none of them has room for two more, whether its bucket was folded or not.
    for key in 0..20_000 {
        assert!(!tiny.check(&charge(key), at(SECOND)).allowed, "{key}");
    }
    assert!(tiny.check(&charge(1), at(Duration::from_secs(61))).allowed);
}
