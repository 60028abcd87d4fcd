//! Who can be reached: **nobody becomes leader to whom a quorum of voters could not just open a connection**. All sessions come by
//! connections that members open to the leader, and a node to which that is impossible can win any election: it opens
//! connections itself, and asks for votes by them. So a voter that is asked for its vote opens one to who asks, from the
//! outside in through all that a session needs: address, firewall, accept queue, handshake, a free stream for calls.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tracing::debug;

use super::handle::Shared;
use crate::{
    ids::{NodeId, RaftNode},
    rpc::{
        caller::Caller,
        message::{Call, Reply},
    },
};

/// How long it is tried while somebody waits for the answer, who waits a little longer.
const WITHIN: Duration = Duration::from_millis(200);
/// How long it is tried ahead of being asked: the other node may be far away.
const AHEAD_WITHIN: Duration = Duration::from_millis(1000);
/// How often each node is tried ahead.
const AHEAD_EVERY: Duration = Duration::from_millis(500);
/// Attempts at one time.
const MAX_ATTEMPTS: usize = 16;

/// Attempts to reach those who may soon ask for this node's vote.
#[derive(Debug)]
pub(crate) struct Ahead {
    attempts: JoinSet<()>,
    next: Instant,
}

impl Ahead {
    pub(crate) fn new() -> Self {
        Self { attempts: JoinSet::new(), next: Instant::now() }
    }

    /// Tries all of them, unless that was done a moment ago.
    pub(crate) fn attempt(&mut self, shared: &Arc<Shared>, nodes: Vec<(NodeId, RaftNode)>) {
        while self.attempts.try_join_next().is_some() {}
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + AHEAD_EVERY;
        for (id, node) in nodes {
            if self.attempts.len() >= MAX_ATTEMPTS || shared.contacts.reached.counts(id, now) {
                continue;
            }
            let shared = Arc::clone(shared);
            self.attempts.spawn(async move {
                shared.reach(id, node, AHEAD_WITHIN).await;
            });
        }
    }
}

impl Shared {
    /// Opens a connection to a node and asks something over it. Whether there was an answer.
    async fn reach(&self, id: NodeId, node: RaftNode, patience: Duration) -> bool {
        match Caller::opening(&self.calling, id, node).call(Call::Reach, patience).await {
            Ok(Reply::Reached) => {
                self.contacts.reached.note(id, Instant::now());
                true
            }
            Ok(_) => false,
            Err(fault) => {
                debug!(%fault, "a node that may stand for election cannot be reached");
                false
            }
        }
    }

    /// Whether a node that asks for a vote can be reached.
    pub(crate) async fn can_reach(&self, id: NodeId, node: Option<RaftNode>) -> bool {
        if self.contacts.reached.counts(id, Instant::now()) {
            return true;
        }
        let Some(node) = node else { return false };
        self.reach(id, node, WITHIN).await
    }
}
