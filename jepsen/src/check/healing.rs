//! How long after the last fault is all as it was: each node ready, each slot with one owner that all name, each check
//! decided by it?

use super::Finding;
use crate::record::Record;

/// A start, an election, a session, and some thousand slots that go where they belong; and a node that has left is forgotten
/// once gossip has given it up.
const WITHIN: f64 = 25.0;

/// Looks at the end of the run.
pub fn check(record: &Record) -> Finding {
    let times = &record.times;
    let mut wrong = Vec::new();
    let Some(healed) = times.healed else {
        wrong.push("what was broken could not be mended before the run ended".to_owned());
        return Finding::of("healing", "never whole again".to_owned(), wrong);
    };
    let Some(settled) = times.settled else {
        wrong.push("the nodes did not agree about the owners before the run ended".to_owned());
        return Finding::of("healing", "never settled again".to_owned(), wrong);
    };
    let after = |at: u64| at.saturating_sub(healed) as f64 / 1e9;
    if after(settled) > WITHIN {
        wrong
            .push(format!("settled {:.1} s after the last fault was undone, not {WITHIN} s", after(settled)));
    }
    let without_owner = record.history.operations.iter().filter(|one| {
        one.invoked > healed
            && one.decided_by.as_ref().is_none_or(|(how, _)| how == "share" || how == "fallback")
    });
    let last = without_owner.clone().map(|one| one.completed).max();
    let late = without_owner.filter(|one| one.invoked > settled + 1_000_000_000).count();
    if late > 0 {
        wrong.push(format!("{late} checks found no owner though all was settled"));
    }
    let says = format!(
        "settled {:.1} s after the last fault was undone; the last check without an owner {}",
        after(settled),
        last.map_or("was before".to_owned(), |last| format!("{:.1} s after", after(last)))
    );
    Finding::of("healing", says, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Operation;
    use crate::record::tests::{SECOND, admitted, record};

    #[test]
    fn a_cluster_that_does_not_come_together_again_is_found() {
        let mut record = record();
        assert!(check(&record).details.is_empty());
        let late = Operation { decided_by: Some(("share".into(), "n1".into())), ..admitted(0, 58 * SECOND) };
        record.history.operations.push(late);
        assert_eq!(check(&record).details.len(), 1);
        record.times.settled = None;
        assert_eq!(check(&record).details.len(), 1);
        record.times.healed = None;
        assert_eq!(check(&record).details.len(), 1);
    }
}
