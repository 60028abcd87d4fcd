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

use serde::{Deserialize, Serialize};

use crate::history::{Operation, Outcome};

/// The limit that a history is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// The interval that came nearest to the bound, or went furthest beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Worst {
    /// The smallest burst that explains it, the rate being what it is.
    pub burst: u64,
    /// Where the interval begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// The checks admitted wholly inside it.
    pub inside: u64,
    /// Units that it may have admitted beyond its limit: given back, added by a partition.
    #[serde(default)]
    pub more: u64,
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
        let admitted = Self::admitted(operations);
        let (count, most) = (i128::from(self.count), i128::from(self.burst) * self.job());
        let mut first = None;
        self.replay(&admitted, |operation, late| {
            if late > most && first.is_none() {
                let Operation { invoked, completed, .. } = *operation;
                first = Some(Violation { invoked, completed, early_by: ((late - most) / count) as u64 });
            }
        });
        first.map_or(Ok(admitted.len() as u64), Err)
    }

    /// How large a burst the rate would need to explain what was admitted, and the interval that needs it.
    pub fn worst<'a>(&self, operations: impl IntoIterator<Item = &'a Operation>) -> Worst {
        let admitted = Self::admitted(operations);
        let (mut latest, mut end) = (0, None);
        self.replay(&admitted, |operation, late| {
            if late > latest {
                (latest, end) = (late, Some(operation.completed));
            }
        });
        let burst = (latest as u128).div_ceil(self.job() as u128) as u64;
        let Some(end) = end else { return Worst::default() };
        // All intervals that end there, from the shortest on.
        let (mut worst, mut inside) = (Worst { burst, ..Worst::default() }, 0);
        let mut most = i128::MIN;
        for operation in admitted.iter().rev().filter(|operation| operation.completed <= end) {
            inside += 1;
            let refilled = i128::from(end - operation.invoked) * i128::from(self.count);
            let needed = i128::from(inside) * self.job() - refilled;
            if needed > most {
                most = needed;
                (worst.from, worst.to, worst.inside) = (operation.invoked, end, inside);
            }
        }
        worst
    }

    fn job(&self) -> i128 {
        self.period.as_nanos() as i128
    }

    fn admitted<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Vec<&'a Operation> {
        let mut admitted: Vec<&Operation> =
            operations.into_iter().filter(|operation| operation.outcome == Outcome::Admitted).collect();
        admitted.sort_unstable_by_key(|operation| operation.invoked);
        admitted
    }

    /// Does the jobs, sorted by their questions, the one whose answer came first before others, and tells for each by how
    /// much it is done after its answer. That order makes the largest lateness as small as any order can.
    fn replay<'a>(&self, admitted: &[&'a Operation], mut done: impl FnMut(&'a Operation, i128)) {
        // Time runs `count` times as fast, so that a job takes a whole number of steps: the period's nanoseconds.
        let (count, job) = (i128::from(self.count), self.job());
        let start_of = |operation: &Operation| i128::from(operation.invoked) * count;
        let due_of = |operation: &Operation| i128::from(operation.completed) * count;

        let mut now = 0;
        // (due, what is left to do, which): the most urgent on top.
        let mut open: BinaryHeap<Reverse<(i128, i128, usize)>> = BinaryHeap::new();
        let mut coming = admitted.iter().enumerate().peekable();
        loop {
            if open.is_empty() {
                let Some((_, next)) = coming.peek() else { return };
                now = now.max(start_of(next));
            }
            while let Some((place, next)) = coming.next_if(|(_, next)| start_of(next) <= now) {
                open.push(Reverse((due_of(next), job, place)));
            }
            let Some(Reverse((due, left, place))) = open.pop() else { continue };
            let until = coming.peek().map_or(now + left, |(_, next)| start_of(next).min(now + left));
            let left = left - (until - now);
            now = until;
            if left > 0 {
                open.push(Reverse((due, left, place)));
            } else {
                done(admitted[place], now - due);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::check) const SECOND: u64 = 1_000_000_000;
    pub(in crate::check) const TEN: Bound = Bound { burst: 10, count: 5, period: Duration::from_secs(1) };

    pub(in crate::check) fn admitted(invoked: u64, completed: u64) -> Operation {
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

    #[test]
    fn a_million_operations_are_judged_in_seconds() {
        let bound = Bound { burst: 100, count: 100_000, period: Duration::from_secs(1) };
        // As many as the bound allows, in answers that overlap.
        let history: Vec<Operation> =
            (0..1_000_000).map(|n| admitted(n * 10_000, n * 10_000 + n % 977 * 1_000)).collect();
        let start = crate::history::monotonic();
        assert_eq!(bound.check(&history), Ok(1_000_000));
        let took = Duration::from_nanos(crate::history::monotonic() - start);
        assert!(took < Duration::from_secs(10), "{took:?}");
        println!("1,000,000 operations in {took:?}");
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
            let worst = bound.worst(&history);
            let with = |burst| Bound { burst, ..bound };
            prop_assert!(with(worst.burst).check(&history).is_ok());
            prop_assert!(worst.burst == 0 || with(worst.burst - 1).check(&history).is_err());
            let inside = history.iter().filter(|one| one.invoked >= worst.from && one.completed <= worst.to);
            prop_assert_eq!(inside.count() as u64, worst.inside);
        }
    }
}
