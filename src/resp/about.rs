//! What a node tells of itself in the words of Redis: `INFO`, `ROLE`, and `CLUSTER` for clients that want to know where keys
//! are. Each node answers for every key, so it tells of one node, itself, that has all slots.
//!
//! Clients send these before their first check, so they are answered to everybody who may ask checks. Whoever may not look at the node
//! (`read`) learns from them only what every client needs, and nothing of this node: [`Detail`].

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use tidegate_cluster::Readiness;

use super::reply::Replies;
use crate::{node::Node, process};

/// The version of Redis whose protocol this is: clients choose by it which commands they send around theirs.
const REDIS_VERSION: &str = "7.2.0";
/// The last slot of a Redis cluster.
const LAST_SLOT: i64 = 16_383;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About<'a> {
    /// These sections; none: all.
    Info(Vec<&'a [u8]>),
    Role,
    Slots,
    Shards,
    Nodes,
    ClusterInfo,
    MyId,
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    All,
    /// What is the same of all nodes, whether this one loads, and the address that the client has reached it by.
    Greeting,
}

impl<'a> About<'a> {
    /// A subcommand of `CLUSTER`.
    pub(super) fn cluster(subcommand: &[u8]) -> Option<Self> {
        match subcommand.to_ascii_lowercase().as_slice() {
            b"slots" => Some(Self::Slots),
            b"shards" => Some(Self::Shards),
            b"nodes" => Some(Self::Nodes),
            b"info" => Some(Self::ClusterInfo),
            b"myid" => Some(Self::MyId),
            _ => None,
        }
    }

    /// Answers. `address` is the one that the client has reached this node by.
    pub(super) fn answer(&self, node: &Node, address: SocketAddr, detail: Detail, to: &mut Replies<'_>) {
        let (ip, port) = (address.ip().to_canonical().to_string(), i64::from(address.port()));
        let id = match detail {
            Detail::All => id_of(&node.name),
            Detail::Greeting => id_of(&format!("{ip}:{port}")),
        };
        match self {
            Self::Info(sections) => {
                let is_loading = matches!(node.readiness(), Readiness::NotReady(_));
                let text = match detail {
                    Detail::All => info(node, port, is_loading, sections),
                    Detail::Greeting => greeting(is_loading, sections),
                };
                to.bulk(text.as_bytes());
            }
            Self::Role => {
                to.array(3);
                to.bulk(b"master");
                to.integer(0);
                to.array(0);
            }
            Self::Slots => {
                to.array(1);
                to.array(3);
                to.integer(0);
                to.integer(LAST_SLOT);
                to.array(4);
                to.bulk(ip.as_bytes());
                to.integer(port);
                to.bulk(id.as_bytes());
                to.array(0);
            }
            Self::Shards => shards(&ip, port, &id, to),
            Self::Nodes => {
                let line = format!("{id} {ip}:{port}@{port} myself,master - 0 0 1 connected 0-{LAST_SLOT}\n");
                to.bulk(line.as_bytes());
            }
            Self::ClusterInfo => {
                let slots = LAST_SLOT + 1;
                let info = format!(
                    "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:{slots}\r\n\
                     cluster_slots_ok:{slots}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n\
                     cluster_known_nodes:1\r\ncluster_size:1\r\n"
                );
                to.bulk(info.as_bytes());
            }
            Self::MyId => to.bulk(id.as_bytes()),
        }
    }
}

fn shards(ip: &str, port: i64, id: &str, to: &mut Replies<'_>) {
    to.array(1);
    to.map(2);
    to.bulk(b"slots");
    to.array(2);
    to.integer(0);
    to.integer(LAST_SLOT);
    to.bulk(b"nodes");
    to.array(1);
    to.map(7);
    for (name, value) in [("id", id), ("ip", ip), ("endpoint", ip), ("role", "master"), ("health", "online")]
    {
        to.bulk(name.as_bytes());
        to.bulk(value.as_bytes());
    }
    for (name, value) in [("port", port), ("replication-offset", 0)] {
        to.bulk(name.as_bytes());
        to.integer(value);
    }
}

/// 40 hexadecimal digits, as ids in a Redis cluster are: the end of the name.
fn id_of(name: &str) -> String {
    let end = &name.as_bytes()[name.len().saturating_sub(20)..];
    let mut digits = String::with_capacity(40);
    for byte in end {
        // Writing into a text does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    format!("{digits:0>40}")
}

/// Numbers that take long to find out: each shard of the store is looked at, and files of the system are read.
#[derive(Debug, Clone, Copy)]
struct Costly {
    /// Seconds since the Unix epoch.
    read_at: u64,
    started: u64,
    resident: u64,
    used: usize,
    keys: usize,
}

/// Those that were read last. A client can ask thousands of times in one write.
static LAST: Mutex<Option<Costly>> = Mutex::new(None);

impl Costly {
    /// At most a second old.
    fn of(node: &Node, now: u64) -> Self {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.filter(|known| known.read_at == now) {
            return known;
        }
        let (process, store) = (process::Usage::read(), node.store.stats());
        let (started, resident) =
            process.map_or((now, 0), |process| (process.started.as_secs(), process.resident_bytes));
        let costly = Self { read_at: now, started, resident, used: store.bytes, keys: store.buckets };
        *last = Some(costly);
        costly
    }
}

/// The text of `INFO`.
struct Sections<'a> {
    wanted: &'a [&'a [u8]],
    text: String,
}

impl<'a> Sections<'a> {
    /// Of these sections; none: all.
    fn new(wanted: &'a [&'a [u8]]) -> Self {
        Self { wanted, text: String::new() }
    }

    fn is_wanted(&self, name: &str) -> bool {
        let asks_for = |section: &&[u8]| {
            [name, "all", "default", "everything"]
                .iter()
                .any(|known| section.eq_ignore_ascii_case(known.as_bytes()))
        };
        self.wanted.is_empty() || self.wanted.iter().any(asks_for)
    }

    fn add(&mut self, name: &str, fields: &[(&str, &dyn std::fmt::Display)]) {
        if !self.is_wanted(name) {
            return;
        }
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        // Writing into a text does not fail.
        let _ = write!(self.text, "# {name}\r\n");
        for (field, value) in fields {
            let _ = write!(self.text, "{field}:{value}\r\n");
        }
    }

    /// What clients look at before they go on, behind `Server`.
    fn add_state(&mut self, is_loading: bool) {
        // A client that sees a node load waits with its first command.
        self.add("Persistence", &[("loading", &u8::from(is_loading)), ("async_loading", &0)]);
    }

    fn add_role(&mut self) {
        self.add("Replication", &[("role", &"master"), ("connected_slaves", &0), ("master_repl_offset", &0)]);
        self.add("Cluster", &[("cluster_enabled", &1)]);
    }
}

/// `INFO` for whoever may not look at the node.
fn greeting(is_loading: bool, wanted: &[&[u8]]) -> String {
    let mut sections = Sections::new(wanted);
    sections.add(
        "Server",
        &[("redis_version", &REDIS_VERSION), ("redis_mode", &"cluster"), ("server_name", &"tidegate")],
    );
    sections.add_state(is_loading);
    sections.add_role();
    sections.text
}

/// `INFO`, with the fields that clients look at before they go on.
fn info(node: &Node, port: i64, is_loading: bool, wanted: &[&[u8]]) -> String {
    let now = node.clock.unix_millis() / 1_000;
    let Costly { started, resident, used, keys, .. } = Costly::of(node, now);
    let uptime = now.saturating_sub(started);
    let mut sections = Sections::new(wanted);
    sections.add(
        "Server",
        &[
            ("redis_version", &REDIS_VERSION),
            ("redis_mode", &"cluster"),
            ("server_name", &"tidegate"),
            ("tidegate_version", &env!("CARGO_PKG_VERSION")),
            ("node_name", &node.name),
            ("os", &std::env::consts::OS),
            ("arch_bits", &usize::BITS),
            ("process_id", &std::process::id()),
            ("run_id", &id_of(&node.name)),
            ("tcp_port", &port),
            ("uptime_in_seconds", &uptime),
        ],
    );
    sections.add("Clients", &[("connected_clients", &node.resp.open())]);
    sections.add("Memory", &[("used_memory", &used), ("used_memory_rss", &resident)]);
    sections.add_state(is_loading);
    sections.add(
        "Stats",
        &[
            ("total_connections_received", &node.resp.accepted()),
            ("rejected_connections", &node.resp.refused()),
        ],
    );
    sections.add_role();
    let keys = format!("keys={0},expires={0},avg_ttl=0", keys);
    sections.add("Keyspace", &[("db0", &keys)]);
    sections.text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_look_at_the_node_learns_what_each_client_needs_and_no_more() {
        let all = greeting(true, &[]);
        let lines: Vec<&str> = all.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            [
                "# Server",
                "redis_version:7.2.0",
                "redis_mode:cluster",
                "server_name:tidegate",
                "# Persistence",
                "loading:1",
                "async_loading:0",
                "# Replication",
                "role:master",
                "connected_slaves:0",
                "master_repl_offset:0",
                "# Cluster",
                "cluster_enabled:1",
            ]
        );
        assert_eq!(greeting(false, &[b"persistence"]), "# Persistence\r\nloading:0\r\nasync_loading:0\r\n");
        assert_eq!(greeting(false, &[b"memory", b"keyspace"]), "");
    }

    #[test]
    fn an_id_has_forty_digits_and_names_differ() {
        for name in ["n1", "n2", "a-name-that-is-longer-than-twenty-bytes-1"] {
            let id = id_of(name);
            assert!(id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
        assert_ne!(id_of("n1"), id_of("n2"));
    }
}
