//! The simulated cluster: one history a seed, and the promises kept in each. A process a seed, as in long campaigns.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{process::Command, thread};

use jepsen_sim::{
    outcome::Outcome,
    plan::{Choice, Shape},
    simulator::{Simulator, Wishes},
};

fn simulator() -> Simulator {
    Simulator { program: env!("CARGO_BIN_EXE_tidegate-sim").into() }
}

fn simulate(seed: u64, shape: Shape) -> Outcome {
    simulator().run(seed, shape, &Choice::All, &Wishes::default())
}

fn two_at_a_time(seeds: &[u64], shape: Shape) {
    thread::scope(|scope| {
        for half in 0..2 {
            let seeds = seeds.iter().skip(half).step_by(2);
            scope.spawn(|| {
                for seed in seeds {
                    let outcome = simulate(*seed, shape);
                    assert_eq!(outcome.faults, [""; 0], "seed {seed}");
                    assert!(outcome.checks > 200 && outcome.admitted > 100, "seed {seed}: {outcome:?}");
                }
            });
        }
    });
}

#[test]
fn a_seed_has_one_history_and_another_one_another() {
    let shape = Shape { nodes: Some(3), faults_ms: Some(5_000) };
    let (one, again) = thread::scope(|scope| {
        (scope.spawn(|| simulate(2, shape)), scope.spawn(|| simulate(2, shape))).join()
    });
    assert_eq!(one, again);
    assert_ne!(one.hash, simulate(3, shape).hash);
}

/// Else nobody could look at a seed that fails.
#[test]
fn a_trace_changes_nothing() {
    let shape = Shape { nodes: Some(3), faults_ms: Some(5_000) };
    let traced = Command::new(simulator().program)
        .args(["run", "--seed", "2", "--nodes", "3", "--time", "5s", "--trace"])
        .output()
        .unwrap();
    let told = String::from_utf8(traced.stdout).unwrap();
    assert!(told.contains("asked"), "{told:.2000}");
    let history = format!("history   {:016x}", simulate(2, shape).hash);
    assert!(told.contains(&history), "{history}, but {}", told.lines().rev().take(5).collect::<String>());
}

#[test]
fn some_seeds_keep_all_promises() {
    two_at_a_time(&[1, 2, 3, 4, 5, 6], Shape { nodes: Some(3), faults_ms: Some(6_000) });
}

/// Every twentieth seed is about nodes that come back elsewhere, leave and come, and lose their addresses to another cluster.
#[test]
fn nodes_move_and_lose_their_addresses_to_others_and_all_promises_are_kept() {
    two_at_a_time(&[19, 39, 59, 79], Shape { nodes: None, faults_ms: None });
}

/// On 125d051 each of them showed a hole (docs/findings.md): shares by owners, a leader that nobody reaches, a limit of the
/// node that asks, a disk that hangs, new keys that are locked out, nodes that are far from each other.
#[test]
fn seeds_that_have_failed_keep_all_promises_now() {
    two_at_a_time(&[8, 12, 3, 27, 7, 16], Shape { nodes: None, faults_ms: None });
}

/// Both threads' results.
trait Join<T> {
    fn join(self) -> (T, T);
}

impl<T> Join<T> for (thread::ScopedJoinHandle<'_, T>, thread::ScopedJoinHandle<'_, T>) {
    fn join(self) -> (T, T) {
        (self.0.join().unwrap(), self.1.join().unwrap())
    }
}
