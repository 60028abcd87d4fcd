//! `tidegate-jepsen controls`: bugs on purpose, one after the other, and which checker finds which. A checker is trusted
//! only after it has found one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Args;
use tidegate_cluster::planted::PlantedBug;
use tidegate_jepsen::{
    campaign::{self, Plan},
    check::Verdict,
    history::monotonic,
    judge::judge,
    machine,
    nemesis::{Kind, Means},
    network::Form,
    record::Record,
    report::planted::{Row, Trial, Unit, table},
};

use super::{binary, network::NetworkArgs, run::time};

/// The faults under which a bug shows; what is not in the table is looked for under all of them.
const FAULTS: [(&str, &str); 12] = [
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
];
/// Machines that are worse than is promised: each is a fault, and no bug of the node.
const BEYOND: [&str; 1] = ["clock-runaway"];
/// Bugs that real processes do not show: who finds them, and why not this.
const ELSEWHERE: [(&str, &str, &str); 8] = [
    (
        "no-clock-margin",
        "model (cluster/src/owner/suite.rs)",
        "what clocks may drift in a session is less than what a machine with two processors adds",
    ),
    ("renewal-not-bound", "simulation", "needs a grant that overtakes an entry of the log by a session"),
    (
        "no-epoch-fence",
        "model (cluster/src/owner/suite.rs)",
        "needs a message that outlives two moves of a slot",
    ),
    (
        "vote-not-synced",
        "power cuts (cluster/src/raft/suite.rs)",
        "needs a vote that the power takes with it, and a second candidate in that term",
    ),
    ("seals-not-checked", "tests/peer_attacks.rs", "no fault forges what nodes say to each other"),
    ("sender-not-checked", "tests/peer_attacks.rs", "no fault forges what nodes say to each other"),
    ("absurd-believed", "tests/peer_attacks.rs", "no fault forges what nodes say to each other"),
    (
        "denials-forgotten",
        "tests/denied_floods.rs",
        "no bound is broken, and no client of a run floods what denies it",
    ),
];

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo run --release -p jepsen -- controls                        every bug that real processes can show
  cargo run --release -p jepsen -- controls --bugs full-start,stale-reads --trials 1
  cargo run --release -p jepsen -- controls --time 30m --minutes 3

Builds the node once more, with the bugs compiled in. A trial breaks a cluster that has the bug, one seed after the other, until a
checker says that a promise was broken, or its minutes of faults are over. The table in the end is in Markdown, and the same as that of
`sim --planted all`. Ctrl-C and the end of --time print the table of what was tried.

Exit codes: 0 each was found in the median trial, 1 one was not, 2 something could not be tried.")]
pub(crate) struct ControlsArgs {
    /// Which bugs [default: all that real processes can show]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    bugs: Vec<String>,

    #[command(flatten)]
    network: NetworkArgs,

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
    network: Form,
    binary: PathBuf,
    interrupted: Arc<AtomicBool>,
    end: u64,
}

fn try_controls(args: &ControlsArgs) -> Result<Vec<Row>, String> {
    let known: Vec<&str> = PlantedBug::ALL.iter().map(|(name, _)| *name).chain(BEYOND).collect();
    if let Some(strange) = args.bugs.iter().find(|bug| !known.contains(&&***bug)) {
        return Err(format!("--bugs: there is no {strange:?}; there are {}", known.join(", ")));
    }
    let binary = binary::for_tests(args.binary.clone())?;
    if args.binary.is_none() && !machine::follows_orders(&binary) {
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
    let bench = Bench { args, network, binary, interrupted, end };
    let mut rows = Vec::new();
    for bug in known {
        let named = args.bugs.iter().any(|name| name == bug);
        let elsewhere = ELSEWHERE.iter().find(|(name, _, _)| *name == bug);
        match elsewhere {
            _ if !named && !args.bugs.is_empty() => {}
            Some((bug, by, why)) if !named => {
                let [bug, by, why] = [bug, by, why].map(|text| (*text).to_owned());
                rows.push(Row::Elsewhere { bug, by, why });
            }
            _ => rows.push(bench.row(bug)?),
        }
    }
    Ok(rows)
}

impl Bench<'_> {
    fn is_over(&self) -> bool {
        self.interrupted.load(Relaxed) || monotonic() > self.end
    }

    fn row(&self, bug: &str) -> Result<Row, String> {
        let mut trials = Vec::new();
        for number in 1..=self.args.trials {
            if self.is_over() {
                break;
            }
            trials.extend(self.trial(bug, number)?);
        }
        let bug = bug.to_owned();
        Ok(if trials.is_empty() {
            Row::Untried { bug }
        } else {
            Row::Tried { bug, unit: Unit::Minutes, trials }
        })
    }

    /// One seed after the other. `None`: it was broken off, and says nothing.
    fn trial(&self, bug: &str, number: u64) -> Result<Option<Trial>, String> {
        let within = self.args.minutes as f64;
        let mut minutes = 0.0;
        // Trials have no seed in common.
        for seed in (self.args.from + 1_000 * (number - 1)).. {
            if self.is_over() {
                return Ok(None);
            }
            let record = self.run(bug, seed)?;
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

    fn run(&self, bug: &str, seed: u64) -> Result<Record, String> {
        let is_beyond = BEYOND.contains(&bug);
        let of_bug = FAULTS.iter().find(|(name, _)| *name == bug).map(|(_, faults)| *faults);
        let nemesis = match (&self.args.nemesis, is_beyond) {
            (_, true) => bug,
            (Some(nemesis), false) => nemesis,
            (None, false) => of_bug.unwrap_or("all"),
        };
        campaign::run(
            &self.plan(&self.binary, nemesis, (!is_beyond).then_some(bug), seed)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_one_of_a_bug_and_its_faults_are_there() {
        let is_bug = |name: &str| PlantedBug::named(name).is_some();
        for (bug, faults) in FAULTS {
            assert!(is_bug(bug) && Kind::parse_list(faults).is_ok(), "{bug}: {faults}");
        }
        assert!(ELSEWHERE.iter().all(|(bug, _, _)| is_bug(bug)));
        assert!(BEYOND.iter().all(|kind| Kind::parse_list(kind).is_ok()));
    }
}
