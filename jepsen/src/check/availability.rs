//! Was each check answered, and how fast, in each phase? A node that runs, and was not stopped or restarted meanwhile, has
//! no reason not to answer, whatever happens to others.

use serde::{Deserialize, Serialize};

use super::{Finding, times};
use crate::{
    history::{Operation, Outcome},
    record::Record,
};

/// An answer that takes longer at a node that has no reason: the check timeout is 100 ms, the rest is for a machine whose
/// processors are all busy.
const TOO_LATE: u64 = 5_000_000_000;

/// What callers saw in a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Which: `calm`, a kind of fault, `healed`.
    pub name: String,
    /// How long, in nanoseconds, all its times together.
    pub length: u64,
    /// Checks that began in it.
    pub checks: usize,
    /// Decided by the owner.
    pub by_owner: usize,
    /// Decided by what the rule says for the loss of its owner.
    pub by_loss: usize,
    /// No answer, or a refusal.
    pub failed: usize,
    /// Those at nodes that had no reason.
    pub failed_without_reason: usize,
    /// Half of the answers of nodes without trouble came within so many nanoseconds, 99 of 100, 999 of 1000, all.
    pub latencies: [u64; 4],
}

/// Whether a check was answered.
fn is_answered(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Admitted | Outcome::Denied)
}

/// Looks at all phases; a check counts in each phase in which it began.
pub fn check(record: &Record) -> (Vec<Phase>, Finding) {
    let impaired: Vec<_> =
        (0..u16::from(record.setup.nodes)).map(|node| times::impaired(record, node)).collect();
    let has_reason = |operation: &Operation| {
        times::meets(&impaired[usize::from(operation.node)], operation.invoked, operation.completed)
    };
    let times = &record.times;
    let mut phases = vec![("calm".to_owned(), vec![(times.begun, times.broken.min(times.ended))])];
    let mut kinds: Vec<_> = record.faults.iter().map(|fault| fault.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind = record.faults.iter().filter(|fault| fault.kind == kind);
        let intervals = of_kind.map(|fault| (fault.begun, fault.ended.unwrap_or(times.ended))).collect();
        phases.push((kind.name().to_owned(), intervals));
    }
    phases.extend(times.settled.map(|settled| ("healed".to_owned(), vec![(settled, times.ended)])));

    let mut operations: Vec<&Operation> = record.history.operations.iter().collect();
    operations.sort_unstable_by_key(|operation| operation.invoked);
    let rows = phases.into_iter().map(|(name, intervals)| {
        let inside: Vec<&Operation> = intervals
            .iter()
            .flat_map(|(from, to)| {
                let first = operations.partition_point(|one| one.invoked < *from);
                let end = operations.partition_point(|one| one.invoked < *to);
                operations[first..end.max(first)].iter().copied()
            })
            .collect();
        phase(name, intervals.iter().map(|(from, to)| to.saturating_sub(*from)).sum(), &inside, &has_reason)
    });
    let rows: Vec<Phase> = rows.collect();

    let failed = operations.iter().filter(|one| !is_answered(one) && !has_reason(one));
    let late = operations
        .iter()
        .filter(|one| is_answered(one) && one.completed - one.invoked > TOO_LATE && !has_reason(one));
    let tell = |one: &&Operation, what: &str| {
        format!(
            "n{} at second {:.3}: {what} {:.3} s ({})",
            one.node + 1,
            record.seconds(one.invoked),
            (one.completed - one.invoked) as f64 / 1e9,
            record.setup.questions[one.key as usize].path
        )
    };
    let wrong: Vec<String> = failed
        .map(|one| tell(one, "no answer within"))
        .chain(late.map(|one| tell(one, "an answer after")))
        .collect();
    let answered = operations.iter().filter(|one| is_answered(one)).count();
    let says = format!(
        "{answered} of {} checks answered; {} not, at nodes that had no reason",
        operations.len(),
        wrong.len()
    );
    (rows, Finding::of("every check is answered", says, wrong))
}

fn phase(
    name: String,
    length: u64,
    inside: &[&Operation],
    has_reason: &impl Fn(&Operation) -> bool,
) -> Phase {
    let by = |ways: &[&str]| {
        let decided = |one: &&&Operation| {
            is_answered(one) && one.decided_by.as_ref().is_some_and(|(how, _)| ways.contains(&&**how))
        };
        inside.iter().filter(decided).count()
    };
    let mut latencies: Vec<u64> = inside
        .iter()
        .filter(|one| is_answered(one) && !has_reason(one))
        .map(|one| one.completed - one.invoked)
        .collect();
    latencies.sort_unstable();
    let at = |part: f64| {
        let place = ((latencies.len() as f64 * part).ceil() as usize).clamp(1, latencies.len().max(1)) - 1;
        latencies.get(place).copied().unwrap_or(0)
    };
    let failed: Vec<&&Operation> = inside.iter().filter(|one| !is_answered(one)).collect();
    Phase {
        name,
        length,
        checks: inside.len(),
        by_owner: by(&["owner", "forwarded", "lease", "denial"]),
        by_loss: by(&["share", "fallback"]),
        failed: failed.len(),
        failed_without_reason: failed.iter().filter(|one| !has_reason(one)).count(),
        latencies: [at(0.5), at(0.99), at(0.999), at(1.0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Kind;
    use crate::record::tests::{SECOND, admitted, fault, record};

    #[test]
    fn who_was_killed_need_not_answer_and_all_others_must() {
        let mut record = record();
        record.faults.push(fault(Kind::Kill, "n2", 10, 12));
        let lost = |node, at| Operation { outcome: Outcome::Unknown, node, ..admitted(0, at * SECOND) };
        record.history.operations = vec![admitted(0, 11 * SECOND), lost(1, 11)];
        let (phases, finding) = check(&record);
        assert!(finding.details.is_empty(), "{finding:?}");
        let kill = phases.iter().find(|phase| phase.name == "kill").unwrap();
        assert_eq!((kill.checks, kill.failed, kill.failed_without_reason), (2, 1, 0));
        record.history.operations.push(lost(0, 11));
        record.history.operations.push(lost(1, 40));
        assert_eq!(check(&record).1.details.len(), 2);
    }

    #[test]
    fn an_answer_that_comes_far_too_late_is_found() {
        let mut record = record();
        let late = admitted(0, SECOND);
        record.history.operations = vec![Operation { completed: late.invoked + 6 * SECOND, ..late }];
        assert_eq!(check(&record).1.details.len(), 1);
    }
}
