//! A bucket moves from store to store while it is charged, and the messages that carry it are repeated and come late, in any
//! order. Beside the stores there is one that sees everything: what they admit, it admits too.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Bucket, Charge, Held, HoldId, KeyHash, RuleId, Store, StoreConfig},
    rules::{Mode, Period},
};

const START: u64 = 1_800_000_007_000_000_000;
const SECOND: u64 = 1_000_000_000;
const STORES: usize = 3;

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, Nanos::new(START))
}

fn charge(limit: Limit, cost: u64) -> Charge {
    let windows = matches!(limit.algorithm(), Algorithm::FixedWindow | Algorithm::SlidingWindow);
    let key = KeyHash::from_raw(0x9e37_79b9_7f4a_7c14 | u64::from(windows));
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

fn sent_by(store: &Store, key: KeyHash, now: Nanos) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    store.bucket(key, now, |bucket| buckets.push(bucket));
    buckets
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The store that decides is asked.
    Check(u64),
    /// What was charged last, and can be undone, is undone.
    Undo,
    Refund(u64),
    /// The store that decides tells another of the bucket, which can come at any time.
    Send {
        to: usize,
    },
    /// One of the messages arrives, for the first time or again.
    Arrive(prop::sample::Index),
    /// The store that decides stops, and another gets the last of it.
    Move {
        to: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..12).prop_map(Step::Check),
        1 => Just(Step::Undo),
        1 => (1u64..12).prop_map(Step::Refund),
        2 => (0..STORES).prop_map(|to| Step::Send { to }),
        4 => any::<prop::sample::Index>().prop_map(Step::Arrive),
        2 => (0..STORES).prop_map(|to| Step::Move { to }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_admitted_twice_whatever_comes_again_or_late(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        steps in prop::collection::vec(
            (prop_oneof![3 => Just(0), 3 => 0u64..SECOND, 1 => 0u64..8 * SECOND], step()), 1..80),
    ) {
        let limit = Limit::new(algorithm, 20, Period::Fixed(Duration::from_secs(10)), None).unwrap();
        let stores: Vec<Store> = (0..STORES).map(|_| store()).collect();
        let (truth, key) = (store(), charge(limit, 1).key);
        let mut messages: Vec<(usize, Vec<Bucket>)> = Vec::new();
        let mut holds: Vec<(usize, Option<HoldId>, Option<HoldId>)> = Vec::new();
        let (mut now, mut decider, mut admitted) = (Nanos::new(START), 0, Vec::<(u64, u64)>::new());
        for (pause, step) in steps {
            now = now.saturating_add(Duration::from_nanos(pause));
            let until = now.saturating_add(Duration::from_secs(3600));
            match step {
                Step::Check(cost) => {
                    let one = [charge(limit, cost)];
                    let (allowed, hold) = stores[decider].hold(&one, now, until, &mut SmallVec::new());
                    if allowed {
                        let (same, twin) = truth.hold(&one, now, until, &mut SmallVec::new());
                        prop_assert!(same, "{cost} more at {now:?} is too much");
                        holds.push((decider, hold, twin));
                        admitted.push((now.get(), cost));
                    }
                }
                // At another store nothing can be undone that was charged here: it is known there as charged.
                Step::Undo => if let Some((at, Some(hold), Some(twin))) = holds.pop() && at == decider {
                    // All that it knows, and not what remains: of a window that has ended a part of a unit counts.
                    let state = |store: &Store| format!("{:?}", sent_by(store, key, now));
                    let before = state(&stores[decider]);
                    stores[decider].undo(hold, now);
                    if state(&stores[decider]) != before {
                        truth.undo(twin, now);
                    }
                    admitted.clear();
                },
                Step::Refund(cost) => {
                    let refund = |store: &Store| store.refund(key, &limit, Cost::new(cost).unwrap(), now);
                    refund(&stores[decider]);
                    refund(&truth);
                    holds.clear();
                    admitted.clear();
                }
                Step::Send { to } => messages.push((to, sent_by(&stores[decider], key, now))),
                Step::Arrive(which) => if !messages.is_empty() {
                    let (to, buckets) = &messages[which.index(messages.len())];
                    buckets.iter().for_each(|bucket| stores[*to].take_over(bucket, now));
                },
                Step::Move { to } => if to != decider {
                    let last = sent_by(&stores[decider], key, now);
                    last.iter().for_each(|bucket| stores[to].take_over(bucket, now));
                    messages.push((to, last));
                    decider = to;
                },
            }
        }
        if algorithm == Algorithm::SlidingLog {
            // What the algorithm promises, counted without any store. After something was given back it begins anew.
            for (first, _) in &admitted {
                let within = admitted.iter().filter(|(at, _)| (*first..*first + 10 * SECOND).contains(at));
                prop_assert!(within.map(|(_, units)| units).sum::<u64>() <= 20);
            }
        }
    }
}

/// Found by review: the answer to the last message was lost, it was sent again, and the new owner forgot what it had admitted.
#[test]
fn a_last_message_that_comes_again_gives_nothing_back() {
    for algorithm in Algorithm::ALL {
        let limit = Limit::parse("100/1h", None, algorithm).unwrap();
        let (from, to, now) = (store(), store(), Nanos::new(START));
        let admit = |store: &Store, tries: usize, now| {
            (0..tries).filter(|_| store.check(&charge(limit, 1), now).allowed).count()
        };
        assert_eq!(admit(&from, 10, now), 10);
        let last = sent_by(&from, charge(limit, 1).key, now);
        let arrive = |now| last.iter().for_each(|bucket| to.take_over(bucket, now));
        arrive(now);
        let later = now.saturating_add(Duration::from_millis(20));
        assert_eq!(admit(&to, 200, later), 90, "{algorithm:?}");
        arrive(later.saturating_add(Duration::from_millis(30)));
        assert_eq!(admit(&to, 200, later.saturating_add(Duration::from_millis(40))), 0, "{algorithm:?}");
    }
}

#[test]
fn a_log_that_comes_again_and_again_stays_as_long_as_a_log_may_be_and_counts_all() {
    let limit = Limit::parse("1000000/1h", None, Algorithm::SlidingLog).unwrap();
    let memory = Duration::from_secs(3600).as_nanos() as u64 * 4;
    let key = charge(limit, 1).key;
    let to = Store::new(StoreConfig { max_memory: 256 << 20, shards: 4 }, Nanos::new(START));
    let mut now = Nanos::new(START);
    for times in 1..=4_u64 {
        // Larger than a log may be, and not in order.
        let entries = (0..100_000_u64).map(|age| (age.wrapping_mul(7_919) % 100_000 * 1000, 1)).collect();
        to.take_over(&Bucket { key, rule: RuleId::INLINE, held: Held::Log { memory, entries } }, now);
        let mut known = sent_by(&to, key, now);
        assert_eq!(known.len(), 1);
        let Held::Log { entries, .. } = known.remove(0).held else { panic!("a log") };
        assert!(entries.len() <= 1 << 16, "{times}: {}", entries.len());
        assert!(entries.is_sorted_by(|one, next| one.0 > next.0), "{times}");
        assert_eq!(to.check(&charge(limit, 0), now).remaining, 900_000, "{times}");
        now = now.saturating_add(Duration::from_millis(5));
    }
}
