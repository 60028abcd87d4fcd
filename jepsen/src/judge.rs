//! All checkers about one run, and the verdict.

use serde::{Deserialize, Serialize};

use crate::{
    check::{
        Finding, Verdict,
        admission::{self, OfRule},
        availability::{self, Phase},
        coverage::{self, OfKind},
        deciders, fairness, healing, leaks, processes,
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
    if !record.times.interrupted {
        findings.push(healing::check(record));
    }
    findings.extend(of_register(record));
    findings.extend([processes::check(record), leaks::check(record), coverage]);
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Unknown);
    Judgement { verdict, findings, rules: of_rules, phases, coverage: of_kinds }
}

/// Rules as a register: linearizable, nothing acknowledged lost, one order.
fn of_register(record: &Record) -> [Finding; 2] {
    let mut report = rules::Report::default();
    rules::judge(&record.rules, &record.told, &mut report);
    let (linear, ledger): (Vec<String>, Vec<String>) =
        report.faults.into_iter().partition(|fault| fault.contains("linearizable"));
    let says =
        format!("{} writes, {} linearizable reads, {} refused", report.written, report.reads, report.refused);
    let mut linear = Finding::of("rules are linearizable", says, linear);
    if linear.details.iter().any(|fault| fault.contains("was not found out")) {
        linear.verdict = Verdict::Unknown;
    }
    let says = format!(
        "{} acknowledged, {} repeated without an answer, {} unknown; {} nodes tell the same history",
        report.written,
        record.repeated,
        report.unknown,
        record.told.iter().flatten().map(std::collections::BTreeMap::len).max().unwrap_or(0)
    );
    let mut ledger = Finding::of("no acknowledged rule is lost", says, ledger);
    if report.written == 0 {
        (linear.verdict, ledger.verdict) = (Verdict::Unknown, Verdict::Unknown);
    }
    [linear, ledger]
}
