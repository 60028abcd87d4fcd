//! Decisions a second with two threads, in process.

use std::{sync::Barrier, time::Instant};

use crate::contender::{Contender, Kind, Random, write_key};

const THREADS: u64 = 2;
const KEYS: u64 = 100_000;
const CHECKS: u64 = 4_000_000;
/// Rounds of which the median counts.
const ROUNDS: usize = 5;

/// Millions of decisions a second of all threads together, the median of some rounds. Everything is allowed.
fn run(limiter: &dyn Contender, one: impl Fn(&dyn Contender, u64) -> bool + Sync) -> f64 {
    let round = || {
        let barrier = Barrier::new(THREADS as usize + 1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (barrier, one) = (&barrier, &one);
                    scope.spawn(move || {
                        let mut random = Random(0x1234_5678 + thread);
                        barrier.wait();
                        (0..CHECKS).filter(|_| one(limiter, random.below(KEYS))).count() as u64
                    })
                })
                .collect();
            barrier.wait();
            let start = Instant::now();
            let allowed: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(allowed, THREADS * CHECKS, "all was to be allowed");
            (THREADS * CHECKS) as f64 / start.elapsed().as_secs_f64() / 1e6
        })
    };
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn texts() -> Vec<String> {
    (0..KEYS)
        .map(|number| {
            let mut key = String::new();
            write_key(&mut key, number);
            key
        })
        .collect()
}

pub(crate) fn uniform(kind: Kind) -> f64 {
    let (limiter, keys) = (kind.start(1_000_000, 1), texts());
    run(&*limiter, |limiter, number| limiter.check(&keys[number as usize]))
}

pub(crate) fn numbers(kind: Kind) -> f64 {
    run(&*kind.start(1_000_000, 1), |limiter, number| limiter.check_number(number))
}

pub(crate) fn hot(kind: Kind) -> f64 {
    let (limiter, key) = (kind.start(1_000_000_000, 1), String::from("u:hot"));
    run(&*limiter, |limiter, _| limiter.check(&key))
}

pub(crate) fn print() {
    for (what, title) in [
        ("uniform", "100,000 texts, uniform, 2 threads (target: 3 x governor)"),
        ("numbers", "100,000 numbers, uniform, 2 threads"),
        ("hot", "1 hot text, 2 threads (target: not below governor)"),
    ] {
        println!("million decisions a second, {title}");
        let results = Kind::ALL.map(|kind| (kind, crate::measure(what, kind)[0]));
        let governor = results[1].1;
        for (kind, rate) in results {
            println!("  {:13} {rate:7.2}   {:5.2} x governor", kind.name(), rate / governor);
        }
        println!();
    }
}
