//! Ownership, as other members ask for it: at the leader, and at owners and those that are to have their slots.

use std::sync::Arc;

use async_trait::async_trait;

use super::hand_over;
use crate::{
    ids::NodeId,
    raft::{handle::Shared, leader_client::LeaderClient},
    rpc::{
        message::{Call, Reply},
        server::Service,
    },
};

/// Answers for the leader: sessions, and who owns what.
pub(crate) struct LeaderService(pub(crate) Arc<Shared>);

#[async_trait]
impl Service for LeaderService {
    async fn call(&self, _from: NodeId, call: Call, _bytes: usize) -> Reply {
        let shared = &self.0;
        let Some(running) = shared.running() else { return shared.not_running() };
        match call {
            Call::Renew { row, wants, applied } => {
                Reply::Renew(shared.renew_here(&running, row, wants, applied).await)
            }
            Call::Moved(moves) => Reply::Written(shared.moved_here(&running, moves).await),
            Call::Drain { holder, on } => Reply::Written(shared.drain_here(&running, holder, on).await),
            Call::Evict(node) => Reply::Written(shared.evict_here(&running, node).await),
            Call::Strike { successor, slots } => {
                Reply::Written(shared.strike_here(&running, successor, slots).await)
            }
            _ => Reply::Refused("that is no call to a leader".to_owned()),
        }
    }
}

/// Answers for a node that owns slots or is to have some.
pub(crate) struct OwnerService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) leader: Arc<LeaderClient>,
}

#[async_trait]
impl Service for OwnerService {
    async fn call(&self, _from: NodeId, call: Call, _bytes: usize) -> Reply {
        let shared = &self.shared;
        if shared.running().is_none() {
            return shared.not_running();
        }
        match call {
            Call::Refuse(moves) => Reply::Refuse(shared.ownership.refuse(&moves)),
            Call::HandOver(part) => Reply::HandOver(hand_over::take_over(shared, &self.leader, part)),
            Call::Tell(words) => Reply::Told(shared.hear(words)),
            _ => Reply::Refused("that is no call to an owner".to_owned()),
        }
    }
}
