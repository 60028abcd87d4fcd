//! Who can be reached: **nobody becomes leader to whom a quorum of voters could not just open a connection**. All sessions come by
//! connections that members open to the leader, and a node to which that is impossible can win any election: it opens
//! connections itself, and asks for votes by them. So a voter that is asked for its vote opens one to who asks, from the
//! outside in through all that a session needs: address, firewall, accept queue, handshake, a free stream for calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidegate_limiter::Nanos;
use tokio::{task::JoinSet, time::Instant};
use tracing::debug;

use super::{calls::{Call, Caller, Reply}, group::Shared};
use crate::ids::{NodeId, RaftNode};

/// That a node was reached counts for so long.
const COUNTS_FOR: Duration = Duration::from_secs(2);
/// How long it is tried while somebody waits for the answer, who waits a little longer.
const WITHIN: Duration = Duration::from_millis(200);
/// How long it is tried ahead of being asked: the other node may be far away.
const AHEAD_WITHIN: Duration = Duration::from_millis(1000);
/// How often each node is tried ahead.
const AHEAD_EVERY: Duration = Duration::from_millis(500);
/// Attempts at one time.
const MAX_ATTEMPTS: usize = 16;

/// When members last answered the leader's own messages: those come by connections that the leader opens.
#[derive(Debug, Default)]
pub(super) struct Answered(Mutex<BTreeMap<NodeId, Nanos>>);

impl Answered {
    pub(super) fn note(&self, node: NodeId, now: Nanos) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.entry(node).or_insert(now);
        *at = now.max(*at);
    }

    /// All of them that belong to the group.
    pub(super) fn among(&self, is_member: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, Nanos> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|node, _| is_member(*node));
        known.clone()
    }
}

/// Which nodes this one has reached lately.
#[derive(Debug, Default)]
pub(super) struct Reached(Mutex<BTreeMap<NodeId, Instant>>);

impl Reached {
    fn note(&self, node: NodeId, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, at| now.duration_since(*at) < COUNTS_FOR);
        known.insert(node, now);
    }

    fn counts(&self, node: NodeId, now: Instant) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).is_some_and(|at| now.duration_since(*at) < COUNTS_FOR)
    }
}

/// Attempts to reach those who may soon ask for this node's vote.
#[derive(Debug)]
pub(super) struct Ahead {
    attempts: JoinSet<()>,
    next: Instant,
}

impl Ahead {
    pub(super) fn new() -> Self {
        Self { attempts: JoinSet::new(), next: Instant::now() }
    }

    /// Tries all of them, unless that was done a moment ago.
    pub(super) fn attempt(&mut self, shared: &Arc<Shared>, nodes: Vec<(NodeId, RaftNode)>) {
        while self.attempts.try_join_next().is_some() {}
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + AHEAD_EVERY;
        for (id, node) in nodes {
            if self.attempts.len() >= MAX_ATTEMPTS || shared.reached.counts(id, now) {
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
        match Caller::opening(self, id, node).call(Call::Reach, patience).await {
            Ok(Reply::Reached) => {
                self.reached.note(id, Instant::now());
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
    pub(super) async fn can_reach(&self, id: NodeId, node: Option<RaftNode>) -> bool {
        if self.reached.counts(id, Instant::now()) {
            return true;
        }
        let Some(node) = node else { return false };
        self.reach(id, node, WITHIN).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_node_was_reached_counts_for_a_while_only() {
        let (reached, start) = (Reached::default(), Instant::now());
        assert!(!reached.counts(1, start));
        reached.note(1, start);
        assert!(reached.counts(1, start + COUNTS_FOR / 2) && !reached.counts(2, start));
        assert!(!reached.counts(1, start + COUNTS_FOR));
        reached.note(2, start + COUNTS_FOR);
        assert_eq!(reached.0.lock().unwrap().len(), 1, "what no longer counts is dropped");
    }

    #[test]
    fn answers_of_others_than_members_are_forgotten_and_none_makes_an_earlier_one_later() {
        let answered = Answered::default();
        answered.note(1, Nanos::new(9));
        answered.note(1, Nanos::new(5));
        answered.note(2, Nanos::new(7));
        assert_eq!(answered.among(|node| node == 1), BTreeMap::from([(1, Nanos::new(9))]));
        assert_eq!(answered.among(|_| true), BTreeMap::from([(1, Nanos::new(9))]));
    }
}
