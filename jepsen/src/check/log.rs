//! A sliding log admits its count in any period.
//!
//! So an interval shorter than k + 1 periods holds (k + 1) times the count at most. Whether one holds more is looked at for each
//! k up to [`PERIODS`], each time for all intervals at once. Beyond that one look often says that no interval of any length
//! does: if the checks can be put in an order, each at an instant between its question and its answer, in which no period holds
//! more than the count, then they were fine. (The order that is tried, the most urgent first, is not always the right one where
//! some answers came late; that none is found proves nothing.) Where it is not found, intervals of more periods are looked at
//! as those of a bucket are, which promises a part of a period less.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::interval::{Allowances, Job, Needs, neediest};

/// So many periods are looked at one by one.
const PERIODS: u64 = 64;

/// The interval that comes nearest, and the count that explains it.
pub(super) fn worst(jobs: &[Job], allowances: &Allowances, count: u64, period: u64) -> (Option<Needs>, u64) {
    let count = i128::from(count);
    let span = jobs
        .iter()
        .map(|job| job.to)
        .max()
        .unwrap_or(0)
        .saturating_sub(jobs.first().map_or(0, |job| job.from));
    let periods = (span / period + 1).min(PERIODS);
    let is_fine = allowances.are_none() && fits(jobs, count as usize, period);
    // One period is looked at in any case: it is what is told.
    let periods = if is_fine { 1 } else { periods };
    let mut worst: Option<Needs> = None;
    let mut keep = |found: Option<Needs>| {
        if let Some(found) = found
            && worst.is_none_or(|known| found.steps > known.steps)
        {
            worst = Some(found);
        }
    };
    for more in 0..periods {
        let found = neediest(jobs, allowances, 0, Some(period.saturating_mul(more + 1)));
        keep(found.map(|needs| Needs { steps: needs.steps - i128::from(more) * count, ..needs }));
    }
    if !is_fine && span / period >= PERIODS {
        let unit = i128::from(period);
        let scaled: Vec<Job> = jobs.iter().map(|job| Job { steps: job.steps * unit, ..*job }).collect();
        let scaled_allowances = allowances.times(unit);
        let found = neediest(&scaled, &scaled_allowances, count, None);
        keep(found.map(|needs| Needs { steps: (needs.steps.max(0) + unit - 1) / unit, ..needs }));
    }
    (worst, worst.map_or(0, |needs| needs.steps.max(0) as u64))
}

/// Whether the order of the most urgent first puts each check between its question and its answer, and no more than `count` of
/// them in any period.
fn fits(jobs: &[Job], count: usize, period: u64) -> bool {
    let mut starts: Vec<u64> = Vec::with_capacity(jobs.len());
    let mut open: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
    let mut coming = jobs.iter().peekable();
    let mut now = 0;
    while starts.len() < jobs.len() {
        if let Some(first) = starts.len().checked_sub(count) {
            now = now.max(starts[first] + period);
        }
        if open.is_empty()
            && let Some(next) = coming.peek()
        {
            now = now.max(next.from);
        }
        while let Some(job) = coming.next_if(|job| job.from <= now) {
            open.push(Reverse(job.to));
        }
        match open.pop() {
            Some(Reverse(due)) if due >= now => starts.push(now),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::interval::tests::sorted;

    const PERIOD: u64 = 10;

    /// The definition, of each interval by itself.
    fn slowly(jobs: &[Job], count: u64) -> bool {
        jobs.iter().all(|first| {
            jobs.iter().filter(|last| last.to >= first.from).all(|last| {
                let inside =
                    jobs.iter().filter(|job| job.from >= first.from && job.to <= last.to).count() as u64;
                inside <= count * ((last.to - first.from) / PERIOD + 1)
            })
        })
    }

    #[test]
    fn an_excess_that_only_a_long_interval_shows_is_found() {
        // Each single period may be explained by what lies on its edges; three of them together cannot.
        let job = |from, to| Job { from, to, steps: 1 };
        let jobs = [job(0, 1), job(5, 15), job(9, 21), job(14, 24), job(24, 25), job(28, 28)];
        assert!(slowly(&jobs, 2) == (worst(&jobs, &Allowances::default(), 2, PERIOD).1 <= 2));
        let jobs = [job(0, 0), job(0, 12), job(8, 20), job(9, 19), job(19, 29), job(27, 28), job(28, 29)];
        assert!(slowly(&jobs, 2) == (worst(&jobs, &Allowances::default(), 2, PERIOD).1 <= 2));
    }

    #[test]
    fn an_hour_is_judged_in_seconds() {
        // Forty a second, all the time, answers that overlap.
        let second = 1_000_000_000;
        let jobs: Vec<Job> = (0..144_000_u64)
            .map(|n| n * second / 40)
            .map(|at| Job { from: at, to: at + at % 977 * 10_000, steps: 1 })
            .collect();
        // What this thread took: others may be busy.
        let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let begun = cpu();
        let (_, burst) = worst(&jobs, &Allowances::default(), 40, second);
        let took = cpu().tv_sec - begun.tv_sec;
        assert!(burst <= 40, "{burst}");
        assert!(took < 10, "{took} s");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_says_what_looking_at_each_interval_says(
            times in prop::collection::vec((0u64..90, 0u64..14), 0..30),
            count in 1u64..4,
        ) {
            let jobs = sorted(times.into_iter().map(|(at, took)| Job { from: at, to: at + took, steps: 1 }).collect());
            let (_, burst) = worst(&jobs, &Allowances::default(), count, PERIOD);
            prop_assert_eq!(burst <= count, slowly(&jobs, count));
        }
    }
}
