//! What a node has applied of the log.

use super::machine::Replicated;

/// What this node has applied: a state and where in the log it stands.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The index of the last entry that was applied.
    pub index: u64,
    /// What all entries up to there add up to.
    pub state: Replicated,
}
