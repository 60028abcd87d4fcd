//! `tidegate-jepsen controls`: bugs on purpose, one after the other, and which checker finds which. A checker is trusted
//! only after it has found one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::atomic::AtomicBool,
    time::Duration,
};

use clap::Args;
use tidegate_jepsen::{
    campaign::{self, Plan},
    check::Verdict,
    judge::judge,
    nemesis::Kind,
    network::Form,
    record::Record,
};

use super::network::NetworkArgs;

/// A bug, the faults under which it shows, and why real processes can not show it, if so.
struct Control {
    bug: &'static str,
    nemesis: &'static str,
    hidden: Option<&'static str>,
}

const fn shows(bug: &'static str, nemesis: &'static str) -> Control {
    Control { bug, nemesis, hidden: None }
}

const fn hidden(bug: &'static str, why: &'static str) -> Control {
    Control { bug, nemesis: "none", hidden: Some(why) }
}

/// Those of `cluster/src/planted.rs`.
const CONTROLS: [Control; 12] = [
    shows("no-session-wait", "alone,pause,halves"),
    shows("new-leader-does-not-wait", "alone,kill,halves"),
    shows("full-start", "kill,wipe"),
    shows("move-without-freeze", "drain,join,rolling"),
    shows("stale-reads", "alone,pause,one-way"),
    shows("share-not-carved", "alone,halves"),
    shows("returned-twice", "none"),
    shows("refund-repeated", "pause,slow"),
    hidden("no-clock-margin", "needs clocks that do not run alike"),
    hidden("renewal-not-bound", "needs a grant that overtakes an entry of the log by a session"),
    hidden("no-epoch-fence", "needs a message that outlives two moves of a slot"),
    hidden("vote-not-synced", "needs a machine that loses power: a process that is killed loses no write"),
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
    let binary = match &args.binary {
        Some(path) => path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?,
        None => build()?,
    };
    let network = args.network.settle()?;
    let mut table = "| bug | faults | found in | by |\n| --- | --- | --- | --- |\n".to_owned();
    let mut all_found = true;
    for Control { bug, nemesis, hidden } in &CONTROLS {
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
            let record = run(args, network, &binary, bug, nemesis, seed)?;
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
    bug: &str,
    nemesis: &str,
    seed: u64,
) -> Result<Record, String> {
    let (kinds, left_out) = Kind::parse_possible(nemesis, network)?;
    let plan = Plan {
        binary: binary.to_owned(),
        nodes: args.nodes,
        network,
        length: Duration::from_secs(args.seconds),
        kinds,
        left_out,
        seed,
        planted_bug: Some(bug.to_owned()),
        command: String::new(),
    };
    campaign::run(&plan, &AtomicBool::new(false), |_| {})
}

/// The node with the bugs compiled in, under another name than the node.
fn build() -> Result<PathBuf, String> {
    let us = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let directory = us.parent().ok_or("this program is in no directory")?.to_owned();
    let cargo = std::env::var_os("CARGO")
        .ok_or("run this with cargo run, or name a --binary with the bugs compiled in")?;
    let cargo_build = |features: &[&str]| {
        let mut build = Command::new(&cargo);
        build.args(["build", "--quiet", "--package", "tidegate", "--bin", "tidegate"]).args(features);
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let built = build.status().map_err(|error| format!("cargo can not be run: {error}"))?;
        if built.success() { Ok(()) } else { Err("the node's program could not be built".to_owned()) }
    };
    let (node, copy) = (directory.join("tidegate"), directory.join("tidegate-with-bugs"));
    cargo_build(&["--features", "tidegate-cluster/planted-bugs"])?;
    std::fs::copy(&node, &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    // The node itself is again what it should be.
    cargo_build(&[])?;
    copy.canonicalize().map_err(|error| format!("{}: {error}", copy.display()))
}
