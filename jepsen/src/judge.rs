//! All checkers about one run, and the verdict.

use serde::{Deserialize, Serialize};

use crate::{
    check::{
        Finding, Verdict,
        admission::{self, OfRule},
        availability::{self, Phase},
        coverage::{self, OfKind},
        deciders, fairness, healing, leaks, one_cluster, processes, strangers,
    },
    record::Record,
    workload::rules,
};

/// What all checkers say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Violated if one says so, else unknown if one does.
    pub verdict: Verdict,
    /// Of each checker.
    pub findings: Vec<Finding>,
    /// What came of each rule.
    pub rules: Vec<OfRule>,
    /// What callers saw.
    pub phases: Vec<Phase>,
    /// What became of each kind of fault.
    pub coverage: Vec<OfKind>,
}

/// Asks all checkers.
pub fn judge(record: &Record) -> Judgement {
    let (of_rules, admission) = admission::check(record);
    let (phases, availability) = availability::check(record);
    let (of_kinds, coverage) = coverage::check(record);
    let mut findings = vec![admission, deciders::check(record), availability, fairness::check(record)];
    findings.extend([strangers::check(record), one_cluster::check(record)]);
    if !record.times.interrupted {
        findings.push(healing::check(record));
    }
    findings.extend(of_register(record, rules::STEPS));
    findings.extend([processes::check(record), leaks::check(record), coverage]);
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Unknown);
    Judgement { verdict, findings, rules: of_rules, phases, coverage: of_kinds }
}

/// Rules as a register: linearizable, nothing acknowledged lost, one order.
fn of_register(record: &Record, steps: u64) -> [Finding; 2] {
    let mut report = rules::Report::default();
    rules::judge(&record.rules, &record.rule_histories, steps, &mut report);
    let (linear, ledger): (Vec<String>, Vec<String>) =
        report.faults.into_iter().partition(|fault| fault.contains("linearizable"));
    let says =
        format!("{} writes, {} linearizable reads, {} refused", report.written, report.reads, report.refused);
    let mut linear = Finding::of("rules are linearizable", says, linear);
    if linear.details.is_empty() && !report.undecided.is_empty() {
        (linear.verdict, linear.details) = (Verdict::Unknown, report.undecided);
    }
    let says = format!(
        "{} acknowledged, {} repeated without an answer, {} unknown; {} nodes tell the same history",
        report.written,
        record.repeated,
        report.unknown,
        record.rule_histories.iter().flatten().map(std::collections::BTreeMap::len).max().unwrap_or(0)
    );
    let mut ledger = Finding::of("no acknowledged rule is lost", says, ledger);
    if report.written == 0 {
        (linear.verdict, ledger.verdict) = (Verdict::Unknown, Verdict::Unknown);
    }
    [linear, ledger]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::linear::Act, record::tests::record, workload::rules::Done};

    #[test]
    fn a_search_that_finds_no_end_is_unknown_and_a_violation_elsewhere_is_one_all_the_same() {
        let mut record = record();
        record.rule_histories = vec![Ok(Default::default()); 2];
        let did =
            |domain, at: u64, act| Done { domain, called: at, answered: Some(at + 1), act, write: None };
        record.rules = (0..24).map(|n| did(0, 10 * n, Act::Write(n))).collect();
        // Some write counts, so that it is not for want of any.
        record.rules[0].write = Some(crate::check::ledger::Write {
            value: 0,
            outcome: crate::check::ledger::WriteOutcome::Written(1),
        });
        let of = |record: &Record, steps| of_register(record, steps)[0].clone();
        assert_eq!(of(&record, rules::STEPS).verdict, Verdict::Valid);
        let undecided = of(&record, 10);
        assert_eq!((undecided.verdict, undecided.details.len()), (Verdict::Unknown, 1));
        record.rules.push(did(1, 10, Act::Read(Some(7))));
        assert_eq!(of(&record, 10).verdict, Verdict::Violated);
    }
}
