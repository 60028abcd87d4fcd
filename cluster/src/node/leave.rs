//! How a node goes: it gives its slots to others, or keeps what their buckets know.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Cluster;
use crate::{
    controller::Command,
    fabric,
    ids::NodeId,
    member::{MemberRow, MemberState},
    owner::SlotRow,
};

/// How often a leaving node checks whether all its slots are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a leaving node waits for its vote to be taken.
const VOTE_WITHIN: Duration = Duration::from_secs(3);

impl Cluster {
    /// Gives all slots to others, with what is known of their buckets, and returns when this node owns none; or at the
    /// deadline, or when nobody is there to take them. Until then checks are decided as before. Returns how many it still
    /// owns.
    pub async fn leave(&self, deadline: Instant) -> usize {
        let mut owned = self.hand_over_all(deadline).await;
        if owned == 0 {
            self.give_vote_back(deadline.min(Instant::now() + VOTE_WITHIN)).await;
            // Where all others began to go meanwhile, it may have got some again.
            owned = self.counted_on();
        }
        self.ownership.give_up();
        let (done, heard) = tokio::sync::oneshot::channel();
        if self.commands.send(Command::Leave { done }).await.is_ok() && heard.await.is_ok() {
            tokio::time::sleep(self.pause).await;
        }
        owned
    }

    /// Waits until those that stay are a quorum without this node: for that the leader takes its vote, where one more or less
    /// matters. Without that it keeps its vote, as after a crash.
    async fn give_vote_back(&self, deadline: Instant) {
        let is_told = || self.ledger.applied().state.draining.contains(&self.ownership.me());
        while is_told()
            && self.ledger.is_needed(&self.staying())
            && self.others_stay()
            && Instant::now() < deadline
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The members that are there and were not told to leave, but this one.
    fn staying(&self) -> BTreeSet<NodeId> {
        let me = self.ownership.me();
        let state = &self.ledger.applied().state;
        let live = self.status.borrow().live.clone();
        let serves = |row: &&MemberRow| {
            live.iter().any(|member| member.node == Some(row.id) && member.state == MemberState::Serving)
        };
        let others = state
            .members
            .values()
            .filter(|row| row.node_start() != me && !state.draining.contains(&row.node_start()));
        others.filter(serves).map(|row| row.id).collect()
    }

    /// In how many slots others count on this node: as their owner, the next one, or a successor.
    fn counted_on(&self) -> usize {
        let me = self.ownership.me();
        let concerns_me = |row: &&SlotRow| {
            row.owner == me
                || row.moving.is_some_and(|pending| pending.to == me)
                || row.successor.is_some_and(|next| next.node == me)
        };
        self.ledger.applied().state.slots.rows().iter().filter(concerns_me).count()
    }

    fn others_stay(&self) -> bool {
        !self.staying().is_empty()
    }

    /// Decides nothing any more, and keeps what the buckets know for the next start of this node, if it has a data directory.
    /// For when all others were asked to go, too.
    pub async fn keep_debts(&self) {
        let (context, Some(directory)) = (Arc::clone(&self.context), self.data_dir.clone()) else { return };
        match fabric::blocking(move || context.save(&directory)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(buckets)) => tracing::info!(buckets, "what the buckets know is kept for the next start"),
            Ok(Err(reason)) => {
                tracing::warn!(%reason, "what the buckets know is not kept: they start exhausted at the next start");
            }
            Err(_panicked) => {}
        }
    }

    async fn hand_over_all(&self, deadline: Instant) -> usize {
        let me = self.ownership.me();
        let mut is_drained = false;
        loop {
            let mine = self.counted_on();
            // One that owns nothing yet, or no more, may have a vote all the same.
            let is_done = mine == 0 && (is_drained || !self.ledger.votes());
            if is_done || !self.others_stay() || Instant::now() >= deadline {
                return mine;
            }
            if !is_drained {
                let within = if mine == 0 { deadline.min(Instant::now() + VOTE_WITHIN) } else { deadline };
                is_drained = self.ledger.drain(me, true, within).await;
                if !is_drained && mine == 0 {
                    return 0;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
