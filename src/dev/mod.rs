//! `tidegate dev`: a whole cluster on this machine, a process a node.
//!
//! Everything is looked at before the first node starts, so that there is a whole cluster or none. Whatever ends this
//! process, the nodes end with it, and what they wrote is removed.

mod child;
mod plan;

use std::{
    fmt::Write as _, fs, io, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration,
};

use miette::Diagnostic;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::plan::Plan;
use self::{
    child::{Child, LastLines, Log},
    plan::{DEMO_RULES, PlanCheckError, PlannedNode},
};
use crate::{
    client::NodeAddress,
    terminal::{note, print},
};

/// How long the nodes may take to find each other.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often they are asked.
const POLL: Duration = Duration::from_millis(100);
/// How long they may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of the cluster's secret.
const KEY_BYTES: usize = 32;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum DevError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] PlanCheckError),
    #[error("the system does not give what a cluster needs: {0}")]
    System(#[from] io::Error),
    #[error("{node} could not be started: {reason}")]
    Start { node: String, reason: io::Error },
    #[error("{node} {how} before the cluster was ready; its last log lines:\n{log}")]
    EndedEarly { node: String, how: String, log: String },
    #[error("{node} was not ready within {READY_TIMEOUT:?}: {reason}; its last log lines:\n{log}")]
    NotReady { node: String, reason: String, log: String },
    #[error("no node is left")]
    NoneLeft,
}

/// Starts the cluster, and runs it until Ctrl-C.
pub(crate) fn run(plan: Plan) -> Result<(), DevError> {
    plan.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stop = StopSignals::listen()?;
        let files = TempDir::with_prefix("tidegate-dev-")?;
        let mut cluster =
            LocalCluster { nodes: Vec::new(), running: JoinSet::new(), end: CancellationToken::new() };
        let outcome = match cluster.start(&plan, &files) {
            Ok(()) => cluster.live(&plan, &mut stop).await,
            Err(fault) => Err(fault),
        };
        cluster.end_all().await;
        files.close()?;
        outcome
    })
}

/// The nodes.
struct LocalCluster {
    nodes: Vec<LocalNode>,
    /// Each ends with its node; the number is the node's place in `nodes`.
    running: JoinSet<(usize, io::Result<ExitStatus>)>,
    end: CancellationToken,
}

/// What is known of a node, also when it has ended.
struct LocalNode {
    node: PlannedNode,
    pid: u32,
    last_lines: LastLines,
}

impl LocalCluster {
    fn start(&mut self, plan: &Plan, files: &TempDir) -> Result<(), DevError> {
        let rules = match &plan.rules {
            Some(path) => fs::canonicalize(path)?,
            None => {
                let path = files.path().join("demo-rules.yaml");
                fs::write(&path, DEMO_RULES)?;
                path
            }
        };
        let (level, log) = match &plan.log_level {
            Some(level) => (&**level, Log::Shown),
            None => ("info", Log::Hidden),
        };
        let key = random_key()?;
        let expect = plan.nodes.len().to_string();
        for (place, node) in plan.nodes.iter().enumerate() {
            let others: Vec<String> = plan
                .nodes
                .iter()
                .filter(|other| *other != node)
                .map(|other| other.peers.to_string())
                .collect();
            let mut arguments = vec![
                "serve".into(),
                "--exit-with-stdin".into(),
                "--name".into(),
                node.name.clone().into(),
                "--listen".into(),
                node.http.ip().to_string().into(),
                "--base-port".into(),
                node.http.port().to_string().into(),
                "--bootstrap-expect".into(),
                expect.clone().into(),
                "--log-level".into(),
                level.into(),
                "--rules".into(),
                rules.clone().into_os_string(),
                "--data-dir".into(),
                files.path().join(&node.name).into_os_string(),
            ];
            if !others.is_empty() {
                arguments.extend(["--join".into(), others.join(",").into()]);
            }
            // By environment: anybody on the machine can read a process's arguments.
            let variables = [("TIDEGATE_CLUSTER_KEY", &*key), ("TIDEGATE_CLUSTER_NAME", "dev")];
            let child = Child::start(node, &arguments, &variables, log)
                .map_err(|reason| DevError::Start { node: node.name.clone(), reason })?;
            self.nodes.push(LocalNode {
                node: child.node.clone(),
                pid: child.pid,
                last_lines: child.last_lines.clone(),
            });
            let end = self.end.clone();
            self.running.spawn(async move { (place, child.watch(end).await) });
        }
        Ok(())
    }

    /// From the start to Ctrl-C, or to the end of the last node.
    async fn live(&mut self, plan: &Plan, stop: &mut StopSignals) -> Result<(), DevError> {
        let count = plan.nodes.len();
        note(&format!("starting {count} {} ...", if count == 1 { "node" } else { "nodes" }));
        let deadline = Instant::now() + READY_TIMEOUT;
        tokio::select! {
            outcome = wait_until_ready(&self.nodes, deadline) => outcome?,
            Some(ended) = self.running.join_next() => return Err(self.ended_early(ended)),
            () = stop.recv() => {
                note("stopped before the cluster was ready");
                return Ok(());
            }
        }
        print(&self.welcome(plan));
        loop {
            tokio::select! {
                ended = self.running.join_next() => match ended {
                    Some(ended) => self.tell_end(ended),
                    None => return Err(DevError::NoneLeft),
                },
                () = stop.recv() => {
                    note("ending all nodes ...");
                    return Ok(());
                }
            }
        }
    }

    fn ended_early(&self, ended: Ended) -> DevError {
        let (node, how) = self.explain(ended);
        DevError::EndedEarly { node: node.node.name.clone(), how, log: node.last_lines.show() }
    }

    fn tell_end(&self, ended: Ended) {
        let (node, how) = self.explain(ended);
        let others =
            if self.running.is_empty() { "it was the last one" } else { "the others take its slots over" };
        print(&format!("{} (pid {}) {how}; {others}", node.node.name, node.pid));
        if how.starts_with("failed") {
            print(&format!("  its last log lines:\n{}", node.last_lines.show()));
        }
    }

    fn explain(&self, ended: Ended) -> (&LocalNode, String) {
        let (place, status) = ended.expect("watching a node does not panic, and is not cancelled");
        let how = match status {
            Err(error) => format!("cannot be watched any more ({error})"),
            Ok(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("was killed by signal {signal}"),
                (None, Some(0)) => "ended".to_owned(),
                (None, code) => format!("failed with exit code {}", code.unwrap_or(-1)),
            },
        };
        (&self.nodes[place], how)
    }

    async fn end_all(&mut self) {
        self.end.cancel();
        while self.running.join_next().await.is_some() {}
    }

    /// The table, and what to try.
    fn welcome(&self, plan: &Plan) -> String {
        let mut text =
            String::from("\nThe cluster is ready: ask any node, the answer holds for all of them.\n\n");
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            text.write_fmt(arguments).expect("a String takes any text");
            text.push('\n');
        };
        line(format_args!("  {:<6} {:>8}  HTTP", "node", "pid"));
        for one in &self.nodes {
            line(format_args!("  {:<6} {:>8}  {}", one.node.name, one.pid, NodeAddress::from(one.node.http)));
        }
        let ports: Vec<String> = self.nodes.iter().map(|one| one.node.http.port().to_string()).collect();
        let (first, last) = (&self.nodes[0], &self.nodes[self.nodes.len() - 1]);
        line(format_args!("\nTry:"));
        line(format_args!(
            "  for p in {}; do curl -s -o /dev/null -w '%{{http_code}}\\n' \"http://127.0.0.1:$p/v1/check?ip=203.0.113.7\"; done",
            ports.join(" ")
        ));
        line(format_args!(
            "  curl -s {}/v1/check -d '{{\"attributes\":{{\"path\":\"/login\",\"method\":\"POST\",\"ip\":\"203.0.113.8\"}}}}'",
            NodeAddress::from(last.node.http)
        ));
        line(format_args!("  tidegate rules history --node {}", NodeAddress::from(first.node.http)));
        if self.nodes.len() > 1 {
            line(format_args!("  kill -9 {}    # {} is gone, the others go on", last.pid, last.node.name));
        } else {
            line(format_args!("  curl -s {}/v1/cluster", NodeAddress::from(first.node.http)));
        }
        if plan.rules.is_none() {
            line(format_args!(
                "\nThe rules: 10 requests for each ip, and then one more each minute; for POST /login 3, then one every 200 s."
            ));
        }
        line(format_args!("Ctrl-C ends all nodes."));
        text
    }
}

/// How a watch on a node ended.
type Ended = Result<(usize, io::Result<ExitStatus>), tokio::task::JoinError>;

/// Waits until each node is ready and sees all the others.
async fn wait_until_ready(nodes: &[LocalNode], deadline: Instant) -> Result<(), DevError> {
    for one in nodes {
        let mut reason = "it did not answer".to_owned();
        let ready = async {
            while let Err(missing) = look(&one.node, nodes.len()).await {
                reason = missing;
                sleep(POLL).await;
            }
        };
        if timeout_at(deadline, ready).await.is_err() {
            return Err(DevError::NotReady {
                node: one.node.name.clone(),
                reason,
                log: one.last_lines.show(),
            });
        }
    }
    Ok(())
}

/// Looks whether a node is ready and sees so many; says what is missing.
async fn look(node: &PlannedNode, expected: usize) -> Result<(), String> {
    #[derive(Deserialize)]
    struct View {
        ready: bool,
        waiting_for: Option<String>,
        members: Vec<MemberView>,
    }
    #[derive(Deserialize)]
    struct MemberView {
        live: bool,
        slots: usize,
    }
    let address = NodeAddress::from(node.http);
    let reply = address.get("/v1/cluster", ASK_TIMEOUT).await.map_err(|fault| fault.to_string())?;
    let view: View = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
    if !view.ready {
        return Err(view.waiting_for.unwrap_or_default());
    }
    let seen = view.members.iter().filter(|member| member.live && member.slots > 0).count();
    if seen == expected { Ok(()) } else { Err(format!("it sees {seen} of {expected} nodes")) }
}

fn random_key() -> Result<String, DevError> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    let mut key = String::with_capacity(2 * KEY_BYTES);
    for byte in bytes {
        write!(key, "{byte:02x}").expect("a String takes any text");
    }
    Ok(key)
}

/// The signals that end the cluster.
struct StopSignals(Signal, Signal, Signal);

impl StopSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self(
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ))
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
            _ = self.2.recv() => {}
        }
    }
}
