//! What a bucket says of a check.

use std::time::Duration;

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
