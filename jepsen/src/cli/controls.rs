//! `tidegate-jepsen controls`: bugs on purpose, one after the other, and which checker finds which. A checker is trusted
//! only after it has found one.

use std::{
    collections::BTreeMap, fmt::Write as _, path::PathBuf, process::ExitCode, sync::atomic::AtomicBool,
    time::Duration,
};

use clap::Args;
use tidegate_jepsen::{
    campaign::{self, Plan},
    check::Verdict,
    judge::judge,
    machine,
    nemesis::{Kind, Means},
    network::Form,
    record::Record,
};

use super::{binary, network::NetworkArgs};

/// A bug, the faults under which it shows, and why real processes can not show it, if so.
struct Control {
    bug: &'static str,
    nemesis: &'static str,
    hidden: Option<&'static str>,
    /// Whether it is a bug of the node; else a machine under it that keeps no promise, which has the fault's name.
    planted: bool,
}

const fn shows(bug: &'static str, nemesis: &'static str) -> Control {
    Control { bug, nemesis, hidden: None, planted: true }
}

const fn beyond(kind: &'static str) -> Control {
    Control { bug: kind, nemesis: kind, hidden: None, planted: false }
}

const fn hidden(bug: &'static str, why: &'static str) -> Control {
    Control { bug, nemesis: "none", hidden: Some(why), planted: true }
}

/// Those of `cluster/src/planted.rs`, and machines that are worse than is promised.
const CONTROLS: [Control; 13] = [
    shows("no-session-wait", "alone,pause,halves"),
    shows("new-leader-does-not-wait", "alone,kill,halves"),
    shows("full-start", "kill,wipe"),
    shows("move-without-freeze", "drain,join,rolling"),
    shows("stale-reads", "alone,pause,one-way"),
    shows("share-not-carved", "alone,halves"),
    shows("returned-twice", "none"),
    shows("refund-repeated", "pause,slow"),
    beyond("clock-runaway"),
    hidden(
        "no-clock-margin",
        "what clocks may drift in a session is less than what a machine with two processors adds",
    ),
    hidden("renewal-not-bound", "needs a grant that overtakes an entry of the log by a session"),
    hidden("no-epoch-fence", "needs a message that outlives two moves of a slot"),
    hidden(
        "vote-not-synced",
        "needs a vote that the power takes with it, and a second candidate in that term",
    ),
];

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo run --release -p jepsen -- controls            every bug that real processes can show, three seeds each
  cargo run --release -p jepsen -- controls --bugs full-start,stale-reads --seeds 1

Builds the node once more, with the bugs compiled in. Those that only a simulation can show are told with the reason.

Exit codes: 0 each was found by some seed, 1 one was not, 2 nothing could be tested.")]
pub(crate) struct ControlsArgs {
    /// Which bugs [default: all that real processes can show]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    bugs: Vec<String>,

    #[command(flatten)]
    network: NetworkArgs,

    /// How many seeds each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,

    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,

    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,

    /// How many seconds each run takes
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(20..=600))]
    seconds: u64,

    /// A node's program with the bugs compiled in [default: it is built]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn controls(args: &ControlsArgs) -> ExitCode {
    match try_controls(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("nothing was tested: {fault}");
            ExitCode::from(2)
        }
    }
}

fn try_controls(args: &ControlsArgs) -> Result<bool, String> {
    let known = CONTROLS.map(|control| control.bug);
    if let Some(strange) = args.bugs.iter().find(|bug| !known.contains(&&***bug)) {
        return Err(format!("--bugs: there is no {strange:?}; there are {}", known.join(", ")));
    }
    let binary = binary::for_tests(args.binary.clone())?;
    if args.binary.is_none() && !machine::follows_orders(&binary) {
        return Err("run this with cargo run, or name a --binary with the bugs compiled in".to_owned());
    }
    let network = args.network.settle()?;
    let mut table = "| bug | faults | found in | by |\n| --- | --- | --- | --- |\n".to_owned();
    let mut all_found = true;
    for Control { bug, nemesis, hidden, planted } in &CONTROLS {
        let named = args.bugs.iter().any(|name| name == bug);
        match hidden {
            Some(why) if !named => {
                let _ = writeln!(table, "| {bug} | | simulation only | {why} |");
                continue;
            }
            None if !named && !args.bugs.is_empty() => continue,
            _ => {}
        }
        let nemesis = if hidden.is_some() { "all" } else { nemesis };
        let (mut found, mut checkers) = (0, BTreeMap::<String, usize>::new());
        for seed in args.from..args.from + args.seeds {
            let record = run(args, network, &binary, Some(*bug).filter(|_| *planted), nemesis, seed)?;
            let judgement = judge(&record);
            let violated: Vec<_> =
                judgement.findings.into_iter().filter(|one| one.verdict == Verdict::Violated).collect();
            found += usize::from(!violated.is_empty());
            for finding in violated {
                println!("{bug}, seed {seed}: {}: {}", finding.checker, finding.details.join("; "));
                *checkers.entry(finding.checker).or_default() += 1;
            }
        }
        all_found &= found > 0;
        let by: Vec<String> = checkers.iter().map(|(name, times)| format!("{name} ({times})")).collect();
        let _ = writeln!(table, "| {bug} | {nemesis} | {found} of {} | {} |", args.seeds, by.join(", "));
        println!("{bug}: found in {found} of {} seeds", args.seeds);
    }
    println!("\n{table}");
    Ok(all_found)
}

fn run(
    args: &ControlsArgs,
    network: Form,
    binary: &std::path::Path,
    bug: Option<&str>,
    nemesis: &str,
    seed: u64,
) -> Result<Record, String> {
    let means = Means { network, follows_orders: machine::follows_orders(binary), other_build: false };
    let (kinds, left_out) = Kind::parse_possible(nemesis, &means)?;
    let plan = Plan {
        binary: binary.to_owned(),
        other_binary: None,
        follows_orders: means.follows_orders,
        nodes: args.nodes,
        network,
        length: Duration::from_secs(args.seconds),
        kinds,
        left_out,
        seed,
        planted_bug: bug.map(str::to_owned),
        command: String::new(),
    };
    campaign::run(&plan, &AtomicBool::new(false), |_| {})
}
