//! Resident memory of ten million keys.

use crate::contender::{Kind, write_key};

const KEYS: u64 = 10_000_000;

pub(crate) fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0
}

/// Bytes a key.
pub(crate) fn measure(kind: Kind) -> Vec<f64> {
    // What comes first is still in debt when the last one comes.
    let limiter = kind.start(10, 3600);
    let mut key = String::new();
    for number in 0..1_000 {
        write_key(&mut key, number);
        limiter.check(&key);
    }
    let before = resident_bytes();
    for number in 1_000..KEYS {
        write_key(&mut key, number);
        limiter.check(&key);
    }
    vec![(resident_bytes() - before) / (KEYS - 1_000) as f64]
}

pub(crate) fn print() {
    println!("bytes a key, resident, 10,000,000 keys of 20 bytes (floor: 16; target: at most 32)");
    let ours = crate::measure("memory", Kind::Tidegate)[0];
    for kind in Kind::ALL {
        let bytes = if kind == Kind::Tidegate { ours } else { crate::measure("memory", kind)[0] };
        println!("  {:13} {bytes:7.1}   {:5.2} x", kind.name(), bytes / ours);
    }
    println!();
}
