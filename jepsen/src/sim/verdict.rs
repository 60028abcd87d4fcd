//! Whether a simulated run kept the promises.

use std::{collections::BTreeMap, time::Duration};

use super::{
    node::{ALL, Did, GIVEN_BACK, KEYS, KINDS, RuleOperation},
    plan::Plan,
};
use crate::{
    check::{
        bound::Bound,
        ledger::{self, Lines},
        linear,
    },
    history::{Operation, Outcome, Refund},
};

/// What nodes tell of a domain, by their names.
pub(super) type Histories = BTreeMap<String, Lines>;

/// Steps of the search for an order.
const STEPS: u64 = 2_000_000;
/// After the cluster is whole it may take so long until each node knows it.
const SETTLES_NS: u64 = 500_000_000;

/// A second and an hour of a clock that is as fast as it may be.
const SECOND: Duration = Duration::from_nanos(999_000_000);
const HOUR: Duration = Duration::from_secs(3_596);

/// What the rule of a key may admit: what its limit says, times what the rule says of itself for what has happened.
fn bound_of(key: u32, plan: &Plan) -> Bound {
    let of = |burst, count, period| Bound { burst, count, period };
    if key == ALL {
        return of(20, 50, SECOND);
    }
    match KINDS[(key / KEYS) as usize] {
        "strict" => of(8, 20, SECOND),
        "carved" => of(24, 24, SECOND),
        "long" => of(60, 60, HOUR),
        // What it says of itself: once for each side.
        _ if plan.cuts() => of(plan.sides().max(2) * 8, plan.sides().max(2) * 20, SECOND),
        _ => of(8, 20, SECOND),
    }
}

fn name_of(key: u32) -> String {
    if key == ALL { "all".to_owned() } else { format!("{}/{key}", KINDS[(key / KEYS) as usize]) }
}

/// In no interval was more admitted than allowed.
pub(super) fn bounds(plan: &Plan, operations: &[Operation], refunds: &[Refund]) -> Vec<String> {
    let mut faults = Vec::new();
    for key in 0..=ALL {
        let bound = bound_of(key, plan);
        let of_key = operations.iter().filter(|operation| operation.key == key);
        if key == GIVEN_BACK {
            let worst = bound.worst_with_refunds(of_key, &refunds.iter().collect::<Vec<_>>());
            if worst.burst > bound.burst {
                let (from, to) = (worst.from as f64 / 1e9, worst.to as f64 / 1e9);
                faults.push(format!(
                    "too much admitted for the key {}, of which units are given back: {} between {from:.3} s and {to:.3} s ({bound:?})",
                    name_of(key),
                    worst.inside
                ));
            }
            continue;
        }
        if let Err(violation) = bound.check(of_key) {
            let at = violation.completed as f64 / 1e9;
            let early = violation.early_by as f64 / 1e6;
            faults.push(format!(
                "too much admitted for the key {}: the check answered at {at:.3} s came {early:.3} ms too early ({bound:?})",
                name_of(key)
            ));
        }
    }
    faults
}

/// A cluster that is whole decides each check at its owner.
pub(super) fn owners_decide(operations: &[Operation], whole_at_ms: u64) -> Option<String> {
    let since = whole_at_ms * 1_000_000 + SETTLES_NS;
    let other = operations.iter().filter(|one| one.invoked >= since).find(|one| {
        let by_owner = |(by, _): &(String, String)| by == "owner" || by == "forwarded";
        match one.outcome {
            Outcome::Admitted => !one.decided_by.as_ref().is_some_and(by_owner),
            // Denied by the other rule of the check, perhaps.
            Outcome::Denied => !one.decided_by.as_ref().is_none_or(by_owner),
            Outcome::Refused | Outcome::Unknown => true,
        }
    })?;
    Some(format!("a whole cluster does not decide as one: {other:?}"))
}

/// Rules are linearizable, and none that was acknowledged is lost.
pub(super) fn rules(operations: &[RuleOperation], histories: &[Histories]) -> Vec<String> {
    let mut faults = Vec::new();
    for (domain, histories) in histories.iter().enumerate() {
        let of_domain = || operations.iter().filter(move |one| one.domain == domain);
        let writes: Vec<ledger::Write> = of_domain()
            .filter_map(|one| match one.did {
                Did::Write(value, told) => Some(ledger::Write { value, told }),
                Did::Read(_) => None,
            })
            .collect();
        if let Err(fault) = ledger::check(&writes, &up_to_the_shortest(histories)) {
            faults.push(format!("rules of d{domain}: {fault:?}"));
        }
        let calls: Vec<linear::Operation> = of_domain()
            .filter(|one| !matches!(one.did, Did::Write(_, ledger::Told::NotWritten)))
            .map(|one| linear::Operation { called: one.called, answered: one.answered, act: one.act() })
            .collect();
        match linear::check(&calls, STEPS) {
            linear::Verdict::Linearizable | linear::Verdict::Undecided => {}
            linear::Verdict::Violated { stuck_at } => {
                let stuck: Vec<_> = stuck_at.iter().take(3).map(|place| &calls[*place]).collect();
                faults
                    .push(format!("rules of d{domain} are not linearizable: none can be next of {stuck:?}"));
            }
        }
    }
    faults
}

/// Rules are written until the end: one node may be a little ahead. Nodes that are behind are compared up to where they
/// are, and what was acknowledged must be at the one that is furthest.
fn up_to_the_shortest(histories: &Histories) -> Histories {
    let longest = histories.values().max_by_key(|lines| lines.last().map(|line| line.0));
    let Some(longest) = longest else { return Histories::new() };
    histories
        .iter()
        .map(|(name, lines)| {
            let last = lines.last().map_or(0, |line| line.0);
            let mut all = lines.clone();
            all.extend(longest.iter().filter(|line| line.0 > last));
            (name.clone(), all)
        })
        .collect()
}
