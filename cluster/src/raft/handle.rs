//! What the tasks of the group share.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::{
    belonging::{Belonging, BindError, Promise},
    consensus::Consensus,
    founding::Founding,
    heard::Contacts,
    running::Running,
    survey::Asker,
};
use crate::{
    clock::Clock,
    gossip::ForeignNodes,
    ids::{ClusterId, NodeId},
    link::Identity,
    member::{Alive, Member, MemberRow},
    rpc::caller::Calling,
    state::applied::Applied,
};

/// What the tasks of the group share.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) identity: Arc<Identity>,
    /// What this node says of itself when it asks for a session.
    pub(crate) row: MemberRow,
    pub(crate) clock: Clock,
    pub(crate) calling: Arc<Calling>,
    /// Whom gossip sees.
    pub(crate) alive: watch::Receiver<Alive>,
    /// Whom of other clusters gossip has heard of.
    pub(crate) foreign: Arc<ForeignNodes>,
    pub(crate) belonging: Arc<Belonging>,
    pub(crate) founding: Founding,
    pub(crate) raft: Arc<Consensus>,
    pub(crate) contacts: Contacts,
    pub(crate) applied: watch::Sender<Arc<Applied>>,
}

impl Shared {
    /// Notes on the disk that this node belongs to a cluster, before Raft is given anything of it.
    pub(crate) async fn bind(
        &self,
        cluster: ClusterId,
        running: &Running,
        own: Option<Promise>,
    ) -> Result<(), BindError> {
        let bound = self.belonging.bind(cluster, &running.disk, own).await;
        if let Err(error) = &bound {
            self.raft.note_bind_error(error);
        }
        bound
    }

    /// What was wanted of the Raft that has ended says nothing about the one that has just begun.
    pub(crate) fn forget_wishes(&self) {
        for wish in [&self.raft.disk_failed, &self.founding.abandoned, &self.raft.resigns] {
            let _ = wish.notified().now_or_never();
        }
    }

    /// The nodes that gossip holds for alive.
    pub(crate) fn live(&self) -> Vec<Member> {
        self.alive.borrow().members.clone()
    }

    /// Who asks what stands behind `--join`.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { identity: &self.identity, belonging: &self.belonging, peer: self.row.peer }
    }
}
