//! What exact ownership costs: bytes a second of sessions, the move of a million buckets to a node that joins, for how long
//! nobody decides about a slot while it moves, and how many checks fewer are answered meanwhile.
//!
//! `cargo bench --bench ownership`, or `-- --buckets N --baseline PATH`: a `tidegate` binary of another version, whose
//! throughput is measured in turns with that of this one.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for people")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tidegate_jepsen::{
    client::Client,
    cluster::{Cluster, Settings, free_ports, wait_for},
    history::{History, monotonic},
    load::Load,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked how far a join is, and for how long no slot has moved when it is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const AT_REST: Duration = Duration::from_millis(500);
/// Buckets that last.
const RULES: &str = "rules:\n  - { name: day, key: [day], limit: 1000/1d }\n  - { name: user, key: [user], limit: 1000000/1s }\n";
const BATCH: usize = 1000;
/// More than a sixteenth of the limit: of less a successor need not be told.
const COST: u64 = 100;
const KEYS: u32 = 1000;

fn main() {
    let mut buckets = 1_000_000;
    let mut baseline = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--buckets" => {
                buckets =
                    arguments.next().and_then(|number| number.parse().ok()).expect("--buckets has a number");
            }
            "--baseline" => baseline = Some(PathBuf::from(arguments.next().expect("--baseline has a path"))),
            _ => {}
        }
    }
    let ours = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    costs(ours, buckets);
    if let Some(theirs) = baseline {
        throughput(ours, &theirs);
    }
}

fn settings(binary: &Path) -> Settings {
    Settings {
        binary: binary.to_owned(),
        rules: RULES.to_owned(),
        flags: Vec::new(),
        key: Some("the key of a benchmark".to_owned()),
        keeps_data: true,
    }
}

/// Nodes that may be of a version which does not tell what this one tells.
fn start_any(binary: &Path, nodes: usize) -> Cluster {
    let mut cluster = Cluster::empty(settings(binary));
    let ports: Vec<u16> = (0..nodes).map(|_| free_ports()).collect();
    let expect = ["--bootstrap-expect".to_owned(), nodes.to_string()];
    for port in &ports {
        cluster.spawn(*port, &ports, &expect);
    }
    wait_for("all nodes are ready", PATIENCE, || {
        cluster.running().all(|node| node.is_ready() && node.live_members().len() == nodes)
    });
    thread::sleep(Duration::from_secs(1));
    cluster
}

fn costs(binary: &Path, buckets: usize) {
    let mut cluster = Cluster::start(2, settings(binary));
    let about = |cluster: &Cluster, name: &str, kind: &str| -> f64 {
        let metric = format!("tidegate_call_{name}total{{about=\"{kind}\"}}");
        let metric =
            if name.is_empty() { format!("tidegate_calls_total{{about=\"{kind}\"}}") } else { metric };
        cluster.running().map(|node| node.metric(&metric).unwrap()).sum()
    };
    // The leader asks itself, without a call: one of two nodes asks over the network.
    let begun = Instant::now();
    let kinds = ["session", "log"];
    let before = kinds.map(|kind| (about(&cluster, "", kind), about(&cluster, "bytes_", kind)));
    thread::sleep(Duration::from_secs(10));
    let seconds = begun.elapsed().as_secs_f64();
    for (kind, (calls, bytes)) in kinds.into_iter().zip(before) {
        let (calls, bytes) = (about(&cluster, "", kind) - calls, about(&cluster, "bytes_", kind) - bytes);
        let (rate, each) = (bytes / seconds, bytes / calls);
        println!(
            "idle, for each node but the leader: {kind:<8} {rate:6.0} bytes/s, {:.1} calls/s of {each:.0} bytes",
            calls / seconds
        );
    }

    let (filled, told) = (Instant::now(), about(&cluster, "bytes_", "floor"));
    fill(&cluster, buckets);
    let seconds = filled.elapsed().as_secs_f64();
    // Those of the last ones are told a moment later.
    thread::sleep(Duration::from_secs(2));
    let told = about(&cluster, "bytes_", "floor") - told;
    println!(
        "{buckets} buckets of a limit that refills for a day, a tenth of each taken, in {seconds:.1} s: floors {:.1} MB, {:.1} bytes a bucket",
        told / 1e6,
        told / buckets as f64
    );
    // The processors are shared by nodes and clients. With some of them left a join costs what moving costs; with none left,
    // the work of moving and the new node's own take from the checks too.
    join(&mut cluster, "clients that pause", Duration::from_micros(500), &about);
    join(&mut cluster, "clients that ask all they can", Duration::ZERO, &about);
}

/// Starts another node while clients ask, and says what that costs.
fn join(cluster: &mut Cluster, what: &str, pause: Duration, about: &impl Fn(&Cluster, &str, &str) -> f64) {
    let load = Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 4,
        keys: KEYS,
        length: PATIENCE * 4,
        pause,
        deadline: Duration::from_secs(5),
    };
    let gave = |cluster: &Cluster, metric: &str| -> f64 {
        cluster.running().map(|node| node.metric(metric).unwrap_or(0.0)).sum()
    };
    const FROZEN: [&str; 7] = ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"];
    let told = |cluster: &Cluster| {
        let frozen = FROZEN
            .map(|within| gave(cluster, &format!("tidegate_slot_frozen_seconds_bucket{{le=\"{within}\"}}")));
        let moved = ["tidegate_slots_moved_total", "tidegate_buckets_moved_total"]
            .map(|metric| gave(cluster, metric));
        (frozen, moved, about(cluster, "bytes_", "move"))
    };
    let before = told(cluster);
    let wanted = AtomicBool::new(true);
    let (mut calm, mut joining, mut moving, mut after) = (0, 0, (0, 0), 0);
    let history = thread::scope(|scope| {
        let running = scope.spawn(|| load.run_while(|| wanted.load(Relaxed)));
        thread::sleep(Duration::from_secs(1));
        calm = monotonic();
        thread::sleep(Duration::from_secs(4));
        joining = monotonic();
        cluster.spawn_joining();
        // Seldom: asking takes from the checks as well.
        let moved = |cluster: &Cluster| gave(cluster, "tidegate_slots_moved_total");
        let mut seen = moved(cluster);
        let before = seen;
        while moving.1 == 0 || monotonic() - moving.1 < AT_REST.as_nanos() as u64 {
            thread::sleep(LOOK_EVERY);
            let now = moved(cluster);
            if now > seen {
                moving.1 = monotonic();
                if seen == before {
                    moving.0 = moving.1 - LOOK_EVERY.as_nanos() as u64;
                }
                seen = now;
            }
            assert!(monotonic() - joining < PATIENCE.as_nanos() as u64, "slots move in the end");
        }
        thread::sleep(Duration::from_secs(4));
        after = monotonic();
        wanted.store(false, Relaxed);
        running.join().unwrap()
    });
    let now = told(cluster);
    let rate = |from: u64, to: u64| {
        let within = history.operations.iter().filter(|one| (from..to).contains(&one.completed)).count();
        within as f64 / ((to - from) as f64 / 1e9)
    };
    let [slots, buckets] = [0, 1].map(|place| now.1[place] - before.1[place]);
    let bytes = now.2 - before.2;
    println!(
        "node {} joins, {what}: {slots:.0} slots with {buckets:.0} buckets in {:.2} s, {:.1} MB, {:.1} bytes a bucket",
        cluster.nodes.len(),
        (moving.1 - moving.0) as f64 / 1e9,
        bytes / 1e6,
        bytes / buckets
    );
    print!("  nobody decides about a slot for at most");
    for (place, within) in FROZEN.iter().enumerate() {
        let share = (now.0[place] - before.0[place]) / slots;
        print!("  {} ms: {:.1} %", within.parse::<f64>().unwrap() * 1e3, share * 100.0);
    }
    println!();
    let (before, during, then) = (rate(calm, joining), rate(moving.0, moving.1), rate(moving.1, after));
    println!(
        "  checks/s before {before:.0}, while slots move {during:.0}, afterwards {then:.0}: {:.3} of before, {:.3} of afterwards",
        during / before,
        during / then
    );
    for (name, from, to) in
        [("before", calm, joining), ("moving", moving.0, moving.1), ("after", moving.1, after)]
    {
        println!("  a check takes, {name}: {}", latencies(&history, from, to));
    }
}

fn latencies(history: &History, from: u64, to: u64) -> String {
    let within = history.operations.iter().filter(|one| (from..to).contains(&one.completed));
    let mut took: Vec<u64> = within.map(|one| one.completed - one.invoked).collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    format!("p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms", at(0.5), at(0.99), at(0.999))
}

/// Takes something of each of so many buckets.
fn fill(cluster: &Cluster, buckets: usize) {
    let mut client: Client = cluster.nodes[0].client(PATIENCE);
    for start in (0..buckets).step_by(BATCH) {
        let mut body = "{\"checks\":[".to_owned();
        for number in start..(start + BATCH).min(buckets) {
            let comma = if number == start { "" } else { "," };
            let _ = write!(body, "{comma}{{\"cost\":{COST},\"attributes\":{{\"day\":\"d{number}\"}}}}");
        }
        body.push_str("]}");
        assert_eq!(client.post("/v1/check/batch", &body).unwrap().status, 200);
    }
}

/// Both versions in turns, on one node and on three.
fn throughput(ours: &Path, theirs: &Path) {
    for nodes in [1, 3] {
        let mut ratios = Vec::new();
        for turn in 0..5 {
            let order = if turn % 2 == 0 { [theirs, ours] } else { [ours, theirs] };
            let rates = order.map(|binary| rate(binary, nodes));
            let (old, new) = if turn % 2 == 0 { (rates[0], rates[1]) } else { (rates[1], rates[0]) };
            println!(
                "{nodes} nodes: checks/s of the other version {old:.0}, of this one {new:.0}: {:.3}",
                new / old
            );
            ratios.push(new / old);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        println!("{nodes} nodes: median of the ratios {:.3}", ratios[ratios.len() / 2]);
    }
}

fn rate(binary: &Path, nodes: usize) -> f64 {
    let cluster = start_any(binary, nodes);
    let load = |length: Duration| Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 8 / nodes.min(2),
        keys: KEYS,
        length,
        pause: Duration::ZERO,
        deadline: Duration::from_secs(5),
    };
    load(Duration::from_millis(500)).run();
    let begun = Instant::now();
    let history = load(Duration::from_secs(3)).run();
    history.operations.len() as f64 / begun.elapsed().as_secs_f64()
}
