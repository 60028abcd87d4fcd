//! Was more admitted than a limit allows, where units were given back?
//!
//! A unit that is given back can be admitted once more. So the checks that lie wholly inside an interval of length d are at
//! most B + r·d and the refunds that may have happened in it: those that began before its end and were answered after its
//! beginning. One that nobody answered may happen at any time later. All intervals are looked at at once
//! (`interval`).
//!
//! It never raises a false alarm: a refund gives a bucket no more than was taken of it, and counts here for one unit always.

use super::{
    bound::{Bound, Worst},
    law::{Admitted, Law, Limit, More},
};
use crate::history::{Operation, Outcome, Refund};

impl Bound {
    /// As [`Bound::worst`], with units that were given back: how large a burst the rate would need to explain what was
    /// admitted, and the interval that needs it.
    pub fn worst_with_refunds<'a>(
        &self,
        operations: impl IntoIterator<Item = &'a Operation>,
        refunds: &[&Refund],
    ) -> Worst {
        let admitted = operations.into_iter().filter(|one| one.outcome == Outcome::Admitted);
        let mut checks: Vec<Admitted> = admitted
            .map(|one| Admitted { from: one.invoked, to: one.completed, count: self.count })
            .collect();
        checks.sort_unstable_by_key(|one| one.from);
        let limit = Limit { law: Law::Bucket, bound: *self, scale: self.count, unix_ahead: 0, skew: 0 };
        let more: Vec<More> = refunds.iter().map(|one| more_of(one)).collect();
        limit.worst(&checks, &limit.beyond(&more))
    }
}

/// A unit that was given back may be admitted once more, from when it was sent until it was answered; where nobody answered, at
/// any time from then on.
pub(super) fn more_of(refund: &Refund) -> More {
    More { from: refund.invoked, to: refund.completed.unwrap_or(u64::MAX), units: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::bound::tests::{SECOND, TEN, admitted};
    use proptest::prelude::*;

    fn refund(invoked: u64, completed: Option<u64>) -> Refund {
        Refund { invoked, completed, key: 0, node: 0 }
    }

    fn burst(operations: &[Operation], refunds: &[Refund]) -> u64 {
        TEN.worst_with_refunds(operations, &refunds.iter().collect::<Vec<_>>()).burst
    }

    #[test]
    fn what_was_given_back_may_be_admitted_once_more_and_not_twice() {
        let all: Vec<_> = (0..12).map(|n| admitted(SECOND + n, SECOND + n + 1)).collect();
        let given = |count: u64| -> Vec<Refund> {
            (0..count).map(|n| refund(SECOND + n, Some(SECOND + n + 1))).collect()
        };
        assert_eq!(burst(&all, &given(2)), 10);
        assert_eq!(burst(&all, &given(1)), 11);
        assert_eq!(burst(&all, &[]), 12);
    }

    #[test]
    fn what_was_given_back_long_ago_does_not_count_and_what_nobody_answered_always_does() {
        let all: Vec<_> = (0..11).map(|n| admitted(SECOND + n, SECOND + n + 1)).collect();
        assert_eq!(burst(&all, &[refund(0, Some(SECOND / 2))]), 11);
        assert_eq!(burst(&all, &[refund(2 * SECOND, None)]), 11);
        assert_eq!(burst(&all, &[refund(0, None)]), 10);
    }

    /// All intervals, one after the other.
    fn slowly(operations: &[Operation], refunds: &[Refund]) -> u64 {
        let mut most = 0_i128;
        for from in operations.iter().map(|one| one.invoked) {
            for to in operations.iter().map(|one| one.completed).filter(|to| *to >= from) {
                let inside =
                    operations.iter().filter(|one| one.invoked >= from && one.completed <= to).count();
                let may = |one: &&Refund| one.invoked <= to && one.completed.is_none_or(|at| at >= from);
                let given = refunds.iter().filter(may).count();
                let steps = (inside as i128 - given as i128) * SECOND as i128 - i128::from(to - from) * 5;
                most = most.max(steps);
            }
        }
        (most as u128).div_ceil(SECOND.into()) as u64
    }

    proptest! {
        #[test]
        fn it_says_what_looking_at_each_interval_says(
            checks in prop::collection::vec((0..60_u64, 0..8_u64), 1..40),
            given in prop::collection::vec((0..60_u64, prop::option::of(0..8_u64)), 0..12),
        ) {
            let step = SECOND / 10;
            let checks: Vec<_> =
                checks.into_iter().map(|(at, took)| admitted(at * step, (at + took) * step)).collect();
            let given: Vec<_> = given
                .into_iter()
                .map(|(at, took)| refund(at * step, took.map(|took| (at + took) * step)))
                .collect();
            prop_assert_eq!(burst(&checks, &given), slowly(&checks, &given));
            prop_assert_eq!(burst(&checks, &[]), TEN.worst(&checks).burst);
        }
    }
}
