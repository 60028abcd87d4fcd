//! What a bucket says of a check.

use std::{cmp::Ordering, time::Duration};

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
    /// The key is banned: it has exceeded the limit, now or before, and waits for the end of that.
    pub banned: bool,
}

impl Decision {
    /// What it says while the key is banned for so long. Who waits for that, and for what the limit itself wants, is not banned again
    /// by the next check.
    #[must_use = "it is another decision"]
    pub(crate) fn banned(self, rest: Duration) -> Self {
        let retry_after = match (self.allowed, self.retry_after) {
            (true, _) => Some(rest),
            (false, wait) => wait.map(|wait| wait.max(rest)),
        };
        Self {
            allowed: false,
            remaining: 0,
            reset_after: self.reset_after.max(rest),
            retry_after,
            delay: Duration::ZERO,
            banned: true,
            ..self
        }
    }

    /// Whether the limit would allow it, but not what the bucket's successor knows: worth another attempt as soon as that
    /// knows more.
    pub fn is_held(&self) -> bool {
        !self.allowed && self.retry_after == Some(Duration::ZERO)
    }
}

impl Decision {
    /// Whether it denies by itself: one that is held does so only where nothing else denies.
    pub fn denies(&self) -> bool {
        !self.allowed && !self.is_held()
    }

    /// What it says beside another one that denies: that it is held keeps nobody from anything.
    #[must_use = "it is another decision"]
    pub fn unless_held(self) -> Self {
        if self.is_held() { Self { allowed: true, retry_after: None, ..self } } else { self }
    }

    /// What it says where its limit is in force for that long only: nobody waits for it any longer. A limit that denies whatever was consumed
    /// tells no wait.
    #[must_use = "it is another decision"]
    pub fn in_force_for(self, rest: Duration) -> Self {
        if !self.denies() || self.limit == 0 {
            return self;
        }
        // What would never pass does then.
        Self { retry_after: Some(self.retry_after.map_or(rest, |wait| wait.min(rest))), ..self }
    }

    /// Which of two decisions about one check binds more, that one is greater: a denial before all others, the one with the
    /// longest wait (never, before any time); then the one with the least remaining, and of those the one that is full again last.
    pub fn binds(&self, other: &Self) -> Ordering {
        let wait = |decision: &Self| match (decision.allowed, decision.retry_after) {
            (true, _) => None,
            (false, Some(wait)) => Some(wait),
            (false, None) => Some(Duration::MAX),
        };
        wait(self)
            .cmp(&wait(other))
            .then(other.remaining.cmp(&self.remaining))
            .then(self.reset_after.cmp(&other.reset_after))
            .then(other.limit.cmp(&self.limit))
    }
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
            banned: false,
        }
    }

    #[test]
    fn nobody_waits_for_a_limit_that_is_over() {
        let rest = Duration::from_secs(4);
        let wait = |decision: Decision| decision.in_force_for(rest).retry_after.map(|wait| wait.as_secs());
        assert_eq!(wait(decision(false, 0, Some(9))), Some(4));
        assert_eq!(wait(decision(false, 0, Some(3))), Some(3));
        assert_eq!(wait(decision(false, 5, None)), Some(4), "more than the limit ever has");
        for other in [
            decision(true, 5, None),
            decision(false, 5, Some(0)),
            Decision { limit: 0, ..decision(false, 0, None) },
        ] {
            assert_eq!(other.in_force_for(rest), other);
        }
    }

    #[test]
    fn the_longest_wait_binds_most_then_the_least_remaining() {
        let (full, low) = (decision(true, 9, None), decision(true, 1, None));
        let (soon, late, never) =
            (decision(false, 0, Some(1)), decision(false, 0, Some(9)), decision(false, 5, None));
        let ascending = [full, low, soon, late, never];
        for (place, one) in ascending.iter().enumerate() {
            for (other_place, other) in ascending.iter().enumerate() {
                assert_eq!(one.binds(other), place.cmp(&other_place), "{one:?} {other:?}");
            }
        }
    }
}
