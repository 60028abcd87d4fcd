//! Whether a cluster is as it should be: before a run begins, and when all is healed.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::{cluster::Cluster, history::monotonic, node::Node};

/// How long a cluster may take to be as it should.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(60);
/// What an error begins with that says that the cluster never came to be.
pub const NOT_READY: &str = "the nodes were not ready";

/// Whether all nodes are ready, and name the same leader and the same owners, who have a session.
pub(super) fn is_settled(cluster: &Cluster) -> bool {
    let ask = |node: &Node| {
        let answer = node.client(Duration::from_millis(500)).get("/v1/cluster").ok()?;
        let status: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let settled = status["ready"] == true
            && status["session"] == true
            && status["raft"]["trouble"].is_null()
            && status["raft"]["leader"].is_string()
            && status["slots_moving"] == 0
            && status["slots_to_move"] == 0;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        // Who is gone, some still know of and others do not.
        let owners = members.iter().filter(|one| one["slots"] != 0);
        let owned: Vec<_> = owners.map(|one| (one["name"].clone(), one["slots"].clone())).collect();
        // A node that owns nothing counts itself in, so that its table is another one.
        let owns = owned.iter().any(|(name, _)| *name == status["node"]);
        let table = owns.then(|| status["table"].clone());
        settled.then(|| (table, owned, status["raft"]["leader"].clone()))
    };
    let seen: Vec<_> = cluster.running().map(ask).collect();
    let Some(seen) = seen.into_iter().collect::<Option<Vec<_>>>() else { return false };
    let mut tables = seen.iter().filter_map(|one| one.0.as_ref());
    let first = tables.next();
    tables.all(|table| Some(table) == first)
        && seen.iter().all(|one| one.1 == seen[0].1 && one.2 == seen[0].2)
}

/// Waits for that. `None`: it took too long, or somebody has broken the run off.
pub(super) fn await_settled(cluster: &Cluster, within: Duration, interrupted: &AtomicBool) -> Option<()> {
    let end = monotonic() + within.as_nanos() as u64;
    while !is_settled(cluster) {
        if monotonic() > end || interrupted.load(Relaxed) {
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Some(())
}

/// The end of each node's log, to show why.
pub(super) fn last_lines(cluster: &Cluster) -> String {
    let mut text = String::new();
    for node in &cluster.nodes {
        let log = node.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n");
        text.push_str(&format!("--- {}\n{last}\n", node.name));
    }
    text
}
