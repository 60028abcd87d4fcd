//! The promise: a name of `--join` may stand for nothing when a node starts, and a name service that does not answer keeps no node
//! from starting, answering and ending.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{
    cluster::{Cluster, Settings, free_ports, wait_for},
    history::monotonic,
    network::Form,
    node::Node,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// From when a name stands for an address: a look-up each second, and what founding takes.
const FOUND_WITHIN: Duration = Duration::from_secs(8);

/// What a node sees of names.
struct Names {
    directory: tempfile::TempDir,
    program: PathBuf,
}

impl Names {
    /// Nodes that are started by [`Names::settings`] know the names of these files, and nothing of those of the machine.
    fn new(servers: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("hosts"), "").unwrap();
        fs::write(at("resolv.conf"), servers).unwrap();
        fs::write(at("nsswitch.conf"), "hosts: files dns\n").unwrap();
        let mounts: String = ["hosts", "resolv.conf", "nsswitch.conf"]
            .map(|name| {
                format!(
                    "touch /etc/{name}; mount --bind {}/{name} /etc/{name} && ",
                    directory.path().display()
                )
            })
            .concat();
        let binary = kit::settings("").binary;
        let program = at("tidegate");
        let script = format!(
            "#!/bin/sh\nexec unshare --mount sh -c '{mounts} exec {} \"$@\"' tidegate \"$@\"\n",
            binary.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, program }
    }

    fn settings(&self) -> Settings {
        Settings { binary: self.program.clone(), ..kit::settings(&kit::per_user("5/1m", 5, "share")) }
    }

    fn hosts(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }
}

/// In place: it is mounted elsewhere.
fn write_in_place(path: &Path, text: &str) {
    use std::io::Write as _;
    fs::File::options().write(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn can_mount() -> bool {
    let is_tested = kit::network() == Form::Namespaces;
    if !is_tested {
        eprintln!("NOT TESTED: names of this machine can only be replaced in a mount namespace");
    }
    is_tested
}

#[test]
fn nodes_whose_name_appears_late_are_ready_soon_afterwards() {
    let _machine = kit::alone();
    if !can_mount() {
        return;
    }
    let names = Names::new("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    let mut cluster = Cluster::empty(names.settings());
    let ports = [free_ports(), free_ports()];
    let join = ports.map(|port| format!("localhost:{}", port + 3)).join(",");
    for port in ports {
        let flags = ["--join", &join, "--bootstrap-expect", "2"].map(str::to_owned);
        cluster.spawn(port, &[], &flags);
    }
    // Both are there, and know nobody.
    for node in cluster.running() {
        wait_for("it answers", PATIENCE, || node.client(PATIENCE).get("/healthz").is_ok());
    }
    thread::sleep(Duration::from_secs(4));
    assert!(!cluster.running().any(Node::is_ready), "nobody could tell them of the other");
    let appeared = monotonic();
    write_in_place(&names.hosts(), "127.0.0.1 localhost\n");
    wait_for("both are ready", PATIENCE, || cluster.running().all(Node::is_ready));
    let after = since(appeared);
    assert!(after < FOUND_WITHIN, "ready {after:?} after the name appeared");
}

#[test]
fn a_name_service_that_does_not_answer_holds_up_neither_the_start_nor_the_end() {
    let _machine = kit::alone();
    if !can_mount() {
        return;
    }
    // It takes questions, and never answers.
    let Ok(_silent) = UdpSocket::bind("127.0.0.77:53") else {
        eprintln!("NOT TESTED: port 53 is not to be had here");
        return;
    };
    let names = Names::new("nameserver 127.0.0.77\noptions timeout:5 attempts:2\n");
    let mut cluster = Cluster::empty(names.settings());
    let started = monotonic();
    let port = free_ports();
    let flags = ["--join", "localhost:9,localhost:19", "--bootstrap-expect", "2"].map(str::to_owned);
    cluster.spawn(port, &[], &flags);
    let node = cluster.node("n1");
    wait_for("it answers", PATIENCE, || node.client(PATIENCE).get("/healthz").is_ok());
    assert!(since(started) < Duration::from_secs(4), "it answers after {:?}", since(started));
    let asked = monotonic();
    assert_eq!(cluster.terminate("n1"), Some(0));
    assert!(since(asked) < Duration::from_secs(5), "it ended after {:?}", since(asked));
}

/// A name server for one service, on a loopback address: it knows what it is told, and nothing in the beginning.
struct Server {
    records: Arc<Mutex<Vec<(&'static str, u16)>>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    /// `None`: the port is not to be had.
    fn start(address: &str) -> Option<Self> {
        let socket = UdpSocket::bind((address, 53)).ok()?;
        let records: Arc<Mutex<Vec<(&str, u16)>>> = Arc::default();
        let (known, asked) = (Arc::clone(&records), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&asked);
        // It ends with the program.
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                count.fetch_add(1, Relaxed);
                let records = known.lock().unwrap().clone();
                let _ = socket.send_to(&answer(&bytes[..length], &records), from);
            }
        });
        Some(Self { records, asked })
    }
}

/// The records, if they are asked for: as RFC 1035 and 2782 write them.
fn answer(question: &[u8], records: &[(&str, u16)]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let is_asked = question[12..end].ends_with(&[0, 33, 0, 1])
        && question[12..].to_ascii_lowercase().starts_with(b"\x09_tidegate\x04_udp\x09localhost\0");
    let records = if is_asked { records } else { &[] };
    let code = if records.is_empty() { 3 } else { 0 };
    let mut bytes = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
    bytes.extend(&question[12..end]);
    for (host, port) in records {
        // The name of the question again, SRV, IN, a minute; then priority, weight, port, host.
        bytes.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, host.len() as u8 + 8, 0, 0, 0, 0]);
        bytes.extend(port.to_be_bytes());
        bytes.push(host.len() as u8);
        bytes.extend(host.as_bytes());
        bytes.push(0);
    }
    bytes
}

#[test]
fn nodes_find_each_other_by_the_records_of_a_service_that_appear_late_and_change() {
    let _machine = kit::alone();
    if !can_mount() {
        return;
    }
    let Some(server) = Server::start("127.0.0.78") else {
        eprintln!("NOT TESTED: port 53 is not to be had here");
        return;
    };
    let names = Names::new("nameserver 127.0.0.78\noptions timeout:1 attempts:1\n");
    write_in_place(&names.hosts(), "127.0.0.1 localhost\n");
    let mut cluster = Cluster::empty(names.settings());
    let ports = [free_ports(), free_ports(), free_ports()];
    let flags = |expect: &str| {
        ["--join", "dnssrv+_tidegate._udp.localhost", "--bootstrap-expect", expect].map(str::to_owned)
    };
    for port in &ports[..2] {
        cluster.spawn(*port, &[], &flags("2"));
    }
    for node in cluster.running() {
        wait_for("it answers", PATIENCE, || node.client(PATIENCE).get("/healthz").is_ok());
    }
    thread::sleep(Duration::from_secs(3));
    assert!(!cluster.running().any(Node::is_ready), "nobody could tell them of the other");
    let appeared = monotonic();
    let records = |ports: &[u16]| ports.iter().map(|port| ("localhost", port + 3)).collect::<Vec<_>>();
    *server.records.lock().unwrap() = records(&ports[..2]);
    wait_for("both are ready", PATIENCE, || cluster.running().all(Node::is_ready));
    let after = since(appeared);
    assert!(after < FOUND_WITHIN, "ready {after:?} after the records appeared");
    // Another node finds them by the same service, and is named by it from now on.
    *server.records.lock().unwrap() = records(&ports);
    cluster.spawn(ports[2], &[], &flags("2"));
    cluster.await_ready();
    assert!(server.asked.load(Relaxed) > 5);
}

fn since(begun: u64) -> Duration {
    Duration::from_nanos(monotonic() - begun)
}
