//! The task that keeps the group and its votes as they should be. It runs on each node and acts on the leader only,
//! one change at a time; what gossip says is a hint what to change, the log decides.

use std::{collections::HashMap, sync::Arc, time::Duration};

use openraft::ChangeMembers;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::info;

use super::{
    command::{Command, Founding, NodeId},
    group::Shared,
    running::Running,
    voters::{self, Membership, Present, Step},
};
use crate::{fabric, member::Member, status::ClusterStatus};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A member that is gone for so long is taken out.
const EVICT_AFTER: Duration = Duration::from_secs(3600);
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A node that lacks fewer entries than this may vote: it has the rest before it is asked for much.
const CAUGHT_UP: u64 = 200;

/// Runs until it is dropped.
pub(super) async fn tend(shared: Arc<Shared>, mut status: watch::Receiver<ClusterStatus>) {
    let mut seen: HashMap<NodeId, Instant> = HashMap::new();
    let mut led_since: Option<Instant> = None;
    loop {
        sleep(LOOK_EVERY).await;
        let now = Instant::now();
        let status = status.borrow_and_update().clone();
        seen.extend(status.live.iter().filter_map(|member| Some((member.node?, now))));
        let Some(running) = shared.running().filter(|running| running.is_leader()) else {
            led_since = None;
            continue;
        };
        // Who was not seen since this node leads counts as gone since then, not since for ever.
        let led_since = *led_since.get_or_insert(now);
        seen.retain(|_, at| now.duration_since(*at) < Duration::from_secs(24 * 3600));
        let gone_for =
            |id: NodeId| now.duration_since(seen.get(&id).copied().unwrap_or(led_since).max(led_since));
        tend_once(&shared, &running, &status, gone_for).await;
    }
}

async fn tend_once(
    shared: &Shared,
    running: &Running,
    status: &ClusterStatus,
    gone_for: impl Fn(NodeId) -> Duration,
) {
    let applied = Arc::clone(&shared.applied.borrow());
    if applied.state.founding.is_none() {
        let Some(cluster) = shared.belonging.get() else { return };
        let founding = Founding { cluster, hash_secret: fabric::random_bytes() };
        let _ = running.propose(Command::Found(founding), PATIENCE).await;
        return;
    }
    let cluster = shared.belonging.get();
    // A node with the log of another cluster is none of ours, whatever it says of itself.
    let ours: Vec<&Member> =
        status.live.iter().filter(|member| member.group.is_none() || member.group == cluster).collect();
    let (membership, present) = look(running, &ours);
    if let Some(step) = voters::next_step(&membership, &present, &gone_for, |id| {
        applied.state.evicted.contains(&id) || gone_for(id) >= EVICT_AFTER
    }) {
        take(running, step).await;
        return;
    }
    // Who owns slots is still asked for them.
    let owns = |id: NodeId| {
        let slots = applied.state.slots.rows().iter();
        slots
            .flat_map(|row| [Some(row.owner), row.moving.map(|pending| pending.to)])
            .flatten()
            .any(|holder| holder.node == id)
    };
    if let Some(gone) =
        applied.state.members.keys().find(|id| !membership.nodes.contains_key(id) && !owns(**id))
    {
        let _ = running.propose(Command::Forget(*gone), PATIENCE).await;
    }
}

/// The group, and who of it is there.
fn look(running: &Running, live: &[&Member]) -> (Membership, Vec<Present>) {
    let metrics = running.metrics();
    let config = metrics.membership_config.membership();
    let last = metrics.last_log_index.unwrap_or(0);
    let voters = config.get_joint_config().last().cloned().unwrap_or_default();
    let membership = Membership {
        nodes: config.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        voters,
        in_between: config.get_joint_config().len() > 1,
    };
    let matched = |id: NodeId| {
        metrics.id == id
            || metrics
                .replication
                .as_ref()
                .and_then(|progress| progress.get(&id).copied().flatten())
                .is_some_and(|matched| matched.index + CAUGHT_UP >= last)
    };
    let present = live.iter().filter_map(|member| {
        let id = member.node?;
        Some(Present { id, node: member.raft_node(), zone: member.zone.clone(), caught_up: matched(id) })
    });
    (membership, present.collect())
}

async fn take(running: &Running, step: Step) {
    info!(change = ?step, "the Raft group changes");
    let raft = &running.raft;
    let changed = match step {
        Step::Add(id, node) => {
            // Not waited for: it may need a snapshot, and others should not wait for that.
            timeout(PATIENCE, raft.add_learner(id, node, false)).await
        }
        Step::Move(id, node) => {
            timeout(PATIENCE, raft.change_membership(ChangeMembers::SetNodes([(id, node)].into()), true))
                .await
        }
        Step::Remove(id) => {
            timeout(PATIENCE, raft.change_membership(ChangeMembers::RemoveNodes([id].into()), true)).await
        }
        Step::Voters(voters) => {
            timeout(PATIENCE, raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true)).await
        }
    };
    match changed {
        Ok(Ok(_)) => {}
        // It is looked at again: the change is begun anew, or ended by the next leader.
        Ok(Err(error)) => info!("the Raft group could not be changed yet: {error}"),
        Err(_) => info!("changing the Raft group takes longer than {PATIENCE:?}"),
    }
}
