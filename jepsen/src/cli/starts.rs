//! `tidegate-jepsen starts`: clusters are started in many ways, and each start must come to one cluster.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use clap::Args;
use tidegate_jepsen::{
    binary,
    cluster::Settings,
    history::monotonic,
    starts::{Tally, Way, start},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release && cargo run --release -p jepsen -- starts --count 200
  tidegate-jepsen starts --ways pasted --count 200 --parallel 4
  tidegate-jepsen starts --ways scaled-up,killed-in-memory --count 20 --seed 7

Ways: pasted (the four commands of the README), same-instant, shuffled, joiner-first, one-late, killed, killed-again,
killed-in-memory, stopped, scaled-up, many-at-once.

Exit codes: 0 every start came to one cluster with all nodes ready, 1 one did not, 2 bad usage.")]
pub(crate) struct StartsArgs {
    /// How many starts of each way
    #[arg(long, value_name = "N", default_value_t = 20)]
    count: u64,

    /// Which ways [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    ways: Vec<String>,

    /// How many clusters start at one time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,

    /// What chance begins with [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The node's program
    #[arg(long, value_name = "FILE", default_value = "target/release/tidegate")]
    binary: PathBuf,

    /// A bug on purpose, in a program that was built with them
    #[arg(long, value_name = "NAME")]
    planted_bug: Option<String>,
}

/// Runs it.
pub(crate) fn starts(args: StartsArgs) -> ExitCode {
    match try_starts(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("nothing was started: {fault}");
            ExitCode::from(2)
        }
    }
}

fn try_starts(args: StartsArgs) -> Result<bool, String> {
    let binary = binary::existing(&args.binary, "--binary")?;
    let ways: Vec<Way> = match args.ways.is_empty() {
        true => Way::ALL.map(|(_, way)| way).to_vec(),
        false => {
            let named = |name: &String| Way::named(name).ok_or(format!("--ways: there is no {name:?}"));
            args.ways.iter().map(named).collect::<Result<_, _>>()?
        }
    };
    let seed = args.seed.unwrap_or_else(monotonic);
    println!("starts: {} of each of {} ways, seed {seed}", args.count, ways.len());
    let settings = Settings {
        binary,
        rules: "rules:\n  - { name: per-ip, key: [ip], limit: 10/10m }\n".to_owned(),
        flags: Vec::new(),
        key: Some("the key of a cluster that starts".to_owned()),
        keeps_data: true,
    };
    let wanted = (0..args.count).flat_map(|number| ways.iter().map(move |way| (*way, number)));
    let (wanted, tally) = (Mutex::new(wanted.collect::<VecDeque<_>>()), Mutex::new(Tally::default()));
    let total = args.count * ways.len() as u64;
    let work = || loop {
        let next = wanted.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((way, number)) = next else { return };
        let seed = seed.wrapping_add(number);
        let started = start(way, seed, &settings, args.planted_bug.as_deref());
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let took = started.took.as_secs_f64();
        match started.fault {
            None => tally.took.push((way, started.took)),
            Some(fault) => {
                println!("{way}, seed {seed}: NOT READY after {took:.1} s\n{fault}");
                tally.faults.push((way, seed, fault));
            }
        }
        let done = tally.took.len() + tally.faults.len();
        println!("{done}/{total}: {way}, seed {seed}: {took:.1} s, {} failed so far", tally.faults.len());
    };
    thread::scope(|scope| {
        for _ in 0..args.parallel {
            scope.spawn(work);
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!();
    tally.lines().iter().for_each(|line| println!("{line}"));
    for (way, seed, fault) in &tally.faults {
        println!("{way}, seed {seed}: {}", fault.lines().next().unwrap_or_default());
    }
    Ok(tally.faults.is_empty())
}
