//! One node of the simulated cluster: what `tidegate serve` starts, but for its front ends, and clients that ask it
//! directly.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use tidegate_cluster::{Cluster, ClusterConfig, ClusterKey, KeyRing, Timing, Weight, state::Actor};
use tidegate_limiter::{
    cluster::{Rules, Store, StoreConfig},
    rules::HashSecret,
};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    client::Client,
    shared::{Command, Inside, Shared, name},
    stranger::Stranger,
    workload::{self, Mode},
    writers::{change_rules, write_rules},
};

/// The port for peers at which nobody is.
const GHOST_PORT: u16 = 7803;
/// How long a node may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(6);
/// The pause before a node that could not start is started again.
const START_AGAIN: Duration = Duration::from_millis(500);
/// How long a node's slots may take to be given to others, or back.
const DRAIN_WITHIN: Duration = Duration::from_secs(4);

/// What a node is started with.
fn cluster_config(shared: &Shared, node: usize) -> ClusterConfig {
    let addresses = shared.addresses.borrow();
    let plan = &shared.plan;
    let ghosts = (0..plan.ghosts as u8).map(|ghost| format!("172.16.0.{}:{GHOST_PORT}", ghost + 1));
    // A check goes to another node and back, wherever that is. Its owner may have to ask the successor first, and the check may have to be
    // asked again where rules have just changed: where nodes are far from each other that takes as long again (seed 1014).
    let ways = if plan.latency_ms.1 > 12 { 8 } else { 4 };
    let check_timeout = Timing::default().check_timeout + ways * Duration::from_millis(plan.latency_ms.1);
    ClusterConfig {
        name: name(node),
        cluster: "simulated".to_owned(),
        zone: None,
        weight: Weight::default(),
        listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        advertise: Some(addresses[node]),
        peer_port: shared.peer(node).port(),
        http: (addresses[node], 7800).into(),
        grpc: (addresses[node], 7801).into(),
        join: match plan.nodes {
            1 => Vec::new(),
            // Founders wait for whoever they are told of and is not there; who comes later knows all.
            _ => (0..if node < plan.expecting { plan.expecting } else { plan.nodes })
                .map(|other| shared.peer(other).to_string())
                .chain(ghosts)
                .collect(),
        },
        bootstrap_expect: (node < plan.expecting && plan.nodes > 1).then_some(plan.expect as u32),
        keys: Arc::new(KeyRing::new(
            ClusterKey::parse("the key of a simulated cluster").into_iter().collect(),
        )),
        tls: None,
        data_dir: Some(shared.disk(node)),
        rules: vec![("default".to_owned(), workload::rules(Mode::default()))],
        timing: Timing {
            check_timeout,
            session: Duration::from_millis(plan.session_ms),
            ..Timing::default()
        },
    }
}

/// Runs a node until it is asked to leave.
pub(super) async fn run(shared: Rc<Shared>, node: usize) -> turmoil::Result {
    let clock = shared.clocks[node];
    let starts = {
        let mut state = shared.nodes[node].borrow_mut();
        state.starts += 1;
        state.starts
    };
    // Before the node that had the address comes back.
    let former = shared.nodes[node].borrow().stranger;
    let stranger = match former {
        Some(moves) => Some(Stranger::start(&shared, node, moves, || cluster_config(&shared, node)).await?),
        None => None,
    };
    let rules = Arc::new(ArcSwap::from_pointee(Rules::empty(&HashSecret::new([0; 16]))));
    let config = StoreConfig { max_memory: shared.plan.store_bytes, shards: 8 };
    let store = || Store::new(config, clock.now());
    let cluster = loop {
        let starting = Cluster::start(
            cluster_config(&shared, node),
            Arc::new(store()),
            store(),
            Arc::clone(&rules),
            clock,
            vec![Handle::current()],
        );
        match starting.await {
            Ok(cluster) => break Rc::new(cluster),
            // It says so and ends, and whoever has started it does so again.
            Err(fault) if shared.nodes[node].borrow().full => tracing::info!(%fault, "a node cannot start"),
            Err(fault) => return Err(fault.into()),
        }
        sleep(START_AGAIN).await;
    };
    let (commands, mut asked) = mpsc::unbounded_channel();
    shared.nodes[node].borrow_mut().inside =
        Some(Inside { commands, probe: cluster.probe(), cluster: Rc::clone(&cluster) });

    let dice = |number: u64| Rng::with_seed(shared.plan.seed ^ (node as u64) << 48 ^ starts << 32 ^ number);
    let mut clients = Vec::new();
    for number in 0..shared.plan.clients {
        let client = Client {
            shared: Rc::clone(&shared),
            node,
            router: Arc::clone(cluster.router()),
            rules: Arc::clone(&rules),
            clock,
            dice: dice(number as u64),
            next_fresh: Cell::new(starts << 32 | (number as u64) << 24),
        };
        clients.push(spawn_local(client.run()));
    }
    if node < shared.plan.writers {
        let writer = write_rules(Rc::clone(&shared), node, cluster.ledger().clone(), dice(1 << 16));
        clients.push(spawn_local(writer));
    }

    loop {
        match asked.recv().await {
            None => return Ok(()),
            Some(Command::Drain(name, on)) => {
                let cluster = Rc::clone(&cluster);
                spawn_local(async move {
                    // Without a quorum it cannot be done.
                    let _ = cluster.drain(&name, on, Actor::nobody(), Instant::now() + DRAIN_WITHIN).await;
                });
            }
            Some(Command::Rules(mode)) => {
                spawn_local(change_rules(Rc::clone(&shared), cluster.ledger().clone(), mode));
            }
            Some(Command::Leave) => break,
        }
    }
    let owned = cluster.leave(Instant::now() + LEAVE_WITHIN).await;
    clients.iter().for_each(|client| client.abort());
    if owned > 0 {
        cluster.keep_debts().await;
    }
    shared.nodes[node].borrow_mut().inside = None;
    // Who drains still has it for a moment.
    let mut cluster = cluster;
    loop {
        match Rc::try_unwrap(cluster) {
            Ok(cluster) => {
                cluster.stop().await;
                if let Some(stranger) = stranger {
                    stranger.stop().await;
                }
                return Ok(());
            }
            Err(still) => cluster = still,
        }
        sleep(Duration::from_millis(10)).await;
    }
}
