//! The longest stalls of single checks while ten million keys come and expire.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::contender::{Kind, write_key};

const KEYS: u64 = 10_000_000;

/// Nanoseconds at p50, p99, p99.9, p99.99 and the maximum. A key is in debt for ten seconds, so most come and go while
/// others come; a background thread sweeps, as each limiter wants it.
pub(crate) fn measure(kind: Kind) -> Vec<f64> {
    let limiter = kind.start(100, 1_000);
    let done = AtomicBool::new(false);
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Governor's sweep looks at everything, so it is not called as often as one that takes small steps.
            let pause = Duration::from_millis(if kind == Kind::Tidegate { 10 } else { 1_000 });
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(pause);
                limiter.sweep();
            }
        });
        let mut key = String::new();
        let start = Instant::now();
        for number in 0..KEYS {
            write_key(&mut key, number);
            let before = Instant::now();
            limiter.check(&key);
            histogram.record(before.elapsed().as_nanos() as u64).unwrap();
        }
        // All of them expire, while one key goes on.
        while start.elapsed() < Duration::from_secs(30) {
            write_key(&mut key, 0);
            let before = Instant::now();
            limiter.check(&key);
            histogram.record(before.elapsed().as_nanos() as u64).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let at = |quantile| histogram.value_at_quantile(quantile) as f64;
    vec![at(0.5), at(0.99), at(0.999), at(0.9999), histogram.max() as f64]
}

pub(crate) fn print() {
    println!("time of one check in us while 10,000,000 keys come and expire (target: p99.99 below 2,000)");
    println!("  {:13} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p99", "p99.9", "p99.99", "longest");
    for kind in Kind::ALL {
        let columns: String =
            crate::measure("stall", kind).iter().map(|nanos| format!(" {:9.1}", nanos / 1e3)).collect();
        println!("  {:13}{columns}", kind.name());
    }
    println!();
}
