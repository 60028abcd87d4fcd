//! How a fault is done to a cluster, and what is seen of it.

use std::{
    fs,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{client::Client, cluster::Cluster};

/// A node that is asked may be broken right now: others are asked then.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The number of a node in the network: `n3` is 3.
pub(super) fn number(name: &str) -> u8 {
    name[1..].parse().unwrap_or(1)
}

/// Asks one node after the other until one answers with 200, in a thread of its own: who hangs keeps nothing else waiting.
/// Those that are not the target come first. What comes of it is whether one did.
pub(super) fn ask_any(
    cluster: &Cluster,
    target: &str,
    method: &'static str,
    path: String,
) -> JoinHandle<bool> {
    let others = cluster.running().filter(|node| node.name != target).chain(cluster.running());
    let clients: Vec<Client> = others.take(3).map(|node| node.client(PATIENCE)).collect();
    thread::spawn(move || {
        clients
            .into_iter()
            .any(|mut client| client.request(method, &path, &[], "").is_ok_and(|answer| answer.status == 200))
    })
}

/// Writes rules that need room on every disk, in a thread of its own.
pub(super) fn write_large_rules(cluster: &Cluster, target: &str, number: u64) -> JoinHandle<bool> {
    let body = format!("# {}\nrules: [{{ name: n{number}, key: [], limit: 5/1s }}]\n", "x".repeat(512 << 10));
    let client = cluster.running().find(|node| node.name != target).map(|node| node.client(PATIENCE));
    thread::spawn(move || {
        // It may be refused: then the disk was hit by something else.
        let path = "/v1/rules/large?timeout_ms=1000";
        client.is_some_and(|mut client| client.request("PUT", path, &[], &body).is_ok())
    })
}

/// Whether the process is stopped by a signal.
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Empties a node's data directory.
pub(super) fn empty(cluster: &Cluster, name: &str) {
    let Ok(entries) = fs::read_dir(cluster.data_of(name)) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        // What cannot be removed makes the node complain, and that is seen.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}
