//! Ownership, as other members ask for it: at the leader, and at owners and those that are to have their slots.

use std::sync::Arc;

use async_trait::async_trait;

use super::{context::Context, hand_over};
use crate::{
    ids::NodeId,
    raft::leader_client::LeaderClient,
    rpc::{
        message::{Call, Reply},
        server::Service,
    },
};

/// Answers for the leader: sessions, and who owns what.
pub(crate) struct LeaderService(pub(crate) Arc<Context>);

#[async_trait]
impl Service for LeaderService {
    async fn call(&self, _from: NodeId, call: Call, _bytes: usize) -> Reply {
        let context = &self.0;
        let Some(running) = context.group.raft.running() else { return context.group.raft.not_running() };
        match call {
            Call::Renew { row, wants, applied } => {
                Reply::Renew(context.renew_here(&running, row, wants, applied).await)
            }
            Call::Moved(moves) => Reply::Written(context.moved_here(&running, moves).await),
            Call::Drain { start, on } => Reply::Written(context.drain_here(&running, start, on).await),
            Call::Evict(node) => Reply::Written(context.evict_here(&running, node).await),
            Call::Strike { successor, slots } => {
                Reply::Written(context.strike_here(&running, successor, slots).await)
            }
            _ => Reply::Refused("that is no call to a leader".to_owned()),
        }
    }
}

/// Answers for a node that owns slots or is to have some.
pub(crate) struct OwnerService {
    pub(crate) context: Arc<Context>,
    pub(crate) leader: Arc<LeaderClient>,
}

#[async_trait]
impl Service for OwnerService {
    async fn call(&self, _from: NodeId, call: Call, _bytes: usize) -> Reply {
        let context = &self.context;
        if context.group.raft.running().is_none() {
            return context.group.raft.not_running();
        }
        match call {
            Call::Refuse(moves) => Reply::Refuse(context.ownership.refuse(&moves)),
            Call::HandOver(part) => Reply::HandOver(hand_over::take_over(context, &self.leader, part)),
            Call::UpdateFloors(update) => Reply::FloorsUpdated(context.receive_floors(update)),
            _ => Reply::Refused("that is no call to an owner".to_owned()),
        }
    }
}
