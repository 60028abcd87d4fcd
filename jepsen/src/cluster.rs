//! Real nodes as processes of this machine: started, watched, killed, and gone when the test is.

use std::{
    fmt::Write as _,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{client::Client, history::monotonic};

/// How long a cluster may take to be ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to stop when it is asked to.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Ports of a node: HTTP, gRPC, Redis protocol, peers.
const PORTS: u16 = 4;
/// Below the range from which the system takes ports for outgoing connections.
const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How to start the nodes of a cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `tidegate` binary.
    pub binary: PathBuf,
    /// The rules of each node.
    pub rules: String,
    /// Further flags of each node.
    pub flags: Vec<String>,
    /// The secret of the cluster, given by environment.
    pub key: Option<String>,
}

/// A node and its process.
#[derive(Debug)]
pub struct Node {
    /// Its name: `n1`, `n2` and so on.
    pub name: String,
    /// Where its HTTP is.
    pub http: SocketAddr,
    /// Where its peer port is.
    pub peer: SocketAddr,
    log: PathBuf,
    process: Option<Child>,
}

/// The nodes of a test. When it is dropped, all of them are killed; if the test is failing, their logs are shown.
#[derive(Debug)]
pub struct Cluster {
    /// In the order in which they were started.
    pub nodes: Vec<Node>,
    settings: Settings,
    directory: TempDir,
}

impl Cluster {
    /// Starts `count` nodes that form a cluster, and waits until each is ready and sees all others.
    ///
    /// # Panics
    /// When that fails: the test can not go on. The logs are shown.
    pub fn start(count: usize, settings: Settings) -> Self {
        let mut cluster = Self::empty(settings);
        let ports: Vec<u16> = (0..count).map(|_| free_ports()).collect();
        let expect = ["--bootstrap-expect".to_owned(), count.to_string()];
        for port in &ports {
            cluster.spawn(*port, &ports, &expect);
        }
        cluster.await_ready();
        cluster
    }

    /// A cluster without nodes.
    ///
    /// # Panics
    /// When there is no place for temporary files.
    pub fn empty(settings: Settings) -> Self {
        let directory =
            tempfile::Builder::new().prefix("tidegate-test-").tempdir().expect("temporary directory");
        std::fs::write(directory.path().join("rules.yaml"), &settings.rules)
            .expect("the rules can be written");
        Self { nodes: Vec::new(), settings, directory }
    }

    /// Starts one more node, which joins those that are there, and waits until all see each other.
    ///
    /// # Panics
    /// When that fails.
    pub fn join(&mut self) -> &Node {
        let ports: Vec<u16> = self.nodes.iter().map(|node| node.http.port()).collect();
        self.spawn(free_ports(), &ports, &[]);
        self.await_ready();
        self.nodes.last().expect("it was just started")
    }

    /// Starts a node with these flags, and does not wait for it.
    ///
    /// # Panics
    /// When the binary can not be started.
    pub fn spawn(&mut self, port: u16, join: &[u16], flags: &[String]) -> &mut Node {
        let name = format!("n{}", self.nodes.len() + 1);
        let log = self.directory.path().join(format!("{name}.log"));
        let file = File::create(&log).expect("the log can be written");
        let peers: Vec<String> = join
            .iter()
            .filter(|other| **other != port)
            .map(|other| format!("127.0.0.1:{}", other + 3))
            .collect();
        let mut command = Command::new(&self.settings.binary);
        command
            .arg("serve")
            .args(["--name", &name, "--listen", "127.0.0.1", "--base-port", &port.to_string()])
            .arg("--rules")
            .arg(self.directory.path().join("rules.yaml"))
            .args(flags)
            .args(&self.settings.flags)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log can be written twice"))
            .stderr(file);
        if !peers.is_empty() {
            command.args(["--join", &peers.join(",")]);
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        if let Some(key) = &self.settings.key {
            command.env("TIDEGATE_CLUSTER_KEY", key);
        }
        let process = command.spawn().expect("the binary starts");
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.nodes.push(Node {
            name,
            http: address(port),
            peer: address(port + 3),
            log,
            process: Some(process),
        });
        self.nodes.last_mut().expect("it was just pushed")
    }

    /// Waits until each running node is ready and sees all the others.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_ready(&self) {
        let names: Vec<&str> = self.running().map(|node| &*node.name).collect();
        for node in self.running() {
            wait_for(&format!("{} is ready and sees {names:?}", node.name), READY_WITHIN, || {
                node.is_ready() && {
                    let live = node.live_members();
                    names.iter().all(|name| live.iter().any(|member| member == name))
                }
            });
        }
        wait_for("all nodes see the same owners", READY_WITHIN, || {
            let mut owners = self.running().map(Node::slot_owners);
            let first = owners.next();
            owners.all(|others| Some(&others) == first.as_ref())
        });
    }

    /// The nodes whose processes have not been ended by the test.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.is_some())
    }

    /// The node of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Ends a node with SIGKILL.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self, name: &str) {
        let node = self.nodes.iter_mut().find(|node| node.name == name).expect("there is such a node");
        let mut process = node.process.take().expect("it runs");
        process.kill().expect("it can be killed");
        process.wait().expect("it has ended");
    }

    /// Asks a node to stop with SIGTERM, and waits. Returns its exit code.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn terminate(&mut self, name: &str) -> Option<i32> {
        let node = self.nodes.iter_mut().find(|node| node.name == name).expect("there is such a node");
        let mut process = node.process.take().expect("it runs");
        signal(process.id(), Signal::TERM);
        let mut status = None;
        wait_for(&format!("{name} has stopped"), STOP_WITHIN, || {
            status = process.try_wait().expect("it can be waited for");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Where the test may put files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn logs(&self) -> String {
        self.nodes.iter().fold(String::new(), |mut all, node| {
            let _ = write!(all, "--- {} ({}), log:\n{}", node.name, node.http, node.log());
            all
        })
    }
}

impl Node {
    /// A client that asks this node.
    pub fn client(&self, deadline: Duration) -> Client {
        Client::new(self.http, deadline)
    }

    /// Whether `/readyz` says so.
    pub fn is_ready(&self) -> bool {
        self.client(Duration::from_secs(2)).get("/readyz").is_ok_and(|answer| answer.status == 200)
    }

    /// `GET /v1/cluster`, with the owner of each slot.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn status(&self) -> io::Result<Value> {
        Ok(self.client(Duration::from_secs(2)).get("/v1/cluster?slots=true")?.json())
    }

    /// The owner of each slot, as this node sees it; empty when it does not answer.
    pub fn slot_owners(&self) -> Vec<String> {
        let Ok(status) = self.status() else { return Vec::new() };
        let slots = status["slot_owners"].as_array().cloned().unwrap_or_default();
        slots.iter().filter_map(|owner| owner.as_str().map(str::to_owned)).collect()
    }

    /// The names of the members that this node holds for alive.
    pub fn live_members(&self) -> Vec<String> {
        let Ok(status) = self.status() else { return Vec::new() };
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let live = members.iter().filter(|member| member["live"] == true);
        live.filter_map(|member| member["name"].as_str().map(str::to_owned)).collect()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| format!("({error})"))
    }

    /// The process id; `None` after it was ended.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Stops the process in its tracks (SIGSTOP).
    pub fn pause(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::STOP);
        }
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, Signal::CONT);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            // Through the test's own output, so that it belongs to the test that failed.
            #[expect(clippy::print_stderr, reason = "shown with the failed test")]
            {
                eprintln!("{}", self.logs());
            }
        }
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Sends a signal to a process that the test has started.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within `deadline`.
pub fn wait_for(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let end = monotonic() + deadline.as_nanos() as u64;
    while !holds() {
        assert!(monotonic() < end, "not within {deadline:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The first of a node's consecutive ports, all of them free: for TCP, and the last for UDP too.
///
/// # Panics
/// When no ports are free.
pub fn free_ports() -> u16 {
    // Several test programs may run at the same time: each begins somewhere else.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let blocks = PORT_RANGE.len() as u16 / 10;
    let start = (std::process::id() as u16).wrapping_mul(37);
    for _ in 0..blocks {
        let block = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % blocks;
        let base = PORT_RANGE.start + block * 10;
        let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (base..base + PORTS).all(is_free) && UdpSocket::bind((Ipv4Addr::LOCALHOST, base + 3)).is_ok() {
            return base;
        }
    }
    panic!("no free ports in {PORT_RANGE:?}")
}
