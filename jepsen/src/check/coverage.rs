//! Did the faults hit? A run whose faults did nothing proves nothing: it is neither valid nor a violation.

use serde::{Deserialize, Serialize};

use super::{Finding, Verdict};
use crate::{
    history::Outcome,
    nemesis::{Aim, Kind},
    record::Record,
};

/// In a run with fewer faults chance may leave a target out.
const ENOUGH_FOR_TARGETS: usize = 8;
const ENOUGH_FOR_MOVES: usize = 40;

/// What became of a kind of fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfKind {
    /// Which.
    pub kind: Kind,
    /// How often it was planned.
    pub planned: usize,
    /// How often it was done.
    pub done: usize,
    /// How often something was seen of it.
    pub hit: usize,
    /// How often it hit the owner of the hottest key, the leader, a node in mid-move.
    pub roles: [usize; 3],
}

/// Looks at every kind that was planned.
pub fn check(record: &Record) -> (Vec<OfKind>, Finding) {
    let mut kinds: Vec<Kind> = record.setup.planned.iter().map(|planned| planned.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let roles = [Aim::HotOwner, Aim::Leader, Aim::Moving];
    let of_kind = |kind: Kind| {
        let done = || record.faults.iter().filter(move |fault| fault.kind == kind);
        let hit = || done().filter(|fault| fault.evidence.is_some());
        OfKind {
            kind,
            planned: record.setup.planned.iter().filter(|planned| planned.kind == kind).count(),
            done: done().count(),
            hit: hit().count(),
            roles: roles.map(|role| hit().filter(|fault| fault.roles.contains(&role)).count()),
        }
    };
    let rows: Vec<OfKind> = kinds.into_iter().map(of_kind).collect();
    let mut missing: Vec<String> = rows
        .iter()
        .filter(|row| row.hit == 0)
        .map(|row| format!("{}: done {} times, and nothing was seen of it", row.kind.name(), row.done))
        .collect();
    let hit = |role: usize| rows.iter().map(|row| row.roles[role]).sum::<usize>();
    let all: usize = rows.iter().map(|row| row.hit).sum();
    for (place, role) in roles.iter().enumerate() {
        let enough = if *role == Aim::Moving { ENOUGH_FOR_MOVES } else { ENOUGH_FOR_TARGETS };
        if all >= enough && hit(place) == 0 {
            missing.push(format!("no fault hit a node that was: {}", role.name()));
        }
    }
    for outcome in [Outcome::Admitted, Outcome::Denied] {
        if record.history.count(outcome) < 100 {
            missing.push(format!("fewer than 100 checks were {outcome:?}"));
        }
    }
    if record.times.interrupted {
        missing.push("the run was interrupted".to_owned());
    }
    let says = format!(
        "{all} faults of {} kinds hit; {} the owner of the hottest key, {} the leader, {} a node in mid-move",
        rows.iter().filter(|row| row.hit > 0).count(),
        hit(0),
        hit(1),
        hit(2)
    );
    let verdict = if missing.is_empty() { Verdict::Valid } else { Verdict::Unknown };
    (rows, Finding { verdict, ..Finding::of("coverage", says, missing) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{SECOND, admitted, fault, planned, record};

    #[test]
    fn a_fault_of_which_nothing_was_seen_makes_the_run_unknown() {
        let mut record = record();
        let denied = |n| crate::history::Operation { outcome: Outcome::Denied, ..admitted(0, n * SECOND) };
        record.history.operations =
            (0..200).map(|n| admitted(0, n * SECOND)).chain((0..200).map(denied)).collect();
        record.setup.planned.push(planned(Kind::Kill));
        record.faults.push(fault(Kind::Kill, "n1", 10, 12));
        assert_eq!(check(&record).1.verdict, Verdict::Valid);
        record.faults[0].evidence = None;
        assert_eq!(check(&record).1.verdict, Verdict::Unknown);
        record.faults.clear();
        assert_eq!(check(&record).1.verdict, Verdict::Unknown);
    }
}
