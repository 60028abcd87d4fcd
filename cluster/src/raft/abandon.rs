//! Leaves a cluster that can never have a leader.
//!
//! Founders that crash or lose their disks in the middle of a founding can leave one behind that is bound to a cluster of
//! which nobody else has anything. It has no log that counts, and nobody will ever send it one. So a node that **has applied
//! nothing** of its cluster, and has heard of no leader for [`QUIET`], asks all founders. The cluster is dead when
//!
//! - fewer than a quorum of them can still belong to it: the others belong to another cluster or have lost their disk; or
//! - all are accounted for and none has anything in its log: nobody could be elected.
//!
//! And nothing that a client has written can be in the log: not more than what founds the cluster
//! ([`LAST_OF_FOUNDING`]), since what an entry after that was acknowledged to may be known to a client, applied here or not.
//! Then an operator decides (`tidegate cluster recover`).
//!
//! A founder that does not answer may still have all of it. Only then does this node forget what it has, and joins or founds
//! another cluster as a new node does; its id stays.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use super::{handle::Shared, running::Running};
use crate::{
    ids::{ClusterId, NodeId, RaftNode},
    rpc::{
        caller::{Asked, introduce},
        message::{Introduction, Standing},
    },
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long no leader was heard: many elections.
const QUIET: Duration = Duration::from_secs(8);
/// The first entry of the log names the founders, the leader that they elect begins with an empty one, and the third founds the
/// cluster.
const LAST_OF_FOUNDING: u64 = 2;

/// What is known of a founder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Founder {
    /// It belongs to the cluster, with something in its log or without.
    Member {
        has_log: bool,
    },
    /// It will never belong to it again.
    Gone,
    Unknown,
}

/// Whether nobody of these founders can ever lead the cluster.
fn is_dead(founders: &[Founder]) -> bool {
    let count = |wanted: fn(&Founder) -> bool| founders.iter().filter(|founder| wanted(founder)).count();
    let unknown = count(|founder| *founder == Founder::Unknown);
    let members = count(|founder| matches!(founder, Founder::Member { .. }));
    let with_log = count(|founder| *founder == Founder::Member { has_log: true });
    let quorum = founders.len() / 2 + 1;
    members + unknown < quorum || with_log + unknown == 0
}

/// What a founder is, from what answers where it was.
fn founder(cluster: ClusterId, id: NodeId, node: &RaftNode, asked: Asked) -> Founder {
    match asked {
        Asked::Introduced(Introduction { id: found, standing: Standing::Bound(theirs), has_log, .. })
            if found == id =>
        {
            if theirs == cluster {
                Founder::Member { has_log }
            } else {
                Founder::Gone
            }
        }
        // A name stands for one node: it has lost its disk.
        Asked::Introduced(other) if other.id != id && other.name == node.name => Founder::Gone,
        // What has not been bound yet may still be.
        Asked::Introduced(_) | Asked::Myself | Asked::Refuses(_) | Asked::Mute | Asked::Silent => {
            Founder::Unknown
        }
    }
}

/// Runs until it is dropped.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut quiet_since = Instant::now();
    let mut said = Vec::new();
    loop {
        sleep(LOOK_EVERY).await;
        let now = Instant::now();
        let (Some(running), Some(cluster)) = (shared.raft.running(), shared.belonging.get()) else {
            quiet_since = now;
            continue;
        };
        let has_applied = {
            let applied = shared.applied.borrow();
            applied.index > 0 || applied.state.founding.is_some()
        };
        let may_be_known = running.last_log() > LAST_OF_FOUNDING;
        let heard = shared.contacts.heard().leader().is_some_and(|at| now.duration_since(at) < QUIET);
        if has_applied || may_be_known || heard || running.is_leader() {
            quiet_since = now;
            continue;
        }
        let founders = founders_of(&shared, &running, cluster);
        if now.duration_since(quiet_since) < QUIET || founders.is_empty() {
            continue;
        }
        let known =
            join_all(founders.iter().map(|(id, node)| ask(&shared, &running, cluster, *id, node))).await;
        // Meanwhile somebody may have been elected.
        if !is_dead(&known) || shared.contacts.heard().leader().is_some_and(|at| at > now) {
            if said != known {
                info!(%cluster, founders = ?known, "no leader is there, and nothing of the cluster's log is known here");
                said = known;
            }
            continue;
        }
        error!(
            %cluster, founders = ?known,
            "the cluster that this node was to found can never have a leader: it is left, nothing of it ever counted"
        );
        shared.founding.abandoned.notify_one();
        quiet_since = Instant::now();
    }
}

async fn ask(shared: &Shared, running: &Running, cluster: ClusterId, id: NodeId, node: &RaftNode) -> Founder {
    if id == shared.me {
        return Founder::Member { has_log: running.metrics().last_log_index.is_some() };
    }
    founder(cluster, id, node, introduce(&shared.identity, node.peer).await)
}

fn founders_of(shared: &Shared, running: &Running, cluster: ClusterId) -> BTreeMap<NodeId, RaftNode> {
    let metrics = running.metrics();
    let membership = metrics.membership_config.membership();
    let voters: BTreeMap<NodeId, RaftNode> =
        membership.voter_ids().filter_map(|id| Some((id, membership.get_node(&id)?.clone()))).collect();
    if !voters.is_empty() {
        return voters;
    }
    let promise = shared.belonging.promise().filter(|promise| promise.proposal.cluster == cluster);
    promise.map(|promise| promise.proposal.founders).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Founder = Founder::Member { has_log: true };
    const EMPTY: Founder = Founder::Member { has_log: false };

    #[test]
    fn a_cluster_is_dead_only_when_nobody_could_ever_lead_it() {
        for (founders, dead) in [
            // The proposer, and two that have lost their disks.
            (&[FULL, Founder::Gone, Founder::Gone][..], true),
            (&[FULL, EMPTY, Founder::Gone], false),
            (&[FULL, Founder::Unknown, Founder::Gone], false),
            // The proposer is gone before it has sent anything.
            (&[Founder::Gone, EMPTY, EMPTY], true),
            (&[Founder::Unknown, EMPTY, EMPTY], false),
            (&[FULL], false),
            (&[FULL, FULL, Founder::Gone, Founder::Gone, Founder::Gone], true),
            (&[FULL, FULL, Founder::Gone, Founder::Gone, Founder::Unknown], false),
        ] {
            assert_eq!(is_dead(founders), dead, "{founders:?}");
        }
    }

    #[test]
    fn a_founder_is_gone_only_with_its_disk_or_to_another_cluster() {
        let (ours, theirs) = (ClusterId::from_bytes([1; 16]), ClusterId::from_bytes([2; 16]));
        let node = RaftNode { name: "n2".to_owned(), ..RaftNode::default() };
        let introduced = |id, name: &str, standing| {
            Asked::Introduced(Introduction { id, name: name.to_owned(), standing, has_log: true })
        };
        for (asked, expected) in [
            (introduced(2, "n2", Standing::Bound(ours)), FULL),
            (introduced(2, "n2", Standing::Bound(theirs)), Founder::Gone),
            (introduced(2, "n2", Standing::Promised(1)), Founder::Unknown),
            (introduced(2, "n2", Standing::Free), Founder::Unknown),
            (introduced(3, "n2", Standing::Free), Founder::Gone),
            // Another node has got its address.
            (introduced(3, "n9", Standing::Bound(theirs)), Founder::Unknown),
            (Asked::Silent, Founder::Unknown),
            (Asked::Refuses(String::new()), Founder::Unknown),
        ] {
            assert_eq!(founder(ours, 2, &node, asked), expected);
        }
    }
}
