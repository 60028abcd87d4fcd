//! What became of a simulated run.

use serde::{Deserialize, Serialize};

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

impl Outcome {
    pub(crate) fn broken(reason: &str) -> Self {
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
