//! Nodes that gossip, and have not shown yet that they are who they say.
//!
//! Gossip takes the cluster key and no certificate. Where streams between nodes must be TLS, a node that has no certificate of its
//! name could be heard, and never be reached: so the leader calls on it first, and takes in whoever it finds.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use crate::{
    config::PeerEncryption,
    ids::{NodeId, RaftNode},
    link::{Identity, dial},
};

/// How long after a call in vain the next one is made.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Newcomers that were called in vain, and are remembered; further ones wait.
const MAX_REMEMBERED: usize = 1024;

/// Whom this node has called in vain, and when.
#[derive(Debug, Default)]
pub(super) struct Newcomers(HashMap<NodeId, Instant>);

impl Newcomers {
    /// Whether a node is left out for now.
    pub(super) fn waits(&self, id: NodeId) -> bool {
        self.0.get(&id).is_some_and(|called| called.elapsed() < AGAIN_AFTER)
    }

    /// Whether a node is who it says; where no certificates are demanded that shows later.
    pub(super) async fn is_proved(&mut self, identity: &Identity, id: NodeId, node: &RaftNode) -> bool {
        if !identity.tls.as_ref().is_some_and(|tls| tls.encryption == PeerEncryption::Required) {
            return true;
        }
        let Err(error) = dial(node.peer, identity, Some(&node.name)).await else {
            self.0.remove(&id);
            return true;
        };
        self.0.retain(|_, called| called.elapsed() < AGAIN_AFTER);
        if self.0.len() < MAX_REMEMBERED {
            self.0.insert(id, Instant::now());
        }
        warn!(peer = %node, %error, "a node that gossips has not shown a certificate of its name: it is not taken in");
        false
    }
}
