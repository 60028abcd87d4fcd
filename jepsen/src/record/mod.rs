//! All that is known of a run, and the directory where it is kept: who judges needs nothing else.

mod edn;
mod files;

use serde::{Deserialize, Serialize};

use crate::{
    history::{History, Refund},
    nemesis::{Ends, Fault, Phases, Planned},
    network::Form,
    sampler::Sample,
    workload::{
        changes::Change,
        limits::{Limited, Question},
        rules::{Done, RuleHistories},
    },
};

/// How the run was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// The command that does it again.
    pub command: String,
    /// Of the harness.
    pub version: String,
    /// The commit that it was built from, if that is known.
    pub commit: Option<String>,
    /// The node's program.
    pub binary: String,
    /// The other build that nodes were upgraded to.
    #[serde(default)]
    pub other_binary: Option<String>,
    /// How many nodes.
    pub nodes: u8,
    /// What lay between them.
    #[serde(default)]
    pub network: Form,
    /// Faults that were wanted but could not be done, and why.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// What chance began with.
    pub seed: u64,
    /// How the time is divided.
    pub phases: Phases,
    /// What was planned.
    pub planned: Vec<Planned>,
    /// The bug that was switched on.
    pub planted_bug: Option<String>,
    /// How the cluster was founded.
    #[serde(default)]
    pub founded: String,
    /// Nodes that own nothing: they were drained in the beginning, and are asked like all others.
    #[serde(default)]
    pub idle: Vec<String>,
    /// Nodes with little memory.
    #[serde(default)]
    pub small: Vec<String>,
    /// The rules.
    pub limits: Vec<Limited>,
    /// What was asked; a check's `key` is a place in it.
    pub questions: Vec<Question>,
}

/// When what happened, in nanoseconds of the history's clock.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Times {
    /// The load begins.
    pub begun: u64,
    /// The first fault may happen.
    pub broken: u64,
    /// Nothing new is broken any more.
    pub mended: u64,
    /// The last fault is undone.
    pub healed: Option<u64>,
    /// All nodes are ready and name the same owner for each slot, who has a session.
    pub settled: Option<u64>,
    /// The load ends.
    pub ended: u64,
    /// Whether somebody stopped the run before its end.
    pub interrupted: bool,
    /// What Unix time is ahead of the history's clock, in nanoseconds.
    #[serde(default)]
    pub unix_ahead: i64,
}

/// All that is known of a run.
#[derive(Debug, Clone)]
pub struct Record {
    /// How it was made.
    pub setup: Setup,
    /// When what happened.
    pub times: Times,
    /// Each check.
    pub history: History,
    /// Each unit that was given back, or may have been.
    pub refunds: Vec<Refund>,
    /// Each change of the limits.
    pub changes: Vec<Change>,
    /// Each fault.
    pub faults: Vec<Fault>,
    /// What was seen of the nodes meanwhile.
    pub samples: Vec<Sample>,
    /// Which processes ended.
    pub ends: Vec<Ends>,
    /// Lines of the nodes' logs that should not be there.
    pub outcries: Vec<String>,
    /// What the clients that write rules did.
    pub rules: Vec<Done>,
    /// Attempts at writes that were not answered and repeated.
    pub repeated: u64,
    /// What each node has of the rules in the end.
    pub rule_histories: RuleHistories,
    /// What each node logged; not read again.
    pub logs: Vec<(String, String)>,
}

impl Record {
    /// Seconds since the load began.
    pub fn seconds(&self, at: u64) -> f64 {
        (at as f64 - self.times.begun as f64) / 1e9
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        check::{bound::Bound, law::Law},
        history::{Operation, Outcome},
        nemesis::{Aim, Kind},
    };

    pub(crate) const SECOND: u64 = 1_000_000_000;

    /// A run of a minute of two nodes in which nothing happened: calm for ten seconds, mended at 40. The first rule is
    /// strict: 200 a second, burst 50; the second may admit twice in a partition: 20 a second, burst 20.
    pub(crate) fn record() -> Record {
        let limited = |name: &str, burst, count, partition| Limited {
            name: name.to_owned(),
            text: String::new(),
            bound: Bound { burst, count, period: Duration::from_secs(1) },
            law: Law::Bucket,
            counts: Vec::new(),
            strict: partition == 1,
            crash: Some(1),
            partition: Some(partition),
        };
        let question =
            |rule| Question { path: format!("/{rule}"), body: None, buckets: vec![(rule, "k0".to_owned())] };
        Record {
            setup: Setup {
                command: String::new(),
                version: String::new(),
                commit: None,
                binary: String::new(),
                other_binary: None,
                nodes: 2,
                network: Form::default(),
                left_out: Vec::new(),
                seed: 1,
                phases: Phases::of(Duration::from_secs(60)),
                planned: Vec::new(),
                planted_bug: None,
                founded: String::new(),
                idle: Vec::new(),
                small: Vec::new(),
                limits: vec![limited("hot", 50, 200, 1), limited("loose", 20, 20, 2)],
                questions: vec![question(0), question(1)],
            },
            times: Times {
                begun: 0,
                broken: 10 * SECOND,
                mended: 40 * SECOND,
                healed: Some(40 * SECOND),
                settled: Some(41 * SECOND),
                ended: 60 * SECOND,
                interrupted: false,
                unix_ahead: 0,
            },
            history: History::default(),
            refunds: Vec::new(),
            changes: Vec::new(),
            faults: Vec::new(),
            samples: Vec::new(),
            ends: Vec::new(),
            outcries: Vec::new(),
            rules: Vec::new(),
            repeated: 0,
            rule_histories: Vec::new(),
            logs: Vec::new(),
        }
    }

    pub(crate) fn admitted(key: u32, at: u64) -> Operation {
        let decided_by = Some(("owner".to_owned(), "n1".to_owned()));
        Operation { invoked: at, completed: at + 1_000, key, node: 0, outcome: Outcome::Admitted, decided_by }
    }

    pub(crate) fn fault(kind: Kind, target: &str, from: u64, to: u64) -> Fault {
        Fault {
            kind,
            aim: Aim::Random,
            targets: vec![target.to_owned()],
            roles: Vec::new(),
            what: String::new(),
            begun: from * SECOND,
            ended: Some(to * SECOND),
            recovered: Some(to * SECOND),
            evidence: Some("seen".to_owned()),
            sides: Vec::new(),
            broke: None,
        }
    }

    pub(crate) fn planned(kind: Kind) -> Planned {
        let after = Duration::from_secs(10);
        Planned { after, lasts: Duration::from_secs(2), kind, aim: Aim::Random, seed: 0, by: None }
    }

    pub(crate) fn sample(node: &str, at: u64) -> Sample {
        Sample {
            at,
            node: node.to_owned(),
            pid: 1,
            leader: None,
            term: 1,
            cluster: None,
            session: true,
            moving: 0,
            applied: 1,
            answered: true,
            resident: 50 << 20,
            threads: 8,
            descriptors: 40,
        }
    }
}
