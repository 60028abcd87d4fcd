//! How long a change of rules takes until it is in force at all of three nodes, beside what the disk takes for one fsync;
//! and how long a node takes that starts again after a long history.
//!
//! `cargo bench --bench rules`, or `-- --writes N --entries N`.
//!
//! A change is written at the leader, one after the other, each followed by a write and fsync of 4 KiB by this program in
//! the same file system. When a node has a revision in force it logs so; the last of the three lines is the end.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for people")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    collections::HashMap,
    fs::File,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chrono::DateTime;
use tidegate_jepsen::{
    client::Client,
    cluster::{Cluster, Settings, wait_for},
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Clients that fill the log, each with a domain of its own.
const FILLERS: u64 = 32;

fn main() {
    let (writes, entries) = options();
    let settings = Settings {
        binary: Path::new(env!("CARGO_BIN_EXE_tidegate")).to_owned(),
        rules: "rules: []\n".to_owned(),
        flags: Vec::new(),
        key: Some("the key of a benchmark".to_owned()),
        keeps_data: true,
    };
    let mut cluster = Cluster::start(3, settings);
    let status = || cluster.nodes[0].status().unwrap();
    wait_for("three nodes vote", PATIENCE, || status()["raft"]["voters"].as_array().unwrap().len() == 3);
    let leader = status()["raft"]["leader"].as_str().unwrap().to_owned();

    let (fsyncs, begun) = write(&cluster, &leader, writes);
    wait_for("all nodes have all of it", PATIENCE, || in_force(&cluster).len() as u64 >= writes);
    let ended = in_force(&cluster);
    let took: Vec<f64> = begun.iter().map(|(revision, at)| (ended[revision] - at) * 1e3).collect();
    let fsync = at(&fsyncs, 0.5);
    println!("milliseconds, {writes} changes one after the other, 3 nodes on one disk");
    println!("  fsync of 4 KiB             p50 {fsync:7.2}  p99 {:7.2}", at(&fsyncs, 0.99));
    let (p50, target) = (at(&took, 0.5), 4.0 * fsync + 5.0);
    println!("  in force at all nodes      p50 {p50:7.2}  p99 {:7.2}", at(&took, 0.99));
    println!("  that is {:.1} fsyncs; target: p50 at most 4 fsyncs + 5 ms = {target:.2}", p50 / fsync);

    restart(&mut cluster, entries);
}

fn options() -> (u64, u64) {
    let (mut writes, mut entries) = (300, 100_000);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    for pair in arguments.chunks(2) {
        match pair {
            [name, number] if name == "--writes" => writes = number.parse().unwrap(),
            [name, number] if name == "--entries" => entries = number.parse().unwrap(),
            _ => panic!("unknown option {pair:?}; there are --writes N and --entries N"),
        }
    }
    (writes, entries)
}

/// Times of fsyncs in milliseconds, and when each revision began, in seconds.
fn write(cluster: &Cluster, leader: &str, writes: u64) -> (Vec<f64>, Vec<(u64, f64)>) {
    let mut client = cluster.node(leader).client(PATIENCE);
    let mut file = File::create(cluster.directory().join("fsync")).unwrap();
    let (mut fsyncs, mut begun) = (Vec::new(), Vec::new());
    for number in 0..writes {
        let start = Instant::now();
        file.write_all(&[number as u8; 4096]).unwrap();
        file.sync_data().unwrap();
        fsyncs.push(start.elapsed().as_secs_f64() * 1e3);
        let text = format!("rules: [{{ name: one, key: [ip], limit: {}/1s }}]\n", number + 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let answer = client.request("PUT", "/v1/rules/timed", &[], &text).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        begun.push((answer.json()["revision"].as_u64().unwrap(), now));
    }
    (fsyncs, begun)
}

/// When each revision was in force at the last of the nodes, of those that are at all, in seconds.
fn in_force(cluster: &Cluster) -> HashMap<u64, f64> {
    let mut last: HashMap<u64, (usize, f64)> = HashMap::new();
    for node in &cluster.nodes {
        for line in node.log().lines().filter(|line| line.contains("rules are in force domain=timed ")) {
            let time = DateTime::parse_from_rfc3339(line.split_whitespace().next().unwrap()).unwrap();
            let revision = line.split("revision=").nth(1).unwrap().split_whitespace().next().unwrap();
            let (nodes, at) = last.entry(revision.parse().unwrap()).or_default();
            *nodes += 1;
            *at = at.max(time.timestamp_micros() as f64 / 1e6);
        }
    }
    last.into_iter().filter(|(_, (nodes, _))| *nodes == 3).map(|(revision, (_, at))| (revision, at)).collect()
}

fn at(numbers: &[f64], quantile: f64) -> f64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_by(f64::total_cmp);
    numbers[((numbers.len() - 1) as f64 * quantile) as usize]
}

fn restart(cluster: &mut Cluster, entries: u64) {
    let (start, done) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        for filler in 0..FILLERS {
            let (cluster, done) = (&*cluster, &done);
            scope.spawn(move || fill(cluster.nodes[0].client(PATIENCE), filler, done, entries));
        }
    });
    let filled = start.elapsed();
    let last = cluster.nodes[0].status().unwrap()["raft"]["last_log"].as_u64().unwrap();
    let bytes = |name: &str| {
        std::fs::metadata(cluster.data_of("n1").join(name)).map_or(0.0, |file| file.len() as f64 / 1e6)
    };
    println!(
        "\n{last} entries written in {:.1} s ({:.0}/s from {FILLERS} clients); n1 has {:.1} MB of log, {:.1} MB of snapshot",
        filled.as_secs_f64(),
        entries as f64 / filled.as_secs_f64(),
        bytes("raft.redb"),
        bytes("raft.snapshot"),
    );
    cluster.kill("n1");
    let start = Instant::now();
    cluster.restart("n1");
    while !cluster.node("n1").is_ready() {
        thread::sleep(Duration::from_millis(2));
    }
    println!("  n1 killed and started again: ready after   {:7.1} ms", start.elapsed().as_secs_f64() * 1e3);
    for name in ["n1", "n2", "n3"] {
        cluster.kill(name);
    }
    let start = Instant::now();
    for name in ["n1", "n2", "n3"] {
        cluster.restart(name);
    }
    while !cluster.nodes.iter().all(tidegate_jepsen::node::Node::is_ready) {
        thread::sleep(Duration::from_millis(2));
    }
    println!("  all killed and started again: ready after  {:7.1} ms", start.elapsed().as_secs_f64() * 1e3);
}

fn fill(mut client: Client, filler: u64, done: &AtomicU64, entries: u64) {
    loop {
        let number = done.fetch_add(1, Relaxed);
        if number >= entries {
            return;
        }
        let text = format!("rules: [{{ name: one, key: [ip], limit: {}/1s }}]\n", number + 1);
        let answer = client.request("PUT", &format!("/v1/rules/filler-{filler}"), &[], &text).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
