//! The promise: a flood of keys changes nothing for anybody but the rule that it floods, not even when slots move, and the node
//! stays within its memory.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON},
};
use serde_json::{Value, json};
use tidegate_jepsen::cluster::{Cluster, Node, wait_for};

const RULES: &str = "rules:
  - { name: quick, key: [ip], limit: 10/1s }
  - { name: day, key: [account], limit: 10/1d }
  - { name: paid, key: [message], limit: 3/1d, on_memory_full: strict }
";
const BATCH: u64 = 200;

fn node_with(memory: &str, nodes: usize) -> Cluster {
    let mut settings = kit::patient(RULES);
    settings.flags.extend(["--max-memory".to_owned(), memory.to_owned()]);
    Cluster::start(nodes, settings)
}

/// Sends requests in batches, and waits for so many answers of each.
fn pipeline(address: SocketAddr, keys: std::ops::Range<u64>, request: impl Fn(u64) -> String, mark: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut part = vec![0; 1 << 18];
    for begin in keys.clone().step_by(BATCH as usize) {
        let batch = begin..(begin + BATCH).min(keys.end);
        let (wanted, bytes) = (batch.clone().count(), batch.map(&request).collect::<String>());
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut got = Vec::new();
        while got.windows(mark.len()).filter(|window| *window == mark.as_bytes()).count() < wanted {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "the node has closed the connection");
            got.extend_from_slice(&part[..read]);
        }
    }
}

fn http(node: &Node, attribute: &str, keys: std::ops::Range<u64>) {
    let request = |key| format!("GET /v1/check?{attribute}={key} HTTP/1.1\r\nhost: a\r\n\r\n");
    pipeline(node.http, keys, request, "\"decided_by\"");
}

fn inline(node: &Node, keys: std::ops::Range<u64>) {
    let request = |key| {
        let key = format!("{key:012}");
        format!("*5\r\n$11\r\nCL.THROTTLE\r\n$12\r\n{key}\r\n$1\r\n0\r\n$1\r\n1\r\n$7\r\n2678400\r\n")
    };
    let mut address = node.http;
    address.set_port(address.port() + 2);
    pipeline(address, keys, request, "*5\r\n");
}

fn check(node: &Node, attribute: &str, key: &str) -> Value {
    node.client(PATIENCE).get(&format!("/v1/check?{attribute}={key}")).unwrap().json()
}

fn metric(node: &Node, name: &str) -> u64 {
    node.metric(name).unwrap_or_else(|| panic!("{name} is there")) as u64
}

/// The most that was resident, in MiB.
fn peak(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn whatever_floods_keys_of_other_rules_are_as_they_were_and_new_ones_full() {
    let _machine = kit::alone();
    let cluster = node_with("2MiB", 1);
    let node = &cluster.nodes[0];
    for key in 0..20 {
        assert_eq!(check(node, "account", &format!("old-{key}"))["remaining"], 9);
    }
    inline(node, 0..100_000);
    http(node, "message", 0..100_000);
    assert!(metric(node, "tidegate_buckets_forgotten_total") > 30_000);
    // Where a strict rule has let go of buckets it assumes that new ones are used, so few more come in.
    assert!(metric(node, "tidegate_buckets_folded_total") > 1_000);
    for key in 0..20 {
        let old = check(node, "account", &format!("old-{key}"));
        assert_eq!((&old["remaining"], &old["decided_by"]), (&json!(8), &json!("owner")), "{old}");
        assert_eq!(check(node, "account", &format!("new-{key}"))["remaining"], 9);
        assert_eq!(check(node, "ip", &format!("10.0.0.{key}"))["remaining"], 9);
    }
}

#[test]
fn a_denial_that_only_memory_decided_says_so_is_counted_and_ends_with_a_reset() {
    let _machine = kit::alone();
    let cluster = node_with("2MiB", 1);
    let node = &cluster.nodes[0];
    // Three of each key: all of them are exhausted, and most let go of.
    (0..3).for_each(|_| http(node, "message", 0..60_000));
    let denied = check(node, "message", "stranger");
    assert_eq!((&denied["allowed"], &denied["decided_by"]), (&json!(false), &json!("memory")), "{denied}");
    assert!(denied["retry_after_ms"].as_u64().unwrap() <= 86_400_000, "{denied}");
    assert!(metric(node, "tidegate_checks_total{result=\"denied\",decided_by=\"memory\"}") > 0);
    let body = json!({ "attributes": { "message": "stranger" } }).to_string();
    let reset = node.client(PATIENCE).post("/v1/reset", &body).unwrap().json();
    assert_eq!(reset["buckets"][0]["remaining"], 3, "{reset}");
    let allowed = check(node, "message", "stranger");
    assert_eq!((&allowed["allowed"], &allowed["remaining"]), (&json!(true), &json!(2)), "{allowed}");
}

#[test]
fn slots_that_move_bring_the_buckets_of_rules_that_are_not_flooded_as_they_are() {
    let _machine = kit::alone();
    let mut cluster = node_with("2MiB", 2);
    // Once more than the limit: all of it is taken, whatever a busy machine leaves undecided.
    for _ in 0..4 {
        http(&cluster.nodes[0], "message", 0..60_000);
    }
    for key in 0..100 {
        assert_eq!(check(&cluster.nodes[1], "account", &format!("old-{key}"))["remaining"], 9);
    }
    assert_eq!(cluster.terminate("n2"), Some(0));
    let node = &cluster.nodes[0];
    wait_for("the slots of n2 are at n1", SOON, || metric(node, "tidegate_slots_owned") == 4096);
    for key in 0..100 {
        assert_eq!(check(node, "account", &format!("old-{key}"))["remaining"], 8);
        assert_eq!(check(node, "account", &format!("new-{key}"))["remaining"], 9);
    }
    // What the strict rule had let go of is not full again.
    let allowed =
        (0..1_000).filter(|key| check(node, "message", &key.to_string())["allowed"] == true).count();
    assert_eq!(allowed, 0);
}

#[test]
fn a_node_stays_within_its_memory_and_what_the_documentation_adds_to_it() {
    let _machine = kit::alone();
    let cluster = node_with("32MiB", 1);
    let node = &cluster.nodes[0];
    inline(node, 0..1_500_000);
    assert!(metric(node, "tidegate_buckets_forgotten_total") > 100_000);
    // docs/http.md: `max-memory` and 64 MiB for the program itself. A build for tests has more code in memory than that.
    let program = if cfg!(debug_assertions) { 64 + 8 } else { 64 };
    assert!(peak(node) <= 32 + program, "{} MiB at most", peak(node));
    assert!(metric(node, "tidegate_bucket_bytes") <= 32 << 20);
}
