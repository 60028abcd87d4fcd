//! Was as much admitted as the limit allows, and to each node its part? Asked where nothing is broken: before the faults, and
//! after all is settled again.

use super::{
    Finding,
    times::{Interval, wall_clocks_agree_until},
};
use crate::{history::Outcome, record::Record};

/// Shorter times say nothing.
const SHORTEST: u64 = 3_500_000_000;
/// A key counts if it was asked about so much more often than its rate.
const PRESSURE: f64 = 1.4;
/// So much of the rate must have been admitted. A busy machine that stops the clients for a while has it at fault for the
/// rest.
const LEAST: f64 = 0.85;
/// A key under pressure is asked about at least this close to the beginning and to the end.
const THROUGHOUT: u64 = 1_000_000_000;
/// What a carved rule gives out when all is well.
const CARVED: f64 = 0.75;
/// A node at which a key was asked about often must have had so much of what others had.
const FAIR: f64 = 0.5;
const OFTEN: usize = 150;

/// The times when nothing is broken.
pub(super) fn quiet(record: &Record) -> Vec<Interval> {
    let times = &record.times;
    let mut quiet = vec![(times.begun + 1_000_000_000, times.broken.min(times.ended))];
    quiet.extend(times.settled.map(|settled| (settled + 1_000_000_000, times.ended)));
    quiet.retain(|(from, to)| *to > *from + SHORTEST);
    quiet
}

/// From when on a key is owed its rate. The owner of a window may have it from one whose clock was ahead: then it is this owner's
/// next one that counts on.
fn begin(record: &Record, key: usize, from: u64, to: u64) -> u64 {
    let limits = record.setup.questions[key].buckets.iter().map(|(rule, _)| &record.setup.limits[*rule]);
    let by_the_wall =
        limits.filter(|limited| limited.lies_by_the_wall_clock()).map(|limited| limited.bound.period);
    match by_the_wall.max() {
        Some(window) if to > wall_clocks_agree_until(record) => from + 2 * window.as_nanos() as u64,
        _ => from,
    }
}

/// Looks at each key that was asked about more than its rate allows.
pub fn check(record: &Record) -> Finding {
    let (mut wrong, mut least, mut keys) = (Vec::new(), f64::INFINITY, 0);
    let quiet = quiet(record);
    for (from, to) in &quiet {
        let count = record.setup.questions.len();
        let begins: Vec<u64> = (0..count).map(|key| begin(record, key, *from, *to)).collect();
        let (mut asked, mut admitted) = (vec![0_usize; count], vec![0_usize; count]);
        let mut asked_from_to = vec![(u64::MAX, 0_u64); count];
        let nodes = usize::from(record.setup.nodes);
        let mut hot = vec![(0_usize, 0_usize); nodes];
        for one in record.history.operations.iter().filter(|one| one.invoked >= *from && one.completed <= *to)
        {
            let key = one.key as usize;
            let is_admitted = usize::from(one.outcome == Outcome::Admitted);
            if one.invoked >= begins[key] {
                asked[key] += 1;
                admitted[key] += is_admitted;
                let (first, last) = asked_from_to[key];
                asked_from_to[key] = (first.min(one.invoked), last.max(one.invoked));
            }
            if key == 0 {
                hot[usize::from(one.node)].0 += 1;
                hot[usize::from(one.node)].1 += is_admitted;
            }
        }
        for (key, question) in record.setup.questions.iter().enumerate() {
            let [(rule, value)] = &question.buckets[..] else { continue };
            let limited = &record.setup.limits[*rule];
            let rate = limited.bound.count as f64 / limited.bound.period.as_secs_f64();
            let seconds = to.saturating_sub(begins[key]) as f64 / 1e9;
            let owed = rate * seconds * if limited.text.contains("carved") { CARVED } else { 1.0 };
            let (first, last) = asked_from_to[key];
            // Who is not asked all the time may have admitted its burst before, and is owed nothing after.
            let is_asked_throughout = first <= begins[key] + THROUGHOUT && last + THROUGHOUT >= *to;
            // What a limit owes that changes nobody can say.
            if !limited.counts.is_empty()
                || !is_asked_throughout
                || begins[key] + SHORTEST > *to
                || limited.bound.period.as_secs() > 10
                || (asked[key] as f64) < PRESSURE * rate * seconds
            {
                continue;
            }
            keys += 1;
            // What a window has left over at either end is a unit of its count.
            let windows = if limited.text.contains("algorithm") { limited.bound.count as f64 } else { 1.0 };
            let part = (admitted[key] as f64 + windows) / owed;
            least = least.min(part);
            if part < LEAST {
                wrong.push(format!(
                    "{}, key {value}: {} admitted of {} asked in {seconds:.1} s, {owed:.0} were owed",
                    limited.name, admitted[key], asked[key]
                ));
            }
        }
        let (all, got) = hot.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        for (node, (asked, admitted)) in hot.iter().enumerate().filter(|(_, (asked, _))| *asked >= OFTEN) {
            let (part, whole) = (*admitted as f64 / *asked as f64, got as f64 / all as f64);
            if part < FAIR * whole {
                let (part, whole) = (part * 100.0, whole * 100.0);
                wrong.push(format!(
                    "n{} had {part:.0} % of what it asked of the hot key, all together {whole:.0} %",
                    node + 1
                ));
            }
        }
    }
    if keys == 0 && wrong.is_empty() {
        let says = "no key was asked about enough while nothing was broken".to_owned();
        return Finding {
            verdict: super::Verdict::Unknown,
            ..Finding::of("enough is admitted", says, wrong)
        };
    }
    let says =
        format!("{keys} times a key under pressure, at least {:.0} % of its rate admitted", least * 100.0);
    Finding::of("enough is admitted", says, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Operation;
    use crate::nemesis::Kind;
    use crate::record::tests::{SECOND, admitted, fault, record};

    /// The first rule: 200 a second, asked 400 times a second at two nodes for five seconds.
    fn under_pressure(admits: impl Fn(u64, u16) -> bool) -> Finding {
        let mut record = record();
        let ask = |n: u64| {
            let node = (n % 2) as u16;
            let outcome = if admits(n, node) { Outcome::Admitted } else { Outcome::Denied };
            Operation { node, outcome, ..admitted(0, SECOND + n * SECOND / 400) }
        };
        record.history.operations = (0..3_600).map(ask).collect();
        check(&record)
    }

    #[test]
    fn half_of_what_is_owed_is_too_little() {
        assert!(under_pressure(|n, _| n % 4 < 2).details.is_empty());
        assert_eq!(under_pressure(|n, _| n % 8 < 2).details.len(), 1);
    }

    #[test]
    fn a_window_has_its_next_one_to_come_back_from_another_clock_and_no_more() {
        let told = |from: u64| {
            let mut record = record();
            record.setup.limits[0].text = "algorithm: fixed_window".to_owned();
            record.times.broken = 12 * SECOND;
            record.faults.push(fault(Kind::ClockJump, "n2", 0, 1));
            let window = record.setup.limits[0].bound.period.as_nanos() as u64;
            let ask = |n: u64| {
                let at = SECOND + n * SECOND / 400;
                let denied = at < SECOND + from * window || n.is_multiple_of(2);
                Operation {
                    outcome: if denied { Outcome::Denied } else { Outcome::Admitted },
                    ..admitted(0, at)
                }
            };
            record.history.operations = (0..4_400).map(ask).collect();
            check(&record).details.len()
        };
        assert_eq!((told(2), told(6)), (0, 1));
    }

    #[test]
    fn a_node_that_gets_next_to_nothing_is_found() {
        let finding = under_pressure(|n, node| node == 0 || n % 20 == 1);
        assert!(finding.details.iter().any(|text| text.starts_with("n2 had")), "{finding:?}");
    }
}
