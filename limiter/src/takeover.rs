//! How the buckets of a rule begin at the node that takes them over.

use std::time::Duration;

use crate::{Algorithm, Limit};

/// Where an empty bucket is full again in less time, starting anew with an empty one is the default.
pub(crate) const SHORT_REFILL: Duration = Duration::from_secs(10);

/// How the buckets of a rule begin when their owner was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Takeover {
    /// Exhausted: no floors are replicated.
    Zero,
    /// From the floor that was replicated to the successor.
    Reserve,
}

impl Takeover {
    /// Its name in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Reserve => "reserve",
        }
    }

    /// Whether buckets of this algorithm can have floors: those that a single number describes.
    pub const fn is_possible(algorithm: Algorithm) -> bool {
        !matches!(algorithm, Algorithm::SlidingLog)
    }

    /// What a rule with these limits does if it does not say.
    pub(crate) fn default_of<'l>(limits: impl IntoIterator<Item = &'l Limit>) -> Self {
        let is_long = |limit: &Limit| {
            !limit.denies() && Self::is_possible(limit.algorithm()) && refill(limit) > SHORT_REFILL
        };
        if limits.into_iter().any(is_long) { Self::Reserve } else { Self::Zero }
    }
}

/// How the buckets of a rule begin when nobody can tell what they had admitted: neither a successor nor a disk has floors of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum OnTotalLoss {
    /// Exhausted: nothing is admitted twice.
    #[default]
    Exhausted,
    /// Full: nobody is denied for what cannot be told.
    Full,
}

impl OnTotalLoss {
    /// Its name in rules.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Full => "full",
        }
    }
}

/// The time after which nothing is left of what was spent.
fn refill(limit: &Limit) -> Duration {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => crate::time::duration(limit.refill()),
        _ => limit.window(),
    }
}
