//! Real nodes as processes of this machine: started, watched, killed, and gone when the test is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    history::monotonic,
    machine::{self, MachineReport, Orders},
    names::Names,
    network::Network,
    node::Apart,
    ports::{PEER_PORT_OFFSET, number_apart, port_apart},
};
pub use crate::{
    node::{Node, signal},
    ports::{free_ports, free_ports_for},
};

/// How long a cluster may take to be ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to stop when it is asked to.
const STOP_WITHIN: Duration = Duration::from_secs(15);
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
    /// Whether each node has a data directory: then it is the same one after a restart.
    pub keeps_data: bool,
}

/// The nodes of a test. When it is dropped, all of them are killed; if the test is failing, their logs are shown.
#[derive(Debug)]
pub struct Cluster {
    /// In the order in which they were started.
    pub nodes: Vec<Node>,
    settings: Settings,
    directory: TempDir,
    net: Option<Arc<Network>>,
    /// Where nodes are told of each other by names.
    names: Option<Arc<Names>>,
    /// What each node finds in its environment.
    environment: Vec<(String, String)>,
    /// Of nodes that do not run what the others do.
    binaries: BTreeMap<String, PathBuf>,
    follows_orders: bool,
    /// Logs can be left unread.
    pipes_logs: bool,
}

impl Cluster {
    /// Starts `count` nodes that form a cluster, and waits until each is ready and sees all others.
    ///
    /// # Panics
    /// When that fails: the test cannot go on. The logs are shown.
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

    /// Starts `count` nodes, each in a network of its own: the node `n1` is number 1 there.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub fn start_apart(count: u8, settings: Settings, net: Network) -> Self {
        let mut cluster = Self::empty_apart(settings, net);
        let ports: Vec<u16> = (1..=count).map(port_apart).collect();
        let expect = ["--bootstrap-expect".to_owned(), count.to_string()];
        for port in &ports {
            cluster.spawn(*port, &ports, &expect);
        }
        cluster.await_ready();
        cluster
    }

    /// The network between the nodes.
    ///
    /// # Panics
    /// When they are all on loopback.
    pub fn net(&self) -> &Network {
        self.net.as_ref().expect("the nodes were started apart")
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
        Self {
            nodes: Vec::new(),
            settings,
            directory,
            net: None,
            names: None,
            environment: Vec::new(),
            binaries: BTreeMap::new(),
            follows_orders: false,
            pipes_logs: false,
        }
    }

    /// A cluster without nodes, for nodes with a network of their own: the node `n1` is to have the first port
    /// [`port_apart`]`(1)`, and so on.
    ///
    /// # Panics
    /// As [`Cluster::empty`].
    pub fn empty_apart(settings: Settings, net: Network) -> Self {
        let mut cluster = Self::empty(settings);
        cluster.net = Some(Arc::new(net));
        cluster
    }

    /// Another cluster in the same network, without nodes.
    ///
    /// # Panics
    /// As [`Cluster::empty`].
    pub(crate) fn empty_beside(&self, settings: Settings) -> Self {
        let mut cluster = Self::empty(settings);
        cluster.net = self.net.clone();
        cluster
    }

    /// From now on each node that is started is told by a name where the first `nodes` nodes are.
    ///
    /// # Errors
    /// Why it cannot be.
    ///
    /// # Panics
    /// When the nodes are all on loopback.
    pub(crate) fn use_names(&mut self, nodes: u8) -> Result<(), String> {
        let net = Arc::clone(self.net.as_ref().expect("the nodes are apart"));
        let names = Names::serve(net, nodes, &self.directory.path().join("names"))?;
        self.names = Some(Arc::new(names));
        Ok(())
    }

    /// Who tells nodes where others are.
    pub(crate) fn names(&self) -> Option<&Names> {
        self.names.as_deref()
    }

    /// How the nodes are started.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Nodes that do not run are elsewhere from now on: each at the address with this last byte.
    ///
    /// # Panics
    /// When one is not there, or that is refused.
    pub(crate) fn move_to(&mut self, moves: &[(String, u8)]) {
        let number = |name: &str| self.node(name).number().expect("the nodes are apart");
        let of_net: Vec<(u8, u8)> = moves.iter().map(|(name, host)| (number(name), *host)).collect();
        self.net().move_to(&of_net);
        let moved = |node: &&mut Node| moves.iter().any(|(name, _)| *name == node.name);
        self.nodes.iter_mut().filter(moved).for_each(Node::find_again);
    }

    /// What the nodes that are started from now on find in their environment, beside the secret.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From now on each node that is started does to its clock and disk what it is ordered to: its program must be one that
    /// does.
    pub fn follow_orders(&mut self) {
        self.follows_orders = true;
    }

    /// From now on the log of each node that is started can be left unread.
    pub fn pipe_logs(&mut self) {
        self.pipes_logs = true;
    }

    /// Orders something of a node's machine.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn order(&self, name: &str, orders: &Orders) {
        orders.give(&self.orders_of(name)).expect("orders can be written");
    }

    /// What a node has reported of its machine last.
    pub fn machine_report(&self, name: &str) -> Option<MachineReport> {
        MachineReport::beside(&self.orders_of(name))
    }

    fn orders_of(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.orders"))
    }

    /// What a node is when it is started the next time.
    pub fn set_binary(&mut self, name: &str, binary: &Path) {
        self.binaries.insert(name.to_owned(), binary.to_owned());
    }

    /// Starts a process for a node.
    fn start_process(&self, node: &mut Node) {
        let binary = self.binaries.get(&node.name).unwrap_or(&self.settings.binary);
        let mut environment = self.environment.clone();
        if self.follows_orders {
            let path = self.orders_of(&node.name);
            if !path.exists() {
                self.order(&node.name, &Orders::default());
            }
            environment.push((machine::VARIABLE.to_owned(), path.display().to_string()));
        }
        if !node.http.ip().is_loopback() {
            // Nobody else reaches these addresses. An earlier version does not know the variable, and says so in its log.
            environment.push(("TIDEGATE_INSECURE".to_owned(), "true".to_owned()));
        }
        node.start(binary, self.settings.key.as_deref(), &environment, self.pipes_logs);
    }

    /// Starts one more node, which joins those that are there, and waits until all see each other.
    ///
    /// # Panics
    /// When that fails.
    pub fn join(&mut self) -> &Node {
        self.spawn_joining();
        self.await_ready();
        self.nodes.last().expect("it was just started")
    }

    /// The same, without waiting.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn_joining(&mut self) {
        let ports: Vec<u16> = self.nodes.iter().map(|node| node.http.port()).collect();
        self.spawn(free_ports(), &ports, &[]);
    }

    /// Starts a node with these flags, and does not wait for it. Its name is the next one: `n1`, `n2` and so on.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn(&mut self, port: u16, join: &[u16], flags: &[String]) -> &mut Node {
        let name = format!("n{}", self.nodes.len() + 1);
        self.spawn_as(&name, port, join, flags)
    }

    /// The same, under a name of the caller's choice.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn spawn_as(&mut self, name: &str, port: u16, join: &[u16], flags: &[String]) -> &mut Node {
        let rules = self.directory.path().join("rules.yaml");
        let mut arguments: Vec<String> = ["serve", "--name", name, "--rules"].map(str::to_owned).into();
        arguments.push(rules.to_str().expect("temporary directories have names of text").to_owned());
        if self.settings.keeps_data {
            let data = self.data_dir(port);
            arguments.extend(["--data-dir".to_owned(), data.to_str().expect("as above").to_owned()]);
        }
        let apart = self.net.as_ref().map(|net| Apart {
            net: Arc::clone(net),
            number: number_apart(port),
            joins: join.iter().map(|other| number_apart(*other)).collect(),
            names: self.names.clone(),
        });
        if apart.is_none() {
            let (host, base_port) = (Ipv4Addr::LOCALHOST.to_string(), port.to_string());
            arguments.extend(["--listen", &host, "--base-port", &base_port].map(str::to_owned));
            let others = join.iter().filter(|other| **other != port);
            let peers: Vec<String> =
                others.map(|other| format!("{host}:{}", other + PEER_PORT_OFFSET)).collect();
            if !peers.is_empty() {
                arguments.extend(["--join".to_owned(), peers.join(",")]);
            }
        }
        arguments.extend(flags.iter().chain(&self.settings.flags).cloned());
        let log = self.directory.path().join(format!("{port}.log"));
        let mut node = Node::new(name, port, arguments, log, apart);
        self.start_process(&mut node);
        self.nodes.push(node);
        self.nodes.last_mut().expect("it was just pushed")
    }

    /// Starts a node that the test has ended once more: the same name, ports and flags. Does not wait for it.
    ///
    /// # Panics
    /// When it is running, or cannot be started.
    pub fn restart(&mut self, name: &str) {
        let place = self.nodes.iter().position(|node| node.name == name).expect("there is such a node");
        let mut node = self.nodes.remove(place);
        assert!(node.process.is_none(), "{name} is running");
        self.start_process(&mut node);
        self.nodes.insert(place, node);
    }

    /// Starts nodes that have ended once more, each on its own directory and at other ports, as a platform does that gives out
    /// new addresses. Their `--join` names the new ones. Does not wait for them.
    ///
    /// # Panics
    /// When one of them is running, or cannot be started.
    pub fn restart_elsewhere(&mut self, names: &[&str]) {
        let ports: BTreeMap<u16, u16> =
            names.iter().map(|name| (self.node(name).http.port(), free_ports())).collect();
        for name in names {
            let place = self.nodes.iter().position(|node| node.name == *name).expect("there is such a node");
            let node = self.nodes.remove(place);
            assert!(node.process.is_none(), "{name} is running");
            let mut node = node.at(&ports);
            self.start_process(&mut node);
            self.nodes.insert(place, node);
        }
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
        wait_for("all slots are where they should be", READY_WITHIN, || self.running().all(Node::is_settled));
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
        node.end_log();
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
        node.end_log();
        status.and_then(|status| status.code())
    }

    /// Asks a node to stop with SIGTERM, and does not wait.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn ask_to_stop(&self, name: &str) {
        if let Some(pid) = self.node(name).pid() {
            signal(pid, Signal::TERM);
        }
    }

    /// The exit code of a node that has ended since it was last started, once; a signal counts as -1. `None`: it runs, or
    /// its end is known.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn take_exit(&mut self, name: &str) -> Option<i32> {
        let node = self.nodes.iter_mut().find(|node| node.name == name).expect("there is such a node");
        let status = node.process.as_mut()?.try_wait().ok()??;
        node.process = None;
        node.end_log();
        Some(status.code().unwrap_or(-1))
    }

    /// Waits until a node has ended by itself, and returns its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn await_exit(&mut self, name: &str) -> Option<i32> {
        let node = self.nodes.iter_mut().find(|node| node.name == name).expect("there is such a node");
        let mut process = node.process.take().expect("it was started");
        let mut status = None;
        wait_for(&format!("{name} has ended"), STOP_WITHIN, || {
            status = process.try_wait().expect("it can be waited for");
            status.is_some()
        });
        node.end_log();
        status.and_then(|status| status.code())
    }

    /// Where a node keeps its data.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn data_of(&self, name: &str) -> PathBuf {
        self.data_dir(self.node(name).home)
    }

    /// Where the node whose first port this is keeps its data.
    pub fn data_dir(&self, port: u16) -> PathBuf {
        self.directory.path().join(format!("data-{port}"))
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
