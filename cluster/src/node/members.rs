//! Changes of members, as an operator asks for them, and who takes over from whom.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::Cluster;
use crate::{
    ids::NodeStart,
    member::MemberRow,
    owner::SlotRow,
    rules::ledger::{NoQuorum, WriteError},
    state::audit::Actor,
};

/// How often a node checks whether a change is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a change of a member was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MemberError {
    /// Nobody has that name.
    #[error("no member of the cluster has this name")]
    NoSuchNode,
    /// It lives, and was not told to leave.
    #[error("it is alive; only a node that was drained, or is dead, can be removed")]
    Live,
    /// It is asked to take itself out.
    #[error("it is the node that was asked: ask another one to remove it")]
    Itself,
    /// It was taken out.
    #[error("it was removed: started again, it joins again")]
    Removed,
    /// A quorum could not be reached in time.
    #[error("{0}")]
    NoQuorum(NoQuorum),
    /// Who asks may not.
    #[error("{0}")]
    NotAllowed(String),
}

impl From<WriteError> for MemberError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NoQuorum(missing) => Self::NoQuorum(missing),
            error => Self::NotAllowed(error.to_string()),
        }
    }
}

impl Cluster {
    /// Has all slots of a node given to others (`on`), or lets it have its share again. Returns when that is written, not
    /// when it is done.
    ///
    /// # Errors
    /// When there is no such node, or a quorum cannot be reached before the deadline.
    pub async fn drain(&self, name: &str, on: bool, by: Actor, deadline: Instant) -> Result<(), MemberError> {
        let start = self.member(name)?;
        if !on && self.ledger.applied().state.evicted.contains(&start.node) {
            return Err(MemberError::Removed);
        }
        Ok(self.ledger.drain_by(start, on, name, by, deadline).await?)
    }

    /// Takes a node out of the cluster that is dead, or was drained: who has been told to leave may still be there, or seem
    /// so for a while.
    ///
    /// # Errors
    /// When there is no such node, when it is alive and was not drained, or when a quorum cannot be reached before the deadline.
    pub async fn remove(&self, name: &str, by: Actor, deadline: Instant) -> Result<(), MemberError> {
        let start = self.member(name)?;
        let is_there = self.status.borrow().live.iter().any(|member| member.node == Some(start.node));
        if is_there && !self.ledger.applied().state.draining.contains(&start) {
            return Err(MemberError::Live);
        }
        if start == self.ownership.me() {
            return Err(MemberError::Itself);
        }
        self.ledger.evict_by(start.node, name, by, deadline).await?;
        while Instant::now() < deadline {
            // As long as it seems to be there its name is kept, so that it is not taken in as somebody new.
            if !self.ledger.applied().state.members.contains_key(&start.node)
                || !self.ledger.has_part(start.node)
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(MemberError::NoQuorum(self.ledger.no_quorum(true)))
    }

    fn member(&self, name: &str) -> Result<NodeStart, MemberError> {
        let applied = self.ledger.applied();
        let rows = applied.state.members.values().filter(|row| row.name == name);
        // One that was taken out, or lost its disk, is known for a while.
        let row = rows.max_by_key(|row| row.incarnation);
        row.map(MemberRow::node_start).ok_or(MemberError::NoSuchNode)
    }

    /// The names of the nodes whose slots are given to others.
    pub fn draining(&self) -> BTreeSet<String> {
        let state = &self.ledger.applied().state;
        let rows = state.members.values().filter(|row| state.draining.contains(&row.node_start()));
        rows.map(|row| row.name.clone()).collect()
    }

    /// For each slot the name of who takes it over when its owner is lost.
    pub fn slot_successors(&self) -> Vec<Option<String>> {
        let state = &self.ledger.applied().state;
        let name = |row: &SlotRow| Some(state.members.get(&row.successor?.node.node)?.name.clone());
        state.slots.rows().iter().map(name).collect()
    }
}
