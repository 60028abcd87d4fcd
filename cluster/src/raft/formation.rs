//! How the group is founded, exactly once.
//!
//! The node with the lowest id among those that wait proposes a new cluster to all that shall vote. Each of them accepts
//! if it has no part in a cluster yet, and from then on belongs to that one: it answers no other. Only when all have
//! accepted is the group initialised. A node belongs to one cluster at a time and the first leader needs the votes of
//! most, so of two proposals that overlap at most one can come to anything; the other is forgotten.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{
    RaftNode,
    calls::{Call, CallFault, Caller, Reply},
    command::{ClusterId, NodeId},
    group::Shared,
    running::Running,
    voters::voter_count,
};
use crate::{
    member::{Member, MemberState},
    status::ClusterStatus,
};

/// How long another node is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The founders must have been the same for so long: who starts together is seen together.
const SETTLE: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A cluster that somebody would found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) cluster: ClusterId,
    pub(super) founders: BTreeMap<NodeId, RaftNode>,
}

/// Founds a cluster with the others, or returns when this node has become part of one.
pub(super) async fn form(
    shared: Arc<Shared>,
    expect: Option<u32>,
    mut status: watch::Receiver<ClusterStatus>,
) {
    let mut founders: Vec<NodeId> = Vec::new();
    let mut since = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        let Some(running) = shared.running() else { continue };
        if running.is_initialized() {
            return;
        }
        let live = status.borrow_and_update().live.clone();
        let waiting = waiting_nodes(&live);
        let lowest = waiting.first().map(|(id, _)| *id);
        let enough = expect.is_some_and(|expect| waiting.len() >= expect as usize);
        let somebody_has = live.iter().any(|member| member.group.is_some());
        let seen: Vec<NodeId> = waiting.iter().map(|(id, _)| *id).collect();
        if seen != founders {
            (founders, since) = (seen, Instant::now());
        }
        let settled = founders.len() == 1 || since.elapsed() >= SETTLE;
        if !enough || somebody_has || lowest != Some(shared.me) || !settled {
            continue;
        }
        let voters = voter_count(waiting.len());
        let proposal =
            Proposal { cluster: ClusterId::random(), founders: waiting.into_iter().take(voters).collect() };
        if let Err(reason) = found(&shared, &running, proposal).await {
            warn!("the cluster could not be founded yet: {reason}");
            sleep(PATIENCE).await;
        }
    }
}

/// Those that belong to no cluster, by id.
fn waiting_nodes(live: &[Member]) -> Vec<(NodeId, RaftNode)> {
    let waits = |member: &&Member| member.state == MemberState::Joining && member.group.is_none();
    let mut waiting: Vec<(NodeId, RaftNode)> =
        live.iter().filter(waits).filter_map(|member| Some((member.node?, member.raft_node()))).collect();
    waiting.sort_unstable_by_key(|(id, _)| *id);
    waiting
}

async fn found(shared: &Shared, running: &Running, proposal: Proposal) -> Result<(), String> {
    for (id, node) in proposal.founders.iter().filter(|(id, _)| **id != shared.me) {
        let mut caller = Caller::new(shared, *id, node.clone());
        match caller.call(Call::Found(proposal.clone()), PATIENCE).await {
            Ok(Reply::Found(Ok(()))) => {}
            Ok(Reply::Found(Err(reason))) => return Err(format!("{node}: {reason}")),
            Ok(_) => return Err(format!("{node}: {}", CallFault::Mismatch)),
            Err(fault) => return Err(format!("{node}: {fault}")),
        }
    }
    shared.adopt(proposal.cluster, running).map_err(|fault| fault.to_string())?;
    let names: Vec<&str> = proposal.founders.values().map(|node| &*node.name).collect();
    info!(cluster = %proposal.cluster, voters = names.join(", "), "a new cluster is founded");
    running.raft.initialize(proposal.founders).await.map_err(|error| error.to_string())
}

impl Shared {
    /// Whether this node founds that cluster together with the one that asks.
    pub(super) fn accept_founding(&self, proposal: &Proposal, from: NodeId) -> Result<(), String> {
        let running = self.running().ok_or("Raft is not running")?;
        if running.is_initialized() {
            return Err("this node has a part in a cluster already".to_owned());
        }
        if !proposal.founders.contains_key(&self.me) {
            return Err("this node is not among the founders".to_owned());
        }
        if let Some((lower, node)) = waiting_nodes(&self.live()).into_iter().find(|(id, _)| *id < from) {
            return Err(format!("{node} is there too and has a lower id ({lower:016x})"));
        }
        self.adopt(proposal.cluster, &running).map_err(|fault| fault.to_string())
    }
}
