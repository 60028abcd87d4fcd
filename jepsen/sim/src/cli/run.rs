//! `tidegate-sim run`.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread::available_parallelism,
    time::Duration,
};

use clap::{Args, ValueEnum};
use jepsen_sim::{
    campaign::{Campaign, Failure, Summary, command, shrink},
    outcome::Outcome,
    plan::{Choice, Plan, Shape},
    planted::Controls,
    simulator::{Simulator, Wishes, run},
};
use tidegate_cluster::planted::PlantedBug;
use tidegate_jepsen::{history::monotonic, report::planted::HEAD};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Of no promise it is known that it was broken, but of one it could not be found out.
const UNKNOWN: u8 = 3;
/// Seeds that a bug on purpose has in each trial, unless it is said.
const SEEDS_OF_A_TRIAL: u64 = 150;

/// What to simulate.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo run --release -p jepsen-sim -- run --seeds 1000
  cargo run --release -p jepsen-sim -- run --seed 4711 --trace
  cargo run --release -p jepsen-sim -- run --seed 4711 --faults 0,3 --trace
  cargo run --release -p jepsen-sim -- run --nodes 50 --seeds 1 --time 10s
  cargo run --release -p jepsen-sim --features planted-bugs -- run --seeds 200 --planted full-start
  cargo run --release -p jepsen-sim --features planted-bugs -- run --planted all

A seed says everything: nodes, network, load, faults and when they happen. The same seed has the same history, always.

Exit codes: 0 all promises kept, 1 one was broken, 2 bad usage, 3 none was broken, but of one it could not be found out.")]
pub(crate) struct RunArgs {
    /// How many seeds [default: 100; with several --planted, at most 150 a trial]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,

    /// How often each bug on purpose is looked for, each time from another seed on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    trials: u64,

    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    from: u64,

    /// Only this one
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,

    /// Only these faults of it, by their numbers, or `none`
    #[arg(long, value_name = "N,...", requires = "seed", value_parser = parse_faults)]
    faults: Option<Choice>,

    /// How many nodes, instead of what the seed says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=60))]
    nodes: Option<u8>,

    /// How long faults happen (`10s`, `1500ms`), instead of what the seed says
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    time: Option<u64>,

    /// Threads [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Go on with other seeds when one has failed
    #[arg(long)]
    keep_going: bool,

    /// Tell what happens, each line with its simulated second (`RUST_LOG` says how much)
    #[arg(long, requires = "seed")]
    trace: bool,

    /// How to say what came of one seed
    #[arg(long, value_enum, default_value_t, requires = "seed")]
    output: Output,

    /// A bug on purpose, which must be found; several with commas between them, or `all`: a table of them (needs --features planted-bugs)
    #[arg(long, value_name = "NAME", value_parser = parse_planted)]
    planted: Option<Planted>,
}

/// How to say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

fn parse_faults(text: &str) -> Result<Choice, String> {
    if text == "none" {
        return Ok(Choice::Only(Vec::new()));
    }
    let places: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    places.map(Choice::Only).map_err(|_| "numbers with commas between them, as in 0,3, or none".to_owned())
}

fn parse_millis(text: &str) -> Result<u64, String> {
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => return Err("a number with its unit, as in 10s or 1500ms".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    match number * factor {
        millis @ 100..=3_600_000 => Ok(millis),
        _ => Err("from 100ms to 3600s".to_owned()),
    }
}

/// Which bugs on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Planted {
    One(PlantedBug),
    /// A table of these.
    Each(Vec<(&'static str, PlantedBug)>),
}

fn parse_planted(name: &str) -> Result<Planted, String> {
    if !cfg!(feature = "planted-bugs") {
        return Err("this program was built without --features planted-bugs".to_owned());
    }
    if name == "all" {
        return Ok(Planted::Each(PlantedBug::ALL.to_vec()));
    }
    let names = || PlantedBug::ALL.map(|(name, _)| name).join(", ");
    let named = |name: &str| PlantedBug::ALL.into_iter().find(|(known, _)| *known == name);
    let bugs: Option<Vec<_>> = name.split(',').map(named).collect();
    match bugs.ok_or_else(|| format!("there are all, {}", names()))?.as_slice() {
        [(_, bug)] => Ok(Planted::One(*bug)),
        bugs => Ok(Planted::Each(bugs.to_vec())),
    }
}

/// Simulates.
pub(crate) fn main(args: RunArgs) -> ExitCode {
    let shape = Shape { nodes: args.nodes.map(usize::from), faults_ms: args.time };
    let planted = match &args.planted {
        Some(Planted::One(bug)) => Some(*bug),
        _ => None,
    };
    let policies = Wishes { trace: args.trace, planted };
    let jobs = args.jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    if let Some(Planted::Each(bugs)) = &args.planted {
        let (seeds, trials) = (args.seeds.unwrap_or(SEEDS_OF_A_TRIAL), args.trials);
        let look = Controls { simulator: Simulator::this(), from: args.from, seeds, trials, jobs, shape };
        return controls(&look, bugs);
    }
    let seeds = args.seeds.unwrap_or(100);
    match args.seed {
        Some(seed) if args.output == Output::Json => {
            let plan = Plan::of(seed, shape).with(args.faults.as_ref().unwrap_or(&Choice::All));
            let outcome = run(&plan, &policies);
            println!("{}", serde_json::json!(outcome));
            exit_code(!outcome.faults.is_empty(), !outcome.unknown.is_empty())
        }
        Some(seed) => one(seed, shape, &policies, args.faults),
        None => {
            many(&Campaign { from: args.from, seeds, jobs, shape, policies, goes_on: args.keep_going }, shape)
        }
    }
}

fn one(seed: u64, shape: Shape, policies: &Wishes, choice: Option<Choice>) -> ExitCode {
    let plan = Plan::of(seed, shape).with(choice.as_ref().unwrap_or(&Choice::All));
    tell_plan(&plan);
    let begun = monotonic();
    let outcome = run(&plan, policies);
    let took = (monotonic() - begun) as f64 / 1e9;
    tell(&outcome, took);
    if outcome.faults.is_empty() {
        return exit_code(false, !outcome.unknown.is_empty());
    }
    if choice.is_none() && !policies.trace {
        tell_shrunk(&plan, policies, shape);
    }
    ExitCode::FAILURE
}

fn exit_code(is_broken: bool, is_unknown: bool) -> ExitCode {
    match (is_broken, is_unknown) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(UNKNOWN),
        (false, false) => ExitCode::SUCCESS,
    }
}

fn tell_plan(plan: &Plan) {
    let (least, most) = plan.latency_ms;
    println!(
        "seed {}, {:?}: {} nodes, {} of them found a cluster of {}, messages take {least} to {most} ms",
        plan.seed, plan.theme, plan.nodes, plan.expecting, plan.expect
    );
    plan.faults.iter().for_each(|fault| println!("  {fault}"));
}

fn tell(outcome: &Outcome, took: f64) {
    let Outcome { hash, faults, unknown, checks, admitted, rule_operations, simulated_ms } = outcome;
    let simulated = *simulated_ms as f64 / 1e3;
    println!("history   {hash:016x}");
    println!("checks    {checks}, {admitted} admitted; {rule_operations} writes and reads of rules");
    println!("time      {simulated:.1} s simulated in {took:.1} s ({:.1} a second)", simulated / took);
    faults.iter().for_each(|fault| println!("FAULT     {fault}"));
    unknown.iter().for_each(|what| println!("UNKNOWN   {what}"));
    let verdict = match (faults.is_empty(), unknown.is_empty()) {
        (false, _) => "VIOLATED",
        (true, false) => "unknown",
        (true, true) => "all promises kept",
    };
    println!("verdict   {verdict}");
}

fn tell_shrunk(plan: &Plan, policies: &Wishes, shape: Shape) {
    println!("looking for the fewest faults with which seed {} fails", plan.seed);
    let (places, outcome) = shrink(&Simulator::this(), plan, shape, policies, |places, fails| {
        println!("  {places:?}: {}", if fails { "fails" } else { "does not fail" });
    });
    let fewest = plan.with(&Choice::Only(places.clone()));
    println!("the fewest faults:");
    tell_plan(&fewest);
    outcome.faults.iter().for_each(|fault| println!("FAULT     {fault}"));
    println!("again     {}", command(plan.seed, &places, shape, policies));
}

fn many(campaign: &Campaign, shape: Shape) -> ExitCode {
    let Campaign { from, seeds, jobs, .. } = campaign;
    println!("simulating the seeds {from} to {} on {jobs} threads", from + seeds - 1);
    let (told, failed) = (AtomicU64::new(monotonic()), AtomicUsize::new(0));
    let summary = campaign.run(&Simulator::this(), |summary, all| {
        let failures = &summary.failures;
        failures.iter().skip(failed.swap(failures.len(), Relaxed)).for_each(tell_failure);
        let now = monotonic();
        let last = told.load(Relaxed);
        if now - last < TELL_EVERY.as_nanos() as u64 && summary.seeds < all {
            return;
        }
        told.store(now, Relaxed);
        let left = summary.took.as_secs_f64() / summary.seeds as f64 * (all - summary.seeds) as f64;
        println!(
            "{}/{all} seeds, {} failed, {} unknown, {:.0} seeds a minute, about {left:.0} s left",
            summary.seeds,
            summary.failures.len(),
            summary.unknown.len(),
            summary.seeds as f64 * 60.0 / summary.took.as_secs_f64(),
        );
    });
    tell_summary(&summary);
    summary.failures.iter().for_each(tell_failure);
    if let Some(first) = summary.failures.first() {
        tell_shrunk(&Plan::of(first.seed, shape), &campaign.policies, shape);
        println!("verdict   VIOLATED by {} of {} seeds", summary.failures.len(), summary.seeds);
        return ExitCode::FAILURE;
    }
    if let Some(first) = summary.unknown.first() {
        let Failure { seed, faults } = first;
        println!("verdict   unknown: {} seeds, first {seed}: {}", summary.unknown.len(), faults.join("; "));
        return exit_code(false, true);
    }
    println!("verdict   all promises kept");
    ExitCode::SUCCESS
}

fn tell_failure(Failure { seed, faults }: &Failure) {
    println!("seed {seed} FAILED");
    faults.iter().for_each(|fault| println!("  FAULT   {fault}"));
}

/// Each of these bugs on purpose must be found.
fn controls(controls: &Controls, bugs: &[(&str, PlantedBug)]) -> ExitCode {
    println!("{HEAD}");
    let mut is_missed = false;
    for (name, bug) in bugs {
        let row = controls.look_for(name, *bug);
        println!("{row}");
        is_missed |= !row.is_found();
    }
    exit_code(is_missed, false)
}

fn tell_summary(summary: &Summary) {
    let took = summary.took.as_secs_f64();
    println!(
        "{} seeds in {took:.0} s: {:.0} a minute, {:.1} simulated seconds a second, {} checks, {} seeds replayed",
        summary.seeds,
        summary.seeds as f64 * 60.0 / took,
        summary.simulated.as_secs_f64() / took,
        summary.checks,
        summary.replayed,
    );
    for (nodes, speed) in &summary.speed {
        println!("  {nodes} nodes: {speed:.1} simulated seconds a second of one thread");
    }
}
