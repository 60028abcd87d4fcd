//! What comes out: decisions, and what goes in: costs and charges.

use std::time::Duration;

use crate::{Floor, KeyHash, Limit, RuleId, algorithm};

/// How many units a check takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

/// A cost above [`Cost::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cost of {0} is above 2^53 (9007199254740992)")]
pub struct CostTooLarge(pub u64);

impl Cost {
    /// Looks without taking anything.
    pub const PEEK: Self = Self(0);
    /// What a request costs if nothing else is said.
    pub const ONE: Self = Self(1);
    /// The largest: what JSON carries exactly.
    pub const MAX: Self = Self(1 << 53);

    /// So many units.
    ///
    /// # Errors
    /// Above [`Cost::MAX`].
    pub const fn new(units: u64) -> Result<Self, CostTooLarge> {
        if units > Self::MAX.0 { Err(CostTooLarge(units)) } else { Ok(Self(units)) }
    }

    /// The units.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Whether a rule acts on its decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// It denies what is over the limit.
    #[default]
    Enforce,
    /// It counts and reports, and never denies.
    Shadow,
}

/// What happens with the buckets of a rule when there is no room for all of them: when those that are in use at the same time are
/// more than the rule's part of the memory (see [`StoreConfig`](crate::StoreConfig)). Either way the ones that are used the
/// least are let go of first, and no other rule is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnMemoryFull {
    /// A bucket that was let go of is a full one when it is asked for again. Nobody is denied for what others did. Each time
    /// that it is let go of, a key can get its burst (or count) once more; for that to happen, as many other keys of the rule
    /// as its part of the memory holds must have used as much of theirs.
    #[default]
    Forget,
    /// A bucket that was let go of, and each that was never seen, counts as used as far as the most used one that was let go
    /// of. No key gets more than its limit allows. Keys that were never seen can be denied, until those that were let go of
    /// would be full again: after the last one was, for no longer than their own limit takes to refill.
    Strict,
}

impl OnMemoryFull {
    /// Its name in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forget => "forget",
            Self::Strict => "strict",
        }
    }
}

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

/// A charge as the algorithms want it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'l> {
    pub(crate) key: KeyHash,
    pub(crate) rule: RuleId,
    pub(crate) limit: &'l Limit,
    pub(crate) cost: Cost,
    pub(crate) bounds: Bounds,
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

impl Charge {
    #[inline]
    pub(crate) fn asked(&self) -> Asked<'_> {
        let bounds = self.floor.map_or(Bounds::NONE, Floor::bounds);
        Asked { key: self.key, rule: self.rule, limit: &self.limit, cost: self.cost, bounds }
    }
}

/// A decision that explains itself when it is asked: whoever only wants to know whether a request may run does not pay
/// for working out what remains and until when.
#[derive(Debug, Clone, Copy)]
#[must_use = "it says whether the request may run"]
pub struct Answer<'l> {
    allowed: bool,
    assumed: bool,
    why: Why<'l>,
}

#[derive(Debug, Clone, Copy)]
enum Why<'l> {
    /// Deciding once more about the same state comes to the same decision.
    Again {
        limit: &'l Limit,
        state: u64,
        bounds: Bounds,
        cost: Cost,
        now: u64,
    },
    Told(Decision),
}

impl<'l> Answer<'l> {
    #[inline]
    pub(crate) fn lazy(allowed: bool, asked: &Asked<'l>, state: u64, now: u64) -> Self {
        let Asked { limit, cost, bounds, .. } = *asked;
        Self { allowed, assumed: false, why: Why::Again { limit, state, bounds, cost, now } }
    }

    pub(crate) fn told(decision: Decision) -> Self {
        Self { allowed: decision.allowed, assumed: decision.assumed, why: Why::Told(decision) }
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
        match self.why {
            Why::Again { limit, state, bounds, cost, now } => {
                let decision = algorithm::decide(limit, state, bounds, cost, now).decision;
                debug_assert_eq!(decision.allowed, self.allowed);
                Decision { assumed: self.assumed, ..decision }
            }
            Why::Told(decision) => decision,
        }
    }
}

/// What one bucket says of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it allows.
    pub allowed: bool,
    /// What `remaining` counts against: the burst of a bucket.
    pub limit: u64,
    /// Units left after this check; after a denied one, units left all the same.
    pub remaining: u64,
    /// How long until all units are there again.
    pub reset_after: Duration,
    /// How long until the same cost would pass; `None` when it was allowed, or when it never will.
    pub retry_after: Option<Duration>,
    /// How long the request has to wait for its turn.
    pub delay: Duration,
    /// What was consumed before was not in memory any more, and had to be assumed: see
    /// [`OnMemoryFull::Strict`](crate::OnMemoryFull::Strict).
    pub assumed: bool,
}

impl Decision {
    /// Whether the limit would allow it, but not what the bucket's successor knows: worth another attempt as soon as that
    /// knows more.
    pub fn is_held(&self) -> bool {
        !self.allowed && self.retry_after == Some(Duration::ZERO)
    }
}

/// Which of several decisions about one check binds most: a denial before all others, the one with the longest wait
/// (never, before any time); without a denial the one with the least remaining. `None` of nothing.
pub fn binding<'a>(decisions: impl IntoIterator<Item = &'a Decision>) -> Option<usize> {
    let wait = |decision: &Decision| match (decision.allowed, decision.retry_after) {
        (true, _) => None,
        (false, Some(wait)) => Some(wait),
        (false, None) => Some(Duration::MAX),
    };
    decisions
        .into_iter()
        .enumerate()
        .reduce(|most, next| {
            let (a, b) = (wait(most.1), wait(next.1));
            if b > a || (b == a && next.1.remaining < most.1.remaining) { next } else { most }
        })
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(allowed: bool, remaining: u64, retry_after: Option<u64>) -> Decision {
        let retry_after = retry_after.map(Duration::from_secs);
        Decision {
            allowed,
            limit: 10,
            remaining,
            reset_after: Duration::ZERO,
            retry_after,
            delay: Duration::ZERO,
            assumed: false,
        }
    }

    #[test]
    fn the_longest_wait_binds_most_then_the_least_remaining() {
        let (full, low) = (decision(true, 9, None), decision(true, 1, None));
        let (soon, late, never) =
            (decision(false, 0, Some(1)), decision(false, 0, Some(9)), decision(false, 5, None));
        assert_eq!(binding([&full, &low]), Some(1));
        assert_eq!(binding([&low, &soon, &late, &full]), Some(2));
        assert_eq!(binding([&never, &late]), Some(0));
        assert_eq!(binding([]), None);
    }
}
