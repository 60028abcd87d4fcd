//! The promise: a name of `--join` may stand for nothing when a node starts, and a name service that does not answer keeps no node
//! from starting, answering and ending.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
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

fn since(begun: u64) -> Duration {
    Duration::from_nanos(monotonic() - begun)
}
