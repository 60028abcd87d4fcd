//! Was more admitted than a limit allows, in any interval?
//!
//! A bucket of burst B and rate r admits at most B + r·d in any interval of length d. When exactly a check was decided is
//! not known, only that it was between its question and its answer. What can be said for sure is: the checks that lie
//! wholly inside an interval are at most B + r·d. This looks at all intervals at once, in O(n log n): it is the question
//! whether one machine can do all admitted checks as jobs of length 1/r, each after its question and until B/r after its
//! answer, interrupting one for a more urgent one (earliest deadline first is optimal for that).
//!
//! It never raises a false alarm. It can miss an excess of less than one unit: replaying a bucket that serves whoever
//! completes first, as soon as it holds a unit, would find those too, but also accuses the innocent, because a unit may
//! have to be kept for a later check that is in more of a hurry.
//! Checks without an answer are not counted: if they were charged, others were denied for it.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use crate::history::{Operation, Outcome};

/// The limit that a history is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Units that may be admitted at once.
    pub burst: u64,
    /// Units that refill in a period.
    pub count: u64,
    /// The period.
    pub period: Duration,
}

/// Proof that too much was admitted: a check for which no unit can have been there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// When it was sent.
    pub invoked: u64,
    /// When it was answered.
    pub completed: u64,
    /// By how much it came too early, in nanoseconds.
    pub early_by: u64,
}

impl Bound {
    /// Units that may be admitted in an interval of this length, rounded down.
    pub fn allowance(&self, length: Duration) -> u64 {
        self.burst + (length.as_nanos() * u128::from(self.count) / self.period.as_nanos()) as u64
    }

    /// Looks for an interval in which more was admitted than allowed. The operations must be about one key, each of one
    /// unit. Returns how many were admitted.
    ///
    /// # Errors
    /// With the first check that should not have been admitted.
    pub fn check<'a>(&self, operations: impl IntoIterator<Item = &'a Operation>) -> Result<u64, Violation> {
        let mut admitted: Vec<&Operation> =
            operations.into_iter().filter(|operation| operation.outcome == Outcome::Admitted).collect();
        admitted.sort_unstable_by_key(|operation| operation.invoked);

        // Time runs `count` times as fast, so that a job takes a whole number of steps: the period's nanoseconds.
        let (count, job) = (u128::from(self.count), self.period.as_nanos());
        let start_of = |operation: &Operation| u128::from(operation.invoked) * count;
        let deadline_of =
            |operation: &Operation| u128::from(operation.completed) * count + u128::from(self.burst) * job;

        let mut now = 0;
        // (deadline, what is left to do, which): the most urgent on top.
        let mut open: BinaryHeap<Reverse<(u128, u128, usize)>> = BinaryHeap::new();
        let mut coming = admitted.iter().enumerate().peekable();
        loop {
            if open.is_empty() {
                let Some((_, next)) = coming.peek() else { return Ok(admitted.len() as u64) };
                now = now.max(start_of(next));
            }
            while let Some((place, next)) = coming.next_if(|(_, next)| start_of(next) <= now) {
                open.push(Reverse((deadline_of(next), job, place)));
            }
            let Some(Reverse((deadline, left, place))) = open.pop() else { continue };
            let until = coming.peek().map_or(now + left, |(_, next)| start_of(next).min(now + left));
            let left = left - (until - now);
            now = until;
            if left > 0 {
                open.push(Reverse((deadline, left, place)));
            } else if now > deadline {
                let Operation { invoked, completed, .. } = *admitted[place];
                return Err(Violation { invoked, completed, early_by: ((now - deadline) / count) as u64 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const TEN: Bound = Bound { burst: 10, count: 5, period: Duration::from_secs(1) };

    fn admitted(invoked: u64, completed: u64) -> Operation {
        Operation { invoked, completed, key: 0, node: 0, outcome: Outcome::Admitted, decided_by: None }
    }

    /// The definition: no interval wholly contains more checks than it may admit.
    fn by_intervals(bound: &Bound, operations: &[Operation]) -> bool {
        operations.iter().all(|first| {
            operations.iter().filter(|last| last.completed >= first.invoked).all(|last| {
                let inside = operations
                    .iter()
                    .filter(|one| one.invoked >= first.invoked && one.completed <= last.completed)
                    .count() as u128;
                let length = u128::from(last.completed - first.invoked);
                let period = bound.period.as_nanos();
                inside * period <= u128::from(bound.burst) * period + length * u128::from(bound.count)
            })
        })
    }

    #[test]
    fn exactly_the_burst_and_the_rate_pass() {
        let mut history: Vec<Operation> = (0..10).map(|n| admitted(n, n + 5)).collect();
        history.extend((1..20).map(|n| admitted(n * SECOND / 5 - 10, n * SECOND / 5 + 20)));
        assert_eq!(TEN.check(&history), Ok(29));
    }

    #[test]
    fn one_admission_too_many_is_found() {
        let mut history: Vec<Operation> = (0..10).map(|n| admitted(n, n + 5)).collect();
        history.push(admitted(50, SECOND / 5 - 1));
        let violation = TEN.check(&history).unwrap_err();
        assert_eq!(violation.completed, SECOND / 5 - 1);
    }

    #[test]
    fn two_owners_with_a_full_bucket_each_are_found() {
        let both = (0..20).map(|n| admitted(n * 1_000, n * 1_000 + 500));
        assert!(TEN.check(&both.collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn what_was_not_admitted_does_not_count() {
        let denied = Operation { outcome: Outcome::Denied, ..admitted(0, 1) };
        let unknown = Operation { outcome: Outcome::Unknown, ..admitted(0, 1) };
        let history: Vec<Operation> = (0..50).flat_map(|_| [denied.clone(), unknown.clone()]).collect();
        assert_eq!(TEN.check(&history), Ok(0));
    }

    proptest! {
        #[test]
        fn all_intervals_at_once_are_each_interval_by_itself(
            burst in 1u64..4,
            count in 1u64..11,
            times in prop::collection::vec((0u64..60, 0u64..15), 0..14),
        ) {
            let bound = Bound { burst, count, period: Duration::from_nanos(10) };
            let history: Vec<Operation> = times.into_iter().map(|(at, length)| admitted(at, at + length)).collect();
            prop_assert_eq!(bound.check(&history).is_ok(), by_intervals(&bound, &history));
        }
    }
}
