//! Was more admitted than a rule says that it may, for any key, in any interval?
//!
//! Each algorithm has its law ([`super::law`]), and it holds in every interval of the run, but for what an interval may admit
//! beyond it because it meets a time in which something has added to it:
//!
//! - a unit that was given back;
//! - a partition, as the rule says of itself (`worst_case`): once more a burst for each cut, and what refills in its time;
//! - a clock that runs faster than ours, by what is promised;
//! - an owner that hangs for less than a session and goes on, for rules with shares that are not carved: what refills meanwhile;
//! - a machine that was stopped under its node, so that its clock stood still: no limiter can know. One session, for every rule.
//!
//! On each side of a cut a rule admits no more than once its law, whatever it says of partitions: that is held against the
//! checks that nodes of a side were asked, from the end of the partition before to the end of the cut.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Finding,
    bound::{Bound, Worst},
    held::Held,
    law::{Admitted, Beyond, More},
    refunds,
    times::{self, Interval, Partition},
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
    /// Its limit.
    pub bound: Bound,
    /// The key that came nearest to it.
    pub worst_key: String,
    /// The interval in which it did.
    pub worst: Worst,
    /// What was allowed in that, with what was given back or added.
    #[serde(default)]
    pub allowed: u64,
    /// Whether more was admitted than that anywhere.
    pub exceeded: bool,
}

/// What was done to a bucket.
#[derive(Default)]
struct Done<'r> {
    checks: Vec<&'r Operation>,
    refunds: Vec<&'r Refund>,
}

impl Done<'_> {
    /// What was admitted and may count, sorted.
    fn admitted(&self, rule: &Held<'_>, may: impl Fn(&Operation) -> bool) -> Vec<Admitted> {
        let admitted = self.checks.iter().filter(|one| one.outcome == Outcome::Admitted);
        let mut admitted: Vec<Admitted> = admitted
            .filter(|one| one.completed <= rule.until && may(one))
            .map(|one| Admitted {
                from: one.invoked,
                to: one.completed,
                count: rule
                    .in_force
                    .as_ref()
                    .map_or(rule.limit.bound.count, |in_force| in_force.loosest(one.invoked, one.completed)),
            })
            .collect();
        admitted.sort_unstable_by_key(|one| one.from);
        admitted
    }

    /// What is beyond the law, with what was given back.
    fn beyond(&self, rule: &Held<'_>, always: &[More], known: &Beyond) -> Beyond {
        if self.refunds.is_empty() {
            return known.clone();
        }
        let refunds = self.refunds.iter().map(|one| refunds::more_of(one));
        rule.limit.beyond(&always.iter().copied().chain(refunds).collect::<Vec<_>>())
    }
}

/// A cut that has sides, and the time in which each side is to keep the law by itself.
struct Sides<'r> {
    sides: &'r [Vec<String>],
    during: Interval,
}

/// The cuts that nothing mixes with until they are over, or something else begins: each is the first of its partition.
fn sides<'r>(record: &'r Record, partitions: &[Partition]) -> Vec<Sides<'r>> {
    let cuts = times::cuts(record);
    let mut begins: Vec<u64> = cuts.iter().map(|cut| cut.begun.saturating_sub(times::EDGE)).collect();
    begins.extend(times::without_majority(record).iter().map(|(from, _)| *from));
    let of_cut = |cut: &'r crate::nemesis::Fault| {
        let own = cut.begun.saturating_sub(times::EDGE);
        let place = partitions.iter().position(|one| one.from == own)?;
        let since = place.checked_sub(1).map_or(0, |before| partitions[before].to);
        let next = begins.iter().copied().filter(|begin| *begin > own).min().unwrap_or(u64::MAX);
        let alone = begins.iter().filter(|begin| **begin == own).count() == 1;
        alone.then_some(Sides { sides: &cut.sides, during: (since, cut.ended?.min(next)) })
    };
    cuts.into_iter().filter(|cut| cut.sides.len() > 1).filter_map(of_cut).collect()
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
    let sides = sides(record, &partitions);
    let buckets = by_bucket(record);
    let (mut rules, mut wrong) = (Vec::new(), Vec::new());
    for (place, limited) in record.setup.limits.iter().enumerate() {
        let factor = if partitions.is_empty() { limited.crash } else { limited.partition };
        let held = Held::new(record, limited, &partitions);
        let all = [&held.always[..], &held.partitions].concat();
        let (beyond, at_a_side) = (held.limit.beyond(&all), held.limit.beyond(&held.always));
        let mut of_rule = OfRule {
            name: limited.name.clone(),
            text: limited.text.clone(),
            keys: 0,
            admitted: 0,
            denied: 0,
            times: factor,
            bound: limited.bound,
            worst_key: String::new(),
            worst: Worst::default(),
            allowed: 0,
            exceeded: false,
        };
        for ((_, value), done) in buckets.range((place, "")..(place + 1, "")) {
            let with = |outcome| done.checks.iter().filter(|one| one.outcome == outcome).count() as u64;
            of_rule.keys += 1;
            of_rule.admitted += with(Outcome::Admitted);
            of_rule.denied += with(Outcome::Denied);
            let beyond = done.beyond(&held, &all, &beyond);
            let worst = held.limit.worst(&done.admitted(&held, |_| true), &beyond);
            if worst.burst > of_rule.worst.burst || of_rule.worst_key.is_empty() {
                (of_rule.worst, of_rule.worst_key) = (worst, (*value).to_owned());
            }
            if factor.is_none() {
                continue;
            }
            if worst.burst > limited.bound.burst {
                let touches = partitions.iter().any(|one| one.from <= worst.to && one.to >= worst.from);
                let because = if touches { "" } else { ", and no partition touches it" };
                wrong.push(format!("{}{because}", excess(record, &held, value, &worst)));
                of_rule.exceeded = true;
            } else if !held.partitions.is_empty() {
                let beyond = done.beyond(&held, &held.always, &at_a_side);
                for (side, worst) in exceeding_sides(&sides, &held, done, &beyond) {
                    let text = excess(record, &held, value, &worst);
                    wrong.push(format!("{text}, at one side of a cut ({})", side.join(",")));
                    of_rule.exceeded = true;
                }
            }
        }
        of_rule.allowed = held.allowed(&of_rule.worst);
        rules.push(of_rule);
    }
    let keys: usize = rules.iter().map(|rule| rule.keys).sum();
    let count = record.history.operations.len();
    let (begun, ended) = (record.times.begun, record.times.ended);
    let within = |one: &Partition| one.to.min(ended).saturating_sub(one.from.max(begun));
    let broken: u64 = partitions.iter().map(within).sum();
    let says = format!(
        "{count} checks of {keys} buckets of {} rules, and {} units given back, in every interval; {:.0} s of {:.0} s outside \
         of {} partitions, and each side of {} cuts by itself",
        rules.len(),
        record.refunds.len(),
        ended.saturating_sub(begun + broken) as f64 / 1e9,
        ended.saturating_sub(begun) as f64 / 1e9,
        partitions.len(),
        sides.len()
    );
    (rules, Finding::of("admission bound", says, wrong))
}

/// The sides at which more was admitted than once the law.
fn exceeding_sides<'s>(
    sides: &[Sides<'s>],
    held: &Held<'_>,
    done: &Done<'_>,
    beyond: &Beyond,
) -> Vec<(&'s [String], Worst)> {
    let mut exceeding = Vec::new();
    for Sides { sides, during } in sides {
        for side in *sides {
            let is_asked = |one: &Operation| {
                one.invoked >= during.0
                    && one.completed <= during.1
                    && side.iter().any(|name| name[1..].parse() == Ok(one.node + 1))
            };
            let worst = held.limit.worst(&done.admitted(held, is_asked), beyond);
            if worst.burst > held.limited.bound.burst {
                exceeding.push((&side[..], worst));
            }
        }
    }
    exceeding
}

fn excess(record: &Record, held: &Held<'_>, key: &str, worst: &Worst) -> String {
    format!(
        "{}, key {key}: {} admitted in {:.3} s from second {:.3} on, {} allowed",
        held.limited.name,
        worst.inside,
        (worst.to - worst.from) as f64 / 1e9,
        record.seconds(worst.from),
        held.allowed(worst),
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
        assert_eq!(twice(21).details.len(), 1, "it has lingered for a session and a takeover");
    }

    #[test]
    fn a_partition_adds_what_refills_in_its_time_and_nothing_in_another() {
        // Idle before, a burst for each of two sides, and from then on twice the rate: until second 15, and five more.
        let of = |until: u64, more: u64| {
            let mut record = record();
            record.faults.push(fault(Kind::Alone, "n2", 10, 15));
            record.history.operations.extend((0..40 + more).map(|n| admitted(1, 10 * SECOND + n * 1_000)));
            record
                .history
                .operations
                .extend((1..(until - 10) * 40).map(|n| admitted(1, 10 * SECOND + n * SECOND / 40)));
            check(&record).1.details.len()
        };
        assert_eq!((of(20, 0), of(22, 0), of(20, 20)), (0, 1, 1));
    }

    #[test]
    fn each_side_of_a_cut_keeps_the_law_by_itself() {
        let of = |at_one: u64, at_other: u64| {
            let mut record = record();
            let mut cut = fault(Kind::Alone, "n2", 10, 15);
            cut.sides = vec![vec!["n1".to_owned()], vec!["n2".to_owned()]];
            record.faults.push(cut);
            let at = |node, count| {
                (0..count).map(move |n| Operation { node, ..admitted(1, 12 * SECOND + n * 1_000) })
            };
            record.history.operations.extend(at(0, at_one).chain(at(1, at_other)));
            check(&record).1.details
        };
        assert_eq!(of(20, 20), [""; 0]);
        let found = of(5, 21);
        assert!(found.len() == 1 && found[0].contains("at one side of a cut (n2)"), "{found:?}");
        assert_eq!(of(21, 21).len(), 2);
    }

    #[test]
    fn a_cut_counts_until_the_next_one_begins_and_that_one_does_not() {
        let of = |at: u64| {
            let mut record = record();
            for (from, to) in [(10, 15), (17, 20)] {
                let mut cut = fault(Kind::Alone, "n2", from, to);
                cut.sides = vec![vec!["n1".to_owned()], vec!["n2".to_owned()]];
                record.faults.push(cut);
            }
            record.history.operations.extend((0..21).map(|n| admitted(1, at * SECOND + n * 1_000)));
            check(&record).1.details.len()
        };
        // The buckets of both sides may still be there when the second one begins.
        assert_eq!((of(12), of(18)), (1, 0));
    }

    #[test]
    fn a_fault_that_cuts_nobody_off_allows_nothing() {
        for kind in [Kind::Kill, Kind::Slow, Kind::Loss, Kind::Double, Kind::Drain, Kind::Flood] {
            let mut record = record();
            record.setup.nodes = 5;
            record.faults.push(fault(kind, "n2", 10, 15));
            record.history.operations.extend((0..21).map(|n| admitted(1, 12 * SECOND + n * 1_000)));
            assert_eq!(check(&record).1.details.len(), 1, "{kind:?}");
        }
    }

    #[test]
    fn an_owner_that_hangs_adds_what_refills_where_shares_are_not_carved() {
        let of = |text: &str, long: u64| {
            let mut record = record();
            record.setup.nodes = 5;
            record.setup.limits[0].text = text.to_owned();
            record.faults.push(fault(Kind::Pause, "n2", 20, 20 + long));
            // Two seconds' worth more than a full bucket.
            record.history.operations.extend((0..400).map(|n| admitted(0, 20 * SECOND + n * 1_000)));
            check(&record).1.details.len()
        };
        let shares = "consistency: strict, on_owner_loss: share";
        assert_eq!((of(shares, 2), of(shares, 1)), (0, 1));
        assert_eq!((of("on_owner_loss: share, carved: true", 2), of(shares, 9)), (1, 1));
    }

    #[test]
    fn a_machine_that_was_stopped_has_one_session_and_no_more() {
        let of = |at: u64, count: u64| {
            let mut record = record();
            record.setup.nodes = 5;
            record.faults.push(fault(Kind::VmStop, "n2", 20, 24));
            record.history.operations.extend((0..count).map(|n| admitted(0, at * SECOND + n * 1_000)));
            check(&record).1.details.len()
        };
        // A burst of 50, one more, and 200 a second for 2.8 s.
        assert_eq!((of(25, 50 + 50 + 560), of(25, 50 + 50 + 561)), (0, 1));
        assert_eq!((of(22, 51), of(27, 51)), (1, 1));
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
