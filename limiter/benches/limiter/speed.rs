//! Decisions a second with two threads, in process.

use std::sync::Barrier;

use crate::contender::{Contender, Kind, Random, write_key};

const THREADS: usize = 2;
const KEYS: u64 = 100_000;
const CHECKS: usize = 500_000;
/// In each round all contenders run one after the other, so that the machine's other work meets all of them; the median
/// of the rounds' ratios counts.
const ROUNDS: usize = 11;

/// Checks that come together, where some do.
const BATCH: usize = 64;

/// One check of a thread, by their numbers, or a batch of them; how many were allowed.
type Check<'a> = dyn Fn(&dyn Contender, usize, usize) -> usize + Sync + 'a;

/// Millions of decisions in a second of processor time of each thread, all threads together: on an idle machine that is a
/// second, and on a busy one it still compares. Everything is allowed.
fn run(limiter: &dyn Contender, step: usize, one: &Check<'_>) -> f64 {
    let barrier = Barrier::new(THREADS);
    let busy: f64 = std::thread::scope(|scope| {
        let thread = |thread| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let start = processor_seconds();
                let allowed: usize =
                    (0..CHECKS).step_by(step).map(|number| one(limiter, thread, number)).sum();
                assert_eq!(allowed, CHECKS, "{} was to allow all", limiter.name());
                processor_seconds() - start
            })
        };
        let threads: Vec<_> = (0..THREADS).map(thread).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    (THREADS * CHECKS * THREADS) as f64 / busy / 1e6
}

fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// For each contender the median rate and the median of its ratio to governor's, and its least and greatest ratio.
pub(crate) fn measure(what: &str) -> Vec<f64> {
    // What comes in lies in memory one after the other, as requests do; only the limiters' own memory is met at random.
    let numbers: Vec<Vec<u64>> = (0..THREADS as u64)
        .map(|thread| {
            let mut random = Random(0x1234_5678 + thread);
            (0..CHECKS).map(|_| random.below(KEYS)).collect()
        })
        .collect();
    let text = |number: &u64| {
        let mut key = String::new();
        write_key(&mut key, *number);
        key
    };
    let texts: Vec<Vec<String>> = numbers.iter().map(|numbers| numbers.iter().map(text).collect()).collect();
    let hot = String::from("u:hot");
    let (count, step, one): (u32, usize, Box<Check<'_>>) = match what {
        "uniform" => {
            (1_000_000, 1, Box::new(|limiter, thread, number| limiter.check(&texts[thread][number]).into()))
        }
        "batches" => {
            let batch = |thread: usize, number: usize| &texts[thread][number..CHECKS.min(number + BATCH)];
            (
                1_000_000,
                BATCH,
                Box::new(move |limiter, thread, number| limiter.check_many(batch(thread, number))),
            )
        }
        "numbers" => {
            let check = |limiter: &dyn Contender, number| limiter.check_number(number).into();
            (1_000_000, 1, Box::new(move |limiter, thread, number| check(limiter, numbers[thread][number])))
        }
        _ => (1_000_000_000, 1, Box::new(|limiter, _, _| limiter.check(&hot).into())),
    };
    let limiters = Kind::ALL.map(|kind| kind.start(count, 1));
    // The first round brings the keys.
    let rounds: Vec<[f64; 3]> = (0..=ROUNDS)
        .map(|_| limiters.each_ref().map(|limiter| run(&**limiter, step, &*one)))
        .skip(1)
        .collect();
    let sorted = |numbers: &mut dyn Iterator<Item = f64>| {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    };
    (0..3)
        .flat_map(|place| {
            let rates = sorted(&mut rounds.iter().map(|round| round[place]));
            let ratios = sorted(&mut rounds.iter().map(|round| round[place] / round[1]));
            [rates[ROUNDS / 2], ratios[ROUNDS / 2], ratios[0], ratios[ROUNDS - 1]]
        })
        .collect()
}

pub(crate) fn print() {
    for (what, title) in [
        ("uniform", "100,000 texts, uniform, 2 threads (target: 3 x governor)"),
        (
            "batches",
            "the same texts in batches of 64 (who has no batches decides one by one; target: 3 x governor)",
        ),
        ("numbers", "100,000 numbers, uniform, 2 threads"),
        ("hot", "1 hot text, 2 threads (target: not below governor)"),
    ] {
        println!("million decisions a second, {title}");
        let numbers = crate::measure(what, Kind::Tidegate);
        for (kind, numbers) in Kind::ALL.into_iter().zip(numbers.chunks(4)) {
            let [rate, ratio, least, greatest] = numbers[..] else { continue };
            println!(
                "  {:13} {rate:7.2}   {ratio:5.2} x governor ({least:.2} to {greatest:.2})",
                kind.name()
            );
        }
        println!();
    }
}
