//! Is a key admitted that nobody has asked about for long? While nothing is broken, what was done to other keys and other rules,
//! and what had been broken before, must not deny it.

use super::{Finding, Verdict, fairness::quiet};
use crate::{history::Outcome, record::Record, workload::checks::STRANGER};

/// A bucket that its last owner took with it starts exhausted; it is full again after its period.
const REFILLS: u64 = 1_500_000_000;

/// Looks at the rule whose keys are always new.
pub fn check(record: &Record) -> Finding {
    let rule = record.setup.limits.iter().position(|limited| limited.name == STRANGER);
    let is_stranger = |key: u32| {
        let question = record.setup.questions.get(key as usize);
        question.is_some_and(|question| question.buckets.first().map(|one| one.0) == rule && rule.is_some())
    };
    let quiet = quiet(record);
    let (mut asked, mut wrong) = (0, Vec::new());
    for one in record.history.operations.iter().filter(|one| is_stranger(one.key)) {
        if !quiet.iter().any(|(from, to)| one.invoked >= from + REFILLS && one.completed <= *to) {
            continue;
        }
        // Without its owner a key has a share of its limit, and that begins empty: a busy machine may have stopped an owner.
        if one.decided_by.as_ref().is_none_or(|(how, _)| how == "share" || how == "fallback") {
            continue;
        }
        asked += 1;
        if one.outcome == Outcome::Denied {
            wrong.push(format!(
                "{} was denied at n{} at second {:.3}, by {}",
                record.setup.questions[one.key as usize].path,
                one.node + 1,
                record.seconds(one.invoked),
                one.decided_by.as_ref().map_or("nobody", |(how, _)| &**how)
            ));
        }
    }
    let says =
        format!("{asked} checks of keys that nobody had asked about for long, while nothing was broken");
    let mut finding = Finding::of("strangers are admitted", says, wrong);
    if asked == 0 && rule.is_some() {
        finding.verdict = Verdict::Unknown;
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Operation;
    use crate::record::tests::{SECOND, admitted, record};

    #[test]
    fn a_stranger_that_is_denied_while_all_is_well_is_found() {
        let mut record = record();
        record.setup.limits[1].name = STRANGER.to_owned();
        let denied = |at| Operation { outcome: Outcome::Denied, ..admitted(1, at * SECOND) };
        record.history.operations =
            vec![admitted(1, 50 * SECOND), denied(30), Operation { key: 0, ..denied(50) }];
        assert_eq!(check(&record).verdict, Verdict::Valid);
        let by_share = Some(("share".to_owned(), "n1".to_owned()));
        record.history.operations.push(Operation { decided_by: by_share, ..denied(50) });
        assert_eq!(check(&record).details, [""; 0]);
        record.history.operations.push(denied(50));
        assert_eq!(check(&record).details.len(), 1);
        record.history.operations.clear();
        assert_eq!(check(&record).verdict, Verdict::Unknown);
    }
}
