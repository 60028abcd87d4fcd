//! What is to be taken from which bucket.

use crate::{
    algorithm::{Asked, Bounds},
    ban::Ban,
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
    /// For how long its key is denied when it exceeds the limit; `None`: for as long as the limit denies. Only of a rule that is
    /// enforced.
    pub ban: Option<Ban>,
}

impl Charge {
    #[inline]
    pub(crate) fn asked(&self) -> Asked<'_> {
        let bounds = self.floor.map_or(Bounds::NONE, Floor::bounds);
        let Self { key, rule, ref limit, cost, ban, .. } = *self;
        Asked { key, rule, limit, cost, bounds, ban }
    }
}
