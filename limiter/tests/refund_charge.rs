//! A refund that names its charge gives back no more than what that charge still weighs.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, KeyHash, Returned, RuleId, Store, StoreConfig},
    rules::Mode,
};

/// The beginning of a window.
const START: u64 = 1_800_000_000_000_000_000;
const ALL: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
];

fn at(millis: u64) -> Nanos {
    Nanos::new(START + millis * 1_000_000)
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 16 }, at(0))
}

fn charge(algorithm: Algorithm, cost: u64) -> Charge {
    let is_window = matches!(algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow);
    Charge {
        key: KeyHash::from_raw(0x9e37_79b9_7f4a_7c14 | u64::from(is_window)),
        rule: RuleId::INLINE,
        limit: Limit::parse("10/2s", None, algorithm).unwrap(),
        cost: Cost::new(cost).unwrap(),
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    }
}

fn left(store: &Store, algorithm: Algorithm, now: Nanos) -> u64 {
    store.check(&charge(algorithm, 0), now).remaining
}

/// So many units, of so many that were left of the charge.
fn refund(store: &Store, algorithm: Algorithm, units: u64, of: u64, charged: Nanos, now: Nanos) {
    let Charge { key, limit, cost: units, .. } = charge(algorithm, units);
    let kept = Cost::new(of - units.get()).unwrap();
    store.refund_charge(key, &limit, Returned { units, kept, charged }, now);
}

#[test]
fn a_charge_of_an_earlier_window_is_no_credit_in_this_one() {
    for algorithm in ALL {
        let store = store();
        assert!(store.check(&charge(algorithm, 10), at(0)).allowed);
        let later = at(4_100);
        assert!(store.check(&charge(algorithm, 10), later).allowed, "{algorithm:?}");
        refund(&store, algorithm, 10, 10, at(0), later);
        assert_eq!(left(&store, algorithm, later), 0, "{algorithm:?}");
    }
}

#[test]
fn a_charge_of_this_window_is_given_back_whole_and_of_a_bucket_what_has_not_refilled() {
    for algorithm in ALL {
        let store = store();
        assert!(store.check(&charge(algorithm, 6), at(0)).allowed);
        assert!(store.check(&charge(algorithm, 4), at(0)).allowed);
        refund(&store, algorithm, 2, 6, at(0), at(0));
        refund(&store, algorithm, 4, 4, at(0), at(0));
        assert_eq!(left(&store, algorithm, at(0)), 6, "{algorithm:?}");
        assert!(store.check(&charge(algorithm, 6), at(0)).allowed);
        // Half a second later 2.5 units have refilled of a bucket; of the six, in two parts, 3.5 are given back.
        refund(&store, algorithm, 4, 6, at(0), at(500));
        refund(&store, algorithm, 2, 2, at(0), at(500));
        assert_eq!(left(&store, algorithm, at(500)), 6, "{algorithm:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// Whenever charges are given back, and in whatever parts: the bucket is never fuller than if they had never been made.
    #[test]
    fn nothing_is_given_back_that_would_not_be_there_without_the_charge(
        algorithm in prop::sample::select(ALL.to_vec()),
        steps in prop::collection::vec((0u64..1_500, 1u64..8, prop::option::of((0u64..2_500, 1u64..8))), 1..14),
    ) {
        let (with, without) = (store(), store());
        let (mut now, mut events) = (0, Vec::new());
        for (pause, cost, refunded) in steps {
            now += pause;
            let returned = refunded.map_or(0, |(_, units)| units.min(cost));
            events.push((now, true, cost, returned, now));
            if let Some((after, _)) = refunded {
                events.push((now + after, false, cost, returned, now));
            }
        }
        events.sort_by_key(|(at, is_charge, ..)| (*at, !*is_charge));
        let mut taken = Vec::new();
        for (time, is_charge, cost, returned, charged) in events {
            if is_charge {
                if with.check(&charge(algorithm, cost), at(time)).allowed {
                    taken.push((charged, cost, returned));
                    if cost > returned {
                        prop_assert!(without.check(&charge(algorithm, cost - returned), at(time)).allowed);
                    }
                }
            } else if let Some(place) = taken.iter().position(|one| *one == (charged, cost, returned)) {
                taken.remove(place);
                refund(&with, algorithm, returned, cost, at(charged), at(time));
            }
            let (with, without) = (left(&with, algorithm, at(time)), left(&without, algorithm, at(time)));
            prop_assert!(with <= without, "{algorithm:?} at {time}: {with} left, without the charges {without}");
        }
    }
}
