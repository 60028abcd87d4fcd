//! What the tasks of the group share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use tidegate_limiter::cluster::Store;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    belonging::{Belonging, BindError, Foreign, Promise},
    heard::{Answered, Heard, Reached},
    reads::Reads,
    running::Running,
    survey::{Asker, Survey},
    trial::Trial,
};
use crate::{
    clock::Clock,
    ids::{ClusterId, NodeId},
    link::Identity,
    member::{Alive, Member, MemberRow},
    owner::{leader::Leader, slot_ownership::SlotOwnership},
    requests::Requests,
    rpc::caller::Calling,
    rules_in_force::{InForce, RulesInForce},
    state::applied::Applied,
    stats::MoveStats,
};

/// What all parts of the group share.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) identity: Arc<Identity>,
    pub(crate) belonging: Arc<Belonging>,
    pub(crate) calling: Arc<Calling>,
    /// How many nodes this one expects to found a cluster with; `None`: it only joins one.
    pub(crate) expect: Option<u32>,
    pub(crate) survey: Survey,
    /// A second cluster of this node's cluster's name.
    pub(crate) foreign: watch::Sender<Option<Foreign>>,
    /// The cluster can never have a leader: this node leaves it.
    pub(crate) abandoned: Notify,
    /// What keeps this node from founding a cluster.
    pub(crate) obstacle: watch::Sender<Option<String>>,
    pub(crate) applied: watch::Sender<Arc<Applied>>,
    pub(crate) in_force: watch::Sender<InForce>,
    /// Whom gossip sees.
    pub(crate) alive: watch::Receiver<Alive>,
    pub(crate) rules: Arc<RulesInForce>,
    /// The buckets that this node decides about.
    pub(crate) store: Arc<Store>,
    /// The floors that owners have told this node: apart, because a slot that comes by plan comes with more than floors.
    pub(crate) floors: Arc<Store>,
    /// What this node gives out when no owner answers.
    pub(crate) shares: Arc<Store>,
    pub(crate) ownership: Arc<SlotOwnership>,
    /// What was charged lately, by the clients' names for it.
    pub(crate) requests: Arc<Requests>,
    pub(crate) stats: Arc<MoveStats>,
    pub(crate) reads: Reads,
    /// What this node does about ownership while it leads.
    pub(crate) leader: Mutex<Leader>,
    /// What this node says of itself when it asks for a session.
    pub(crate) row: MemberRow,
    pub(crate) clock: Clock,
    pub(crate) running: ArcSwapOption<Running>,
    pub(crate) trouble: Mutex<Option<String>>,
    /// The disk has failed where Raft does not see it.
    pub(crate) disk_failed: Notify,
    pub(crate) trial: Mutex<Trial>,
    /// The nodes that this node has heard of.
    pub(crate) heard: Mutex<Heard>,
    /// Who answers this node's own messages as a leader.
    pub(crate) answered: Arc<Answered>,
    /// To whom this node could open a connection.
    pub(crate) reached: Reached,
    /// This node is to lead no more.
    pub(crate) resigns: Notify,
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
            self.note_bind_error(error);
        }
        bound
    }

    /// A disk that fails takes nothing more until it is opened again, and Raft has not written anything yet that would tell.
    pub(crate) fn note_bind_error(&self, error: &BindError) {
        if let BindError::Disk(_) | BindError::Panicked = error {
            self.disk_failed.notify_one();
        }
    }

    pub(crate) fn set_obstacle(&self, obstacle: Option<String>) {
        self.obstacle.send_if_modified(|known| {
            let is_news = *known != obstacle;
            *known = obstacle;
            is_news
        });
    }

    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        self.running.load_full()
    }

    /// Why Raft is not running, or does not go on.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.or_else(|| self.disk_trouble())
    }

    /// Says that the disk hangs, if it does.
    pub(crate) fn disk_trouble(&self) -> Option<String> {
        let hangs = self.running()?.log.hangs(Instant::now())?;
        Some(format!("the disk of this node has not finished a write for {} s", hangs.as_secs()))
    }

    /// What was wanted of the Raft that has ended says nothing about the one that has just begun.
    pub(crate) fn forget_wishes(&self) {
        for policy in [&self.disk_failed, &self.abandoned, &self.resigns] {
            let _ = policy.notified().now_or_never();
        }
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(crate) fn trial(&self) -> MutexGuard<'_, Trial> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node's log works, and has worked for a while if it has failed. A node alone has nobody who could have
    /// its slots instead.
    pub(crate) fn log_works(&self, running: &Running) -> bool {
        self.trial().is_over(Instant::now()) && !running.hangs() || running.is_alone()
    }

    /// The time of day, to tell people.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.clock.unix_millis()
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
