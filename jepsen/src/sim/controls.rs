//! Bugs on purpose: in how many seeds each is found, and as what.

use std::{collections::BTreeMap, fmt};

use tidegate_cluster::planted::PlantedBug;

use super::{
    Shape, Simulator, Wishes,
    campaign::{Campaign, Failure, Summary},
};

/// Seeds between the beginnings of two trials.
const APART: u64 = 100_000;

/// How bugs are looked for.
#[derive(Debug)]
pub(super) struct Controls {
    pub(super) simulator: Simulator,
    /// Where the first trial begins.
    pub(super) from: u64,
    /// Seeds that a trial has.
    pub(super) seeds: u64,
    pub(super) trials: u64,
    pub(super) jobs: usize,
    pub(super) shape: Shape,
}

/// What came of one bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    bug: &'static str,
    /// Of each trial: with how many seeds it was found. `None`: not with all of them.
    found: Vec<Option<u64>>,
    seeds: u64,
    /// As what, the most frequent first.
    as_what: Vec<String>,
}

impl Controls {
    pub(super) fn look_for(&self, name: &'static str, bug: PlantedBug) -> Row {
        let mut found = Vec::new();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for trial in 0..self.trials {
            let campaign = Campaign {
                from: self.from + trial * APART,
                seeds: self.seeds,
                jobs: self.jobs,
                shape: self.shape,
                wishes: Wishes { trace: false, planted: Some(bug) },
                goes_on: false,
            };
            let Summary { failures, .. } = campaign.run(&self.simulator, |_, _| {});
            // Several run at once: the first one counts.
            let first = failures.iter().min_by_key(|failure| failure.seed);
            found.push(first.map(|failure| failure.seed - campaign.from + 1));
            if let Some(Failure { faults, .. }) = first {
                let named: std::collections::BTreeSet<String> =
                    faults.iter().map(|fault| kind_of(fault)).collect();
                named.into_iter().for_each(|kind| *kinds.entry(kind).or_default() += 1);
            }
        }
        let mut as_what: Vec<(String, usize)> = kinds.into_iter().collect();
        as_what.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let as_what = as_what.into_iter().map(|(kind, _)| kind).collect();
        Row { bug: name, found, seeds: self.seeds, as_what }
    }
}

impl Row {
    pub(super) const HEAD: &str =
        "| bug | found by | seeds or minutes (median) | as what |\n| --- | --- | --- | --- |";

    /// Whether more than half of the trials have found nothing.
    pub(super) fn is_missed(&self) -> bool {
        self.median().is_none()
    }

    /// Of an even number of trials the upper of the two in the middle; a trial that found nothing is above all others.
    fn median(&self) -> Option<u64> {
        let mut sorted = self.found.clone();
        sorted.sort_by_key(|found| found.unwrap_or(u64::MAX));
        sorted.get(sorted.len() / 2).copied().flatten()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bug, found, seeds, as_what } = self;
        let not = format!("not within {seeds}");
        let tell = |found: &Option<u64>| found.map_or(not.clone(), |seeds| seeds.to_string());
        let trials: Vec<String> = found.iter().map(tell).collect();
        let median = self.median().map_or(not.clone(), |seeds| format!("{seeds} seeds"));
        let by = if found.iter().all(Option::is_none) { "**nobody**" } else { "simulation" };
        let trials = format!("(of {} trials: {})", found.len(), trials.join(", "));
        write!(f, "| {bug} | {by} | {median} {trials} | {} |", as_what.join(", "))
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
    fn a_row_tells_the_median_and_each_trial() {
        let row = |found: &[Option<u64>]| Row {
            bug: "full-start",
            found: found.to_vec(),
            seeds: 150,
            as_what: vec!["too much admitted".to_owned()],
        };
        let one = row(&[Some(7), Some(2), Some(3)]);
        let text = "| full-start | simulation | 3 seeds (of 3 trials: 7, 2, 3) | too much admitted |";
        assert_eq!((one.to_string().as_str(), one.is_missed()), (text, false));
        assert!(!row(&[None, Some(2), Some(9)]).is_missed());
        let missed = row(&[None, Some(2), None]);
        assert!(missed.is_missed() && missed.to_string().contains("not within 150 (of 3"), "{missed}");
        assert!(row(&[None, None]).to_string().contains("**nobody**"));
        assert_eq!(row(&[Some(1), Some(5)]).median(), Some(5), "the upper of the two in the middle");
    }

    #[test]
    fn faults_have_names_without_numbers() {
        assert_eq!(kind_of("too much admitted for the key log/40: 31 in 2.997s"), "too much admitted");
        assert_eq!(kind_of("rules of d1: Lost(3)"), "an acknowledged rule is lost");
        assert_eq!(kind_of("there are 2 clusters"), "two clusters");
    }
}
