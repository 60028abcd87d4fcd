//! Raft on this node: started on its disk, and again when the disk has failed.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use openraft::{Config, Raft, SnapshotPolicy};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::{
    applied::Machine,
    belonging::Belonging,
    consensus::Consensus,
    disk::{Disk, DiskIdentity, Lasting},
    files::DiskError,
    founding::Founding,
    handle::Shared,
    heard::{Contacts, ELECTION},
    log::Log,
    network::Callers,
    running::Running,
};
use crate::{
    clock::Clock,
    fabric,
    link::Identity,
    member::{Alive, MemberRow},
    owner::{shares::ShareTable, slot_ownership::SlotOwnership},
    rpc::{
        caller::Calling,
        connections::{Connections, LastHeard},
        sane::is_absurd,
    },
    stats::CallStats,
};

/// How often the leader shows that it is there.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// How long one call of the leader may take, and one for a vote: openraft takes these for its own heartbeats and elections too,
/// so heartbeats are sent by [`beat`], and elections are begun by [`election`]. Both are below the lease that voters keep to, and not
/// by much: a slow disk takes that long to write what is answered. While a call with entries is lost, the member hears nothing else from
/// its leader: the next one has to come before the lease ends.
const APPEND_WITHIN: Duration = Duration::from_millis(800);
const VOTE_WITHIN: Duration = Duration::from_millis(950);
/// Entries after which a snapshot is taken; half as many are kept for members that are a little behind.
const SNAPSHOT_EVERY: u64 = 1000;
/// For a piece of a snapshot, and for its writing.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failure of the disk it is tried again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long starting it again may take: a disk that has failed may hang next.
const RESTART_WITHIN: Duration = Duration::from_secs(10);
/// After how long a failure that repeats is said again.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How often a node checks whether its disk hangs.
const LOOK_AT_DISK_EVERY: Duration = Duration::from_millis(200);
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// What the group needs to know of this node.
pub(crate) struct GroupConfig {
    pub(crate) identity: Arc<Identity>,
    /// What this node says of itself when it asks for a session.
    pub(crate) row: MemberRow,
    pub(crate) data_dir: Option<PathBuf>,
    /// As in [`crate::ClusterConfig::bootstrap_expect`], with a node alone being one.
    pub(crate) expect: Option<u32>,
    /// As in [`crate::ClusterConfig::join`], each with a port.
    pub(crate) join: Vec<String>,
    /// Whom gossip sees.
    pub(crate) alive: watch::Receiver<Alive>,
    pub(crate) ownership: Arc<SlotOwnership>,
    pub(crate) calls: Arc<CallStats>,
    pub(crate) clock: Clock,
}

/// This node's part in the group.
#[derive(Clone)]
pub(crate) struct RaftGroup {
    shared: Arc<Shared>,
    ownership: Arc<SlotOwnership>,
    data_dir: Option<PathBuf>,
    /// What a node without a data directory has promised: as long as the process lives, Raft may not forget it.
    in_memory: Option<Disk>,
    before: Lasting,
}

impl RaftGroup {
    /// Opens the disk, and says who this node is.
    pub(crate) fn open(
        data_dir: Option<&std::path::Path>,
        now_ms: u64,
    ) -> Result<(Disk, DiskIdentity), DiskError> {
        let disk = match data_dir {
            Some(directory) => Disk::open(directory)?,
            None => Disk::in_memory()?,
        };
        let identity = disk.start(now_ms)?;
        Ok((disk, identity))
    }

    /// Starts Raft.
    pub(crate) async fn start(config: GroupConfig, disk: Disk) -> Result<Self, DiskError> {
        let GroupConfig { identity, row, data_dir, expect, join, alive, ownership, calls, clock } = config;
        let belonging = Arc::new(Belonging::of(&disk, Instant::now())?);
        let bound = Arc::clone(&belonging);
        let calling = Arc::new(Calling {
            identity: Arc::clone(&identity),
            connections: Connections::new(Arc::clone(&identity), last_heard(alive.clone())),
            stats: calls,
            cluster: Box::new(move || bound.get()),
        });
        let shared = Arc::new(Shared {
            me: row.id,
            identity,
            row,
            clock,
            calling,
            alive,
            foreign: Arc::default(),
            belonging,
            founding: Founding::new(expect, &join, Instant::now()),
            raft: Arc::default(),
            contacts: Contacts::new(Instant::now()),
            applied: watch::Sender::new(Arc::default()),
        });
        let in_memory = data_dir.is_none().then(|| disk.clone());
        let before = disk.lasting();
        let group = Self { shared, ownership, data_dir, in_memory, before };
        group.run_raft(disk).await?;
        Ok(group)
    }

    /// What the tasks of the group share.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    async fn run_raft(&self, disk: Disk) -> Result<(), DiskError> {
        let mut log = Log::start(disk.clone()).map_err(|error| disk.fault(error))?;
        // openraft would end in a panic at the next election, again and again.
        if let Some(number) = log.absurd().await.map_err(|error| disk.fault(error))? {
            return Err(disk.absurd(number));
        }
        log.step_down(self.shared.me).await.map_err(|error| disk.fault(error))?;
        let machine = Machine::open(&disk, self.shared.applied.clone())?;
        if let Some(applied) = machine.state().0.filter(|id| is_absurd(id.leader_id.term)) {
            return Err(disk.absurd(applied.leader_id.term));
        }
        self.hold_share(&log, &machine).map_err(|error| disk.fault(error))?;
        let callers = Callers(Arc::clone(&self.shared));
        let raft = Raft::new(self.shared.me, Arc::new(raft_config()), callers, log.clone(), machine)
            .await
            .map_err(|error| disk.fault(error))?;
        self.shared.raft.runs(Running::new(raft, disk, log));
        Ok(())
    }

    /// What this node has applied before it may not have applied yet. Until it has, it gives no larger share of lost buckets than
    /// any that its log names.
    fn hold_share(&self, log: &Log, machine: &Machine) -> io::Result<()> {
        let next = machine.state().0.map_or(0, |applied| applied.index + 1);
        let (changes, last) = log.share_changes(next)?;
        if let Some(parts) = ShareTable::smallest(self.shared.me, &changes) {
            self.ownership.hold_share(parts, last);
        }
        Ok(())
    }

    /// Starts Raft again when it has failed: the disk was full, perhaps, and is not for ever. A node whose disk has
    /// failed forgets nothing that it promised: it begins with what is on the disk, as after a restart.
    pub(crate) async fn supervise(self, cancel: CancellationToken) {
        // A disk that stays full fails again whenever it is written: that is said once a while, and once that it is over.
        let mut said: Option<(String, Instant)> = None;
        loop {
            let mut forgets = false;
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.shared.raft.resigns.notified() => {
                    if self.resign().await {
                        continue;
                    }
                    // It ends as if its disk had failed: only when nobody has that any more does Raft begin again.
                    self.shared.raft.set_trouble(Some("Raft has not ended in time at this node".to_owned()));
                }
                () = self.shared.founding.abandoned.notified() => {
                    self.shared.raft.set_trouble(Some("the cluster that this node was to found is given up".to_owned()));
                    forgets = true;
                }
                () = self.works_again(), if said.is_some() => {
                    info!("the replicated log works again");
                    said = None;
                    continue;
                }
                reason = self.failed() => {
                    let now = Instant::now();
                    let is_said = |(before, at): &(String, Instant)| {
                        *before == reason && now.duration_since(*at) < SAY_AGAIN_AFTER
                    };
                    if !said.as_ref().is_some_and(is_said) {
                        error!(%reason, "the replicated log has failed: this node goes on with the rules that it has and tries again");
                        said = Some((reason.clone(), now));
                    }
                    self.shared.raft.set_trouble(Some(format!("the replicated log of this node has failed: {reason}")));
                }
            }
            self.shared.raft.trial().failed(Instant::now());
            let _ = self.stop_raft().await;
            while self.shared.raft.running().is_none() {
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = sleep(RESTART_AFTER) => {}
                }
                let restarted = tokio::select! {
                    () = cancel.cancelled() => break,
                    restarted = timeout(RESTART_WITHIN, self.restart(forgets)) => restarted,
                };
                let fault = match restarted {
                    Ok(Ok(())) => {
                        self.shared.raft.trial().started(Instant::now());
                        self.shared.forget_wishes();
                        debug!("the replicated log has started again");
                        continue;
                    }
                    Ok(Err(fault)) => fault.to_string(),
                    Err(_) => format!("its disk has not opened it within {RESTART_WITHIN:?}"),
                };
                self.shared
                    .raft
                    .set_trouble(Some(format!("the replicated log of this node has failed: {fault}")));
            }
            if cancel.is_cancelled() {
                break;
            }
        }
        let _ = self.stop_raft().await;
    }

    /// `forgets`: with nothing of the cluster that the node belonged to.
    async fn restart(&self, forgets: bool) -> Result<(), DiskError> {
        let disk = match (&self.in_memory, &self.data_dir) {
            (Some(disk), _) => disk.clone(),
            (None, Some(directory)) => {
                let (directory, before) = (directory.clone(), self.before.clone());
                // It reads and syncs, and may hang. Given up, it is closed when it has been opened after all.
                let me = self.shared.row.node_start();
                let opened = fabric::blocking(move || Disk::open_again(&directory, &before, me)).await;
                opened.map_err(|panicked| self.before.snapshots.fault(panicked))??
            }
            (None, None) => unreachable!("without a directory it is in memory"),
        };
        // Nothing of it ever counted here: else it would not be dead.
        if forgets && self.shared.applied.borrow().state.founding.is_none() {
            disk.forget_cluster()?;
            self.shared.belonging.forget();
        }
        self.run_raft(disk).await
    }

    /// Returns when the log has worked for as long as it has to after it failed.
    async fn works_again(&self) {
        while !self.shared.raft.trial().is_over(Instant::now()) {
            sleep(LOOK_AT_DISK_EVERY).await;
        }
    }

    async fn failed(&self) -> String {
        let Some(running) = self.shared.raft.running() else { return "it is not running".to_owned() };
        let mut metrics = running.watch();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return fatal.to_string();
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return "Raft has ended".to_owned();
                },
                () = self.shared.raft.disk_failed.notified() => return "its disk cannot be written".to_owned(),
            }
        }
    }

    /// Leads no more: Raft begins again, as after a restart, and does not go on to lead ([`Log::step_down`]). openraft 0.9 has no
    /// other way that leaves no message of this term behind. False: it has not ended.
    async fn resign(&self) -> bool {
        let Some(running) = self.shared.raft.running().filter(|running| running.is_leader()) else {
            return true;
        };
        let (disk, log) = (running.disk.clone(), running.log.clone());
        drop(running);
        self.shared.contacts.note_resigned();
        // What the earlier one was still writing must not come after what the next one writes.
        self.stop_raft().await
            && timeout(STOP_WITHIN, log.flush()).await.is_ok_and(|flushed| flushed.is_ok())
            && timeout(STOP_WITHIN, self.run_raft(disk)).await.is_ok_and(|ran| ran.is_ok())
    }

    /// False: it has not ended.
    pub(crate) async fn stop_raft(&self) -> bool {
        match self.shared.raft.take() {
            Some(running) => timeout(STOP_WITHIN, running.raft.shutdown()).await.is_ok(),
            None => true,
        }
    }
}

/// Shows the others that this node leads, while it does.
pub(crate) async fn beat(raft: Arc<Consensus>) {
    let mut ticks = interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A Raft whose disk hangs would only remember them.
        if let Some(running) = raft.running().filter(|running| running.is_leader() && !running.hangs()) {
            // If Raft has ended, it is started again by others.
            let _ = running.raft.trigger().heartbeat().await;
        }
    }
}

/// Says once when the disk hangs, and once when it goes on.
pub(crate) async fn watch_disk(raft: Arc<Consensus>) {
    let mut hung_since: Option<Instant> = None;
    loop {
        sleep(LOOK_AT_DISK_EVERY).await;
        match (raft.disk_trouble(), hung_since) {
            (Some(trouble), None) => {
                hung_since = Some(Instant::now());
                error!(%trouble, "the disk hangs: until it goes on, this node asks for no session and answers no call of Raft");
            }
            (None, Some(since)) => {
                hung_since = None;
                // As after a failure: it has to work for a while.
                raft.trial().failed(since);
                raft.trial().started(Instant::now());
                info!(hung_for = ?since.elapsed(), "the disk of this node has finished its write and goes on");
            }
            _ => {}
        }
    }
}

/// Where gossip has heard of a member last.
fn last_heard(alive: watch::Receiver<Alive>) -> Arc<LastHeard> {
    Arc::new(move |id, name| {
        let members = &alive.borrow().members;
        members
            .iter()
            .find(|member| member.node == Some(id) && *member.id.name == *name)
            .map(|member| member.peer)
    })
}

fn raft_config() -> Config {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let config = Config {
        cluster_name: "tidegate".to_owned(),
        heartbeat_interval: millis(APPEND_WITHIN),
        enable_heartbeat: false,
        election_timeout_min: millis(VOTE_WITHIN),
        election_timeout_max: millis(ELECTION.1),
        enable_elect: false,
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: SNAPSHOT_EVERY / 2,
        replication_lag_threshold: SNAPSHOT_EVERY * 2,
        max_payload_entries: 256,
        ..Config::default()
    };
    config.validate().expect("these numbers fit together")
}
