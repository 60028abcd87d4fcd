//! How a node goes: it gives its slots to others, or keeps what their buckets know.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Cluster;
use crate::{
    controller::Command,
    fabric,
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
        let owned = self.hand_over_all(deadline).await;
        if owned == 0 {
            self.give_vote_back(deadline.min(Instant::now() + VOTE_WITHIN)).await;
        }
        self.ownership.give_up();
        let (done, heard) = tokio::sync::oneshot::channel();
        if self.commands.send(Command::Leave { done }).await.is_ok() && heard.await.is_ok() {
            tokio::time::sleep(self.pause).await;
        }
        owned
    }

    /// Waits until the leader has taken this node's vote, where others stay: those that are left are a quorum by themselves
    /// then. Without that it keeps its vote, as after a crash.
    async fn give_vote_back(&self, deadline: Instant) {
        while self.ledger.votes() && self.others_stay() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a member is there that was not told to leave.
    fn others_stay(&self) -> bool {
        let me = self.ownership.me();
        let state = &self.ledger.applied().state;
        let live = self.status.borrow().live.clone();
        let serves = |row: &MemberRow| {
            live.iter().any(|member| member.node == Some(row.id) && member.state == MemberState::Serving)
        };
        let mut others = state
            .members
            .values()
            .filter(|row| row.node_start() != me && !state.draining.contains(&row.node_start()));
        others.any(serves)
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
            let applied = self.ledger.applied();
            let rows = applied.state.slots.rows().iter();
            // Nobody should count on this node, as a successor neither.
            let concerns_me = |row: &&SlotRow| {
                row.owner == me
                    || row.moving.is_some_and(|pending| pending.to == me)
                    || row.successor.is_some_and(|next| next.node == me)
            };
            let mine = rows.filter(concerns_me).count();
            if mine == 0 || !self.others_stay() || Instant::now() >= deadline {
                return mine;
            }
            if !is_drained {
                is_drained = self.ledger.drain(me, true, deadline).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
