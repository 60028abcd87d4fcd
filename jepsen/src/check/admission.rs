//! Was more admitted than a rule says that it may, for any key, in any interval?
//!
//! What a rule may is what it says of itself (`worst_case`) for what happened: once its bound everywhere, and where it says
//! more of partitions, that much through the whole run, and once in each part of it that no partition touches. A clock that
//! runs faster than ours by what is promised may admit so much more; the rest of the run is held against the rule as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Finding,
    bound::{Bound, Worst},
    times,
};
use crate::{
    history::{Operation, Outcome, Refund},
    record::Record,
};

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfRule {
    /// Which.
    pub name: String,
    /// As it was written.
    pub text: String,
    /// Keys that were asked about.
    pub keys: usize,
    /// Checks admitted, of all keys.
    pub admitted: u64,
    /// Checks denied.
    pub denied: u64,
    /// How many times its bound it may admit after what happened; `None`: it has none.
    pub times: Option<u32>,
    /// What that allows.
    pub bound: Bound,
    /// The key that came nearest to it.
    pub worst_key: String,
    /// The interval in which it did.
    pub worst: Worst,
    /// Whether more was admitted than that anywhere.
    pub exceeded: bool,
}

/// What a clock may run faster than another one, in thousandths.
const CLOCK_MARGIN: u64 = 1;

/// A bound, and the parts of the run that it holds in.
struct Held {
    bound: Bound,
    parts: Vec<times::Interval>,
    /// For people: why these parts.
    because: &'static str,
}

impl Held {
    /// Of its parts what lies before an instant.
    fn until(mut self, end: u64) -> Self {
        self.parts.iter_mut().for_each(|part| part.1 = part.1.min(end));
        self.parts.retain(|(from, to)| from < to);
        self
    }
}

/// What a rule is held against: `often` its bound through the whole run, `once` its bound where no partition was.
fn held(record: &Record, often: &Bound, once: Option<&Bound>) -> Vec<Held> {
    let (begun, ended) = (record.times.begun, record.times.ended);
    let (partitions, drifts) = (times::partitions(record), times::drifts(record));
    let margin = |bound: &Bound| if drifts.is_empty() { *bound } else { faster(bound) };
    let mut all = vec![Held { bound: margin(often), parts: vec![(0, u64::MAX)], because: "" }];
    if let Some(once) = once {
        let parts = times::without(&partitions, begun, ended);
        all.push(Held { bound: margin(once), parts, because: ", and no partition touches it" });
    }
    if !drifts.is_empty() {
        let parts = times::without(&drifts, begun, ended);
        all.push(Held { bound: *often, parts, because: ", and all clocks ran alike" });
        if let Some(once) = once {
            let parts = times::without(&times::both(&partitions, &drifts), begun, ended);
            let because = ", no partition touches it, and all clocks ran alike";
            all.push(Held { bound: *once, parts, because });
        }
    }
    all
}

/// What was done to a bucket.
#[derive(Default)]
struct Done<'r> {
    checks: Vec<&'r Operation>,
    refunds: Vec<&'r Refund>,
}

impl Done<'_> {
    /// The interval that comes nearest to the bound, of those between two instants.
    fn worst(&self, bound: &Bound, (from, to): (u64, u64)) -> Worst {
        let checks = self.checks.iter().filter(|one| one.invoked >= from && one.completed <= to).copied();
        if self.refunds.is_empty() {
            bound.worst(checks)
        } else {
            bound.worst_with_refunds(checks, &self.refunds)
        }
    }
}

/// What was done to each bucket: by rule, and by the value of its key.
fn by_bucket(record: &Record) -> BTreeMap<(usize, &str), Done<'_>> {
    let mut buckets: BTreeMap<(usize, &str), Done<'_>> = BTreeMap::new();
    let of =
        |key: u32| record.setup.questions.get(key as usize).map_or(&[][..], |question| &question.buckets);
    for operation in &record.history.operations {
        for (rule, value) in of(operation.key) {
            buckets.entry((*rule, value)).or_default().checks.push(operation);
        }
    }
    for refund in &record.refunds {
        for (rule, value) in of(refund.key) {
            buckets.entry((*rule, value)).or_default().refunds.push(refund);
        }
    }
    buckets
}

/// Holds each bucket against its bound in every interval.
pub fn check(record: &Record) -> (Vec<OfRule>, Finding) {
    let partitions = times::partitions(record);
    let agree_until = times::wall_clocks_agree_until(record);
    let buckets = by_bucket(record);
    let (mut rules, mut wrong) = (Vec::new(), Vec::new());
    for (place, limited) in record.setup.limits.iter().enumerate() {
        let factor = if partitions.is_empty() { limited.crash } else { limited.partition };
        let bound = times_bound(&limited.bound, factor.unwrap_or(1));
        let mut of_rule = OfRule {
            name: limited.name.clone(),
            text: limited.text.clone(),
            keys: 0,
            admitted: 0,
            denied: 0,
            times: factor,
            bound,
            worst_key: String::new(),
            worst: Worst::default(),
            exceeded: false,
        };
        let once = times_bound(&limited.bound, limited.crash.unwrap_or(1));
        let held = match factor {
            None => Vec::new(),
            Some(factor) => held(record, &bound, Some(&once).filter(|_| factor > 1)),
        };
        let until = if limited.lies_by_the_wall_clock() { agree_until } else { u64::MAX };
        let held: Vec<Held> = held.into_iter().map(|held| held.until(until)).collect();
        let of_place = buckets.range((place, "")..(place + 1, ""));
        for ((_, value), done) in of_place {
            let with = |outcome| done.checks.iter().filter(|one| one.outcome == outcome).count() as u64;
            of_rule.keys += 1;
            of_rule.admitted += with(Outcome::Admitted);
            of_rule.denied += with(Outcome::Denied);
            let worst = done.worst(&bound, (0, u64::MAX));
            if worst.burst > of_rule.worst.burst || of_rule.worst_key.is_empty() {
                (of_rule.worst, of_rule.worst_key) = (worst, (*value).to_owned());
            }
            for Held { bound, parts, because } in &held {
                for part in parts {
                    let worst = done.worst(bound, *part);
                    if worst.burst > bound.burst {
                        let text = excess(record, &limited.name, value, bound, &worst);
                        wrong.push(format!("{text}{because}"));
                        of_rule.exceeded = true;
                    }
                }
            }
        }
        rules.push(of_rule);
    }
    let keys: usize = rules.iter().map(|rule| rule.keys).sum();
    let count = record.history.operations.len();
    let says = format!(
        "{count} checks of {keys} buckets of {} rules, and {} units given back, in every interval",
        rules.len(),
        record.refunds.len()
    );
    (rules, Finding::of("admission bound", says, wrong))
}

/// What a clock admits that runs faster by the margin.
fn faster(bound: &Bound) -> Bound {
    Bound { count: bound.count * (1_000 + CLOCK_MARGIN), period: bound.period * 1_000, ..*bound }
}

fn times_bound(bound: &Bound, times: u32) -> Bound {
    Bound { burst: bound.burst * u64::from(times), count: bound.count * u64::from(times), ..*bound }
}

fn excess(record: &Record, rule: &str, key: &str, bound: &Bound, worst: &Worst) -> String {
    let length = std::time::Duration::from_nanos(worst.to - worst.from);
    format!(
        "{rule}, key {key}: {} admitted in {:.3} s from second {:.3} on, {} allowed",
        worst.inside,
        length.as_secs_f64(),
        record.seconds(worst.from),
        bound.allowance(length),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Kind;
    use crate::record::tests::{SECOND, admitted, fault, record};

    #[test]
    fn a_rule_that_is_exact_may_not_have_more_in_a_partition_either() {
        let mut record = record();
        record.faults.push(fault(Kind::Alone, "n2", 10, 15));
        record.history.operations.extend((0..51).map(|n| admitted(0, 11 * SECOND + n * 1_000)));
        let (rules, finding) = check(&record);
        assert_eq!(finding.verdict, super::super::Verdict::Violated, "{finding:?}");
        assert!(rules[0].exceeded);
        assert_eq!((rules[0].worst.inside, rules[0].worst_key.as_str()), (51, "k0"));
    }

    #[test]
    fn what_a_rule_says_of_partitions_counts_in_partitions_only() {
        let twice = |at: u64| {
            let mut record = record();
            record.faults.push(fault(Kind::Alone, "n2", 10, 15));
            // The second rule may admit twice its burst of 20.
            record.history.operations.extend((0..40).map(|n| admitted(1, at * SECOND + n * 1_000)));
            check(&record).1
        };
        assert_eq!(twice(12).details, [""; 0]);
        assert!(twice(5).details[0].contains("no partition touches it"));
        assert_eq!(twice(40).details.len(), 1);
    }

    #[test]
    fn what_was_given_back_may_be_admitted_once_more() {
        let mut record = record();
        record.history.operations.extend((0..51).map(|n| admitted(0, 11 * SECOND + n * 1_000)));
        let refund = |key, at| Refund { invoked: at, completed: Some(at + 1), key, node: 0 };
        record.refunds.push(refund(1, 11 * SECOND));
        assert_eq!(check(&record).1.details.len(), 1, "it was of another key");
        record.refunds.push(refund(0, 11 * SECOND));
        assert_eq!(check(&record).1.details, [""; 0]);
    }

    #[test]
    fn a_clock_may_be_faster_by_what_is_promised_while_it_is() {
        // A bucket of 50 that is kept empty from second 5 on, by a clock that is faster by half a thousandth: until second 45
        // that makes four units.
        let by_clock = |kind: Kind, ppm: u64| {
            let mut record = record();
            record.faults.push(fault(kind, "n2", 5, 45));
            let pace = 5_000_000 * 1_000_000 / (1_000_000 + ppm);
            let ticks = (0..8_000).map(|tick| 5 * SECOND + tick * pace);
            record.history.operations = (0..50).map(|_| admitted(0, 5 * SECOND)).collect();
            record.history.operations.extend(ticks.skip(1).map(|at| admitted(0, at)));
            check(&record).1.details
        };
        assert_eq!(by_clock(Kind::ClockDrift, 500), [""; 0]);
        assert_eq!(by_clock(Kind::ClockDrift, 3_000).len(), 1);
        assert_eq!(by_clock(Kind::ClockRunaway, 50_000).len(), 1);
        // Where no clock is said to be faster there is no margin.
        let found = by_clock(Kind::Kill, 500);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn windows_promise_nothing_once_wall_clocks_differ() {
        let excess_at = |second: u64, text: &str| {
            let mut record = record();
            record.setup.limits[0].text = text.to_owned();
            record.faults.push(fault(Kind::ClockJump, "n2", 20, 22));
            record.history.operations.extend((0..51).map(|n| admitted(0, second * SECOND + n * 1_000)));
            check(&record).1.details.len()
        };
        assert_eq!(
            (excess_at(15, "algorithm: fixed_window"), excess_at(25, "algorithm: fixed_window")),
            (1, 0)
        );
        assert_eq!((excess_at(15, ""), excess_at(25, "")), (1, 1));
    }

    #[test]
    fn several_rules_take_from_one_question() {
        let mut record = record();
        record.setup.questions[1].buckets.push((0, "k0".to_owned()));
        record.history.operations.extend((0..30).map(|n| admitted(0, SECOND + n)));
        assert!(check(&record).1.details.is_empty());
        record.history.operations.extend((0..21).map(|n| admitted(1, SECOND + n)));
        assert_eq!(check(&record).1.details.len(), 2);
    }
}
