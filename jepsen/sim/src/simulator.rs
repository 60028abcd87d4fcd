//! Runs a seed: in a process of its own, or in this one.

use std::{path::PathBuf, process::Command, thread};

use tidegate_cluster::planted::PlantedBug;

use super::{
    outcome::Outcome,
    plan::{Choice, Plan, Shape},
    trace, world,
};

/// What is wanted of a run beside its plan.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Tell what happens, at the time of the simulation.
    pub trace: bool,
    /// The bug on purpose; needs the feature `planted-bugs`.
    pub planted: Option<PlantedBug>,
}

/// The program that simulates one seed and says what came of it. Each run has a process of its own: tokio counts the
/// runtimes of a process, and what chance decides in them follows from that number.
#[derive(Debug, Clone)]
pub struct Simulator {
    /// `tidegate-sim`.
    pub program: PathBuf,
}

impl Simulator {
    /// This program.
    pub fn this() -> Self {
        Self { program: std::env::current_exe().unwrap_or_else(|_| "tidegate-sim".into()) }
    }

    /// Runs a seed in a process of its own.
    pub fn run(&self, seed: u64, shape: Shape, choice: &Choice, policies: &Wishes) -> Outcome {
        let mut command = Command::new(&self.program);
        command.args(["run", "--output", "json"]).args(arguments(seed, shape, choice, policies));
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

/// The arguments of `run` that run a seed with these faults again.
pub fn arguments(seed: u64, shape: Shape, choice: &Choice, policies: &Wishes) -> Vec<String> {
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
    let bugs = PlantedBug::ALL.into_iter();
    if let Some((name, _)) = bugs.into_iter().find(|(_, bug)| Some(*bug) == policies.planted) {
        add("planted", name.to_owned());
    }
    arguments
}

/// Runs a plan in this process, on a thread of its own. Only the first run of a process is the one that others will have
/// too; see [`Simulator`].
pub fn run(plan: &Plan, policies: &Wishes) -> Outcome {
    let (plan, policies) = (plan.clone(), policies.clone());
    if policies.trace {
        trace::trace();
    }
    let thread = thread::Builder::new().name("simulation".to_owned()).stack_size(8 << 20);
    let running = thread.spawn(move || {
        #[cfg(feature = "planted-bugs")]
        tidegate_cluster::planted::plant_here(policies.planted);
        world::run(&plan)
    });
    match running.map(thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Outcome::broken("the simulation has panicked"),
        Err(error) => Outcome::broken(&format!("no thread: {error}")),
    }
}
