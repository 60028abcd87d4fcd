//! `tidegate-sim controls`: bugs on purpose, one after the other, and which checker finds which. A checker is trusted
//! only after it has found one.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::{Args, ValueEnum};
use jepsen_sim::planted::Controls;
use tidegate_cluster::planted::PlantedBug;
use tidegate_jepsen::{
    args::{NetworkArgs, time},
    binary,
    campaign::{self, NOT_READY, Plan},
    check::Verdict,
    history::monotonic,
    judge::judge,
    machine,
    nemesis::{Kind, Means},
    network::Form,
    node::PLANTED_BUG,
    record::Record,
    report::planted::{Row, TestResult, Trial, Unit, table},
};

/// The faults under which a bug shows; what is not in the table is looked for under all of them.
const FAULTS: [(&str, &str); 17] = [
    ("no-session-wait", "alone,pause,halves"),
    ("new-leader-does-not-wait", "alone,kill,halves"),
    ("full-start", "kill,wipe"),
    ("move-without-freeze", "drain,join,rolling"),
    ("stale-reads", "alone,pause,one-way"),
    ("share-not-carved", "alone,halves,pause"),
    ("returned-twice", "none"),
    ("refund-repeated", "pause,slow"),
    // Every other seed has nodes that own nothing.
    ("shares-by-owners", "kill,wipe,pause"),
    ("unreachable-leader-stays", "unconnectable"),
    ("renewal-without-progress", "hung-fsync"),
    ("askers-limit", "hung-fsync,full-disk,failed-fsync"),
    // Two of three seeds found a cluster with fewer nodes than there are.
    ("adoption-undecided", "wipe,join,kill"),
    ("founds-unasked", "wipe,join,kill"),
    ("joiners-count", "wipe,join,kill"),
    ("flood-spills", "flood"),
    ("shares-forgotten", "kill,wipe"),
];
/// Under these it may be that no cluster ever comes to be.
const OF_FOUNDING: [&str; 3] = ["adoption-undecided", "founds-unasked", "joiners-count"];
/// So often in a row a run may not begin, on a busy machine.
const MAX_FAILED_STARTS: u32 = 3;
/// Machines that are worse than is promised: each is a fault, and no bug of the node.
const BEYOND: [&str; 1] = ["clock-runaway"];
/// Bugs that no fault of a run shows, nor of a seed: the black-box test that does, and why only a test.
const TESTED: [(&str, &str, &str); 5] = [
    ("seals-not-checked", "peer_attacks", "no fault forges what nodes say to each other"),
    ("sender-not-checked", "peer_attacks", "no fault forges what nodes say to each other"),
    ("absurd-believed", "peer_attacks", "no fault forges what nodes say to each other"),
    (
        "denials-forgotten",
        "denied_floods",
        "no bound is broken, and no client of a run floods what denies it",
    ),
    ("answers-without-deadline", "hung_disk_streams", "no bound is broken: streams wait for a disk"),
];

/// What looks for bugs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    /// Seeds of the simulation (compiled in with --features planted-bugs)
    Simulation,
    /// Clusters of real processes that are broken on purpose
    Processes,
    /// A test of this repository, for what no fault shows
    Tests,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo run --release -p jepsen-sim --features planted-bugs -- controls                           every bug, by whatever finds it
  cargo run --release -p jepsen-sim --features planted-bugs -- controls --with simulation         seeds only: some minutes
  cargo run --release -p jepsen-sim --features planted-bugs -- controls --with processes --bugs full-start,stale-reads --trials 1
  cargo run --release -p jepsen-sim --features planted-bugs -- controls --time 30m --minutes 3

Each bug is looked for in seeds of the simulation. What these do not show in the median trial, clusters of real processes are
broken with: one run after the other, until a checker says that a promise was broken, or the trial's minutes of faults are over. What no
fault shows, a test must: it has to fail with the bug and to pass without. The node is built once more, with the bugs compiled in.
The table in the end is in Markdown. Ctrl-C and the end of --time print the table of what was tried.

Exit codes: 0 each was found in the median trial, 1 one was not, 2 something could not be tried.")]
pub(crate) struct ControlsArgs {
    /// Which bugs [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    bugs: Vec<String>,

    /// What looks for them, in this order [default: all of them]
    #[arg(long, value_enum, value_name = "TOOLS", value_delimiter = ',')]
    with: Vec<Tool>,

    #[command(flatten)]
    network: NetworkArgs,

    /// How many seeds a trial of the simulation has
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: u64,

    /// How many trials each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    trials: u64,

    /// For how many minutes of faults a trial goes on if nothing is found
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=240))]
    minutes: u64,

    /// How long all of it may take
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = time)]
    time: Duration,

    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,

    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,

    /// How many seconds each run takes
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(20..=600))]
    seconds: u64,

    /// Which faults, instead of those under which a bug is known to show
    #[arg(long, value_name = "KINDS")]
    nemesis: Option<String>,

    /// A node's program with the bugs compiled in [default: it is built]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn controls(args: &ControlsArgs) -> ExitCode {
    match try_controls(args) {
        Ok(rows) => {
            println!("\n{}", table(&rows));
            let tests = rows.iter().filter(|row| matches!(row, Row::Tested { .. })).count();
            if tests > 0 {
                let why = |(bug, _, why): &(&str, &str, &str)| println!("  {bug}: {why}");
                println!("By a test only:");
                TESTED.iter().for_each(why);
            }
            let untried = |row: &Row| matches!(row, Row::Untried { .. });
            match rows.iter().find(|row| !row.is_found() && !untried(row)) {
                Some(_) => ExitCode::FAILURE,
                None if rows.iter().any(untried) => ExitCode::from(2),
                None => ExitCode::SUCCESS,
            }
        }
        Err(fault) => {
            eprintln!("nothing was tested: {fault}");
            ExitCode::from(2)
        }
    }
}

/// What is tried, and where.
struct Bench<'a> {
    args: &'a ControlsArgs,
    tools: Vec<Tool>,
    network: Form,
    /// A node with the bugs compiled in; the simulation needs none.
    binary: Option<PathBuf>,
    interrupted: Arc<AtomicBool>,
    end: u64,
}

fn try_controls(args: &ControlsArgs) -> Result<Vec<Row>, String> {
    let known: Vec<&str> = PlantedBug::ALL.iter().map(|(name, _)| *name).chain(BEYOND).collect();
    if let Some(strange) = args.bugs.iter().find(|bug| !known.contains(&&***bug)) {
        return Err(format!("--bugs: there is no {strange:?}; there are {}", known.join(", ")));
    }
    let tools = match args.with.as_slice() {
        [] => Tool::value_variants().to_vec(),
        named => named.to_vec(),
    };
    if tools.contains(&Tool::Simulation) && !cfg!(feature = "planted-bugs") {
        return Err("the simulation has no bugs compiled in: run this with `cargo run --release -p jepsen-sim --features \
                    planted-bugs -- controls`, or without it (--with processes,tests)"
            .to_owned());
    }
    let binary =
        if tools == [Tool::Simulation] { None } else { Some(binary::for_tests(args.binary.clone())?) };
    if let Some(binary) = &binary
        && args.binary.is_none()
        && !machine::follows_orders(binary)
    {
        return Err("run this with cargo run, or name a --binary with the bugs compiled in".to_owned());
    }
    let network = args.network.settle()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second one ends this program at once.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 2, Arc::clone(&interrupted));
        let _ = signal_hook::flag::register(signal, Arc::clone(&interrupted));
    }
    let end = monotonic() + args.time.as_nanos() as u64;
    let bench = Bench { args, tools, network, binary, interrupted, end };
    let named = |bug: &&str| args.bugs.is_empty() || args.bugs.iter().any(|name| name == bug);
    known.into_iter().filter(named).map(|bug| bench.row(bug)).collect()
}

impl Bench<'_> {
    fn is_over(&self) -> bool {
        self.interrupted.load(Relaxed) || monotonic() > self.end
    }

    /// Looks for a bug with one tool after the other, until one finds it.
    fn row(&self, bug: &str) -> Result<Row, String> {
        let mut row = Row::Untried { bug: bug.to_owned() };
        for tool in &self.tools {
            if self.is_over() {
                break;
            }
            let tried = match tool {
                Tool::Simulation => self.simulated(bug),
                Tool::Processes => self.processes(bug)?,
                Tool::Tests => self.tested(bug)?,
            };
            row = tried.unwrap_or(row);
            if row.is_found() {
                break;
            }
        }
        println!("{row}");
        Ok(row)
    }

    fn simulated(&self, name: &str) -> Option<Row> {
        let bug = PlantedBug::named(name).filter(|_| !is_only_tested(name))?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Some(Controls::new(self.args.from, self.args.seeds, self.args.trials, jobs).look_for(name, bug))
    }

    fn processes(&self, bug: &str) -> Result<Option<Row>, String> {
        let Some(binary) = self.binary.as_deref().filter(|_| !is_only_tested(bug)) else { return Ok(None) };
        let mut trials = Vec::new();
        for number in 1..=self.args.trials {
            if self.is_over() {
                break;
            }
            trials.extend(self.trial(binary, bug, number)?);
        }
        let tried = !trials.is_empty();
        Ok(tried.then(|| Row::Tried { bug: bug.to_owned(), unit: Unit::Minutes, trials }))
    }

    /// Runs the test that shows the bug: with it, and without, on the same program.
    fn tested(&self, bug: &str) -> Result<Option<Row>, String> {
        let Some((_, test, _)) = TESTED.iter().find(|(name, _, _)| *name == bug) else { return Ok(None) };
        let Some(binary) = &self.binary else { return Ok(None) };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let run = |bug: &str| {
            let mut test_run = Command::new(&cargo);
            let e2e = ["test", "--package", "tidegate", "--test", "e2e", "--", "--test-threads", "2"];
            test_run.args(e2e).arg(format!("{test}::"));
            test_run.env("TIDEGATE_TEST_BINARY", binary).env(PLANTED_BUG, bug).stderr(Stdio::null());
            test_run.output().map_err(|error| format!("cargo cannot be run: {error}"))
        };
        let (by, bug) = (format!("tests/e2e/{test}.rs"), bug.to_owned());
        let with = run(&bug)?;
        if with.status.success() {
            return Ok(Some(Row::Tested { bug, by, result: TestResult::Missed }));
        }
        let said = String::from_utf8_lossy(&with.stdout).into_owned();
        let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
        let parts: Vec<String> = said.lines().filter_map(failed).collect();
        let is_sound = !parts.is_empty() && run("")?.status.success();
        let result = if is_sound { TestResult::Found(parts) } else { TestResult::Useless };
        Ok(Some(Row::Tested { bug, by, result }))
    }

    /// One seed after the other. `None`: it was broken off, and says nothing.
    fn trial(&self, binary: &Path, bug: &str, number: u64) -> Result<Option<Trial>, String> {
        let within = self.args.minutes as f64;
        let (mut minutes, mut failed_starts) = (0.0, 0);
        // Trials have no seed in common.
        for seed in (self.args.from + 1_000 * (number - 1)).. {
            if self.is_over() {
                return Ok(None);
            }
            let record = match self.run(binary, bug, seed) {
                Ok(record) => record,
                Err(fault) if OF_FOUNDING.contains(&bug) && fault.starts_with(NOT_READY) => {
                    println!(
                        "{bug}, trial {number}, seed {seed}: {}",
                        fault.lines().next().unwrap_or_default()
                    );
                    let found_as = vec!["no cluster came to be".to_owned()];
                    return Ok(Some(Trial { after: Some(minutes), within, found_as }));
                }
                Err(fault) if failed_starts + 1 < MAX_FAILED_STARTS => {
                    failed_starts += 1;
                    eprintln!("{bug}, trial {number}, seed {seed}: {fault}");
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            failed_starts = 0;
            if self.interrupted.load(Relaxed) {
                return Ok(None);
            }
            let times = &record.times;
            minutes += times.healed.unwrap_or(times.ended).saturating_sub(times.broken) as f64 / 60e9;
            let findings = judge(&record).findings.into_iter();
            let violated: Vec<_> = findings.filter(|one| one.verdict == Verdict::Violated).collect();
            let of = self.args.trials;
            for finding in &violated {
                let detail = finding.details.first().map_or("", |detail| &**detail);
                println!(
                    "{bug}, trial {number} of {of}, seed {seed}, {minutes:.1} min: {}: {detail}",
                    finding.checker
                );
            }
            let found_as: Vec<String> = violated.into_iter().map(|finding| finding.checker).collect();
            if !found_as.is_empty() {
                return Ok(Some(Trial { after: Some(minutes), within, found_as }));
            }
            println!(
                "{bug}, trial {number} of {of}, seed {seed}, {minutes:.1} min of {within:.0}: nothing yet"
            );
            if minutes >= within {
                return Ok(Some(Trial { after: None, within, found_as }));
            }
        }
        Ok(None)
    }

    fn run(&self, binary: &Path, bug: &str, seed: u64) -> Result<Record, String> {
        let is_beyond = BEYOND.contains(&bug);
        let of_bug = FAULTS.iter().find(|(name, _)| *name == bug).map(|(_, faults)| *faults);
        let nemesis = match (&self.args.nemesis, is_beyond) {
            (_, true) => bug,
            (Some(nemesis), false) => nemesis,
            (None, false) => of_bug.unwrap_or("all"),
        };
        campaign::run(
            &self.plan(binary, nemesis, (!is_beyond).then_some(bug), seed)?,
            &self.interrupted,
            |_| {},
        )
    }

    fn plan(&self, binary: &Path, nemesis: &str, bug: Option<&str>, seed: u64) -> Result<Plan, String> {
        let means = Means {
            network: self.network,
            follows_orders: machine::follows_orders(binary),
            other_build: false,
        };
        let (kinds, left_out) = Kind::parse_possible(nemesis, &means)?;
        Ok(Plan {
            binary: binary.to_owned(),
            other_binary: None,
            follows_orders: means.follows_orders,
            nodes: self.args.nodes,
            network: self.network,
            length: Duration::from_secs(self.args.seconds),
            kinds,
            left_out,
            seed,
            planted_bug: bug.map(str::to_owned),
            command: String::new(),
        })
    }
}

fn is_only_tested(bug: &str) -> bool {
    TESTED.iter().any(|(name, _, _)| *name == bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_one_of_a_bug_and_its_faults_are_there() {
        let is_bug = |name: &str| PlantedBug::named(name).is_some();
        for (bug, faults) in FAULTS {
            assert!(is_bug(bug) && Kind::parse_list(faults).is_ok(), "{bug}: {faults}");
        }
        assert!(TESTED.iter().all(|(bug, _, _)| is_bug(bug)));
        assert!(BEYOND.iter().all(|kind| Kind::parse_list(kind).is_ok()));
    }
}
