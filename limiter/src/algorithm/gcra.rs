//! The token bucket as a *generic cell rate algorithm*.
//!
//! All state is one instant, the theoretical arrival time (TAT): when the bucket will be full again. With an interval T
//! in which one unit refills and a capacity of B units,
//!
//! ```text
//!     level at t  =  B - max(TAT - t, 0) / T
//!     cost c is allowed at t  iff  max(TAT, t) + c·T  <=  t + B·T,     and then  TAT := max(TAT, t) + c·T
//! ```
//!
//! (ITU-T I.371, virtual scheduling.) TAT only grows, so merging two states is their maximum; a TAT in the past means a
//! full bucket, which needs no memory. In any interval of length d at most B + d/T units are admitted: each unit moves
//! TAT by T, TAT starts at or after the interval's start and ends at most B·T after its end.

use std::time::Duration;

use crate::{Cost, Decision, Limit, limit::TICKS_PER_NANO};

/// A decision, with the bucket's state after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) decision: Decision,
    /// The new TAT; the old one (but not before now) when nothing was taken.
    pub(crate) tat: u64,
}

/// Decides about `cost` units at `now`, for a bucket in state `tat` that was empty at `floor` or later.
pub(crate) fn decide(limit: &Limit, tat: u64, floor: Option<u64>, cost: Cost, now: u64) -> Step {
    let (interval, refill) = (limit.interval(), limit.refill());
    // An instant at which the bucket was empty is a TAT one whole refill later.
    let floor = floor.map_or(0, |floor| floor.saturating_add(refill));
    let before = tat.max(floor).max(now);
    let latest = now.saturating_add(refill);
    let can_ever = cost.get() <= limit.burst();
    // A look says whether one unit would pass.
    let wanted = if can_ever { before.saturating_add(interval * cost.get().max(1)) } else { u64::MAX };
    let allowed = wanted <= latest;
    let after = if allowed && cost != Cost::PEEK { wanted } else { before };
    let decision = Decision {
        allowed,
        limit: limit.burst(),
        remaining: latest.saturating_sub(after) / interval,
        reset_after: duration(after - now),
        retry_after: (!allowed && can_ever).then(|| duration(wanted - latest)),
        delay: Duration::ZERO,
    };
    Step { decision, tat: after }
}

/// Ticks as a duration, rounded up: whoever waits for it has waited long enough.
fn duration(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Algorithm, Period};

    const SECOND: u64 = 1_000_000_000 * TICKS_PER_NANO;

    fn limit(count: u64, seconds: u64, burst: u64) -> Limit {
        Limit::new(Algorithm::TokenBucket, count, Period::Fixed(Duration::from_secs(seconds)), Some(burst))
            .unwrap()
    }

    fn cost(units: u64) -> Cost {
        Cost::new(units).unwrap()
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_the_rate() {
        let limit = limit(5, 60, 10);
        let mut tat = 0;
        for left in (0..10).rev() {
            let step = decide(&limit, tat, None, Cost::ONE, SECOND);
            assert!(step.decision.allowed);
            assert_eq!(step.decision.remaining, left);
            tat = step.tat;
        }
        let denied = decide(&limit, tat, None, Cost::ONE, SECOND).decision;
        assert_eq!((denied.allowed, denied.remaining), (false, 0));
        assert_eq!(denied.retry_after, Some(Duration::from_secs(12)));
        assert_eq!(denied.reset_after, Duration::from_secs(120));
        assert!(!decide(&limit, tat, None, Cost::ONE, 13 * SECOND - 1).decision.allowed);
        assert!(decide(&limit, tat, None, Cost::ONE, 13 * SECOND).decision.allowed);
    }

    #[test]
    fn a_cost_above_the_burst_never_passes_and_says_so() {
        let denied = decide(&limit(5, 60, 10), 0, None, cost(11), SECOND).decision;
        assert_eq!((denied.allowed, denied.retry_after, denied.remaining), (false, None, 10));
        assert!(decide(&limit(5, 60, 10), 0, None, cost(10), SECOND).decision.allowed);
        assert!(!decide(&limit(5, 60, 10), 0, None, Cost::MAX, SECOND).decision.allowed);
    }

    #[test]
    fn a_look_takes_nothing_and_says_whether_one_unit_would_pass() {
        let limit = limit(1, 1, 1);
        let look = decide(&limit, 0, None, Cost::PEEK, SECOND);
        assert_eq!((look.decision.allowed, look.decision.remaining, look.tat), (true, 1, SECOND));
        let taken = decide(&limit, 0, None, Cost::ONE, SECOND);
        let look = decide(&limit, taken.tat, None, Cost::PEEK, SECOND).decision;
        assert_eq!((look.allowed, look.remaining), (false, 0));
        assert_eq!(look.retry_after, Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_bucket_with_a_floor_starts_empty_there() {
        let limit = limit(1, 1, 5);
        let at_floor = decide(&limit, 0, Some(10 * SECOND), Cost::ONE, 10 * SECOND).decision;
        assert_eq!((at_floor.allowed, at_floor.remaining), (false, 0));
        assert_eq!(decide(&limit, 0, Some(10 * SECOND), Cost::ONE, 11 * SECOND).decision.remaining, 0);
        assert!(decide(&limit, 0, Some(10 * SECOND), Cost::ONE, 11 * SECOND).decision.allowed);
        let ahead = decide(&limit, 0, Some(12 * SECOND), Cost::ONE, 10 * SECOND).decision;
        assert_eq!((ahead.allowed, ahead.retry_after), (false, Some(Duration::from_secs(3))));
        assert_eq!(decide(&limit, 0, Some(10 * SECOND), Cost::PEEK, 99 * SECOND).decision.remaining, 5);
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let limit = limit(10, 1, 10);
        let taken = decide(&limit, 0, None, cost(10), 10 * SECOND);
        assert!(!decide(&limit, taken.tat, None, Cost::ONE, 9 * SECOND).decision.allowed);
    }

    #[test]
    fn the_edges_of_the_numbers_do_not_overflow() {
        let largest = Limit::new(
            Algorithm::TokenBucket,
            1 << 53,
            Period::Fixed(Duration::from_millis(100)),
            Some(1 << 53),
        )
        .unwrap();
        for now in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            for tat in [0, now, u64::MAX] {
                for floor in [None, Some(0), Some(u64::MAX)] {
                    for units in [0, 1, 1 << 53] {
                        let _ = decide(&largest, tat, floor, cost(units), now);
                    }
                }
            }
        }
    }
}
