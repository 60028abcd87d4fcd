//! A node's part in its cluster: opens the peer port, starts and owns all tasks, ends them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use tidegate_limiter::cluster::{Rules, Store, StoreConfig};
use tokio::{
    net::lookup_host,
    runtime::Handle,
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{ClusterConfig, DEFAULT_PEER_PORT},
    controller::{Command, Controller},
    fabric,
    gossip::{Gossip, GossipConfig, is_valid_name},
    ids::NodeStart,
    link::Identity,
    loss::Shares,
    member::{Alive, MemberId, MemberRow, MemberState},
    owner::{SlotRow, leader::Leader, session::SessionTiming, slot_ownership::SlotOwnership},
    ownership::{
        buckets::Buckets,
        context::Context,
        earlier_start::EarlierStart,
        floor_task, leader_task, saved,
        service::{LeaderService, OwnerService},
        session_task,
    },
    peer_port::{Answering, accept_peers},
    raft::{
        abandon, bootstrap, election,
        files::DiskError,
        foreign,
        group::{GroupConfig, RaftGroup, beat, watch_disk},
        leader_client::LeaderClient,
        membership,
        service::RaftService,
    },
    requests::Requests,
    router::Router,
    rpc::server::{CallServer, Service, Services},
    rules::{
        in_force,
        ledger::{Ledger, NoQuorum},
        service::RulesService,
    },
    rules_in_force::RulesInForce,
    stats::{CallStats, FloorStats, GossipStats, MoveStats, PeerStats, WorkerStats},
    status::{ClusterStatus, Readiness},
};

/// How often it is looked whether all slots are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Memory for the floors of other owners, at most: two and a half million buckets. Beyond that slots would start exhausted.
const FLOOR_BYTES: usize = 64 << 20;
/// At least as many as other stores have, so that it has as many classes: by these it tells rules apart.
const FLOOR_SHARDS: usize = 1024;
/// How long tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// Why a node could not take its place.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The name cannot be used.
    #[error("{0:?} cannot name a node: 1 to 64 letters, digits, '.', '_' and '-' (--name)")]
    Name(String),
    /// The peer port could not be opened.
    #[error("cannot listen for peers on {address}/{protocol}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// For what.
        protocol: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A cluster needs at least one node.
    #[error("a cluster cannot be founded by 0 nodes (--bootstrap-expect)")]
    ExpectsNobody,
    /// There is no thread that could answer peers.
    #[error("a node needs at least one worker thread")]
    NoWorkers,
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The gossip library did not start.
    #[error("gossip did not start: {0}")]
    Gossip(String),
}

/// Why a change of a member was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MemberError {
    /// Nobody has that name.
    #[error("no member of the cluster has this name")]
    NoSuchNode,
    /// It lives.
    #[error("it is alive; only a dead node can be removed")]
    Live,
    /// A quorum could not be reached in time.
    #[error("{0}")]
    NoQuorum(NoQuorum),
}

/// What keeps the group going, and what is owned where it should be.
struct GroupTasks {
    context: Arc<Context>,
    leader: Arc<LeaderClient>,
    ledger: Ledger,
    earlier: EarlierStart,
    compiler: in_force::Compiler,
}

impl GroupTasks {
    /// Starts them, each until `cancel`. `seed`: rules to begin with, by domain.
    fn spawn(
        self,
        group: RaftGroup,
        seed: Vec<(String, String)>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) {
        let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let cancel = cancel.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = task => {}
                }
            });
        };
        let shared = || Arc::clone(&self.context.group);
        let raft = || Arc::clone(&self.context.group.raft);
        let (context, leader) = (|| Arc::clone(&self.context), || Arc::clone(&self.leader));
        spawn(Box::pin(in_force::keep(shared(), self.ledger, self.compiler, seed)));
        spawn(Box::pin(bootstrap::form(shared())));
        spawn(Box::pin(abandon::watch(shared())));
        spawn(Box::pin(foreign::watch(shared())));
        spawn(Box::pin(election::stand(shared())));
        spawn(Box::pin(beat(raft())));
        spawn(Box::pin(watch_disk(raft())));
        spawn(Box::pin(membership::run(shared(), Arc::clone(&self.context.leader))));
        spawn(Box::pin(session_task::renew(context(), leader(), self.earlier)));
        spawn(Box::pin(session_task::watch(context())));
        spawn(Box::pin(leader_task::run(context())));
        spawn(Box::pin(floor_task::replicate(context(), leader())));
        tasks.spawn(group.supervise(cancel.clone()));
    }
}

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
    /// Opens the peer port and starts. `workers` are the runtimes of the threads that will ask and answer; the tasks that
    /// are not on the way of a check run on the runtime that this is called on. `shares` holds the buckets that are used
    /// when an owner is lost. `rules` is where the rules of the cluster are put when they are in force.
    ///
    /// # Errors
    /// When a port is taken or a setting cannot be.
    pub async fn start(
        config: ClusterConfig,
        store: Arc<Store>,
        shares: Store,
        rules: Arc<ArcSwap<Rules>>,
        clock: Clock,
        workers: Vec<Handle>,
    ) -> Result<Self, StartError> {
        if !is_valid_name(&config.name) {
            return Err(StartError::Name(config.name));
        }
        if workers.is_empty() {
            return Err(StartError::NoWorkers);
        }
        let expect = match config.bootstrap_expect {
            Some(0) => return Err(StartError::ExpectsNobody),
            // Alone with nobody to join: a cluster of one.
            None if config.join.is_empty() => Some(1),
            expect => expect,
        };
        let listen = SocketAddr::new(config.listen, config.peer_port);
        let listener = fabric::listen(listen).await.map_err(|source| StartError::Bind {
            address: listen,
            protocol: "TCP",
            source,
        })?;
        let datagrams = fabric::bind_datagrams(listen).await.map_err(|source| StartError::Bind {
            address: listen,
            protocol: "UDP",
            source,
        })?;

        let seeds: Vec<String> = config.join.iter().map(|seed| with_port(seed)).collect();
        let advertise = match config.advertise {
            Some(address) => address,
            None if !config.listen.is_unspecified() => config.listen,
            None => reachable_address(&seeds).await,
        };
        let http_address = if config.http.ip().is_unspecified() { advertise } else { config.http.ip() };

        let (disk, on_disk) = RaftGroup::open(config.data_dir.as_deref(), clock.unix_millis())?;
        let me = MemberId { name: config.name.into(), incarnation: on_disk.incarnation };
        let timing = SessionTiming::of(config.timing.session);
        let start = NodeStart { node: on_disk.node, incarnation: on_disk.incarnation };
        let ownership = Arc::new(SlotOwnership::new(start, timing, clock.now()));
        let stats = ClusterStats {
            workers: workers.iter().map(|_| Arc::default()).collect(),
            gossip: Arc::default(),
            peers: Arc::default(),
            moves: Arc::default(),
            calls: Arc::default(),
            floors: Arc::clone(ownership.floor_stats()),
        };
        let identity = Arc::new(Identity {
            me: me.clone(),
            id: on_disk.node,
            stats: Arc::clone(&stats.peers),
            cluster: config.cluster.clone(),
            key: config.key.as_ref().map(|key| key.handshake()).unwrap_or_default(),
        });
        let floors = StoreConfig { max_memory: FLOOR_BYTES, shards: FLOOR_SHARDS };
        let floors = Arc::new(Store::new(floors, clock.now()));
        let shares = Arc::new(shares);
        let requests = Arc::new(Requests::default());
        let rules = Arc::new(RulesInForce::new(rules));
        let keeps = match &config.data_dir {
            Some(directory) => saved::restore(directory, on_disk.node, &ownership, &store, clock.now())?,
            None => false,
        };
        let (alive, sees) = watch::channel(Alive::default());
        let data_dir = config.data_dir.clone();
        let group = GroupConfig {
            identity: Arc::clone(&identity),
            row: MemberRow {
                id: on_disk.node,
                name: me.name.to_string(),
                incarnation: me.incarnation,
                peer: SocketAddr::new(advertise, config.peer_port),
                zone: config.zone.clone(),
                weight: config.weight,
                keeps,
            },
            data_dir: config.data_dir,
            expect,
            join: seeds.clone(),
            alive: sees,
            ownership: Arc::clone(&ownership),
            calls: Arc::clone(&stats.calls),
            clock,
        };
        // What is saved was saved by a start that decided nothing any more.
        let earlier = EarlierStart::new(on_disk.came_from_elsewhere && !keeps);
        let group = RaftGroup::start(group, disk).await?;
        let shared = group.shared();
        let buckets = Buckets {
            store: Arc::clone(&store),
            floors: Arc::clone(&floors),
            requests: Arc::clone(&requests),
        };
        let context = Arc::new(Context {
            group: Arc::clone(&shared),
            ownership: Arc::clone(&ownership),
            leader: Arc::new(Mutex::new(Leader::new(timing))),
            buckets,
            rules: Arc::clone(&rules),
            moves: Arc::clone(&stats.moves),
        });
        let stores = [&store, &floors, &shares].map(Arc::clone);
        let compiler = in_force::Compiler::new(Arc::clone(&rules), Arc::clone(&ownership), stores);
        let raft = Arc::new(RaftService::new(Arc::clone(&shared)));
        let services = Services {
            raft: Arc::clone(&raft) as Arc<dyn Service>,
            rules: Arc::new(RulesService { raft: Arc::clone(&shared.raft), rules: Arc::clone(&rules) }),
            leader: Arc::new(LeaderService(Arc::clone(&context))),
            owner: raft.clone(),
        };
        let leader = Arc::new(LeaderClient::new(Arc::clone(&shared), &services));
        let owner = OwnerService { context: Arc::clone(&context), leader: Arc::clone(&leader) };
        let services = Services { owner: Arc::new(owner), ..services };
        let calls = Arc::new(CallServer::new(raft, services, Arc::clone(&stats.peers)));
        let ledger = Ledger::new(shared, Arc::clone(&leader), Arc::clone(&rules));
        let gossip = Gossip::start(
            GossipConfig {
                me: me.clone(),
                advertise: SocketAddr::new(advertise, config.peer_port),
                cluster: config.cluster,
                key: config.key.as_ref().map(|key| key.gossip()),
                seeds,
                interval: config.timing.gossip_interval,
                http: SocketAddr::new(http_address, config.http.port()),
                zone: config.zone,
                weight: config.weight,
                node: on_disk.node,
                group: ledger.group(),
                expect,
            },
            datagrams,
            Arc::clone(&stats.gossip),
        )
        .await
        .map_err(|error| StartError::Gossip(error.to_string()))?;

        let router = Arc::new(Router::new(
            store,
            floors,
            Shares::new(shares),
            Arc::clone(&ownership),
            requests,
            rules,
            clock,
            stats.workers.clone(),
            config.timing.forward_timeout(),
        ));
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let answering = Arc::new(Answering {
            identity: Arc::clone(&identity),
            router: Arc::clone(&router),
            stats: Arc::clone(&stats.peers),
            calls,
            calls_runtime: Handle::current(),
            tasks: tasks.clone(),
            cancel: cancel.clone(),
        });
        tasks.spawn(accept_peers(listener, answering, workers.clone(), tasks.clone(), cancel.clone()));
        let (controller, commands, status) = Controller::new(
            !config.join.is_empty(),
            expect,
            gossip,
            identity,
            Arc::clone(&router),
            clock,
            workers.into_iter().zip(stats.workers.iter().cloned()).collect(),
            Arc::clone(&context),
            ledger.clone(),
            alive,
            tasks.clone(),
        );
        let group_tasks =
            GroupTasks { context: Arc::clone(&context), leader, ledger: ledger.clone(), earlier, compiler };
        group_tasks.spawn(group, config.rules, &tasks, &cancel);
        tasks.spawn(controller.run(cancel.clone()));
        let pause = config.timing.gossip_interval;
        Ok(Self {
            router,
            ledger,
            status,
            commands,
            stats,
            tasks,
            cancel,
            ownership,
            context,
            data_dir,
            pause,
        })
    }

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
        match (self.status.borrow().readiness(&self.router), self.ledger.disk_trouble()) {
            (Readiness::Ready, Some(trouble)) => {
                Readiness::NotReady(format!("this node asks for no session: {trouble}"))
            }
            (readiness, _) => readiness,
        }
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

    /// Has all slots of a node given to others (`on`), or lets it have its share again. Returns when that is written, not
    /// when it is done.
    ///
    /// # Errors
    /// When there is no such node, or a quorum cannot be reached before the deadline.
    pub async fn drain(&self, name: &str, on: bool, deadline: Instant) -> Result<(), MemberError> {
        let start = self.member(name)?;
        if self.ledger.drain(start, on, deadline).await {
            return Ok(());
        }
        Err(MemberError::NoQuorum(self.ledger.no_quorum(true)))
    }

    /// Takes a dead node out of the cluster.
    ///
    /// # Errors
    /// When there is no such node, when it is alive, or when a quorum cannot be reached before the deadline.
    pub async fn remove(&self, name: &str, deadline: Instant) -> Result<(), MemberError> {
        let start = self.member(name)?;
        if self.status.borrow().live.iter().any(|member| member.node == Some(start.node)) {
            return Err(MemberError::Live);
        }
        let written = self.ledger.evict(start.node, deadline).await;
        let mut applied = self.ledger.watch();
        let gone = applied.wait_for(|applied| !applied.state.members.contains_key(&start.node));
        if written && matches!(tokio::time::timeout_at(deadline, gone).await, Ok(Ok(_))) {
            return Ok(());
        }
        Err(MemberError::NoQuorum(self.ledger.no_quorum(true)))
    }

    fn member(&self, name: &str) -> Result<NodeStart, MemberError> {
        let applied = self.ledger.applied();
        let row = applied.state.members.values().find(|row| row.name == name);
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

    /// Gives all slots to others, with what is known of their buckets, and returns when this node owns none; or at the
    /// deadline, or when nobody is there to take them. Until then checks are decided as before. Returns how many it still
    /// owns.
    pub async fn leave(&self, deadline: Instant) -> usize {
        let owned = self.hand_over_all(deadline).await;
        self.ownership.give_up();
        let (done, heard) = tokio::sync::oneshot::channel();
        if self.commands.send(Command::Leave { done }).await.is_ok() && heard.await.is_ok() {
            tokio::time::sleep(self.pause).await;
        }
        owned
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
            let live = self.status.borrow().live.clone();
            let others = applied.state.members.values().filter(|row| {
                row.node_start() != me
                    && !applied.state.draining.contains(&row.node_start())
                    && live
                        .iter()
                        .any(|member| member.node == Some(row.id) && member.state == MemberState::Serving)
            });
            if mine == 0 || others.count() == 0 || Instant::now() >= deadline {
                return mine;
            }
            if !is_drained {
                is_drained = self.ledger.drain(me, true, deadline).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
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

fn with_port(seed: &str) -> String {
    let has_port = match seed.strip_prefix('[') {
        Some(v6) => v6.contains("]:"),
        None => seed.matches(':').count() == 1,
    };
    match (has_port, seed.parse::<IpAddr>()) {
        (false, Ok(address)) => SocketAddr::new(address, DEFAULT_PEER_PORT).to_string(),
        (false, Err(_)) => format!("{seed}:{DEFAULT_PEER_PORT}"),
        (true, _) => seed.to_owned(),
    }
}

/// The address that packets to the first seed leave from; without seeds, those to the internet. Nothing is sent.
async fn reachable_address(seeds: &[String]) -> IpAddr {
    const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    for seed in seeds {
        let Ok(mut addresses) = lookup_host(seed).await else { continue };
        if let Some(target) = addresses.next()
            && let Ok(source) = fabric::source_address_towards(target).await
        {
            return source;
        }
    }
    fabric::source_address_towards(SOMEWHERE).await.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_join_may_leave_out_the_port() {
        assert_eq!(with_port("node-1"), "node-1:7803");
        assert_eq!(with_port("node-1:9"), "node-1:9");
        assert_eq!(with_port("10.0.0.1"), "10.0.0.1:7803");
        assert_eq!(with_port("::1"), "[::1]:7803");
        assert_eq!(with_port("[::1]:9"), "[::1]:9");
    }

    #[tokio::test]
    async fn an_advertised_address_is_one_that_the_seeds_can_reach() {
        assert_eq!(reachable_address(&["127.0.0.1:7803".to_owned()]).await, Ipv4Addr::LOCALHOST);
    }
}
