//! The whole cluster in one thread, on a simulated network, disk and clock: from one seed, the same history each time.
//!
//! - [`entropy`]: all randomness of a thread from one seed.
//! - [`plan`]: what a seed means: nodes, rules, loads, faults.
//! - [`themes`]: what a seed is about, so that it finds something. `workload`: the rules, and what each may admit.
//! - `node`: one node, which is the code that runs in production. `client`: who asks it. `world`: all of them, and what is done
//!   to them. `ways`: the network between them.
//! - `looks`: what is seen of them. `verdict`, `steps`: whether the promises were kept. `telling`: panics, and a trace for
//!   people.
//! - [`campaign`]: many seeds on several threads; a failing one is shrunk to the fewest faults that still fail. [`command`]:
//!   how people ask for that.

pub mod campaign;
mod client;
pub mod command;
pub mod controls;
pub mod entropy;
mod looks;
mod node;
pub mod plan;
mod steps;
mod telling;
pub mod themes;
mod verdict;
mod ways;
mod workload;
mod world;

use std::{path::PathBuf, process::Command, thread};

use serde::{Deserialize, Serialize};

pub use self::plan::{Choice, Plan, Shape};

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// A hash of all that happened: the same for two runs of one plan.
    pub hash: u64,
    /// What was not as promised.
    pub faults: Vec<String>,
    /// What could not be found out.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// Checks that were answered, and how many of them were admitted.
    pub checks: usize,
    /// Those of them that were admitted.
    pub admitted: usize,
    /// Writes of rules that were acknowledged, and linearizable reads.
    pub rule_operations: usize,
    /// How long it was, in simulated milliseconds.
    pub simulated_ms: u64,
}

/// What is wanted of a run beside its plan.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Tell what happens, at the time of the simulation.
    pub trace: bool,
    /// The bug on purpose; needs the feature `planted-bugs`.
    pub planted: Option<tidegate_cluster::planted::PlantedBug>,
}

/// The program that simulates one seed and says what came of it. Each run has a process of its own: tokio counts the
/// runtimes of a process, and what chance decides in them follows from that number.
#[derive(Debug, Clone)]
pub struct Simulator {
    /// `tidegate-jepsen`.
    pub program: PathBuf,
}

impl Simulator {
    /// This program.
    pub fn this() -> Self {
        Self { program: std::env::current_exe().unwrap_or_else(|_| "tidegate-jepsen".into()) }
    }

    /// Runs a seed in a process of its own.
    pub fn run(&self, seed: u64, shape: Shape, choice: &Choice, wishes: &Wishes) -> Outcome {
        let mut command = Command::new(&self.program);
        command.args(["sim", "--output", "json"]).args(arguments(seed, shape, choice, wishes));
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => return Outcome::broken(&format!("{}: {error}", self.program.display())),
        };
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            Outcome::broken(&format!("the simulating process has ended with {}: {said}", output.status))
        })
    }
}

/// The arguments of `sim` that run a seed with these faults again.
pub fn arguments(seed: u64, shape: Shape, choice: &Choice, wishes: &Wishes) -> Vec<String> {
    let mut arguments = vec!["--seed".to_owned(), seed.to_string()];
    let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    if let Choice::Only(places) = choice {
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        add("faults", if places.is_empty() { "none".to_owned() } else { places.join(",") });
    }
    if let Some(nodes) = shape.nodes {
        add("nodes", nodes.to_string());
    }
    if let Some(millis) = shape.faults_ms {
        add("time", format!("{millis}ms"));
    }
    let bugs = tidegate_cluster::planted::PlantedBug::ALL.into_iter();
    if let Some((name, _)) = bugs.into_iter().find(|(_, bug)| Some(*bug) == wishes.planted) {
        add("planted", name.to_owned());
    }
    arguments
}

/// Runs a plan in this process, on a thread of its own. Only the first run of a process is the one that others will have
/// too; see [`Simulator`].
pub fn run(plan: &Plan, wishes: &Wishes) -> Outcome {
    let (plan, wishes) = (plan.clone(), wishes.clone());
    if wishes.trace {
        telling::trace();
    }
    let thread = thread::Builder::new().name("simulation".to_owned()).stack_size(8 << 20);
    let running = thread.spawn(move || {
        #[cfg(feature = "planted-bugs")]
        tidegate_cluster::planted::plant_here(wishes.planted);
        world::run(&plan)
    });
    match running.map(thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Outcome::broken("the simulation has panicked"),
        Err(error) => Outcome::broken(&format!("no thread: {error}")),
    }
}

impl Outcome {
    fn broken(reason: &str) -> Self {
        Self {
            hash: 0,
            faults: vec![reason.to_owned()],
            unknown: Vec::new(),
            checks: 0,
            admitted: 0,
            rule_operations: 0,
            simulated_ms: 0,
        }
    }
}
