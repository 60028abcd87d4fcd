//! The promise: without a quorum the rules stand still, and limiting goes on; nothing is lost when they come back.

use crate::kit::rules::{
    PATIENCE, SOON, await_limit, await_voters, check, get, history, keeping, leader, limit, local_history,
    put, raft, write,
};
use serde_json::Value;
use tidegate_jepsen::cluster::{Cluster, wait_for};

fn three() -> Cluster {
    let cluster = Cluster::start(3, keeping());
    await_voters(&cluster, 3);
    cluster
}

#[test]
fn writes_say_which_voters_are_missing_and_checks_go_on() {
    let mut cluster = three();
    write(cluster.node("n1"), "api", &limit("5/1h"));
    await_limit(&cluster, "api", 5);
    cluster.kill("n2");
    cluster.kill("n3");
    let node = cluster.node("n1");
    wait_for("n1 has noticed", SOON, || node.live_members() == ["n1"]);

    let refused = put(node, "api?timeout_ms=1500", &[], &limit("6/1h"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:tidegate:problem:no-quorum");
    let missing: Vec<&str> =
        problem["missing"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(missing, ["n2", "n3"], "{problem}");
    assert_eq!(problem["voters"].as_array().unwrap().len(), 3);
    assert!(problem["detail"].as_str().unwrap().contains("n2, n3"), "{problem}");

    let consistent = get(node, "/api?consistent=true&timeout_ms=1000");
    assert_eq!(consistent.status, 503, "{}", consistent.text());
    let local = get(node, "/api").json();
    assert_eq!(local["source"], limit("5/1h"));
    assert_eq!(local["consistent"], false);
    // The age says that it is what was known then.
    assert!(local["age_ms"].is_u64(), "{local}");

    wait_for("every check is decided by the rules that are known", SOON, || {
        (0..50).all(|user| check(node, "api", &format!("u{user}"))["limit"].as_u64().is_some())
    });
    for user in 0..50 {
        let answer = node.client(PATIENCE).get(&format!("/v1/check?domain=api&user=v{user}")).unwrap();
        assert!([200, 429].contains(&answer.status), "{}", answer.text());
        assert_eq!(answer.json()["rule"], "per-user");
    }

    cluster.restart("n2");
    cluster.restart("n3");
    cluster.await_ready();
    // What was refused for want of a quorum, and is not known to have happened, has not happened or is written once.
    assert!(history(cluster.node("n1"), "api").len() <= 2);
    write(cluster.node("n3"), "api", &limit("7/1h"));
    await_limit(&cluster, "api", 7);
}

#[test]
fn a_write_of_which_nothing_is_known_says_so_and_its_repetition_settles_it() {
    let cluster = three();
    let leading = leader(&cluster);
    let followers: Vec<_> = cluster.nodes.iter().filter(|node| node.name != leading).collect();
    followers.iter().for_each(|node| node.pause());
    let key = [("idempotency-key", "in-doubt")];
    let answer = put(cluster.node(&leading), "api?timeout_ms=600", &key, &limit("9/1h"));
    followers.iter().for_each(|node| node.resume());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["applied"], Value::Null, "{}", answer.text());
    assert!(answer.text().contains("idempotency key"), "{}", answer.text());

    let settled = put(cluster.node("n2"), "api", &key, &limit("9/1h"));
    assert_eq!(settled.status, 200, "{}", settled.text());
    await_limit(&cluster, "api", 9);
    for node in &cluster.nodes {
        assert_eq!(history(node, "api").len(), 1, "at {}", node.name);
    }
}

#[test]
fn all_nodes_killed_at_once_come_back_as_the_same_cluster_with_all_that_was_written() {
    let mut cluster = three();
    for count in 1..=5 {
        write(&cluster.nodes[count % 3], "api", &limit(&format!("{count}/1h")));
    }
    write(cluster.node("n1"), "other", &limit("3/1h"));
    let before = history(cluster.node("n1"), "api");
    let group = raft(cluster.node("n1"))["cluster"].clone();
    let ids: Vec<Value> = cluster.nodes.iter().map(|node| raft(node)["id"].clone()).collect();
    for name in ["n1", "n2", "n3"] {
        cluster.kill(name);
    }
    for name in ["n3", "n1", "n2"] {
        cluster.restart(name);
    }
    cluster.await_ready();
    for (node, id) in cluster.nodes.iter().zip(ids) {
        assert_eq!(check(node, "api", "u")["limit"], 5);
        assert_eq!(check(node, "other", "u")["limit"], 3);
        let now = raft(node);
        assert_eq!((&now["cluster"], &now["id"]), (&group, &id), "{} is who it was", node.name);
    }
    wait_for("each tells the same history", SOON, || {
        cluster.nodes.iter().all(|node| local_history(node, "api") == before)
    });
    write(cluster.node("n2"), "api", &limit("6/1h"));
    await_limit(&cluster, "api", 6);
}
