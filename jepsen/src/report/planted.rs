//! The table of bugs that were planted: which checker finds which, and how soon. One form for the simulation, for real
//! processes, and for tests.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

/// Who is to find a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Simulated seeds, a whole number.
    Seeds,
    /// Minutes of faults, of real processes.
    Minutes,
}

/// What one trial found, and after how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// After so many seeds or minutes; `None`: not within what it had.
    pub after: Option<f64>,
    /// What it had at most.
    pub within: f64,
    /// The checkers that found it.
    pub found_as: Vec<String>,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// It was tried.
    Tried {
        /// The bug.
        bug: String,
        /// In what is counted.
        unit: Unit,
        /// What came of each.
        trials: Vec<Trial>,
    },
    /// A test was run with it.
    Tested {
        /// The bug.
        bug: String,
        /// Which test.
        by: String,
        /// Whether it failed, as it should; and whether it passes without the bug.
        result: TestResult,
    },
    /// There was no time for it.
    Untried {
        /// The bug.
        bug: String,
    },
}

/// What a test says of a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestResult {
    /// It fails with the bug and passes without; which of its parts failed.
    Found(Vec<String>),
    /// It passes with the bug.
    Missed,
    /// It fails without the bug too, so it says nothing.
    Useless,
}

impl Row {
    /// Whether the median trial found it. What was not tried is no matter.
    pub fn is_found(&self) -> bool {
        match self {
            Self::Tried { trials, .. } => median(trials).is_some(),
            Self::Tested { result, .. } => matches!(result, TestResult::Found(_)),
            Self::Untried { .. } => false,
        }
    }
}

/// The upper of the two middle ones where there are two; `None`: that one found nothing.
fn median(trials: &[Trial]) -> Option<f64> {
    let mut after: Vec<f64> = trials.iter().map(|trial| trial.after.unwrap_or(f64::INFINITY)).collect();
    after.sort_unstable_by(f64::total_cmp);
    after.get(after.len() / 2).copied().filter(|after| after.is_finite())
}

/// The first two lines of the table, in Markdown.
pub const HEAD: &str = "| bug | found by | seeds or minutes (median) | as what |\n| --- | --- | --- | --- |";

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!("{HEAD}\n");
    for row in rows {
        let _ = writeln!(text, "{row}");
    }
    text
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tested { bug, by, result: TestResult::Found(parts) } => {
                write!(f, "| {bug} | {by} | 1 run | {} |", parts.join(", "))
            }
            Self::Tested { bug, by, result: TestResult::Missed } => {
                write!(f, "| {bug} | **nobody** | **not found** (of 1 run of {by}) | |")
            }
            Self::Tested { bug, by, result: TestResult::Useless } => {
                write!(f, "| {bug} | not tried | - | {by} fails without the bug too |")
            }
            Self::Untried { bug } => write!(f, "| {bug} | not tried | - | there was no time left |"),
            Self::Tried { bug, unit, trials } => f.write_str(&tried(bug, *unit, trials)),
        }
    }
}

fn tried(bug: &str, unit: Unit, trials: &[Trial]) -> String {
    let number = |amount: f64| match unit {
        Unit::Seeds => format!("{amount:.0}"),
        Unit::Minutes => format!("{amount:.1}"),
    };
    let (tool, name) = match unit {
        Unit::Seeds => ("simulation", "seeds"),
        Unit::Minutes => ("real processes", "min"),
    };
    let by_trial: Vec<String> = trials
        .iter()
        .map(|trial| match trial.after {
            Some(after) => number(after),
            None => format!("not within {}", number(trial.within)),
        })
        .collect();
    let (by, amount) = match median(trials) {
        Some(median) => (tool, format!("{} {name}", number(median))),
        None => ("**nobody**", "**not found**".to_owned()),
    };
    let mut checkers: BTreeMap<&str, usize> = BTreeMap::new();
    trials.iter().flat_map(|trial| &trial.found_as).for_each(|one| *checkers.entry(one).or_default() += 1);
    let mut checkers: Vec<(&str, usize)> = checkers.into_iter().collect();
    checkers.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    let checkers: Vec<&str> = checkers.into_iter().map(|(name, _)| name).collect();
    let count = trials.len();
    let of = if count == 1 { "1 trial".to_owned() } else { format!("{count} trials") };
    format!("| {bug} | {by} | {amount} (of {of}: {}) | {} |", by_trial.join(", "), checkers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(after: Option<f64>, found_as: &[&str]) -> Trial {
        Trial { after, within: 10.0, found_as: found_as.iter().map(|one| (*one).to_owned()).collect() }
    }

    #[test]
    fn the_median_counts_and_what_was_not_found_is_later_than_all() {
        let row = |trials: Vec<Trial>| Row::Tried { bug: "b".to_owned(), unit: Unit::Seeds, trials };
        let found = row(vec![trial(Some(7.0), &["x", "y"]), trial(None, &[]), trial(Some(2.0), &["y"])]);
        let lost = row(vec![trial(Some(1.0), &["x"]), trial(None, &[])]);
        assert!(found.is_found() && !lost.is_found());
        let result = TestResult::Found(vec!["a".into(), "b".into()]);
        let tested = Row::Tested { bug: "c".into(), by: "tests/x.rs".into(), result };
        assert!(tested.is_found());
        let text = table(&[found, lost, tested]);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines[0], "| b | simulation | 7 seeds (of 3 trials: 7, not within 10, 2) | y, x |");
        assert_eq!(lines[1], "| b | **nobody** | **not found** (of 2 trials: 1, not within 10) | x |");
        assert_eq!(lines[2], "| c | tests/x.rs | 1 run | a, b |");
    }
}
