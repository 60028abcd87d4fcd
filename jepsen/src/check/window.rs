//! A fixed window admits its count in each window, and windows begin at multiples of their period, by the wall clock.
//!
//! A check was decided in one of the windows that its question and its answer lie in, or in between. Whether each can be given
//! one of them, with no window above its count, is a matter of going through the windows and filling each with the checks that
//! are most urgent: exact, in O(n log n).

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::interval::{Allowances, Job, Needs};

/// The windows of a windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    /// Units that each admits.
    pub(super) count: u64,
    pub(super) period: Duration,
    /// What Unix time is ahead of the history's clock, and how far the clocks of two nodes may differ.
    pub(super) unix_ahead: i64,
    pub(super) skew: u64,
}

/// The interval that comes nearest, and the count that explains it.
pub(super) fn worst(jobs: &[Job], allowances: &Allowances, windows: &Windows) -> (Option<Needs>, u64) {
    let period = windows.period.as_nanos() as i128;
    let (ahead, skew) = (i128::from(windows.unix_ahead), i128::from(windows.skew));
    let first_of = |job: &Job| (i128::from(job.from) + ahead - skew).div_euclid(period);
    let last_of = |job: &Job| (i128::from(job.to) + ahead + skew).div_euclid(period);
    let edge = |window: i128| (window * period - ahead).clamp(0, i128::from(u64::MAX)) as u64;
    let between = |first: i128, last: i128| (edge(first), edge(last + 1).saturating_sub(1));
    let room = |window: i128| {
        let (from, to) = between(window, window);
        let skew = windows.skew;
        windows.count as i128 + allowances.meeting(from.saturating_sub(skew), to.saturating_add(skew))
    };
    // Windows in which something lies wholly, and how much: what is told if all is well.
    let mut fullest: Option<Needs> = None;
    let mut inside = (i128::MIN, 0_i128);
    let mut open: BinaryHeap<Reverse<i128>> = BinaryHeap::new();
    let mut coming = jobs.iter().peekable();
    let mut window = i128::MIN;
    let mut excess = None;
    while coming.peek().is_some() || !open.is_empty() {
        if open.is_empty()
            && let Some(next) = coming.peek()
        {
            window = window.max(first_of(next));
        }
        while let Some(job) = coming.next_if(|job| first_of(job) <= window) {
            open.push(Reverse(last_of(job)));
            if first_of(job) == last_of(job) {
                inside =
                    if inside.0 == first_of(job) { (inside.0, inside.1 + 1) } else { (first_of(job), 1) };
                let (from, to) = between(inside.0, inside.0);
                if fullest.is_none_or(|known| inside.1 > known.steps) {
                    fullest = Some(Needs { steps: inside.1, from, to });
                }
            }
        }
        for _ in 0..room(window) {
            open.pop();
        }
        if open.peek().is_some_and(|Reverse(last)| *last <= window) {
            excess = Some(window);
            break;
        }
        window += 1;
    }
    let Some(last) = excess else {
        let count = windows.count;
        // It is explained: what was allowed beyond the count is no part of what the limit needs.
        return (fullest, fullest.map_or(0, |needs| (needs.steps as u64).min(count)));
    };
    // Somewhere the windows up to that one hold more than they have room for, all of them together.
    let mut within: Vec<i128> = jobs.iter().filter(|job| last_of(job) <= last).map(first_of).collect();
    within.sort_unstable_by_key(|first| Reverse(*first));
    let (mut capacity, mut from) = (0, last + 1);
    let mut worst = (i128::MIN, last);
    for (place, first) in within.iter().enumerate() {
        while from > *first {
            from -= 1;
            capacity += room(from);
        }
        let next_is_earlier = within.get(place + 1) != Some(first);
        let over = place as i128 + 1 - capacity;
        if next_is_earlier && over > worst.0 {
            worst = (over, *first);
        }
    }
    let (from, to) = between(worst.1, last);
    let needs = Needs { steps: worst.0, from, to };
    (Some(needs), windows.count + (worst.0.max(1) as u64).div_ceil((last - worst.1 + 1).max(1) as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::interval::tests::sorted;

    const PERIOD: u64 = 10;

    fn windows(count: u64) -> Windows {
        Windows { count, period: Duration::from_nanos(PERIOD), unix_ahead: 0, skew: 0 }
    }

    /// Tries all windows for each check.
    fn slowly(jobs: &[Job], count: u64, taken: &mut [u64]) -> bool {
        let Some((job, rest)) = jobs.split_first() else { return true };
        (job.from / PERIOD..=job.to / PERIOD).any(|window| {
            let place = window as usize;
            if taken[place] == count {
                return false;
            }
            taken[place] += 1;
            let fits = slowly(rest, count, taken);
            taken[place] -= 1;
            fits
        })
    }

    #[test]
    fn two_windows_that_touch_may_both_be_full_and_one_may_not_hold_one_more() {
        let job = |at| Job { from: at, to: at + 1, steps: 1 };
        let touching: Vec<Job> = [7, 7, 8, 10, 11, 11].map(job).into();
        assert_eq!(worst(&touching, &Allowances::default(), &windows(3)).1, 3);
        let (needs, burst) =
            worst(&[&touching[..], &[job(12)]].concat(), &Allowances::default(), &windows(3));
        assert_eq!((burst, needs.unwrap().from, needs.unwrap().to), (4, 10, 19));
        // Where wall clocks differ a little, what lies at an edge may be on either side of it.
        let late: Vec<Job> = [7, 7, 10, 11, 11, 12].map(job).into();
        assert_eq!(worst(&late, &Allowances::default(), &windows(3)).1, 4);
        assert!(worst(&late, &Allowances::default(), &Windows { skew: 2, ..windows(3) }).1 <= 3);
        // Windows lie by Unix time, not by the history's.
        let shifted = Windows { unix_ahead: 5, ..windows(3) };
        assert!(worst(&touching, &Allowances::default(), &shifted).1 > 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_says_what_trying_all_windows_says(
            times in prop::collection::vec((0u64..50, 0u64..22), 0..11),
            count in 1u64..4,
        ) {
            let jobs = sorted(times.into_iter().map(|(at, took)| Job { from: at, to: at + took, steps: 1 }).collect());
            let (_, burst) = worst(&jobs, &Allowances::default(), &windows(count));
            prop_assert_eq!(burst <= count, slowly(&jobs, count, &mut [0; 9]));
        }
    }
}
