//! Many seeds on several threads, and the fewest faults with which a failing one still fails.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use super::{
    outcome::Outcome,
    plan::{Choice, Plan, Shape},
    simulator::{Simulator, Wishes, arguments},
};
use tidegate_jepsen::history::monotonic;

/// Every so many seeds one is run twice, and must have the same history.
const REPLAY_EVERY: u64 = 100;

/// Which seeds.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
    /// What is given beside the seeds.
    pub shape: Shape,
    /// The bug on purpose.
    pub policies: Wishes,
    /// Whether it goes on after a failure.
    pub goes_on: bool,
}

/// A seed that failed, or of which something could not be found out.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was not as promised, or what is not known.
    pub faults: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed.
    pub failures: Vec<Failure>,
    /// Those of which it could not be found out.
    pub unknown: Vec<Failure>,
    /// Checks that were answered.
    pub checks: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// The time that it took.
    pub took: Duration,
    /// Simulated seconds a wall second, by the number of nodes, on one thread.
    pub speed: BTreeMap<usize, f64>,
    /// Seeds that were run twice.
    pub replayed: u64,
}

#[derive(Default)]
struct Tally {
    summary: Summary,
    by_nodes: BTreeMap<usize, (u64, u64)>,
}

impl Campaign {
    /// Runs all of them. `progress` is told of each seed that is done.
    pub fn run(&self, simulator: &Simulator, progress: impl Fn(&Summary, u64) + Sync) -> Summary {
        let start = monotonic();
        let next = AtomicU64::new(self.from);
        let end = self.from + self.seeds;
        let tally = Mutex::new(Tally::default());
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Relaxed);
                        if seed >= end {
                            return;
                        }
                        let plan = Plan::of(seed, self.shape);
                        let begun = monotonic();
                        let simulate = || simulator.run(seed, self.shape, &Choice::All, &self.policies);
                        let mut outcome = simulate();
                        let took = monotonic() - begun;
                        let replayed = seed.is_multiple_of(REPLAY_EVERY);
                        if replayed && simulate().hash != outcome.hash {
                            outcome.faults.push("the same seed has had another history".to_owned());
                        }
                        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        tally.add(&plan, &outcome, took, replayed);
                        tally.summary.took = Duration::from_nanos(monotonic() - start);
                        let failed = !outcome.faults.is_empty();
                        progress(&tally.summary, self.seeds);
                        if failed && !self.goes_on {
                            next.store(end, Relaxed);
                        }
                    }
                });
            }
        });
        let mut summary = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).summary;
        summary.failures.sort_by_key(|failure| failure.seed);
        summary
    }
}

impl Tally {
    fn add(&mut self, plan: &Plan, outcome: &Outcome, took: u64, replayed: bool) {
        let summary = &mut self.summary;
        summary.seeds += 1;
        summary.checks += outcome.checks as u64;
        summary.simulated += Duration::from_millis(outcome.simulated_ms);
        summary.replayed += u64::from(replayed);
        if !outcome.faults.is_empty() {
            summary.failures.push(Failure { seed: plan.seed, faults: outcome.faults.clone() });
        } else if !outcome.unknown.is_empty() {
            summary.unknown.push(Failure { seed: plan.seed, faults: outcome.unknown.clone() });
        }
        let (simulated, wall) = self.by_nodes.entry(plan.nodes).or_default();
        *simulated += outcome.simulated_ms * 1_000_000;
        *wall += took;
        summary.speed.insert(plan.nodes, *simulated as f64 / (*wall).max(1) as f64);
    }
}

/// Leaves out one fault after the other, as long as it still fails. Returns the places of those that are needed, and what
/// fails with them.
pub fn shrink(
    simulator: &Simulator,
    plan: &Plan,
    shape: Shape,
    policies: &Wishes,
    mut tried: impl FnMut(&[usize], bool),
) -> (Vec<usize>, Outcome) {
    let simulate =
        |places: &[usize]| simulator.run(plan.seed, shape, &Choice::Only(places.to_owned()), policies);
    let mut places: Vec<usize> = plan.faults.iter().map(|fault| fault.place).collect();
    let mut outcome = simulate(&places);
    let mut at = 0;
    while at < places.len() {
        let mut fewer = places.clone();
        fewer.remove(at);
        let without = simulate(&fewer);
        let fails = !without.faults.is_empty();
        tried(&fewer, fails);
        if fails {
            (places, outcome) = (fewer, without);
        } else {
            at += 1;
        }
    }
    (places, outcome)
}

/// The command that runs a seed with these faults again.
pub fn command(seed: u64, places: &[usize], shape: Shape, policies: &Wishes) -> String {
    let features = if policies.planted.is_some() { " --features planted-bugs" } else { "" };
    let arguments = arguments(seed, shape, &Choice::Only(places.to_owned()), policies).join(" ");
    format!("cargo run --release -p jepsen-sim{features} -- run {arguments} --trace")
}
