//! Checks that come together are decided as if they came one by one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Barrier, time::Duration};

use proptest::{collection::vec, prelude::*};
use tidegate_limiter::{
    Algorithm, Cost, Keyed, Limit, Limiter, Nanos, NewRule,
    cluster::{Charge, KeyHash, RuleId, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

const START: Nanos = Nanos::new(1_800_000_000_000_000_000);

fn store(max_memory: usize) -> Store {
    Store::new(StoreConfig { max_memory, shards: 2 }, START)
}

fn charge(key: u64, algorithm: Algorithm, cost: u64) -> Charge {
    let limit = Limit::parse("10/1s", None, algorithm).unwrap();
    let windows = matches!(algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow);
    let key = (key << 3 | algorithm as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = KeyHash::from_raw(key & !1 | u64::from(windows));
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

proptest! {
    #[test]
    fn they_are_decided_as_one_by_one_whatever_the_algorithm_and_however_often_a_bucket_comes(
        batches in vec((vec((0u64..40, 0usize..5, 0u64..4), 0..100), 0u64..400), 1..8),
        is_small in any::<bool>(),
    ) {
        // In the small ones there is no room for all.
        let memory = if is_small { 4 << 10 } else { 1 << 20 };
        let (together, apart) = (store(memory), store(memory));
        let mut now = START;
        for (batch, millis) in batches {
            now = now.saturating_add(Duration::from_millis(millis));
            let charges: Vec<Charge> =
                batch.iter().map(|(key, algorithm, cost)| charge(*key, Algorithm::ALL[*algorithm], *cost)).collect();
            let mut decisions = Vec::new();
            together.check_many(&charges, now, |decision| decisions.push(decision));
            let one_by_one: Vec<_> = charges.iter().map(|charge| apart.check(charge, now)).collect();
            prop_assert_eq!(decisions, one_by_one);
            prop_assert_eq!(together.stats(), apart.stats());
        }
    }
}

#[test]
fn keys_together_have_the_buckets_that_they_have_alone() {
    let limit = Limit::parse("2/1m", None, Algorithm::TokenBucket).unwrap();
    let keyed = Keyed::new(limit).unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("user-{number}")).collect();
    assert!(keyed.check("user-7", Cost::ONE, START).is_allowed());
    let mut allowed = 0;
    for _ in 0..3 {
        keyed.check_many(names.iter().map(String::as_str), Cost::ONE, START, |answer| {
            allowed += usize::from(answer.is_allowed());
        });
    }
    assert_eq!(allowed, 2 * 100 - 1);
    assert!(!keyed.check("user-7", Cost::ONE, START).is_allowed());
}

#[test]
fn requests_together_have_the_verdicts_that_they_have_alone() {
    let build = || {
        let rule = |name, text| NewRule::new(name, Limit::parse(text, None, Algorithm::TokenBucket).unwrap());
        let secret = HashSecret::new([7; 16]);
        let builder = Limiter::builder().secret(secret).rule(rule("user", "3/1m").key("user"));
        builder.rule(rule("login", "2/1m").when("path", ["/login"]).key("ip")).build().unwrap()
    };
    let (together, apart) = (build(), build());
    let names: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    let requests: Vec<Vec<(&str, &str)>> = (0..200)
        .map(|n| {
            let (user, ip) = (names[n % 7].as_str(), names[n % 9].as_str());
            if n % 3 == 0 {
                vec![("user", user), ("ip", ip), ("path", "/login")]
            } else {
                vec![("user", user)]
            }
        })
        .chain([vec![]])
        .collect();
    let told = |verdict: &tidegate_limiter::Verdict<'_>| {
        let rules: Vec<_> =
            verdict.rules().iter().map(|one| (one.rule.name().to_owned(), one.decision)).collect();
        (verdict.allowed, rules)
    };
    let mut verdicts = Vec::new();
    together
        .check_many(requests.iter().map(Vec::as_slice), Cost::ONE, START, |one| verdicts.push(told(&one)));
    let one_by_one: Vec<_> =
        requests.iter().map(|one| told(&apart.check(one.as_slice(), Cost::ONE, START))).collect();
    assert_eq!(verdicts, one_by_one);
    assert!(verdicts.iter().any(|(allowed, _)| !allowed));
}

/// The tables are made anew all the while, by new buckets in the middle of batches and by a thread that sweeps.
#[test]
fn threads_with_batches_of_the_same_buckets_lose_and_invent_nothing() {
    const THREADS: u64 = 4;
    let limit = Limit::parse("1/1h", Some(1_000), Algorithm::TokenBucket).unwrap();
    let brief = Limit::parse("1000/100ms", Some(1), Algorithm::TokenBucket).unwrap();
    let of = |key: u64, limit| Charge { limit, ..charge(key, Algorithm::TokenBucket, 1) };
    let (store, barrier) = (store(8 << 20), Barrier::new(THREADS as usize));
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut admitted = 0;
                    for step in 0..2_000u64 {
                        let now = START.saturating_add(Duration::from_millis(step));
                        let new = 1_000 + (thread << 32) + step * 4;
                        let charges: Vec<Charge> = (0..40u64)
                            .map(|place| match place % 10 {
                                3 => of(new + place / 10, brief),
                                other => of(other, limit),
                            })
                            .collect();
                        let mut places = 0..;
                        store.check_many(&charges, now, |decision| {
                            let is_common = places.next().is_some_and(|place: usize| place % 10 != 3);
                            admitted += usize::from(decision.allowed && is_common);
                        });
                        if step % 16 == 0 {
                            store.sweep(now);
                        }
                    }
                    admitted
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Nine buckets; within two seconds nothing refills.
    assert_eq!(admitted, 9_000);
    assert_eq!(store.stats().folded, 0);
}
