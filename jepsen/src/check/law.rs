//! What the algorithms promise, each as `limiter/src/lib.rs` says it, and whether a history of one bucket keeps it.
//!
//! | algorithm | in any interval of length d | looked at |
//! | --- | --- | --- |
//! | token bucket, leaky bucket, sliding window | b + n·d/p | all intervals at once (`interval`) |
//! | sliding log | n·(⌊d/p⌋ + 1), that is n in any period | `log` |
//! | fixed window | n in each window, so n·(⌊d/p⌋ + 2) | `window` |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    bound::{Bound, Worst},
    interval::{Allowance, Allowances, Job, neediest},
    log,
    window::{self, Windows},
};

/// Which promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// A burst, and what refills.
    #[default]
    Bucket,
    /// The count in any period.
    Log,
    /// The count in each window; windows begin at multiples of the period of Unix time.
    Window,
}

impl Law {
    /// Units that a limit admits in an interval of this length, rounded down.
    pub fn allowance(self, bound: &Bound, length: Duration) -> u64 {
        let periods = (length.as_nanos() / bound.period.as_nanos()) as u64;
        match self {
            Self::Bucket => bound.allowance(length),
            Self::Log => bound.count * (periods + 1),
            Self::Window => bound.count * (periods + 2),
        }
    }
}

/// An admitted check of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Where the limit changes: the most units that refilled in a period by any limit that may have been in force.
    pub(crate) count: u64,
}

/// Units that each interval that meets this one may admit beyond the law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct More {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) units: u64,
}

/// A limit that a bucket's history is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) law: Law,
    pub(crate) bound: Bound,
    /// A common multiple of all counts that the limit ever has.
    pub(crate) scale: u64,
    /// What Unix time is ahead of the history's clock, and how far the clocks of two nodes may differ: where windows begin.
    pub(crate) unix_ahead: i64,
    pub(crate) skew: u64,
}

/// What is beyond the law, ready for use with many buckets.
#[derive(Debug, Clone)]
pub(crate) struct Beyond {
    /// As a bucket of that law has them.
    steps: Allowances,
}

impl Limit {
    /// Of a bucket: the steps of a nanosecond are the units that refill in a period, times what makes all counts divide them.
    fn steps_per_ns(&self) -> i128 {
        match self.law {
            Law::Bucket => i128::from(self.scale),
            Law::Log | Law::Window => 0,
        }
    }

    fn steps_of_unit(&self, count: u64) -> i128 {
        match self.law {
            Law::Bucket => self.bound.period.as_nanos() as i128 * i128::from(self.scale / count.max(1)),
            Law::Log | Law::Window => 1,
        }
    }

    pub(crate) fn beyond(&self, more: &[More]) -> Beyond {
        let unit = self.steps_of_unit(self.bound.count);
        let steps =
            |one: &More| Allowance { from: one.from, to: one.to, steps: i128::from(one.units) * unit };
        Beyond { steps: Allowances::new(&more.iter().map(steps).collect::<Vec<_>>()) }
    }

    /// The interval that comes nearest to the limit, or goes furthest beyond it: it does if its `burst` is above the limit's.
    /// The checks are sorted by `from`.
    pub(crate) fn worst(&self, checks: &[Admitted], beyond: &Beyond) -> Worst {
        let jobs: Vec<Job> = checks
            .iter()
            .map(|one| Job { from: one.from, to: one.to, steps: self.steps_of_unit(one.count) })
            .collect();
        let (needs, burst) = match self.law {
            Law::Bucket => {
                let needs = neediest(&jobs, &beyond.steps, self.steps_per_ns(), None);
                let unit = self.steps_of_unit(self.bound.count);
                (needs, needs.map_or(0, |needs| needs.steps.max(0) as u128).div_ceil(unit as u128) as u64)
            }
            Law::Log => {
                log::worst(&jobs, &beyond.steps, self.bound.count, self.bound.period.as_nanos() as u64)
            }
            Law::Window => {
                let windows = Windows {
                    count: self.bound.count,
                    period: self.bound.period,
                    unix_ahead: self.unix_ahead,
                    skew: self.skew,
                };
                window::worst(&jobs, &beyond.steps, &windows)
            }
        };
        let Some(needs) = needs.filter(|_| burst > 0) else { return Worst::default() };
        let inside = checks.iter().filter(|one| one.from >= needs.from && one.to <= needs.to).count() as u64;
        let unit = self.steps_of_unit(self.bound.count);
        let more = (beyond.steps.meeting(needs.from, needs.to) / unit) as u64;
        Worst { burst, from: needs.from, to: needs.to, inside, more }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::check) const SECOND: u64 = 1_000_000_000;

    pub(in crate::check) fn limit(law: Law, count: u64) -> Limit {
        let bound = Bound { burst: count, count, period: Duration::from_secs(1) };
        Limit { law, bound, scale: count, unix_ahead: 0, skew: 0 }
    }

    pub(in crate::check) fn at(nanos: u64) -> Admitted {
        Admitted { from: nanos, to: nanos + 1_000, count: 10 }
    }

    fn needs(limit: &Limit, checks: &[Admitted], more: &[More]) -> u64 {
        limit.worst(checks, &limit.beyond(more)).burst
    }

    #[test]
    fn one_more_than_the_law_is_found_and_the_law_itself_is_fine() {
        // Ten at once, and ten more as soon as each algorithm may.
        let twice = |gap: u64| -> Vec<Admitted> {
            (0..10).map(|n| at(SECOND / 2 + n)).chain((0..10).map(|n| at(SECOND / 2 + gap + n))).collect()
        };
        let bucket = limit(Law::Bucket, 10);
        let mut trickle: Vec<Admitted> = (0..10).map(|n| at(SECOND + n)).collect();
        trickle.extend((1..30).map(|n| at(SECOND + n * SECOND / 10 + 10)));
        assert_eq!(needs(&bucket, &trickle, &[]), 10);
        trickle.insert(12, at(SECOND + 2 * SECOND / 10 + 20));
        assert_eq!(needs(&bucket, &trickle, &[]), 11);

        let log = limit(Law::Log, 10);
        assert_eq!(needs(&log, &twice(SECOND + 1_010), &[]), 10);
        assert_eq!(needs(&log, &twice(SECOND - 1_010), &[]), 20);
        // The bound of a bucket would have taken 19 of them in that time.
        let mut nearly: Vec<Admitted> = (0..10).map(|n| at(SECOND / 2 + n)).collect();
        nearly.push(at(SECOND / 2 + 900_000_000));
        assert_eq!((needs(&bucket, &nearly, &[]), needs(&log, &nearly, &[])), (10, 11));

        let window = limit(Law::Window, 10);
        assert_eq!(needs(&window, &twice(SECOND / 2 + 10), &[]), 10);
        assert_eq!(needs(&window, &twice(SECOND / 2 - 1_000_000), &[]), 20);
        nearly.last_mut().unwrap().from = 999_000_000;
        nearly.last_mut().unwrap().to = 999_900_000;
        assert_eq!(needs(&window, &nearly, &[]), 11);
        // It may have been in the next window.
        nearly.last_mut().unwrap().to = 1_000_000_000;
        assert_eq!(needs(&window, &nearly, &[]), 10);
    }

    #[test]
    fn what_is_beyond_the_law_counts_where_it_meets_and_once() {
        let eleven: Vec<Admitted> = (0..11).map(|n| at(SECOND / 2 + n)).collect();
        for law in [Law::Bucket, Law::Log, Law::Window] {
            let limit = limit(law, 10);
            let more = |from, units| More { from, to: from + 10, units };
            assert_eq!(needs(&limit, &eleven, &[]), 11, "{law:?}");
            assert!(needs(&limit, &eleven, &[more(SECOND / 2, 1)]) <= 10, "{law:?}");
            assert_eq!(needs(&limit, &eleven, &[more(2 * SECOND, 1)]), 11, "{law:?}");
            let twelve = [&eleven[..], &[at(SECOND / 2 + 12)]].concat();
            assert_eq!(needs(&limit, &twelve, &[more(SECOND / 2, 1)]), 11, "{law:?}");
        }
    }

    #[test]
    fn a_limit_that_changes_is_held_to_the_loosest_that_may_be_in_force() {
        // 10 a second until second 10, 5 a second from then on; the bucket keeps its second of debt.
        let limit = Limit {
            scale: 10,
            bound: Bound { burst: 5, count: 5, period: Duration::from_secs(1) },
            ..limit(Law::Bucket, 5)
        };
        let by = |count, place: u64, begin| Admitted { count, ..at(begin + place * SECOND / count) };
        let loose: Vec<Admitted> = (0..10)
            .map(|n| Admitted { count: 10, ..at(n) })
            .chain((0..100).map(|n| by(10, n, 100)))
            .collect();
        let tight = (1..50).map(|n| by(5, n, 10 * SECOND + 100));
        let fine: Vec<Admitted> = loose.iter().copied().chain(tight.clone()).collect();
        assert_eq!(limit.worst(&fine, &limit.beyond(&[])).burst, 6, "the first one is not refilled yet");
        // Somebody goes on by the old limit.
        let stale: Vec<Admitted> =
            (0..10).map(|n| Admitted { count: 5, ..at(10 * SECOND + 200 + n * SECOND / 10) }).collect();
        let found = limit.worst(&[loose, stale].concat(), &limit.beyond(&[])).burst;
        assert!(found > 9, "{found}");
    }

    #[test]
    fn what_is_allowed_is_what_the_table_says() {
        let bound = limit(Law::Bucket, 10).bound;
        let of = |law: Law, ms| law.allowance(&bound, Duration::from_millis(ms));
        assert_eq!([0, 990, 1_000, 2_500].map(|ms| of(Law::Bucket, ms)), [10, 19, 20, 35]);
        assert_eq!([0, 990, 1_000, 2_500].map(|ms| of(Law::Log, ms)), [10, 10, 20, 30]);
        assert_eq!([0, 990, 1_000, 2_500].map(|ms| of(Law::Window, ms)), [20, 20, 30, 40]);
    }
}
