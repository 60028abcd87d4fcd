//! The promise: a cluster works where the network between its nodes is slow: it forms, rules are written, sessions hold, and
//! strict checks are answered. Between the nodes are proxies that keep what goes through them.

use std::{thread, time::Duration};

use tokio::time::Instant;

use crate::kit::{
    self,
    rules::{await_limit, raft, write},
};
use tidegate_jepsen::{
    cluster::{Cluster, Settings, wait_for},
    network::Form,
};

const KEYS: u32 = 30;
/// How long sessions are watched: several of them.
const WATCHED: Duration = Duration::from_secs(7);

fn settings() -> Settings {
    let rules = "rules:\n  - { name: strict, key: [user], limit: 1000/1h, consistency: strict, on_owner_loss: deny }\n";
    // An answer from afar takes as long as the network does.
    Settings { flags: ["--check-timeout", "1s"].map(str::to_owned).into(), ..kit::settings(rules) }
}

fn works_with(round_trip: Duration) {
    let net = Form::Proxies.create(3).unwrap();
    let pairs: Vec<(u8, u8)> = (1..=3).flat_map(|one| (1..=3).map(move |other| (one, other))).collect();
    let pairs: Vec<(u8, u8)> = pairs.into_iter().filter(|(one, other)| one != other).collect();
    net.delay(&pairs, round_trip / 2, Duration::ZERO);
    let started = Instant::now();
    let cluster = Cluster::start_apart(3, settings(), net);
    let formed = started.elapsed();
    eprintln!("round trip {round_trip:?}: all nodes are ready after {formed:?}");
    assert!(formed < Duration::from_secs(20), "{round_trip:?}: {formed:?}");

    let term = raft(cluster.node("n1"))["term"].as_u64().unwrap();
    let started = Instant::now();
    for (count, node) in (11..).zip(&cluster.nodes) {
        write(node, "api", &kit::rules::limit(&format!("{count}/1h")));
    }
    let written = started.elapsed() / 3;
    eprintln!("round trip {round_trip:?}: a write takes {written:?}");
    assert!(written < Duration::from_secs(3), "{round_trip:?}: {written:?}");
    await_limit(&cluster, "api", 13);

    wait_for("all nodes have sessions", Duration::from_secs(10), || {
        cluster.nodes.iter().all(|node| node.status().unwrap()["session"] == true)
    });
    let end = Instant::now() + WATCHED;
    let mut looks = 0;
    while Instant::now() < end {
        for node in &cluster.nodes {
            let session = node.status().unwrap()["session"].as_bool();
            assert_eq!(session, Some(true), "round trip {round_trip:?}: the session of {} ended", node.name);
            looks += 1;
        }
        for (key, node) in (0..).zip(&cluster.nodes) {
            let user = (looks + key) % KEYS;
            let answer = node.client(Duration::from_secs(5)).get(&format!("/v1/check?user=u{user}"));
            let answer = answer.unwrap();
            let by = answer.json()["decided_by"].as_str().unwrap().to_owned();
            assert!(by == "owner" || by == "forwarded", "round trip {round_trip:?}: {}", answer.text());
            assert_eq!(answer.status, 200);
        }
        thread::sleep(Duration::from_millis(50));
    }
    let now = raft(cluster.node("n1"))["term"].as_u64().unwrap();
    assert_eq!(now, term, "round trip {round_trip:?}: nobody else was elected");
}

#[test]
fn a_cluster_works_with_a_round_trip_of_5_ms() {
    let _machine = kit::alone();
    works_with(Duration::from_millis(5));
}

#[test]
fn a_cluster_works_with_a_round_trip_of_50_ms() {
    let _machine = kit::alone();
    works_with(Duration::from_millis(50));
}

#[test]
fn a_cluster_works_with_a_round_trip_of_100_ms() {
    let _machine = kit::alone();
    works_with(Duration::from_millis(100));
}

#[test]
fn a_cluster_works_with_a_round_trip_of_150_ms() {
    let _machine = kit::alone();
    works_with(Duration::from_millis(150));
}
