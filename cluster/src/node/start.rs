//! How a node starts: opens the peer port and the disk, and puts together what it is made of.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use tidegate_limiter::cluster::{Rules, Store, StoreConfig};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Cluster, ClusterStats, address::reachable_address, seeds::keep_looking_up, tasks::GroupTasks};
use crate::{
    clock::Clock,
    config::ClusterConfig,
    controller::Controller,
    fabric,
    gossip::{Gossip, GossipConfig, is_valid_name},
    ids::NodeStart,
    link::Identity,
    loss::Shares,
    member::{Alive, MemberId, MemberRow},
    names::{is_name, with_port},
    owner::{leader::Leader, session::SessionTiming, slot_ownership::SlotOwnership},
    ownership::{
        buckets::Buckets,
        context::Context,
        earlier_start::EarlierStart,
        from_disk::Found,
        saved,
        service::{LeaderService, OwnerService},
    },
    peer_port::{Answering, accept_peers},
    raft::{
        files::DiskError,
        group::{GroupConfig, RaftGroup},
        leader_client::LeaderClient,
        service::RaftService,
    },
    requests::Requests,
    router::Router,
    rpc::server::{CallServer, Service, Services},
    rules::{in_force, ledger::Ledger, service::RulesService},
    rules_in_force::RulesInForce,
};

/// Memory for the floors of other owners, at most: two and a half million buckets. Beyond that slots would start exhausted.
const FLOOR_BYTES: usize = 64 << 20;
/// At least as many as other stores have, so that it has as many classes: by these it tells rules apart.
const FLOOR_SHARDS: usize = 1024;

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
    /// The others have to be told where this node is.
    #[error(
        "this machine has no address that other nodes could reach, as far as its routes say (--advertise ADDRESS)"
    )]
    NoAddress,
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
            None => match reachable_address(&seeds, config.listen).await {
                Some(address) => address,
                // Alone it can be used from here.
                None if seeds.is_empty() && expect == Some(1) => {
                    tracing::warn!(
                        advertise = %Ipv4Addr::LOCALHOST,
                        "this machine has no address that others could reach: no other node can join this one (--advertise)"
                    );
                    Ipv4Addr::LOCALHOST.into()
                }
                None => return Err(StartError::NoAddress),
            },
        };
        let told = |own: SocketAddr| {
            let ip = if own.ip().is_unspecified() { advertise } else { own.ip() };
            SocketAddr::new(ip, own.port())
        };
        let (http, grpc) = (told(config.http), told(config.grpc));

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
            keys: Arc::clone(&config.keys),
            tls: config.tls,
        });
        let floors = StoreConfig { max_memory: FLOOR_BYTES, shards: FLOOR_SHARDS };
        let floors = Arc::new(Store::new(floors, clock.now()));
        let shares = Arc::new(shares);
        let requests = Arc::new(Requests::default());
        let rules = Arc::new(RulesInForce::new(rules));
        let (mut has_saved, mut floor_file, mut disk_floors) = (false, None, None);
        if let Some(directory) = &config.data_dir {
            let saved = saved::restore(directory, on_disk.node, &store, clock.now())?;
            has_saved = saved.is_some();
            let mut kept = saved.unwrap_or_default();
            if has_disk_for_floors() {
                let found = Found::open(directory, start, clock).await;
                // Without a file there may be one that could not be read, and that a later start can: first it is to be gone.
                let has_nothing = found.file.is_some() && found.kept.slots.is_empty();
                ownership.keep_floors_on_disk(has_nothing);
                kept = kept.with_floors(found.kept);
                (floor_file, disk_floors) = (found.file, Some(Arc::new(found.floors)));
            }
            ownership.keep(kept);
        }
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
                keeps: has_saved,
            },
            data_dir: config.data_dir,
            expect,
            join: seeds.clone(),
            alive: sees,
            ownership: Arc::clone(&ownership),
            calls: Arc::clone(&stats.calls),
            clock,
        };
        let earlier = EarlierStart::new(on_disk.came_from_elsewhere, has_saved);
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
            disk: disk_floors,
        });
        let stores = [&store, &floors, &shares].map(Arc::clone);
        let compiler = in_force::Compiler::new(Arc::clone(&rules), Arc::clone(&ownership), stores, clock);
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
        let (belonging, foreign) = (Arc::clone(&shared.belonging), Arc::clone(&shared.foreign));
        let ledger = Ledger::new(shared, Arc::clone(&leader), Arc::clone(&rules));
        let names: Vec<String> = seeds.iter().filter(|seed| is_name(seed)).cloned().collect();
        let gossip = Gossip::start(
            GossipConfig {
                me: me.clone(),
                advertise: SocketAddr::new(advertise, config.peer_port),
                cluster: config.cluster,
                keys: config.keys,
                // Names it would look up before anything else, one after the other, and then once a minute.
                seeds: seeds.into_iter().filter(|seed| !is_name(seed)).collect(),
                joins: !config.join.is_empty(),
                interval: config.timing.gossip_interval,
                http,
                grpc,
                zone: config.zone,
                weight: config.weight,
                node: on_disk.node,
                group: ledger.group(),
                belongs: Box::new(move || belonging.get()),
                foreign: Arc::clone(&foreign),
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
        for name in names {
            let looked_up = keep_looking_up(name, gossip.greeter(), ledger.clone());
            tasks.spawn(cancel.clone().run_until_cancelled_owned(looked_up));
        }
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
            foreign,
            identity,
            Arc::clone(&router),
            clock,
            workers.into_iter().zip(stats.workers.iter().cloned()).collect(),
            Arc::clone(&context),
            ledger.clone(),
            alive,
            tasks.clone(),
        );
        let group_tasks = GroupTasks {
            context: Arc::clone(&context),
            leader,
            ledger: ledger.clone(),
            earlier,
            compiler,
            floor_file,
        };
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
}

/// Whether a data directory is one of this machine: simulated disks have no file of floors.
fn has_disk_for_floors() -> bool {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return false;
    }
    true
}
