//! Real nodes of one process over real sockets.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses a part of it")]

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tidegate_cluster::{
    Clock, Cluster, ClusterConfig, ClusterKey, KeyRing, LossPolicy, Readiness, Timing, Verdict, Weight,
    slots::SlotId,
};
use tidegate_limiter::{
    Algorithm, Cost, Limit,
    cluster::{Charge, Consistency, KeyHash, LimitRef, OnOwnerLoss, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode, Period},
};
use tokio::{runtime::Handle, time::Instant};

pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A node, and the rules that are in force at it.
pub struct Node {
    cluster: Cluster,
    pub rules: Arc<ArcSwap<Rules>>,
}

impl Deref for Node {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Node {
    pub async fn stop(self) {
        self.cluster.stop().await;
    }
}

/// A port that is free for TCP and UDP, below those that the system gives to outgoing connections. Several test programs
/// may run at the same time: each begins somewhere else.
pub fn free_port() -> u16 {
    const RANGE: std::ops::Range<u16> = 10_000..20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() as u16).wrapping_mul(37);
    loop {
        let next = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = RANGE.start + next % RANGE.len() as u16;
        if TcpListener::bind((LOCALHOST, port)).is_ok() && UdpSocket::bind((LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub fn config(name: &str, port: u16, join: &[u16], expect: Option<u32>) -> ClusterConfig {
    ClusterConfig {
        name: name.to_owned(),
        cluster: "routing-test".to_owned(),
        zone: None,
        weight: Weight::default(),
        listen: LOCALHOST,
        advertise: None,
        peer_port: port,
        http: (LOCALHOST, port).into(),
        grpc: (LOCALHOST, port).into(),
        join: join.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
        bootstrap_expect: expect,
        keys: Arc::new(KeyRing::new(vec![ClusterKey::parse("a key for the routing test").unwrap()])),
        tls: None,
        data_dir: None,
        rules: Vec::new(),
        timing: Timing { gossip_interval: Duration::from_millis(50), ..Timing::default() },
    }
}

pub async fn start(config: ClusterConfig) -> Node {
    let clock = Clock::start();
    let store = || Store::new(StoreConfig::default(), clock.now());
    let rules = Arc::new(ArcSwap::from_pointee(Rules::empty(&HashSecret::new([0; 16]))));
    let in_force = Arc::clone(&rules);
    let workers = vec![Handle::current()];
    let cluster = Cluster::start(config, Arc::new(store()), store(), in_force, clock, workers).await.unwrap();
    Node { cluster, rules }
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn three_nodes() -> Vec<Node> {
    three_nodes_with(Timing::default().check_timeout).await
}

/// Nodes that wait so long for an owner.
pub async fn three_nodes_with(check_timeout: Duration) -> Vec<Node> {
    let ports = [free_port(), free_port(), free_port()];
    let mut nodes = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let mut config = config(&format!("n{}", index + 1), port, &ports, Some(3));
        config.timing.check_timeout = check_timeout;
        nodes.push(start(config).await);
    }
    until("all nodes are ready", || nodes.iter().all(|node| node.readiness() == Readiness::Ready)).await;
    nodes
}

pub async fn stop_all(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await;
    }
}

/// The first key from `from` on that `owner` owns.
pub fn key_of(node: &Cluster, owner: &str, from: u64) -> KeyHash {
    let table = node.status().table.unwrap();
    (from..).map(KeyHash::from_raw).find(|key| &**table.owner(SlotId::of(*key)) == owner).unwrap()
}

/// One unit of a bucket that refills once an hour.
pub fn charge(key: KeyHash, burst: u64) -> Charge {
    let limit =
        Limit::new(Algorithm::TokenBucket, 1, Period::Fixed(Duration::from_secs(3600)), Some(burst)).unwrap();
    Charge { key, rule: RuleId::INLINE, limit, cost: Cost::ONE, mode: Mode::Enforce, floor: None, ban: None }
}

pub fn policy(on_owner_loss: OnOwnerLoss) -> LossPolicy {
    LossPolicy {
        on_owner_loss,
        consistency: Consistency::Available,
        carved: false,
        reserve: None,
        limit_ref: LimitRef::INLINE,
    }
}

pub async fn decide(node: &Cluster, charges: &[Charge], loss: OnOwnerLoss) -> Verdict {
    let mut charges = charges.to_vec();
    let policy = policy(loss);
    let policies = vec![policy; charges.len()];
    node.router().decide(0, &mut charges, &policies, Clock::start().now()).await.unwrap()
}

pub async fn admitted(node: &Cluster, charges: &[Charge], attempts: usize) -> usize {
    let mut count = 0;
    for _ in 0..attempts {
        count += usize::from(decide(node, charges, OnOwnerLoss::Deny).await.allowed);
    }
    count
}
