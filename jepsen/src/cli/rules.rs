//! `tidegate-jepsen rules`: rules are written while nodes are killed.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use tidegate_jepsen::{
    cluster::{Cluster, Settings},
    history::monotonic,
    workload::rules::{self, Plan, Report},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release && cargo run --release -p jepsen -- rules --cycles 200
  tidegate-jepsen rules --cycles 20 --seed 7 --nodes 5 --binary /usr/local/bin/tidegate

Exit codes: 0 all promises kept, 1 not, or the faults hit nothing, 2 bad usage.")]
pub(crate) struct RulesArgs {
    /// How many times a node is killed and started again
    #[arg(long, value_name = "N", default_value_t = 200)]
    cycles: u32,

    /// How many clients write
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,

    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,

    /// What chance begins with [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The node's program
    #[arg(long, value_name = "FILE", default_value = "target/release/tidegate")]
    binary: PathBuf,
}

/// Runs it.
pub(crate) fn rules(args: RulesArgs) -> ExitCode {
    if !args.binary.is_file() {
        eprintln!("there is no {} (--binary); `cargo build --release` makes it", args.binary.display());
        return ExitCode::from(2);
    }
    let seed = args.seed.unwrap_or_else(monotonic);
    println!("rules: {} cycles, {} clients, {} nodes, seed {seed}", args.cycles, args.clients, args.nodes);
    let settings = Settings {
        binary: args.binary,
        rules: "rules: []\n".to_owned(),
        flags: Vec::new(),
        key: Some("the key of a cluster to be broken".to_owned()),
        keeps_data: true,
    };
    let mut cluster = Cluster::start(args.nodes as usize, settings);
    let start = monotonic();
    let plan = Plan { cycles: args.cycles, clients: args.clients, seed };
    let report = rules::run(&mut cluster, plan, |cycle, report| {
        let passed = Duration::from_nanos(monotonic() - start);
        let left = passed / cycle * (args.cycles - cycle);
        println!(
            "cycle {cycle}/{}, {} leaders killed so far, about {} s left",
            args.cycles,
            report.leaders_killed,
            left.as_secs()
        );
    });
    tell(&report, seed);
    if report.faults.is_empty() && report.covers() {
        return ExitCode::SUCCESS;
    }
    let kept = PathBuf::from(format!("jepsen-rules-{seed}"));
    match rules::keep_logs(&cluster, &kept) {
        Ok(()) => println!("the logs of the nodes are in {}", kept.display()),
        Err(error) => eprintln!("the logs could not be kept: {error}"),
    }
    ExitCode::FAILURE
}

fn tell(report: &Report, seed: u64) {
    let Report { kills, leaders_killed, written, refused, repeated, unknown, reads, faults, undecided } =
        report;
    println!("kills             {kills}, {leaders_killed} of them leaders");
    println!(
        "writes            {written} acknowledged, {refused} refused, {unknown} unknown, {repeated} repetitions"
    );
    println!("consistent reads  {reads}");
    for fault in faults {
        println!("FAULT             {fault}");
    }
    for one in undecided {
        println!("unknown           {one}");
    }
    match (faults.is_empty(), report.covers()) {
        (true, true) => {
            println!("verdict           all acknowledged revisions are there, in one order; linearizable")
        }
        (true, false) => println!(
            "verdict           unknown: the faults hit too little, or something was not found out (seed {seed})"
        ),
        (false, _) => println!("verdict           VIOLATED (seed {seed})"),
    }
}
