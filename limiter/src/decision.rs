//! What a bucket says of a check.

use std::{cmp::Ordering, time::Duration};

use crate::{Cost, Limit, algorithm};

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

    /// What it says of a bucket that another one of the same check has denied for: the units are back, and nobody waits for
    /// a turn. `limit` and `cost` are those by which it was charged.
    #[must_use = "it is another decision"]
    pub fn given_back(self, limit: &Limit, cost: Cost) -> Self {
        algorithm::given_back(self, limit, cost)
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

    #[test]
    fn what_is_given_back_is_what_was_there_before() {
        let at = |seconds: u64| seconds * 4_000_000_000;
        let now = at(1_800_000_000);
        for text in
            ["10/1m", "7/1m burst 9", "10/1m fixed_window", "10/1m sliding_window", "1000003/1s burst 5000"]
        {
            let limit: Limit = text.parse().unwrap();
            let decide = |state, cost| algorithm::decide(&limit, state, algorithm::Bounds::NONE, cost, now);
            let used = decide(0, Cost::new(3).unwrap()).state;
            for state in [0, used] {
                let cost = Cost::new(4).unwrap();
                let given_back = decide(state, cost).decision.given_back(&limit, cost);
                let look = decide(state, Cost::PEEK).decision;
                assert_eq!(given_back.remaining, look.remaining, "{text}");
                let apart = given_back.reset_after.abs_diff(look.reset_after);
                assert!(apart <= Duration::from_nanos(1), "{text}: {given_back:?} {look:?}");
            }
        }
    }
}
