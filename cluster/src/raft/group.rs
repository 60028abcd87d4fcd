//! Raft on this node: started on its disk, and again when the disk has failed.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use openraft::{Config, Raft, SnapshotPolicy};
use tidegate_limiter::cluster::Store;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    applied::Machine,
    belonging::Belonging,
    disk::{Disk, DiskIdentity, Outlives},
    files::DiskError,
    handle::Shared,
    heard::{ELECTION, Heard, Reached},
    log::Log,
    network::Callers,
    reads::Reads,
    running::Running,
    survey::Survey,
};
use crate::{
    clock::Clock,
    fabric,
    ids::Weight,
    link::Identity,
    member::{Alive, MemberRow},
    owner::{leader::Leader, session::SessionTiming, shares::ShareTable, slot_ownership::SlotOwnership},
    requests::Requests,
    rpc::{caller::Calling, connections::Connections, sane::is_absurd},
    rules_in_force::RulesInForce,
    stats::{CallStats, MoveStats},
};

/// How often the leader shows that it is there.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// How long one call of the leader may take, and one for a vote: openraft takes these for its own heartbeats and elections too,
/// so heartbeats are sent by [`beat`], and elections are begun by [`election`]. Both are below the lease that voters keep to.
const APPEND_WITHIN: Duration = Duration::from_millis(800);
const VOTE_WITHIN: Duration = Duration::from_millis(900);
/// Entries after which a snapshot is taken; half as many are kept for members that are a little behind.
const SNAPSHOT_EVERY: u64 = 1000;
/// For a piece of a snapshot, and for its writing.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a failure of the disk it is tried again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long starting it again may take: a disk that has failed may hang next.
const RESTART_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether the disk hangs.
const LOOK_AT_DISK_EVERY: Duration = Duration::from_millis(200);
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// What the group needs to know of this node.
pub(crate) struct GroupConfig {
    pub(crate) identity: Arc<Identity>,
    pub(crate) data_dir: Option<PathBuf>,
    /// As in [`crate::ClusterConfig::bootstrap_expect`], with a node alone being one.
    pub(crate) expect: Option<u32>,
    /// As in [`crate::ClusterConfig::join`], each with a port.
    pub(crate) join: Vec<String>,
    /// Whether the buckets of before this start are back.
    pub(crate) keeps: bool,
    /// Whom gossip sees.
    pub(crate) alive: watch::Receiver<Alive>,
    /// Where the rules in force are put.
    pub(crate) rules: Arc<RulesInForce>,
    /// Where the buckets are.
    pub(crate) store: Arc<Store>,
    /// Where the floors are that other owners have told.
    pub(crate) floors: Arc<Store>,
    /// Where the shares are.
    pub(crate) shares: Arc<Store>,
    pub(crate) ownership: Arc<SlotOwnership>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) stats: Arc<MoveStats>,
    pub(crate) calls: Arc<CallStats>,
    pub(crate) timing: SessionTiming,
    /// Where the others reach this node.
    pub(crate) peer: SocketAddr,
    pub(crate) zone: Option<String>,
    pub(crate) weight: Weight,
    pub(crate) clock: Clock,
}

/// This node's part in the group.
#[derive(Clone)]
pub(crate) struct RaftGroup {
    shared: Arc<Shared>,
    config: Arc<GroupConfig>,
    /// What a node without a data directory has promised: as long as the process lives, Raft may not forget it.
    in_memory: Option<Disk>,
    before: Outlives,
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
    pub(crate) async fn start(
        config: GroupConfig,
        disk: Disk,
        identity: DiskIdentity,
    ) -> Result<Self, DiskError> {
        let belonging = Arc::new(Belonging::of(&disk, Instant::now())?);
        let bound = Arc::clone(&belonging);
        let calling = Arc::new(Calling {
            identity: Arc::clone(&config.identity),
            connections: Connections::new(Arc::clone(&config.identity)),
            stats: Arc::clone(&config.calls),
            cluster: Box::new(move || bound.get()),
        });
        let shared = Arc::new(Shared {
            me: identity.node,
            identity: Arc::clone(&config.identity),
            belonging,
            calling,
            expect: config.expect,
            survey: Survey::new(&config.join, Instant::now()),
            foreign: watch::Sender::default(),
            abandoned: Notify::new(),
            obstacle: watch::Sender::default(),
            applied: watch::Sender::new(Arc::default()),
            in_force: watch::Sender::default(),
            alive: config.alive.clone(),
            rules: Arc::clone(&config.rules),
            store: Arc::clone(&config.store),
            floors: Arc::clone(&config.floors),
            shares: Arc::clone(&config.shares),
            ownership: Arc::clone(&config.ownership),
            requests: Arc::clone(&config.requests),
            stats: Arc::clone(&config.stats),
            reads: Reads::default(),
            leader: Mutex::new(Leader::new(config.timing)),
            row: MemberRow {
                keeps: config.keeps,
                id: identity.node,
                name: config.identity.me.name.to_string(),
                incarnation: identity.incarnation,
                peer: config.peer,
                zone: config.zone.clone(),
                weight: config.weight,
            },
            clock: config.clock,
            running: ArcSwapOption::empty(),
            trouble: Mutex::default(),
            disk_failed: Notify::new(),
            trial: Mutex::default(),
            heard: Mutex::new(Heard::new(Instant::now())),
            answered: Arc::default(),
            reached: Reached::default(),
            resigns: Notify::new(),
        });
        let in_memory = config.data_dir.is_none().then(|| disk.clone());
        let before = disk.outlives();
        let group = Self { shared, config: Arc::new(config), in_memory, before };
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
        self.shared.running.store(Some(Arc::new(Running::new(raft, disk, log))));
        self.shared.set_trouble(None);
        Ok(())
    }

    /// What this node has applied before it may not have applied yet. Until it has, it gives no larger share of lost buckets than
    /// any that its log names.
    fn hold_share(&self, log: &Log, machine: &Machine) -> io::Result<()> {
        let next = machine.state().0.map_or(0, |applied| applied.index + 1);
        let (changes, last) = log.share_changes(next)?;
        if let Some(parts) = ShareTable::smallest(self.shared.me, &changes) {
            self.shared.ownership.hold_share(parts, last);
        }
        Ok(())
    }

    /// Starts Raft again when it has failed: the disk was full, perhaps, and is not for ever. A node whose disk has
    /// failed forgets nothing that it promised: it begins with what is on the disk, as after a restart.
    pub(crate) async fn supervise(self, cancel: CancellationToken) {
        loop {
            let mut forgets = false;
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.shared.resigns.notified() => {
                    if self.resign().await {
                        continue;
                    }
                    // It ends as if its disk had failed: only when nobody has that any more does Raft begin again.
                    self.shared.set_trouble(Some("Raft has not ended in time at this node".to_owned()));
                }
                () = self.shared.abandoned.notified() => {
                    self.shared.set_trouble(Some("the cluster that this node was to found is given up".to_owned()));
                    forgets = true;
                }
                reason = self.failed() => {
                    error!(%reason, "the replicated log has failed: this node goes on with the rules that it has and tries again");
                    self.shared.set_trouble(Some(format!("the replicated log of this node has failed: {reason}")));
                }
            }
            self.shared.trial().failed(Instant::now());
            let _ = self.stop_raft().await;
            while self.shared.running().is_none() {
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
                        self.shared.trial().started(Instant::now());
                        self.shared.forget_wishes();
                        info!("the replicated log has started again");
                        continue;
                    }
                    Ok(Err(fault)) => fault.to_string(),
                    Err(_) => format!("its disk has not opened it within {RESTART_WITHIN:?}"),
                };
                self.shared.set_trouble(Some(format!("the replicated log of this node has failed: {fault}")));
            }
            if cancel.is_cancelled() {
                break;
            }
        }
        let _ = self.stop_raft().await;
    }

    /// `forgets`: with nothing of the cluster that the node belonged to.
    async fn restart(&self, forgets: bool) -> Result<(), DiskError> {
        let disk = match (&self.in_memory, &self.config.data_dir) {
            (Some(disk), _) => disk.clone(),
            (None, Some(directory)) => {
                let (directory, before) = (directory.clone(), self.before.clone());
                // It reads and syncs, and may hang. Given up, it is closed when it has been opened after all.
                let me = self.shared.row.holder();
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

    async fn failed(&self) -> String {
        let Some(running) = self.shared.running() else { return "it is not running".to_owned() };
        let mut metrics = running.watch();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return fatal.to_string();
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return "Raft has ended".to_owned();
                },
                () = self.shared.disk_failed.notified() => return "its disk cannot be written".to_owned(),
            }
        }
    }

    /// Leads no more: Raft begins again, as after a restart, and does not go on to lead ([`Log::step_down`]). openraft 0.9 has no
    /// other way that leaves no message of this term behind. False: it has not ended.
    async fn resign(&self) -> bool {
        let Some(running) = self.shared.running().filter(|running| running.is_leader()) else { return true };
        let (disk, log) = (running.disk.clone(), running.log.clone());
        drop(running);
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).note_resigned(Instant::now());
        // What the earlier one was still writing must not come after what the next one writes.
        self.stop_raft().await
            && timeout(STOP_WITHIN, log.flush()).await.is_ok_and(|flushed| flushed.is_ok())
            && timeout(STOP_WITHIN, self.run_raft(disk)).await.is_ok_and(|ran| ran.is_ok())
    }

    /// False: it has not ended.
    pub(crate) async fn stop_raft(&self) -> bool {
        match self.shared.running.swap(None) {
            Some(running) => timeout(STOP_WITHIN, running.raft.shutdown()).await.is_ok(),
            None => true,
        }
    }
}

/// Shows the others that this node leads, while it does.
pub(crate) async fn beat(shared: Arc<Shared>) {
    let mut ticks = interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A Raft whose disk hangs would only remember them.
        if let Some(running) = shared.running().filter(|running| running.is_leader() && !running.hangs()) {
            // If Raft has ended, it is started again by others.
            let _ = running.raft.trigger().heartbeat().await;
        }
    }
}

/// Says once when the disk hangs, and once when it goes on.
pub(crate) async fn watch_disk(shared: Arc<Shared>) {
    let mut hung_since: Option<Instant> = None;
    loop {
        sleep(LOOK_AT_DISK_EVERY).await;
        match (shared.disk_trouble(), hung_since) {
            (Some(trouble), None) => {
                hung_since = Some(Instant::now());
                error!(%trouble, "the disk hangs: until it goes on, this node asks for no session and answers no call of Raft");
            }
            (None, Some(since)) => {
                hung_since = None;
                // As after a failure: it has to work for a while.
                shared.trial().failed(since);
                shared.trial().started(Instant::now());
                info!(hung_for = ?since.elapsed(), "the disk of this node has finished its write and goes on");
            }
            _ => {}
        }
    }
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
