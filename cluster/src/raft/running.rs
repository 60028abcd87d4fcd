//! Raft from one start to the next: who leads, and what is asked of it here.

use std::{collections::BTreeSet, time::Duration};

use openraft::{Raft, RaftMetrics, ServerState};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{disk::Disk, log::Log};
use crate::{
    ids::{Leadership, NodeId, RaftNode},
    rpc::{message::NotServed, sane::Position},
    state::{
        command::{Command, Outcome, RuleWrite},
        types::Group,
    },
};

type Metrics = RaftMetrics<NodeId, RaftNode>;

/// Raft from one start to the next.
pub(crate) struct Running {
    pub(crate) raft: Raft<Group>,
    pub(crate) disk: Disk,
    pub(crate) log: Log,
    metrics: watch::Receiver<Metrics>,
}

impl Running {
    pub(crate) fn new(raft: Raft<Group>, disk: Disk, log: Log) -> Self {
        let metrics = raft.metrics();
        Self { raft, disk, log, metrics }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Metrics> {
        self.metrics.clone()
    }

    /// Whether this node has a part in a group.
    pub(crate) fn is_initialized(&self) -> bool {
        self.metrics.borrow().membership_config.membership().nodes().next().is_some()
    }

    /// How far it is, to judge what others say.
    pub(crate) fn position(&self) -> Position {
        let metrics = self.metrics.borrow();
        Position { vote: metrics.vote, applied: metrics.last_applied }
    }

    /// Whether this node is, or was, told of a group in which that node is.
    pub(crate) fn has_member(&self, node: NodeId) -> bool {
        self.metrics.borrow().membership_config.membership().get_node(&node).is_some()
    }

    /// Whether it is the only one in its group.
    pub(crate) fn is_alone(&self) -> bool {
        self.metrics.borrow().membership_config.membership().nodes().count() == 1
    }

    /// The member that leads, with the way to it, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<(NodeId, RaftNode)> {
        let metrics = self.metrics.borrow();
        let id = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&id)?.clone();
        Some((id, node))
    }

    /// The index of the last entry in this node's log.
    pub(crate) fn last_log(&self) -> u64 {
        self.metrics.borrow().last_log_index.unwrap_or(0)
    }

    /// Since which election this node leads, if it does.
    pub(crate) fn leadership(&self) -> Option<Leadership> {
        let metrics = self.metrics.borrow();
        let id = metrics.vote.leader_id();
        let leads = metrics.state == ServerState::Leader && id.node_id == metrics.id;
        leads.then_some(Leadership { term: id.term, leader: id.node_id })
    }

    /// Who votes: one set, or two while they change.
    pub(crate) fn voters(&self) -> Vec<BTreeSet<NodeId>> {
        self.metrics.borrow().membership_config.membership().get_joint_config().clone()
    }

    /// Whether a member votes, or the change by which it does not any more is not known to be agreed on.
    pub(crate) fn may_vote(&self, node: NodeId) -> bool {
        let metrics = self.metrics.borrow();
        let membership = &metrics.membership_config;
        let is_agreed = membership.log_id().is_none_or(|id| metrics.last_applied >= Some(id));
        !is_agreed || membership.membership().voter_ids().any(|id| id == node)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.metrics.borrow().state == ServerState::Leader
    }

    /// Writes, if this node is the leader.
    pub(crate) async fn write_here(
        &self,
        write: RuleWrite,
        patience: Duration,
    ) -> Result<Outcome, NotServed> {
        self.propose(Command::Write(write), patience).await
    }

    /// Whether its disk hangs: Raft would take what it is asked, and remember it until the disk goes on.
    pub(crate) fn hangs(&self) -> bool {
        self.log.hangs(Instant::now()).is_some()
    }

    /// Whether what it says of itself is of now; see [`Log::is_quiet`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.log.is_quiet(Instant::now())
    }

    pub(crate) async fn propose(&self, command: Command, patience: Duration) -> Result<Outcome, NotServed> {
        if self.hangs() {
            return Err(NotServed::Unknown);
        }
        match timeout(patience, self.raft.client_write(command)).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(error)) if error.forward_to_leader::<RaftNode>().is_some() => Err(NotServed::NotLeader),
            Ok(Err(_)) | Err(_) => Err(NotServed::Unknown),
        }
    }

    /// Up to where all that was acknowledged before this call has been written, if this node is the leader.
    pub(crate) async fn read_index_here(&self, patience: Duration) -> Result<u64, NotServed> {
        if !self.is_leader() {
            return Err(NotServed::NotLeader);
        }
        if self.hangs() {
            return Err(NotServed::Unknown);
        }
        // It waits without end when a quorum is gone.
        match timeout(patience, self.raft.ensure_linearizable()).await {
            Ok(Ok(id)) => Ok(id.map_or(0, |id| id.index)),
            Ok(Err(error)) if error.forward_to_leader::<RaftNode>().is_some() => Err(NotServed::NotLeader),
            Ok(Err(_)) | Err(_) => Err(NotServed::Unknown),
        }
    }
}
