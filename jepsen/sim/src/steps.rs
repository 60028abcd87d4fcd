//! Was more admitted than a log or a window allows, in any interval?
//!
//! Both promise a number of units for intervals shorter than a period, than two, and so on: a log as many times its count as
//! periods have begun, a window once more, for the window in which the interval begins. Of all intervals of one length the one
//! counts that begins with a question; what lies wholly inside it was admitted in it for sure.

use std::time::Duration;

use tidegate_jepsen::history::{Operation, Outcome};

/// Periods that are looked at: what is kept in each of these is kept in longer intervals but for a few units.
const PERIODS: u64 = 4;

/// An interval in which more was admitted than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) from: u64,
    pub(super) length: Duration,
    pub(super) inside: u64,
    pub(super) allowed: u64,
}

/// Looks for an interval shorter than so many periods with more than `count` units for each of them, and `more` times
/// `count` beside.
pub(super) fn check<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
    count: u64,
    period: Duration,
    more: u64,
) -> Option<Excess> {
    let mut admitted: Vec<(u64, u64)> = operations
        .into_iter()
        .filter(|one| one.outcome == Outcome::Admitted)
        .map(|one| (one.invoked, one.completed))
        .collect();
    admitted.sort_unstable();
    (1..=PERIODS).find_map(|periods| {
        let (length, allowed) = (period * periods as u32, count * (periods + more));
        admitted.iter().enumerate().find_map(|(place, (from, _))| {
            let end = from + length.as_nanos() as u64;
            let begun = admitted[place..].iter().take_while(|(invoked, _)| *invoked < end);
            let inside = begun.filter(|(_, completed)| *completed < end).count() as u64;
            (inside > allowed).then_some(Excess { from: *from, length, inside, allowed })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(millis: u64) -> Operation {
        let invoked = millis * 1_000_000;
        Operation {
            invoked,
            completed: invoked + 1_000,
            key: 0,
            node: 0,
            outcome: Outcome::Admitted,
            decided_by: None,
        }
    }

    #[test]
    fn one_more_than_the_count_in_a_period_is_found_and_a_period_later_it_is_fine() {
        let with = |last: u64| -> Vec<Operation> { (0..10).map(at).chain([at(last)]).collect() };
        let second = Duration::from_secs(1);
        let excess = check(&with(998), 10, second, 0).unwrap();
        assert_eq!((excess.inside, excess.allowed, excess.from), (11, 10, 0));
        assert_eq!(check(&with(1_001), 10, second, 0), None);
        assert_eq!(check(&with(998), 10, second, 1), None, "two windows touch");
    }

    #[test]
    fn three_windows_in_less_than_a_period_are_found() {
        let burst = |millis: u64| (0..10).map(move |n| at(millis + n));
        let three: Vec<Operation> = burst(0).chain(burst(400)).chain(burst(800)).collect();
        assert_eq!(check(&three, 10, Duration::from_secs(1), 1).unwrap().inside, 30);
        let apart: Vec<Operation> = burst(0).chain(burst(400)).chain(burst(1_100)).collect();
        assert_eq!(check(&apart, 10, Duration::from_secs(1), 1), None);
        assert_eq!(apart[0].invoked + SECOND, SECOND);
    }

    #[test]
    fn what_is_not_wholly_inside_does_not_count() {
        let mut all: Vec<Operation> = (0..11).map(at).collect();
        assert!(check(&all, 10, Duration::from_secs(1), 0).is_some());
        all[10].completed = 2 * SECOND;
        assert_eq!(check(&all, 10, Duration::from_secs(1), 0), None);
        all[10].outcome = Outcome::Denied;
        assert_eq!(check(&all, 10, Duration::from_secs(9), 0), None);
    }
}
