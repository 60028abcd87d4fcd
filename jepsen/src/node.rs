//! One real node: its process, and what it says of itself.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    client::Client,
    log_pipe::LogPipe,
    network::Network,
    ports::{GRPC_PORT_OFFSET, PEER_PORT_OFFSET, RESP_PORT_OFFSET},
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
    arguments: Vec<String>,
    log: PathBuf,
    net: Option<(Arc<Network>, u8)>,
    pub(crate) process: Option<Child>,
    /// What reads its log, where that can be left unread.
    log_pipe: Option<LogPipe>,
}

/// The environment variable that switches a bug on, in a program that has them compiled in.
pub const PLANTED_BUG: &str = "TIDEGATE_PLANTED_BUG";

impl Node {
    pub(crate) fn new(
        name: &str,
        port: u16,
        arguments: Vec<String>,
        log: PathBuf,
        net: Option<(Arc<Network>, u8)>,
    ) -> Self {
        let host = net.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), |(net, number)| net.address(*number));
        let address = |port| SocketAddr::from((host, port));
        let (http, grpc, resp) =
            (address(port), address(port + GRPC_PORT_OFFSET), address(port + RESP_PORT_OFFSET));
        let peer = address(port + PEER_PORT_OFFSET);
        Self {
            name: name.to_owned(),
            http,
            grpc,
            resp,
            peer,
            arguments,
            log,
            net,
            process: None,
            log_pipe: None,
        }
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
        let mut arguments = self.arguments;
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
        Self::new(&self.name, port, arguments, self.log, self.net)
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
        let mut command = match &self.net {
            Some((net, number)) => net.command(*number, binary),
            None => Command::new(binary),
        };
        command
            .args(&self.arguments)
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
        if let Some((net, number)) = &self.net {
            net.started(*number, process.id());
        }
        self.process = Some(process);
    }

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
