//! The limiter core beside governor and throttlecrab, all in one run: `cargo bench -p tidegate-limiter`.
//!
//! Each figure is measured in a process of its own, one after the other, on the same keys and the same clock. With a
//! word as argument only the parts that begin with it run: `cargo bench -p tidegate-limiter -- memory`.
//!
//! What the figures do not show: throttlecrab's library is for one thread, so it stands behind a mutex here, and with its
//! periodic store (its adaptive one looks at all keys at each new one once its map is three quarters full); what a rule
//! match and the network cost; and the machine's other work, which the longest stalls show first.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures"
)]
#![allow(clippy::ptr_arg, reason = "governor wants the key as it keeps it")]

mod contender;
mod flood;
mod memory;
mod rules;
mod shard;
mod speed;
mod stall;

use std::process::Command;

use contender::Kind;

/// Runs one measurement in a process of its own and reads the numbers that it prints.
fn measure(what: &str, kind: Kind) -> Vec<f64> {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--measure", what, kind.name()]).output().unwrap();
    assert!(
        output.status.success(),
        "{what} of {}: {}",
        kind.name(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn measured(what: &str, kind: Kind) -> Vec<f64> {
    match what {
        "memory" => memory::measure(kind),
        "uniform" | "batches" | "numbers" | "hot" => speed::measure(what),
        "stall" => stall::measure(kind),
        "flood" => flood::measure(),
        other => panic!("there is no measurement {other:?}"),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [first, what, kind] = &arguments[..]
        && first == "--measure"
    {
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).unwrap();
        let numbers = measured(what, kind);
        println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
        return;
    }
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|word| part.starts_with(word));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}\n", load.trim());
    if wanted("memory") {
        memory::print();
    }
    if wanted("speed") {
        speed::print();
    }
    if wanted("stall") {
        stall::print();
    }
    if wanted("flood") {
        flood::print();
    }
    if wanted("shard") {
        shard::print();
    }
    if wanted("rules") {
        rules::print();
    }
}
