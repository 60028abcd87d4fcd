//! What is to be taken from which bucket.

use crate::{
    algorithm::{Asked, Bounds},
    cost::Cost,
    floor::Floor,
    key::{KeyHash, RuleId},
    limit::Limit,
    policy::Mode,
};

/// A bucket to take units from.
#[derive(Debug, Clone, Copy)]
pub struct Charge {
    /// Which one.
    pub key: KeyHash,
    /// Whose bucket it is.
    pub rule: RuleId,
    /// What it allows.
    pub limit: Limit,
    /// How much to take.
    pub cost: Cost,
    /// Whether a denial counts.
    pub mode: Mode,
    /// What is said of the bucket beside what is known of it here: for buckets that were decided elsewhere before, or that
    /// another node will take over.
    pub floor: Option<Floor>,
}

impl Charge {
    #[inline]
    pub(crate) fn asked(&self) -> Asked<'_> {
        let bounds = self.floor.map_or(Bounds::NONE, Floor::bounds);
        Asked { key: self.key, rule: self.rule, limit: &self.limit, cost: self.cost, bounds }
    }
}
