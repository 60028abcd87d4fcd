//! What a history must fulfil: a file a question, and each with a test that it finds what was planted.

pub mod admission;
pub mod availability;
pub mod bound;
pub mod coverage;
pub mod deciders;
pub mod fairness;
pub mod healing;
mod held;
mod interval;
pub mod law;
pub mod leaks;
pub mod ledger;
pub mod linear;
mod log;
pub mod one_cluster;
pub mod processes;
pub mod refunds;
pub mod strangers;
pub mod times;
mod window;

use serde::{Deserialize, Serialize};

/// What a checker found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The promise was kept.
    Valid,
    /// Whether it was kept cannot be said.
    Unknown,
    /// It was broken.
    Violated,
}

/// The answer of one checker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which checker.
    pub checker: String,
    /// Its answer.
    pub verdict: Verdict,
    /// In a sentence.
    pub says: String,
    /// What to look at, if something is wrong.
    pub details: Vec<String>,
}

impl Finding {
    /// Valid if there is nothing wrong.
    pub(crate) fn of(checker: &str, says: String, wrong: Vec<String>) -> Self {
        let verdict = if wrong.is_empty() { Verdict::Valid } else { Verdict::Violated };
        Self { checker: checker.to_owned(), verdict, says, details: wrong }
    }
}
