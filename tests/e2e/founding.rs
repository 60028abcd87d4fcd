//! The promise: whatever the order of the commands, the delays between them and what is killed meanwhile, one cluster is
//! founded and all nodes get ready; and where there are two of one name, nobody follows one with the rules of the other, and
//! all say so.
//!
//! `TIDEGATE_TEST_STARTS` says how many starts of each way are made (`tidegate-jepsen starts` makes many).

use std::time::Duration;

use crate::kit;
use serde_json::Value;
use tidegate_jepsen::{
    client::Client,
    cluster::{Cluster, free_ports, wait_for},
    node::Node,
    starts::{Way, start},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn starts_of_each_way() -> u64 {
    let count = std::env::var("TIDEGATE_TEST_STARTS").ok();
    count.map_or(1, |count| count.parse().expect("TIDEGATE_TEST_STARTS"))
}

fn assert_ready(ways: &[Way]) {
    let _machine = kit::alone();
    let settings = kit::settings(&kit::per_user("5/1m", 5, "share"));
    for seed in 0..starts_of_each_way() {
        for way in ways {
            let started = start(*way, seed, &settings, None);
            assert!(started.fault.is_none(), "{way}, seed {seed}: {}", started.fault.unwrap_or_default());
        }
    }
}

#[test]
fn the_commands_of_the_readme_come_to_one_cluster_in_whatever_order() {
    assert_ready(&[Way::Pasted, Way::SameInstant, Way::Shuffled, Way::JoinerFirst, Way::OneLate]);
}

#[test]
fn a_node_that_ends_in_the_middle_of_the_founding_and_comes_back_leaves_one_cluster() {
    assert_ready(&[Way::Killed, Way::KilledAgain, Way::KilledInMemory, Way::Stopped]);
}

#[test]
fn nodes_that_are_started_later_with_the_same_arguments_found_nothing() {
    assert_ready(&[Way::ScaledUp, Way::ManyAtOnce]);
}

fn status(node: &Node) -> Value {
    Client::new(node.http, PATIENCE).get("/v1/cluster").map(|answer| answer.json()).unwrap_or_default()
}

fn readyz(node: &Node) -> (u16, String) {
    let answer = Client::new(node.http, PATIENCE).get("/readyz").unwrap();
    (answer.status, answer.text())
}

/// Two clusters of one node each, and one node whose --join names both.
#[test]
fn who_joins_two_clusters_follows_one_of_them_and_all_say_that_there_are_two() {
    let _machine = kit::alone();
    let mut settings = kit::settings("rules: []\n");
    settings.keeps_data = true;
    let mut cluster = Cluster::empty(settings);
    let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
    cluster.spawn_as("n1", ports[0], &[], &[]);
    cluster.spawn_as("n2", ports[1], &[], &[]);
    wait_for("both are ready", PATIENCE, || cluster.running().all(Node::is_ready));
    for name in ["n1", "n2"] {
        let text = format!("rules:\n  - {{ name: of-{name}, key: [user], limit: 5/1m }}\n");
        let put = kit::rules::put(cluster.node(name), "api", &[], &text);
        assert!([200, 201].contains(&put.status), "{}", put.text());
    }
    let of = |cluster: &Cluster, name: &str| status(cluster.node(name))["raft"]["cluster"].clone();
    let (one, two) = (of(&cluster, "n1"), of(&cluster, "n2"));
    assert_ne!(one, two);
    cluster.spawn_as("n3", ports[2], &ports[..2], &[]);
    wait_for("n3 follows one of them", PATIENCE, || {
        let group = &status(cluster.node("n3"))["raft"];
        !group["leader"].is_null() && group["in_force"].as_u64() > Some(3)
    });
    let joined = of(&cluster, "n3");
    let (with, against) = if joined == one { ("n1", "n2") } else { ("n2", "n1") };
    assert_eq!(joined, of(&cluster, with));
    let rules = Client::new(cluster.node("n3").http, PATIENCE).get("/v1/rules/api").unwrap().text();
    assert!(rules.contains(&format!("of-{with}")) && !rules.contains(&format!("of-{against}")), "{rules}");

    // The smaller one is not ready any more, though it was.
    wait_for("the smaller one says so", PATIENCE, || {
        let (code, text) = readyz(cluster.node(against));
        code == 503 && text.contains("a second cluster named") && text.contains("--data-dir")
    });
    // Of the larger one, who has met a node of the other one: n3, which joined both, or the one that it follows.
    let says_so = |name: &&str| {
        let (code, text) = readyz(cluster.node(name));
        let trouble = status(cluster.node(name))["raft"]["trouble"].to_string();
        code == 200 && text.contains("a second cluster named") && trouble.contains(against)
    };
    wait_for("the larger one says so too", PATIENCE, || [with, "n3"].iter().any(says_so));
    let with = *[with, "n3"].iter().find(|name| says_so(name)).unwrap();
    wait_for("its log says so", PATIENCE, || cluster.node(with).log().contains("foreign_cluster_found"));
    assert_eq!(cluster.node(with).metric("tidegate_foreign_cluster"), Some(1.0));

    // What it tells to do is done.
    cluster.kill(against);
    wait_for("there is one cluster again", PATIENCE, || {
        status(cluster.node(with))["raft"]["trouble"].is_null() && readyz(cluster.node("n3")).0 == 200
    });
    assert_eq!(of(&cluster, "n3"), joined);
}
