//! What the tests of replicated rules share.

use std::time::Duration;

use serde_json::Value;
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, Node, Settings, wait_for},
};

/// For one question.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// For something to come about.
pub const SOON: Duration = Duration::from_secs(30);

/// Nodes that keep their data, and have no rules to begin with.
pub fn keeping() -> Settings {
    Settings { keeps_data: true, ..super::settings("rules: []\n") }
}

/// One rule for each user.
pub fn limit(limit: &str) -> String {
    format!("rules:\n  - {{ name: per-user, key: [user], limit: {limit} }}\n")
}

pub fn put(node: &Node, path: &str, headers: &[(&str, &str)], text: &str) -> Response {
    node.client(PATIENCE).request("PUT", &format!("/v1/rules/{path}"), headers, text).unwrap()
}

/// Writes, and returns the revision.
pub fn write(node: &Node, domain: &str, text: &str) -> u64 {
    let answer = put(node, domain, &[], text);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["revision"].as_u64().unwrap()
}

pub fn get(node: &Node, path: &str) -> Response {
    node.client(PATIENCE).get(&format!("/v1/rules{path}")).unwrap()
}

/// What a check of a user says.
pub fn check(node: &Node, domain: &str, user: &str) -> Value {
    let answer = node.client(PATIENCE).get(&format!("/v1/check?domain={domain}&user={user}")).unwrap();
    answer.json()
}

/// The limit that a node has in force for users of a domain.
pub fn limit_at(node: &Node, domain: &str) -> Option<u64> {
    check(node, domain, "somebody")["limit"].as_u64()
}

pub fn await_limit(cluster: &Cluster, domain: &str, limit: u64) {
    for node in cluster.running() {
        wait_for(&format!("{} limits {domain} to {limit}", node.name), SOON, || {
            limit_at(node, domain) == Some(limit)
        });
    }
}

/// The member `raft` of a node's view.
pub fn raft(node: &Node) -> Value {
    node.status().unwrap()["raft"].clone()
}

/// The name of the leader that all running nodes agree on.
pub fn leader(cluster: &Cluster) -> String {
    let mut agreed = None;
    wait_for("all nodes see one leader", SOON, || {
        let leaders: Vec<Value> = cluster
            .running()
            .filter_map(|node| Some(node.status().ok()?["raft"]["leader"].clone()))
            .collect();
        let first = leaders.first().and_then(Value::as_str).map(str::to_owned);
        let same = leaders.len() == cluster.running().count()
            && leaders.windows(2).all(|pair| pair[0] == pair[1])
            && first.as_ref().is_some_and(|name| cluster.running().any(|node| node.name == *name));
        agreed = first;
        same
    });
    agreed.unwrap()
}

/// Waits until a Raft group of so many voters is there.
pub fn await_voters(cluster: &Cluster, count: usize) {
    wait_for(&format!("{count} nodes vote"), SOON, || {
        cluster.running().all(|node| {
            node.status().is_ok_and(|status| status["raft"]["voters"].as_array().map_or(0, Vec::len) == count)
        })
    });
}

/// Revisions and messages of a domain, newest first, with all that was acknowledged before.
pub fn history(node: &Node, domain: &str) -> Vec<(u64, String)> {
    history_at(node, domain, "consistent=true&")
}

/// The same, as this node knows it without asking anybody.
pub fn local_history(node: &Node, domain: &str) -> Vec<(u64, String)> {
    history_at(node, domain, "")
}

fn history_at(node: &Node, domain: &str, options: &str) -> Vec<(u64, String)> {
    let body = get(node, &format!("/{domain}/history?{options}limit=1000")).json();
    let lines = body["revisions"].as_array().cloned().unwrap_or_default();
    lines
        .iter()
        .map(|line| (line["revision"].as_u64().unwrap(), line["message"].as_str().unwrap().to_owned()))
        .collect()
}
