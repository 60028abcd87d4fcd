//! How a fault is done to a cluster, and what is seen of it.

use std::{
    fs,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::Kind;
use crate::{client::Client, cluster::Cluster, netns::Net};

/// A node that is asked may be broken right now: others are asked then.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The number of a node in the network: `n3` is 3.
pub(super) fn number(name: &str) -> u8 {
    name[1..].parse().unwrap_or(1)
}

/// Does a fault of the network. Tells what exactly.
pub(super) fn network(net: &Net, kind: Kind, target: &str, nodes: u8, random: &mut fastrand::Rng) -> String {
    let target = number(target);
    let mut others: Vec<u8> = (1..=nodes).filter(|node| *node != target).collect();
    random.shuffle(&mut others);
    let from_target: Vec<(u8, u8)> = others.iter().map(|other| (target, *other)).collect();
    let to_target: Vec<(u8, u8)> = others.iter().map(|other| (*other, target)).collect();
    let both = [&from_target[..], &to_target].concat();
    match kind {
        Kind::Halves => {
            // The target is on the smaller side.
            let (small, large) = others.split_at(usize::from((nodes - 1) / 2).saturating_sub(1));
            let small = [&[target], small].concat();
            net.split(&[&small, large]);
            format!("{} apart from {}", names(&small), names(large))
        }
        Kind::MajorityRing => {
            let ring = [&[target], &others[..]].concat();
            let count = ring.len();
            // Itself and as many neighbours on each side as make a majority.
            let reach = (count / 2).div_ceil(2);
            let mut pairs = Vec::new();
            for (place, one) in ring.iter().enumerate() {
                for (other_place, other) in ring.iter().enumerate() {
                    let apart = place.abs_diff(other_place);
                    if apart.min(count - apart) > reach {
                        pairs.push((*one, *other));
                    }
                }
            }
            if let (true, [one, other, ..]) = (pairs.is_empty(), &others[..]) {
                pairs.extend([(*one, *other), (*other, *one)]);
            }
            net.cut_all(&pairs);
            format!("each reaches its neighbours only: {}", names(&ring))
        }
        Kind::OneWay => {
            if random.bool() {
                net.cut_all(&from_target);
                format!("nobody hears n{target}")
            } else {
                net.cut_all(&to_target);
                format!("n{target} hears nobody")
            }
        }
        Kind::Bridge => {
            let (one, other) = others.split_at(others.len() / 2);
            net.split(&[one, other]);
            format!("{} and {} reach each other over n{target} only", names(one), names(other))
        }
        Kind::Alone => {
            net.cut_all(&both);
            format!("n{target} alone")
        }
        Kind::Slow => {
            let rate = [128, 256, 512][random.usize(..3)];
            net.slow(target, rate);
            format!("n{target} sends {rate} kbit/s")
        }
        Kind::Loss => {
            let percent = [5, 20, 50][random.usize(..3)];
            net.lose(&both, percent);
            format!("{percent} % of the packets of n{target} are lost")
        }
        _ => {
            net.double(&both);
            format!("packets of n{target} arrive twice")
        }
    }
}

fn names(nodes: &[u8]) -> String {
    nodes.iter().map(|node| format!("n{node}")).collect::<Vec<_>>().join(",")
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
        // What can not be removed makes the node complain, and that is seen.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}
