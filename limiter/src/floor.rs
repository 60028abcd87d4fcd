//! What a charge must keep to beside its limit.

use crate::{Nanos, algorithm::Bounds, mark::Mark};

/// What is said of a bucket beside what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    empty_at: Option<Nanos>,
    at_least: Mark,
    at_most: Mark,
}

impl Floor {
    /// The bucket is not fuller than if it had been *empty* at this instant, whatever is known of it. The instant may lie
    /// ahead.
    pub const fn empty_at(at: Nanos) -> Self {
        Self { empty_at: Some(at), at_least: Mark::new(0), at_most: Mark::new(u64::MAX) }
    }

    /// As [`Floor::empty_at`], if that is said; and the bucket is used that far at least, and no charge may make it more
    /// than that.
    pub const fn between(empty_at: Option<Nanos>, at_least: Mark, at_most: Mark) -> Self {
        Self { empty_at, at_least, at_most }
    }

    /// For a check that only looks: without the limit of what a charge may do.
    pub const fn unbounded(self) -> Self {
        Self { at_most: Mark::new(u64::MAX), ..self }
    }

    pub(crate) fn bounds(self) -> Bounds {
        Bounds {
            empty_at: self.empty_at.map_or(0, Nanos::ticks),
            at_least: self.at_least.get(),
            at_most: self.at_most.get(),
        }
    }
}
