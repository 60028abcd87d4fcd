//! Was there one decider at a time for each key of a strict rule?
//!
//! Each answer, admitted or denied, names the owner that decided. A decision was made between question and answer; where one
//! answer came before the next question, the order is known. A key whose owner changes back and forth faster than slots can
//! move has two owners.

use std::collections::BTreeMap;

use super::{Finding, times};
use crate::{history::Operation, record::Record};

/// A slot that goes to another node and comes back, twice, needs four changes of the log, and the leader lets members
/// settle for half a second before it moves slots. So often in so long is not possible.
const TOO_MANY: usize = 4;
const WITHIN: u64 = 1_000_000_000;

/// Looks at every key of every strict rule that is asked about alone.
pub fn check(record: &Record) -> Finding {
    let mut by_key: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in &record.history.operations {
        let Some(question) = record.setup.questions.get(operation.key as usize) else { continue };
        if let [(rule, _)] = &question.buckets[..]
            && record.setup.limits[*rule].strict
        {
            by_key.entry(operation.key).or_default().push(operation);
        }
    }
    let (mut wrong, mut all, mut keys) = (Vec::new(), 0, 0);
    // Nothing tells a node whose machine was stopped that its session is over: for as long as one lasts there may be two.
    let stale = times::stale_sessions(record);
    for (key, operations) in by_key {
        keys += 1;
        let mut changes = changes(operations);
        all += changes.len();
        changes.retain(|(at, _)| !times::meets(&stale, *at, *at));
        let fast = changes.windows(TOO_MANY).find(|some| some[TOO_MANY - 1].0 - some[0].0 < WITHIN);
        if let Some(fast) = fast {
            let names: Vec<&str> = fast.iter().map(|(_, node)| &**node).collect();
            wrong.push(format!(
                "{}: decided by {} one after the other within a second, from second {:.3} on",
                record.setup.questions[key as usize].path,
                names.join(", "),
                record.seconds(fast[0].0)
            ));
        }
    }
    Finding::of("one decider", format!("{keys} strict keys, whose owners changed {all} times in all"), wrong)
}

/// When the owner certainly was another one than before, and which.
fn changes(mut operations: Vec<&Operation>) -> Vec<(u64, String)> {
    operations.sort_unstable_by_key(|operation| operation.completed);
    let mut changes: Vec<(u64, String)> = Vec::new();
    let mut last: Option<(&str, u64)> = None;
    for operation in operations {
        let Some((how, node)) = &operation.decided_by else { continue };
        if how != "owner" && how != "forwarded" {
            continue;
        }
        match last {
            Some((owner, _)) if owner == node => {}
            Some((_, completed)) if operation.invoked <= completed => {}
            _ => {
                if last.is_some() {
                    changes.push((operation.completed, node.clone()));
                }
                last = Some((node, operation.completed));
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{SECOND, admitted, record};

    fn decided(at: u64, node: &str) -> Operation {
        Operation { decided_by: Some(("forwarded".into(), node.into())), ..admitted(0, at) }
    }

    #[test]
    fn an_owner_that_changes_now_and_then_is_one() {
        let mut record = record();
        let nodes = ["n1", "n1", "n2", "n2", "n1", "n3"];
        record.history.operations =
            nodes.iter().zip(1..).map(|(node, at)| decided(at * SECOND, node)).collect();
        let finding = check(&record);
        assert!(finding.details.is_empty() && finding.says.contains("changed 3 times"), "{finding:?}");
    }

    #[test]
    fn two_owners_at_a_time_are_found() {
        let mut record = record();
        record.history.operations = (0..40)
            .map(|n| decided(SECOND + n * SECOND / 50, if n % 3 == 0 { "n1" } else { "n2" }))
            .collect();
        assert_eq!(check(&record).details.len(), 1);
    }
}
