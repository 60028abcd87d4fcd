//! What a node can tell of the group.

use std::{collections::BTreeSet, time::Duration};

use openraft::ServerState;
use tokio::sync::watch;

use super::ledger::Ledger;
use crate::{
    ids::{ClusterId, NodeId},
    raft::belonging::Foreign,
};

/// Who was not heard for so long is not called the leader any more.
const LEADER_LASTS: Duration = Duration::from_secs(5);

/// What this node is to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRole {
    /// It belongs to none yet.
    None,
    /// It has the log, but no vote.
    Learner,
    /// It follows the leader.
    Follower,
    /// It would be the leader.
    Candidate,
    /// It leads.
    Leader,
}

impl GroupRole {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// What a node can tell of the group.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// This node's id.
    pub id: NodeId,
    /// The cluster that it belongs to.
    pub cluster: Option<ClusterId>,
    /// What it is.
    pub role: GroupRole,
    /// The name of the leader.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
    /// Names of those that vote.
    pub voters: Vec<String>,
    /// How many of them seem alive.
    pub live_voters: usize,
    /// How many more voters may be lost before no quorum is left that could change rules and members; `None`: none is left now.
    pub failures_tolerated: Option<usize>,
    /// Names of those that only get the log.
    pub learners: Vec<String>,
    /// The last entry in this node's log.
    pub last_log: u64,
    /// The last entry that it applied.
    pub applied: u64,
    /// The last entry whose rules are in force.
    pub in_force: u64,
    /// Why Raft does not run here.
    pub trouble: Option<String>,
}

impl Ledger {
    /// The cluster in whose group this node has a part.
    pub fn group(&self) -> Option<ClusterId> {
        let has_part = match self.shared().raft.running() {
            // Bound, it may have nothing of that cluster yet.
            Some(running) => running.is_initialized(),
            // Its disk has failed; it belongs where it did.
            None => self.applied().state.founding.is_some(),
        };
        self.shared().belonging.get().filter(|_| has_part)
    }

    /// The cluster to which this node belongs, though it may have nothing of it yet.
    pub(crate) fn belongs_to(&self) -> Option<ClusterId> {
        self.shared().belonging.get()
    }

    /// Says that the disk of this node hangs or its log has failed, if others could go on without it.
    pub(crate) fn disk_trouble(&self) -> Option<String> {
        let shared = self.shared();
        let is_alone = match shared.raft.running() {
            Some(running) => running.is_alone(),
            None => shared.applied.borrow().state.members.len() <= 1,
        };
        shared.raft.trouble().filter(|_| !is_alone)
    }

    /// Says to which node the network is slower than is supported, if it is to one.
    pub(crate) fn slow_network(&self) -> Option<String> {
        self.shared().calling.connections.slowest()
    }

    /// What keeps this node from founding a cluster with the others that wait.
    pub(crate) fn watch_obstacle(&self) -> watch::Receiver<Option<String>> {
        self.shared().founding.obstacle.subscribe()
    }

    /// A second cluster of this cluster's name, and what to do about it.
    pub fn foreign_cluster(&self) -> Option<String> {
        self.shared().founding.foreign.borrow().as_ref().map(|foreign| foreign.text.clone())
    }

    pub(crate) fn watch_foreign(&self) -> watch::Receiver<Option<Foreign>> {
        self.shared().founding.foreign.subscribe()
    }

    /// The highest vote that this node has given: the term and for whom.
    #[cfg(feature = "simulation")]
    pub(crate) fn vote(&self) -> Option<(u64, NodeId)> {
        let metrics = self.shared().raft.running()?.watch();
        let vote = metrics.borrow().vote;
        let leader = vote.leader_id();
        // Before Raft has read its disk it shows a vote of term 0.
        (leader.term > 0).then_some((leader.term, leader.node_id))
    }

    /// What this node can tell of the group.
    pub fn status(&self) -> GroupStatus {
        let shared = self.shared();
        let in_force = self.rules().progress.borrow().index;
        let mut status = GroupStatus {
            id: shared.me,
            cluster: shared.belonging.get(),
            role: GroupRole::None,
            leader: None,
            term: 0,
            voters: Vec::new(),
            live_voters: 0,
            failures_tolerated: None,
            learners: Vec::new(),
            last_log: 0,
            applied: shared.applied.borrow().index,
            in_force,
            trouble: shared.raft.trouble(),
        };
        let Some(running) = shared.raft.running() else { return status };
        let metrics = running.metrics();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let live: BTreeSet<NodeId> = shared.live().iter().filter_map(|member| member.node).collect();
        let is_live = |id: &&NodeId| **id == shared.me || live.contains(id);
        status.live_voters = voters.iter().filter(is_live).count();
        // While the voters change there are two sets, and each has to agree.
        let spare =
            |set: &BTreeSet<NodeId>| set.iter().filter(is_live).count().checked_sub(set.len() / 2 + 1);
        let spare = membership.get_joint_config().iter().map(spare).min().flatten();
        status.failures_tolerated = spare;
        // Raft keeps the name of a leader that is long gone, also where that is the node itself, without a quorum.
        let age = match metrics.state {
            ServerState::Leader => metrics.millis_since_quorum_ack.map(Duration::from_millis).or(self.age()),
            _ => self.age(),
        };
        let leader = metrics.current_leader.filter(|_| age.is_some_and(|age| age < LEADER_LASTS));
        for (id, node) in membership.nodes() {
            let names = if voters.contains(id) { &mut status.voters } else { &mut status.learners };
            names.push(node.name.clone());
            if leader == Some(*id) {
                status.leader = Some(node.name.clone());
            }
        }
        status.voters.sort_unstable();
        status.learners.sort_unstable();
        status.term = metrics.current_term;
        status.last_log = metrics.last_log_index.unwrap_or(0);
        status.role = match metrics.state {
            _ if status.voters.is_empty() => GroupRole::None,
            ServerState::Learner | ServerState::Shutdown => GroupRole::Learner,
            ServerState::Follower => GroupRole::Follower,
            ServerState::Candidate => GroupRole::Candidate,
            ServerState::Leader => GroupRole::Leader,
        };
        status
    }
}
