//! Real nodes of one process over real sockets: who decides, and what it costs when somebody denies.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tidegate_cluster::{
    Clock, Cluster, ClusterConfig, ClusterKey, DecidedBy, Decisions, Local, Readiness, Timing, Verdict,
    Weight, Wish, slots::SlotId,
};
use tidegate_limiter::{
    Algorithm, Charge, Consistency, Cost, HashSecret, KeyHash, Limit, Mode, OnOwnerLoss, Period, RuleId,
    Rules, Store, StoreConfig,
};
use tokio::{runtime::Handle, time::Instant};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEADLINE: Duration = Duration::from_secs(20);

/// A port that is free for TCP and UDP, below those that the system gives to outgoing connections. Several test programs
/// may run at the same time: each begins somewhere else.
fn free_port() -> u16 {
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

fn config(name: &str, port: u16, join: &[u16], expect: Option<u32>) -> ClusterConfig {
    ClusterConfig {
        name: name.to_owned(),
        cluster: "routing-test".to_owned(),
        zone: None,
        weight: Weight::default(),
        listen: LOCALHOST,
        advertise: None,
        peer_port: port,
        http: (LOCALHOST, port).into(),
        join: join.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
        bootstrap_expect: expect,
        key: Some(ClusterKey::parse("a key for the routing test").unwrap()),
        data_dir: None,
        rules: Vec::new(),
        timing: Timing { gossip_interval: Duration::from_millis(50), ..Timing::default() },
    }
}

async fn start(config: ClusterConfig) -> Cluster {
    let clock = Clock::start();
    let store = || Store::new(StoreConfig::default(), clock.now());
    let rules = Arc::new(ArcSwap::from_pointee(Rules::empty(&HashSecret::new([0; 16]))));
    Cluster::start(config, Arc::new(store()), store(), rules, clock, vec![Handle::current()]).await.unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn three_nodes() -> Vec<Cluster> {
    let ports = [free_port(), free_port(), free_port()];
    let mut nodes = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        nodes.push(start(config(&format!("n{}", index + 1), port, &ports, Some(3))).await);
    }
    until("all nodes are ready", || nodes.iter().all(|node| node.readiness() == Readiness::Ready)).await;
    nodes
}

async fn stop_all(nodes: Vec<Cluster>) {
    for node in nodes {
        node.stop().await;
    }
}

/// The first key from `from` on that `owner` owns.
fn key_of(node: &Cluster, owner: &str, from: u64) -> KeyHash {
    let table = node.status().table.unwrap();
    (from..).map(KeyHash::from_raw).find(|key| &**table.owner(SlotId::of(*key)) == owner).unwrap()
}

/// One unit of a bucket that refills once an hour.
fn charge(key: KeyHash, burst: u64) -> Charge {
    let limit =
        Limit::new(Algorithm::TokenBucket, 1, Period::Fixed(Duration::from_secs(3600)), Some(burst)).unwrap();
    Charge { key, rule: RuleId::INLINE, limit, cost: Cost::ONE, mode: Mode::Enforce, floor: None }
}

async fn decide(node: &Cluster, charges: &[Charge], loss: OnOwnerLoss) -> Verdict {
    let mut charges = charges.to_vec();
    let wish =
        Wish { on_owner_loss: loss, consistency: Consistency::Available, carved: false, reserve: None };
    let wishes = vec![wish; charges.len()];
    node.router().decide(0, &mut charges, &wishes, Clock::start().now()).await.unwrap()
}

async fn admitted(node: &Cluster, charges: &[Charge], attempts: usize) -> usize {
    let mut count = 0;
    for _ in 0..attempts {
        count += usize::from(decide(node, charges, OnOwnerLoss::Deny).await.allowed);
    }
    count
}

#[tokio::test]
async fn a_bucket_is_one_bucket_whichever_node_is_asked() {
    let nodes = three_nodes().await;
    let key = key_of(&nodes[0], "n2", 1);
    let one = [charge(key, 10)];
    let mut total = 0;
    for node in nodes.iter().cycle().take(30) {
        let verdict = decide(node, &one, OnOwnerLoss::Deny).await;
        let answer = verdict.answers[0].clone().unwrap();
        let expected =
            if std::ptr::eq(node, &nodes[1]) { DecidedBy::Owner } else { DecidedBy::Forwarded("n2".into()) };
        assert_eq!(answer.by, expected);
        total += usize::from(verdict.allowed);
    }
    assert_eq!(total, 10);

    let mut decisions = Decisions::new();
    let mut mine = one;
    let wishes = [Wish {
        on_owner_loss: OnOwnerLoss::Deny,
        consistency: Consistency::Strict,
        carved: false,
        reserve: None,
    }];
    let local = nodes[1].router().decide_local(&mut mine, &wishes, Clock::start().now(), &mut decisions);
    assert!(matches!(local, Local::Decided { allowed: false, .. }), "{local:?}");
    assert_eq!(
        nodes[0].router().decide_local(&mut mine, &wishes, Clock::start().now(), &mut decisions),
        Local::Elsewhere
    );
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_denied_check_over_several_owners_costs_nothing_anywhere() {
    let nodes = three_nodes().await;
    let (first, second, third) =
        (key_of(&nodes[0], "n1", 1), key_of(&nodes[0], "n2", 1), key_of(&nodes[0], "n3", 1));
    let all = [charge(first, 50), charge(second, 50), charge(third, 5)];
    assert_eq!(admitted(&nodes[0], &all, 40).await, 5, "the third bucket binds");
    // The denied ones are given back. What is undone at a peer arrives there soon, in order.
    let here = admitted(&nodes[0], &[charge(first, 50)], 60).await;
    assert_eq!(here, 45, "this node's own part was given back");
    let there = admitted(&nodes[0], &[charge(second, 50)], 60).await;
    assert_eq!(there, 45, "the part of another owner was given back");
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_denial_at_home_asks_nobody_else() {
    let nodes = three_nodes().await;
    let (mine, theirs) = (key_of(&nodes[0], "n1", 1), key_of(&nodes[0], "n2", 1));
    let both = [charge(theirs, 100), charge(mine, 1)];
    assert_eq!(admitted(&nodes[0], &both, 20).await, 1);
    let sent: u64 = nodes[0].stats().lanes.iter().map(|lane| lane.sent.get()).sum();
    assert_eq!(sent, 1);
    let verdict = decide(&nodes[0], &both, OnOwnerLoss::Deny).await;
    assert!(verdict.answers[0].is_none() && verdict.answers[1].is_some());
    stop_all(nodes).await;
}

#[tokio::test]
async fn without_its_owner_a_check_is_answered_in_time_as_its_rule_says() {
    let mut nodes = three_nodes().await;
    let key = key_of(&nodes[0], "n3", 1);
    let table = nodes[0].status().table.unwrap();
    nodes.pop().unwrap().stop().await;
    until("the link is gone", || nodes[0].status().live.len() == 3).await;
    let started = Instant::now();
    let denied = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Deny).await;
    let allowed = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Allow).await;
    let share = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Share).await;
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    if nodes[0].status().table.unwrap() == table {
        assert_eq!(denied.answers[0].as_ref().unwrap().by, DecidedBy::Fallback);
        assert!(!denied.allowed && allowed.allowed);
        assert!(!share.allowed, "a share starts empty");
    }
    until("another node has taken over", || nodes[0].status().table.unwrap().members().len() == 2).await;
    until("both see the same table", || nodes[0].status().table == nodes[1].status().table).await;
    let after = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Deny).await;
    assert!(matches!(after.answers[0].as_ref().unwrap().by, DecidedBy::Owner | DecidedBy::Forwarded(_)));
    assert!(!after.allowed, "a slot that was taken over starts empty");
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_node_that_leaves_hands_over_what_its_buckets_know() {
    let mut nodes = three_nodes().await;
    let last = nodes.pop().unwrap();
    let (key, other) = (key_of(&nodes[0], "n3", 1), key_of(&nodes[0], "n3", 1 << 40));
    assert_eq!(admitted(&nodes[0], &[charge(key, 30)], 10).await, 10);
    assert_eq!(last.leave(Instant::now() + DEADLINE).await, 0, "it owns nothing any more");
    until("the slots are shared out anew", || {
        nodes.iter().all(|node| node.status().table.unwrap().members().len() == 2)
    })
    .await;
    assert!(matches!(last.readiness(), Readiness::NotReady(_)));
    assert_eq!(admitted(&nodes[1], &[charge(key, 30)], 40).await, 20, "neither more nor less than was left");
    assert_eq!(admitted(&nodes[1], &[charge(other, 30)], 40).await, 30, "one that nobody used is full");
    last.stop().await;
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_key_is_kept_out_and_counted() {
    let port = free_port();
    let one = start(config("n1", port, &[], None)).await;
    let mut foreign = config("n2", free_port(), &[port], None);
    foreign.key = Some(ClusterKey::parse("quite another cluster key").unwrap());
    let foreign = start(foreign).await;
    until("its gossip was refused", || {
        one.stats().gossip.rejected(tidegate_cluster::GossipRejection::WrongKey) > 0
    })
    .await;
    assert_eq!(one.status().live.len(), 1);
    let Readiness::NotReady(reason) = foreign.readiness() else { panic!("it has no cluster") };
    assert!(reason.contains("--bootstrap-expect"), "{reason}");
    stop_all(vec![one, foreign]).await;
}
