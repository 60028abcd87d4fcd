//! A node's part in its cluster: what it is made of, and what may be asked of it.
//!
//! - `start`: opens the peer port and the disk, and assembles the node. `address`: where the others reach it. `tasks`: the tasks
//!   around the Raft group.
//! - `members`: changes of other members. `leave`: how a node goes.

mod address;
mod leave;
mod members;
mod seeds;
mod start;
mod tasks;

pub use self::{members::MemberError, start::StartError};

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backup::BucketPart,
    controller::Command,
    owner::slot_ownership::SlotOwnership,
    ownership::context::Context,
    router::Router,
    rules::ledger::Ledger,
    stats::{CallStats, FloorStats, GossipStats, MoveStats, PeerStats, WorkerStats},
    status::{ClusterStatus, Readiness, ToCome},
};

/// How long tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// A running member of a cluster.
pub struct Cluster {
    router: Arc<Router>,
    ledger: Ledger,
    status: watch::Receiver<ClusterStatus>,
    commands: mpsc::Sender<Command>,
    stats: ClusterStats,
    tasks: TaskTracker,
    cancel: CancellationToken,
    ownership: Arc<SlotOwnership>,
    context: Arc<Context>,
    data_dir: Option<PathBuf>,
    /// Until the others have heard what gossip tells them.
    pause: Duration,
}

/// What a member counts.
#[derive(Debug, Clone)]
pub struct ClusterStats {
    /// By worker.
    pub workers: Vec<Arc<WorkerStats>>,
    /// Gossip.
    pub gossip: Arc<GossipStats>,
    /// The peer port.
    pub peers: Arc<PeerStats>,
    /// Slots that went to others.
    pub moves: Arc<MoveStats>,
    /// What the calls of the Raft group cost.
    pub calls: Arc<CallStats>,
    /// Floors that are replicated to successors.
    pub floors: Arc<FloorStats>,
}

impl Cluster {
    /// Who decides checks.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// What is replicated: the rules and their history.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is known of the cluster now.
    pub fn status(&self) -> ClusterStatus {
        self.status.borrow().clone()
    }

    /// Whether this node can decide checks.
    pub fn readiness(&self) -> Readiness {
        if let Some(broken) = self.ledger.broken().first() {
            return Readiness::NotReady(format!(
                "{broken}; run the version that wrote them, or write others"
            ));
        }
        // Its slots are about to be another's, and what it decides it cannot follow up. One alone decides as before.
        let has_session = self.ownership.has_session(self.context.group.clock.now());
        // Without a quorum a node waits for nothing: nobody could start the others when it is ready. It has an answer for each check.
        let to_come = ToCome {
            session: !has_session && self.ledger.has_quorum_in_sight(),
            vote: self.ledger.awaits_vote(),
        };
        match (self.status.borrow().readiness(&self.router, to_come), self.ledger.disk_trouble()) {
            (Readiness::Ready, Some(trouble)) => {
                Readiness::NotReady(format!("this node asks for no session: {trouble}"))
            }
            (readiness, _) => readiness,
        }
    }

    /// The beginning of a backup: all that is replicated, as bytes for [`crate::backup::BackupWriter`].
    ///
    /// # Errors
    /// When it is longer than any snapshot.
    pub fn backup(&self, applied: &crate::state::Applied) -> Result<Vec<u8>, String> {
        let (node, taken_ms) = (&self.context.group.row.name, self.context.group.clock.unix_millis());
        crate::backup::begin(applied, node, taken_ms).map_err(|error| error.to_string())
    }

    /// What the buckets of these slots have used, where they are this node's, for the same. It reads all buckets, and may have
    /// looked at fewer slots.
    ///
    /// # Errors
    /// When one slot alone has too many.
    pub fn backup_buckets(&self, first: u16, last: u16) -> Result<Vec<u8>, String> {
        BucketPart::look(&self.context, first, last).map_err(|error| error.to_string())
    }

    /// The address of the peer port that this node advertises.
    pub fn advertised(&self) -> SocketAddr {
        self.context.group.row.peer
    }

    /// Looks into this node, for tests.
    #[cfg(feature = "simulation")]
    pub fn probe(&self) -> crate::simulation::Probe {
        crate::simulation::Probe {
            ownership: Arc::clone(&self.ownership),
            ledger: self.ledger.clone(),
            clock: self.router.clock(),
        }
    }

    /// What this node counts.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }

    /// Ends all tasks.
    pub async fn stop(self) {
        self.router.publish(None);
        self.cancel.cancel();
        self.tasks.close();
        if timeout(STOP_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!(within = ?STOP_DEADLINE, "some connections to other nodes did not end");
        }
    }
}
