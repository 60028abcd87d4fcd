//! One real node: its process, and what it says of itself.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    client::{Client, Place},
    log_pipe::LogPipe,
    names::Names,
    network::Network,
    ports::{BASE_PORT_APART, GRPC_PORT_OFFSET, PEER_PORT_OFFSET, RESP_PORT_OFFSET},
};

/// A node and its process.
#[derive(Debug)]
pub struct Node {
    /// Its name: `n1`, `n2` and so on.
    pub name: String,
    /// Where its HTTP is.
    pub http: SocketAddr,
    /// Where its gRPC is.
    pub grpc: SocketAddr,
    /// Where its Redis protocol is.
    pub resp: SocketAddr,
    /// Where its peer port is.
    pub peer: SocketAddr,
    /// What stands for it wherever it is: its first port when it was first started, or what [`crate::ports::port_apart`] says.
    pub(crate) home: u16,
    place: Place,
    arguments: Vec<String>,
    log: PathBuf,
    apart: Option<Apart>,
    pub(crate) process: Option<Child>,
    /// What reads its log, where that can be left unread.
    log_pipe: Option<LogPipe>,
}

/// What a node has that is in a network of its own.
#[derive(Debug, Clone)]
pub(crate) struct Apart {
    pub(crate) net: Arc<Network>,
    /// Its number there.
    pub(crate) number: u8,
    /// The numbers of those that it is told of.
    pub(crate) joins: Vec<u8>,
    /// Where it is told of all nodes by a name.
    pub(crate) names: Option<Arc<Names>>,
}

impl Apart {
    /// Where it is and who else is there, as flags: all of it may have changed since the last time.
    fn flags(&self) -> Vec<String> {
        let (listen, advertise) =
            (self.net.address(self.number).to_string(), self.net.address_for_peers(self.number).to_string());
        let mut flags = vec!["--listen".to_owned(), listen.clone()];
        flags.extend(["--base-port".to_owned(), BASE_PORT_APART.to_string()]);
        if advertise != listen {
            flags.extend(["--advertise".to_owned(), advertise]);
        }
        let others = self.joins.iter().filter(|other| **other != self.number);
        let join: Vec<String> = match &self.names {
            _ if self.joins.is_empty() => Vec::new(),
            Some(names) => vec![names.of_node(self.number)],
            None => others.map(|other| self.net.peer(*other).to_string()).collect(),
        };
        if !join.is_empty() {
            flags.extend(["--join".to_owned(), join.join(",")]);
        }
        flags
    }
}

/// The environment variable that switches a bug on, in a program that has them compiled in.
pub const PLANTED_BUG: &str = "TIDEGATE_PLANTED_BUG";

impl Node {
    pub(crate) fn new(
        name: &str,
        port: u16,
        arguments: Vec<String>,
        log: PathBuf,
        apart: Option<Apart>,
    ) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut node = Self {
            name: name.to_owned(),
            http: nowhere,
            grpc: nowhere,
            resp: nowhere,
            peer: nowhere,
            home: port,
            place: nowhere.into(),
            arguments,
            log,
            apart,
            process: None,
            log_pipe: None,
        };
        node.find(Ipv4Addr::LOCALHOST.into(), port);
        node
    }

    /// Takes in where it is now: in a network of its own, or there.
    fn find(&mut self, host: IpAddr, port: u16) {
        let (host, port) = match &self.apart {
            Some(apart) => (apart.net.address(apart.number), BASE_PORT_APART),
            None => (host, port),
        };
        let address = |offset| SocketAddr::from((host, port + offset));
        self.http = address(0);
        (self.grpc, self.resp) = (address(GRPC_PORT_OFFSET), address(RESP_PORT_OFFSET));
        self.peer = address(PEER_PORT_OFFSET);
        self.place.set(self.http);
    }

    /// Its network has given it another address.
    pub(crate) fn find_again(&mut self) {
        self.find(self.http.ip(), self.http.port());
    }

    /// Where it answers, for those who ask it for longer than it stays there.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Its number in a network of its own.
    pub(crate) fn number(&self) -> Option<u8> {
        self.apart.as_ref().map(|apart| apart.number)
    }

    /// The same node at another first port, with all ports that its flags name replaced.
    pub(crate) fn at(self, ports: &BTreeMap<u16, u16>) -> Self {
        let moved = |address: &str| {
            let (host, port) = address.rsplit_once(':')?;
            let first = port.parse::<u16>().ok()? - PEER_PORT_OFFSET;
            Some(format!("{host}:{}", ports.get(&first)? + PEER_PORT_OFFSET))
        };
        let old = self.http.port();
        let port = ports.get(&old).copied().unwrap_or(old);
        let mut arguments = self.arguments.clone();
        for place in 1..arguments.len() {
            arguments[place] = match &*arguments[place - 1] {
                "--base-port" => port.to_string(),
                "--join" => {
                    let all = arguments[place].split(',');
                    let all: Vec<_> = all.map(|one| moved(one).unwrap_or_else(|| one.to_owned())).collect();
                    all.join(",")
                }
                _ => continue,
            };
        }
        let mut node = Self { arguments, ..self };
        node.find(Ipv4Addr::LOCALHOST.into(), port);
        node
    }

    /// `pipes_log`: its log can be left unread.
    pub(crate) fn start(
        &mut self,
        binary: &Path,
        key: Option<&str>,
        environment: &[(String, String)],
        pipes_log: bool,
    ) {
        let log = File::options().create(true).append(true).open(&self.log).expect("the log can be written");
        let mut command = match &self.apart {
            Some(Apart { net, number, names: Some(names), .. }) => names.command(net, *number, binary),
            Some(Apart { net, number, .. }) => net.command(*number, binary),
            None => Command::new(binary),
        };
        command
            .args(&self.arguments)
            .args(self.apart.iter().flat_map(Apart::flags))
            // Whatever becomes of the test, its end of the pipe closes, and the node stops.
            .arg("--exit-with-stdin")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("the log can be written twice"));
        if pipes_log {
            let (writer, pipe) = LogPipe::to(log).expect("the system gives a pipe");
            command.stderr(writer);
            self.log_pipe = Some(pipe);
        } else {
            command.stderr(log);
        }
        // A bug that is planted for a whole test stays.
        let strange = |name: &str| name.starts_with("TIDEGATE_") && name != PLANTED_BUG;
        for (name, _) in std::env::vars().filter(|(name, _)| strange(name)) {
            command.env_remove(name);
        }
        if let Some(key) = key {
            command.env("TIDEGATE_CLUSTER_KEY", key);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let process = command.spawn().expect("the binary starts");
        if let Some(apart) = &self.apart {
            apart.net.started(apart.number, process.id());
        }
        self.process = Some(process);
    }

    /// A client that asks this node.
    pub fn client(&self, deadline: Duration) -> Client {
        Client::following(self.place(), deadline)
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

    /// Whether no slot has to go elsewhere, as far as this node can tell.
    pub fn is_settled(&self) -> bool {
        self.status().is_ok_and(|status| status["slots_to_move"] == 0 && status["slots_moving"] == 0)
    }

    /// The names of the members that this node holds for alive.
    pub fn live_members(&self) -> Vec<String> {
        let Ok(status) = self.status() else { return Vec::new() };
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let live = members.iter().filter(|member| member["live"] == true);
        live.filter_map(|member| member["name"].as_str().map(str::to_owned)).collect()
    }

    /// Where it logs.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| format!("({error})"))
    }

    /// The process id; `None` after it was ended.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// A number from `/metrics`, by its name with its labels; `None` when there is no such line, or no answer.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.client(Duration::from_secs(5)).get("/metrics").ok()?.text();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Bytes of memory that the process holds; `None` when it has ended.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }

    /// From now on nobody reads its log, or somebody does again; where it is read by a pipe.
    pub(crate) fn leave_log_unread(&self, is_unread: bool) {
        if let Some(pipe) = &self.log_pipe {
            pipe.leave_unread(is_unread);
        }
    }

    /// Whether what it logs has to wait.
    pub(crate) fn log_is_full(&self) -> bool {
        self.log_pipe.as_ref().is_some_and(LogPipe::is_full)
    }

    /// Its process has ended: what it has logged is read to its end.
    pub(crate) fn end_log(&mut self) {
        self.log_pipe = None;
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

/// Sends a signal to a process that the test has started.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}
