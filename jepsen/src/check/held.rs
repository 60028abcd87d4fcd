//! What a rule is held against: its law, and what an interval may admit beyond it because of what happened in it.

use super::{
    bound::{Bound, Worst},
    law::{Law, Limit, More},
    times::{self, Interval, Partition},
};
use crate::{
    record::Record,
    workload::{changes::InForce, limits::Limited},
};

/// What a clock may run faster than another one: a thousandth.
const CLOCK_MARGIN: u64 = 1_000;
/// Wall clocks of processes on one machine, read at different times, differ by no more.
const SKEW: u64 = 20_000_000;

/// A rule, and what it is held against.
pub(super) struct Held<'r> {
    pub(super) limited: &'r Limited,
    pub(super) limit: Limit,
    /// Where its limit changes.
    pub(super) in_force: Option<InForce>,
    /// What does not count any more after this.
    pub(super) until: u64,
    /// Beyond the law, on each side of a cut as well.
    pub(super) always: Vec<More>,
    /// Because of partitions.
    pub(super) partitions: Vec<More>,
}

impl<'r> Held<'r> {
    pub(super) fn new(record: &Record, limited: &'r Limited, partitions: &[Partition]) -> Self {
        let in_force = (!limited.counts.is_empty()).then(|| InForce::of(&record.changes, limited));
        let drifts = times::drifts(record);
        let drifted: u64 = drifts.iter().map(|(from, to)| (to - from) / CLOCK_MARGIN).sum();
        let bound = limited.bound;
        let limit = Limit {
            law: limited.law,
            bound,
            scale: limited.counts.iter().fold(bound.count, |scale, count| multiple(scale, *count)),
            unix_ahead: record.times.unix_ahead,
            skew: (SKEW + drifted).min(bound.period.as_nanos() as u64 / 4),
        };
        let until =
            if limited.lies_by_the_wall_clock() { times::wall_clocks_agree_until(record) } else { u64::MAX };
        let mut always = Vec::new();
        for drift in drifts {
            always.extend(refills(&bound, drift, CLOCK_MARGIN));
        }
        if limited.shares_uncarved() {
            for (window, long) in times::stalls(record) {
                always.push(More { from: window.0, to: window.1, units: refilled(&bound, long) });
            }
        }
        for window in times::stale_sessions(record) {
            let units = bound.burst + refilled(&bound, window.1 - window.0);
            always.push(More { from: window.0, to: window.1, units });
        }
        let more_often = u64::from(limited.partition.unwrap_or(1).saturating_sub(1));
        let mut of_partitions = Vec::new();
        for one in partitions.iter().filter(|_| more_often > 0) {
            let (from, to) = (one.from, one.to);
            of_partitions.push(More { from, to, units: one.cuts * more_often * bound.burst });
            for _ in 0..more_often {
                of_partitions.extend(refills(&bound, (from, to), 1));
            }
        }
        Self { limited, limit, in_force, until, always, partitions: of_partitions }
    }

    pub(super) fn allowed(&self, worst: &Worst) -> u64 {
        let Limit { law, bound, .. } = self.limit;
        let length = std::time::Duration::from_nanos(worst.to - worst.from);
        let by_law = match law {
            // What is told is whole windows.
            Law::Window => bound.count * (length.as_nanos() + 1).div_ceil(bound.period.as_nanos()) as u64,
            Law::Bucket | Law::Log => law.allowance(&bound, length),
        };
        by_law + worst.more
    }
}

/// What refills in a time, or a part of it, each unit in a time of its own: an interval meets as many as refill in it.
fn refills(bound: &Bound, (from, to): Interval, one_of: u64) -> impl Iterator<Item = More> {
    let length = bound.period.as_nanos() * u128::from(one_of);
    let count = u128::from(bound.count);
    (0_u128..)
        .map(move |place| {
            (from + (place * length / count) as u64, from + ((place + 1) * length / count) as u64)
        })
        .take_while(move |(begin, _)| *begin < to)
        .map(move |(begin, end)| More { from: begin, to: end.min(to), units: 1 })
}

fn refilled(bound: &Bound, nanos: u64) -> u64 {
    (u128::from(nanos) * u128::from(bound.count)).div_ceil(bound.period.as_nanos()) as u64
}

fn multiple(one: u64, other: u64) -> u64 {
    let (mut a, mut b) = (one, other);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    one / a.max(1) * other
}
