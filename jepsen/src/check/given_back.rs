//! Was more admitted than a limit allows, where units were given back?
//!
//! A unit that is given back can be admitted once more. So the checks that lie wholly inside an interval of length d are at
//! most B + r·d and the refunds that may have happened in it: those that began before its end and were answered after its
//! beginning. One that nobody answered may happen at any time later. This looks at all intervals at once, in O(n log n):
//! the refunds that can not have happened in an interval are those that began after its end and those that were answered
//! before its beginning, no refund is both, so the number that a check's interval needs is a sum of what belongs to its
//! beginning and what belongs to its end, and a tree over the beginnings tells the worst one for each end.
//!
//! It never raises a false alarm: a refund gives a bucket no more than was taken of it, and counts here for one unit always.

use super::bound::{Bound, Worst};
use crate::history::{Operation, Outcome, Refund};

impl Bound {
    /// As [`Bound::worst`], with units that were given back: how large a burst the rate would need to explain what was
    /// admitted, and the interval that needs it.
    pub fn worst_with_refunds<'a>(
        &self,
        operations: impl IntoIterator<Item = &'a Operation>,
        refunds: &[&Refund],
    ) -> Worst {
        let is_admitted = |one: &&Operation| one.outcome == Outcome::Admitted;
        let mut admitted: Vec<&Operation> = operations.into_iter().filter(is_admitted).collect();
        admitted.sort_unstable_by_key(|one| one.invoked);
        let mut begun: Vec<u64> = refunds.iter().map(|one| one.invoked).collect();
        let mut ended: Vec<u64> = refunds.iter().filter_map(|one| one.completed).collect();
        begun.sort_unstable();
        ended.sort_unstable();

        // A unit is as many steps as a period has nanoseconds, and `count` steps refill in a nanosecond.
        let (unit, count) = (self.period.as_nanos() as i128, i128::from(self.count));
        let before = |from: u64| ended.partition_point(|at| *at < from) as i128;
        let after = |to: u64| (begun.len() - begun.partition_point(|at| *at <= to)) as i128;
        let all = begun.len() as i128;

        let mut ends: Vec<usize> = (0..admitted.len()).collect();
        ends.sort_unstable_by_key(|place| admitted[*place].completed);
        let mut beginnings = Beginnings::new(admitted.len());
        let mut coming = admitted.iter().enumerate().peekable();
        let (mut worst, mut most) = (Worst::default(), 0);
        for (place, to) in ends.into_iter().map(|place| (place, admitted[place].completed)) {
            while let Some((beginning, one)) = coming.next_if(|(_, one)| one.invoked <= to) {
                let own = before(one.invoked) * unit + i128::from(one.invoked) * count;
                // Earlier ends inside an interval that begins there: none, they were before this beginning was known.
                beginnings.begin(beginning, own);
            }
            beginnings.add_up_to(place, unit);
            let Some((needs, beginning)) = beginnings.most() else { continue };
            let needed = needs + (after(to) - all) * unit - i128::from(to) * count;
            if needed > most {
                most = needed;
                let from = admitted[beginning].invoked;
                worst = Worst { burst: (needed as u128).div_ceil(unit as u128) as u64, from, to, inside: 0 };
            }
        }
        worst.inside =
            admitted.iter().filter(|one| one.invoked >= worst.from && one.completed <= worst.to).count()
                as u64;
        worst
    }
}

/// For each interval that has begun what it needs, but for what belongs to its end: a tree of maxima.
struct Beginnings {
    leaves: usize,
    /// The most of each subtree, without what its ancestors add, and where it is; `None`: nothing has begun there.
    most: Vec<Option<(i128, usize)>>,
    /// What counts for all of a subtree.
    adds: Vec<i128>,
}

impl Beginnings {
    fn new(count: usize) -> Self {
        let leaves = count.next_power_of_two();
        Self { leaves, most: vec![None; 2 * leaves], adds: vec![0; 2 * leaves] }
    }

    /// An interval begins at this place.
    fn begin(&mut self, place: usize, value: i128) {
        let mut node = self.leaves + place;
        // What was added before is not about it.
        let mut ancestor = node / 2;
        let mut added = self.adds[node];
        while ancestor > 0 {
            added += self.adds[ancestor];
            ancestor /= 2;
        }
        self.most[node] = Some((value - added + self.adds[node], place));
        while node > 1 {
            node /= 2;
            self.pull(node);
        }
    }

    /// Adds to all places up to this one, and to it.
    fn add_up_to(&mut self, place: usize, value: i128) {
        let mut node = self.leaves + place;
        self.add(node, value);
        while node > 1 {
            if node % 2 == 1 {
                self.add(node - 1, value);
            }
            node /= 2;
            self.pull(node);
        }
    }

    fn most(&self) -> Option<(i128, usize)> {
        self.most[1]
    }

    fn add(&mut self, node: usize, value: i128) {
        self.adds[node] += value;
        if let Some((most, _)) = &mut self.most[node] {
            *most += value;
        }
    }

    fn pull(&mut self, node: usize) {
        let better = self.most[2 * node].max(self.most[2 * node + 1]);
        self.most[node] = better.map(|(most, place)| (most + self.adds[node], place));
    }
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
