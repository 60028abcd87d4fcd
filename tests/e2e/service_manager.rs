//! The promise: a service manager that is told by sd_notify(3), as systemd is, knows when a node is ready, what it waits for, that it
//! lives, reloads and stops, and never gives up a node that waits for its cluster.

use std::{
    fs::{self, File},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tidegate_jepsen::{
    client::Client,
    cluster::{free_ports, signal, wait_for},
    history::monotonic,
};

use crate::kit;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node as a service manager starts it. It is killed when nobody needs it any more.
struct Service {
    process: Child,
    place: TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Service {
    fn start(name: &str, base: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new(kit::binary());
        command
            .args(["serve", "--name", name, "--base-port", &base.to_string()])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(place.path().join("log")).unwrap());
        Self { process: command.spawn().unwrap(), place }
    }

    fn signal(&self, which: Signal) {
        signal(self.process.id(), which);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap()
    }
}

/// The service manager's end of it.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).unwrap())
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket }
    }

    fn message(&self) -> Option<String> {
        let mut bytes = [0; 8192];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).expect("it is text"))
    }

    /// The next message that has such a line, and all that came before it.
    fn wait_for(&self, line: &str) -> (String, Vec<String>) {
        let (mut found, mut before) = (None, Vec::new());
        wait_for(&format!("{line} is told"), PATIENCE, || {
            if let Some(message) = self.message() {
                match message.lines().any(|one| one.starts_with(line)) {
                    true => found = Some(message),
                    false => before.push(message),
                }
            }
            found.is_some()
        });
        (found.unwrap(), before)
    }

    fn forget(&self) {
        while self.message().is_some() {}
    }
}

fn is_ready(base: u16) -> bool {
    let mut client = Client::new(std::net::SocketAddr::from(([127, 0, 0, 1], base)), Duration::from_secs(2));
    client.get("/readyz").is_ok_and(|answer| answer.status == 200)
}

#[test]
fn a_node_is_ready_when_its_cluster_is_and_tells_all_else_until_it_ends() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let manager = Manager::at(&path);
    let (one, two) = (free_ports(), free_ports());
    let join = |other: u16| format!("127.0.0.1:{}", other + 3);
    let (to_one, to_two) = (join(one), join(two));
    let flags = |join| ["--join", join, "--bootstrap-expect", "2"];
    let told = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000"), ("WATCHDOG_PID", "")];
    let node = Service::start("n1", one, &flags(&to_two), &told);
    let (waits, _) = manager.wait_for("STATUS=not ready: waiting for ");
    assert!(
        waits.contains("EXTEND_TIMEOUT_USEC=30000000")
            || !manager.wait_for("EXTEND_TIMEOUT_USEC").0.is_empty()
    );
    // It waits, and says again and again that it needs time; nobody is told that it is ready.
    let (_, before) = manager.wait_for("EXTEND_TIMEOUT_USEC=30000000");
    assert!(before.iter().all(|message| !message.contains("READY=1")), "{before:?}");
    assert!(before.iter().any(|message| message == "WATCHDOG=1"), "{before:?}");
    let _other = Service::start("n2", two, &flags(&to_one), &[]);
    let (ready, before) = manager.wait_for("READY=1");
    assert!(is_ready(one), "{before:?}");
    assert!(ready.contains("STATUS=ready"), "{ready:?}");

    let now = monotonic() / 1_000;
    node.signal(Signal::HUP);
    let (reloading, _) = manager.wait_for("RELOADING=1");
    let usec = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(usec.unwrap().parse::<u64>().unwrap() >= now, "{reloading:?} at {now}");
    manager.wait_for("READY=1");

    // As one whose threads hang. What it has told before may still be on its way.
    node.signal(Signal::STOP);
    manager.forget();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(manager.message(), None);
    node.signal(Signal::CONT);
    manager.wait_for("WATCHDOG=1");

    node.signal(Signal::TERM);
    let (stopping, _) = manager.wait_for("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping:?}");
    let mut node = node;
    wait_for("it ends", PATIENCE, || node.process.try_wait().unwrap().is_some_and(|code| code.success()));
}

#[test]
fn a_socket_without_a_file_is_one_and_one_that_cannot_be_used_stops_nobody() {
    let name = format!("tidegate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::of(UnixDatagram::bind_addr(&address).unwrap());
    let base = free_ports();
    let _node = Service::start("n1", base, &[], &[("NOTIFY_SOCKET", &format!("@{name}"))]);
    let (_, before) = manager.wait_for("READY=1");
    assert!(before.iter().all(|message| message != "WATCHDOG=1"), "nobody asked for it: {before:?}");
    for (wrong, says) in
        [("vsock:2:1", Some("NOTIFY_SOCKET names no socket")), ("/nowhere/notify", None), ("", None)]
    {
        let base = free_ports();
        let told = [("NOTIFY_SOCKET", wrong), ("WATCHDOG_USEC", "soon")];
        let node = Service::start("n1", base, &[], &told);
        wait_for("it is ready", PATIENCE, || is_ready(base));
        assert_eq!(node.log().contains("the service manager is told nothing"), says.is_some(), "{wrong}");
        assert!(says.is_none_or(|says| node.log().contains(says)));
    }
}

/// The watchdog is another process's: the one that the variable names.
#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let manager = Manager::at(&path);
    let told =
        [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")];
    let _node = Service::start("n1", free_ports(), &[], &told);
    manager.wait_for("READY=1");
    std::thread::sleep(Duration::from_millis(500));
    while let Some(message) = manager.message() {
        assert_ne!(message, "WATCHDOG=1");
    }
}

#[test]
fn the_nodes_of_a_cluster_for_trying_tell_no_service_manager() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let manager = Manager::at(&path);
    let base = free_ports();
    let log = File::create(place.path().join("log")).unwrap();
    let mut command = Command::new(kit::binary());
    command
        .args(["dev", "--nodes", "1", "--base-port", &base.to_string()])
        .envs([("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let process = command.spawn().unwrap();
    let dev = Service { process, place };
    wait_for("its node is ready", PATIENCE, || is_ready(base));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(manager.message(), None);
    dev.signal(Signal::INT);
    let mut dev = dev;
    wait_for("it ends", PATIENCE, || dev.process.try_wait().unwrap().is_some());
}
