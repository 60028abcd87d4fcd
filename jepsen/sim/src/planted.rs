//! Bugs on purpose: in how many seeds each is found, and as what.

use std::collections::BTreeSet;

use tidegate_cluster::planted::PlantedBug;

use super::{
    campaign::{Campaign, Summary},
    plan::Shape,
    simulator::{Simulator, Wishes},
};
use tidegate_jepsen::report::planted::{Row, Trial, Unit};

/// Seeds between the beginnings of two trials.
const APART: u64 = 100_000;

/// How bugs are looked for.
#[derive(Debug)]
pub struct Controls {
    /// Who runs a seed.
    pub simulator: Simulator,
    /// Where the first trial begins.
    pub from: u64,
    /// Seeds that a trial has.
    pub seeds: u64,
    /// How many trials.
    pub trials: u64,
    /// Threads.
    pub jobs: usize,
    /// What is given beside the seeds.
    pub shape: Shape,
}

impl Controls {
    /// Trials of so many seeds each, each from another one on.
    pub fn new(from: u64, seeds: u64, trials: u64, jobs: usize) -> Self {
        let shape = Shape { nodes: None, faults_ms: None };
        Self { simulator: Simulator::this(), from, seeds, trials, jobs, shape }
    }

    /// What the trials come to.
    pub fn look_for(&self, name: &str, bug: PlantedBug) -> Row {
        let trials = (0..self.trials).map(|trial| self.trial(self.from + trial * APART, bug)).collect();
        Row::Tried { bug: name.to_owned(), unit: Unit::Seeds, trials }
    }

    fn trial(&self, from: u64, bug: PlantedBug) -> Trial {
        let campaign = Campaign {
            from,
            seeds: self.seeds,
            jobs: self.jobs,
            shape: self.shape,
            policies: Wishes { trace: false, planted: Some(bug) },
            goes_on: false,
        };
        let Summary { failures, .. } = campaign.run(&self.simulator, |_, _| {});
        // Several run at once: the first one counts.
        let first = failures.iter().min_by_key(|failure| failure.seed);
        let kinds: BTreeSet<String> =
            first.into_iter().flat_map(|failure| &failure.faults).map(|fault| kind_of(fault)).collect();
        Trial {
            after: first.map(|failure| (failure.seed - from + 1) as f64),
            within: self.seeds as f64,
            found_as: kinds.into_iter().collect(),
        }
    }
}

/// What a fault is, without where and when.
fn kind_of(fault: &str) -> String {
    const KINDS: [(&str, &str); 13] = [
        ("two deciders of one slot", "two deciders of one slot"),
        ("too much admitted", "too much admitted"),
        ("not linearizable", "rules are not linearizable"),
        ("rules of d", "an acknowledged rule is lost"),
        ("a vote is forgotten", "a vote is forgotten"),
        ("owners are not replaced", "owners are not replaced"),
        ("does not become whole", "the cluster does not become whole"),
        ("does not decide as one", "a whole cluster does not decide as one"),
        ("clusters", "two clusters"),
        ("never asked about", "a new key is locked out"),
        ("an epoch has fallen", "an epoch has fallen"),
        ("applied less", "less is applied than before"),
        ("a panic", "a panic"),
    ];
    let known = KINDS.into_iter().find(|(part, _)| fault.contains(part));
    known.map_or_else(|| fault.chars().take(60).collect(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_names_without_numbers() {
        assert_eq!(kind_of("too much admitted for the key log/40: 31 in 2.997s"), "too much admitted");
        assert_eq!(kind_of("rules of d1: Lost(3)"), "an acknowledged rule is lost");
        assert_eq!(kind_of("there are 2 clusters"), "two clusters");
    }
}
