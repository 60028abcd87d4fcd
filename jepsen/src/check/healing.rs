//! How long after the last fault is all as it was: each node ready, each slot with one owner that all name, each check
//! decided by it?

use super::Finding;
use crate::record::Record;

/// A start, an election, a session, and some thousand slots that go where they belong; and a node that has left is forgotten
/// once gossip has given it up.
const WITHIN: f64 = 25.0;
/// How long a node waits for an owner, three quarters of the check timeout (`Timing::forward_timeout`): who has waited so long
/// knew an owner, and had no answer of it in time.
const WAITED: u64 = 75_000_000;
/// So many of a thousand checks may have waited in vain though all was settled: a machine whose processors are all busy
/// stops an owner for longer than the check timeout. None may have known no owner.
const IN_VAIN: usize = 1;

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
    let since = settled + 1_000_000_000;
    let (in_vain, late): (Vec<_>, Vec<_>) = without_owner
        .filter(|one| one.invoked > since)
        .partition(|one| one.completed - one.invoked >= WAITED);
    if !late.is_empty() {
        wrong.push(format!("{} checks found no owner though all was settled", late.len()));
    }
    let all = record.history.operations.iter().filter(|one| one.invoked > since).count();
    if in_vain.len() * 1000 > all * IN_VAIN {
        wrong.push(format!(
            "{} of {all} checks waited for an owner in vain though all was settled",
            in_vain.len()
        ));
    }
    let says = format!(
        "settled {:.1} s after the last fault was undone; the last check without an owner {}; {} of {all} afterwards had \
         none within the check timeout",
        after(settled),
        last.map_or("was before".to_owned(), |last| format!("{:.1} s after", after(last))),
        in_vain.len()
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
        // An owner that answers late once in a while is a busy machine; one that does so often is not.
        for (times, found) in [(1, 0), (9, 1)] {
            record.history.operations.clear();
            for n in 0..1_000 {
                let decided_by = (n < times).then(|| ("share".into(), "n1".into()));
                let invoked = 56 * SECOND + n * SECOND / 1_000;
                let completed = invoked + if n < times { SECOND / 10 } else { SECOND / 1_000 };
                let owned = admitted(0, invoked);
                let decided_by = decided_by.or(owned.decided_by.clone());
                record.history.operations.push(Operation { decided_by, completed, ..owned });
            }
            assert_eq!(check(&record).details.len(), found, "{times}");
        }
        record.times.settled = None;
        assert_eq!(check(&record).details.len(), 1);
        record.times.healed = None;
        assert_eq!(check(&record).details.len(), 1);
    }
}
