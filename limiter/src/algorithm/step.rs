//! What an algorithm is given, and what it gives.

use crate::{
    ban::Ban,
    cost::Cost,
    decision::Decision,
    key::{KeyHash, RuleId},
    limit::Limit,
};

/// A charge as the algorithms want it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'l> {
    pub(crate) key: KeyHash,
    pub(crate) rule: RuleId,
    pub(crate) limit: &'l Limit,
    pub(crate) cost: Cost,
    pub(crate) bounds: Bounds,
    pub(crate) ban: Option<Ban>,
}

/// A [`Floor`] as the algorithms want it, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The bucket was empty at this instant, or later; 0: nothing is said.
    pub(crate) empty_at: u64,
    /// The state is not earlier.
    pub(crate) at_least: u64,
    /// No charge may make the state later.
    pub(crate) at_most: u64,
}

impl Bounds {
    pub(crate) const NONE: Self = Self { empty_at: 0, at_least: 0, at_most: u64::MAX };

    /// When the bucket was empty, if that is said.
    pub(crate) fn floor(&self) -> Option<u64> {
        (self.empty_at != 0).then_some(self.empty_at)
    }
}

/// A decision, with the bucket's state after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) decision: Decision,
    pub(crate) state: u64,
}

/// A charge as a map of states, for algorithms of which each charge is `state -> max(state, at_least) + add`. These maps
/// are closed under composition, which is what makes a charge exactly removable later (see `store/holds.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) at_least: u64,
    pub(crate) add: u64,
}

/// Where a charge is counted, for algorithms without a [`Raise`], and what must be known to take it out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The instant, or what else tells the window: later than the charge when time went back.
    pub(crate) at: u64,
    /// Sliding windows: when the last unit before it was, if that is of the same window. As late as the state has it, and at the end
    /// of the window where it does not say.
    pub(crate) before: Option<u64>,
}
