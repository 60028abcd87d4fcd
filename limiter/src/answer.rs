//! The answer to a check of one bucket.

use crate::{
    algorithm::{self, Asked, Bounds},
    cost::Cost,
    decision::Decision,
    limit::Limit,
};

/// A decision that explains itself when it is asked: a caller that only wants to know whether a request may run does not
/// pay for working out what remains and until when.
#[derive(Debug, Clone, Copy)]
#[must_use = "it says whether the request may run"]
pub struct Answer<'l> {
    allowed: bool,
    assumed: bool,
    explanation: Explanation<'l>,
}

#[derive(Debug, Clone, Copy)]
enum Explanation<'l> {
    /// Deciding once more about the same state comes to the same decision.
    Again { limit: &'l Limit, state: u64, bounds: Bounds, cost: Cost, now: u64 },
    /// It was worked out when it was decided.
    Ready(Decision),
}

impl<'l> Answer<'l> {
    #[inline]
    pub(crate) fn lazy(allowed: bool, asked: &Asked<'l>, state: u64, now: u64) -> Self {
        let Asked { limit, cost, bounds, .. } = *asked;
        Self { allowed, assumed: false, explanation: Explanation::Again { limit, state, bounds, cost, now } }
    }

    pub(crate) fn ready(decision: Decision) -> Self {
        Self {
            allowed: decision.allowed,
            assumed: decision.assumed,
            explanation: Explanation::Ready(decision),
        }
    }

    /// As [`Decision::assumed`].
    pub(crate) fn with_assumed(self, assumed: bool) -> Self {
        Self { assumed, ..self }
    }

    /// Whether the request may run. Then it has been charged.
    #[inline]
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// What remains after it, and until when: worked out now.
    pub fn decision(&self) -> Decision {
        match self.explanation {
            Explanation::Again { limit, state, bounds, cost, now } => {
                let decision = algorithm::decide(limit, state, bounds, cost, now).decision;
                debug_assert_eq!(decision.allowed, self.allowed);
                Decision { assumed: self.assumed, ..decision }
            }
            Explanation::Ready(decision) => decision,
        }
    }
}
