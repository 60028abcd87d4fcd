//! Looks at the nodes from outside, a few times a second: who leads, who has a session, what a process holds.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    client::{Client, Place},
    cluster::Cluster,
    history::monotonic,
    workload::checks::peek_at_hottest,
};

const BETWEEN: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_millis(200);

/// What a node said of itself, and what its process held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: u64,
    /// Which node.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// Who leads, as it thinks.
    pub leader: Option<String>,
    /// In which term.
    pub term: u64,
    /// To which cluster it belongs.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Whether it has a session.
    pub session: bool,
    /// Slots on their way.
    pub moving: u64,
    /// Up to where it has applied the log.
    pub applied: u64,
    /// Whether it answered.
    pub answered: bool,
    /// Bytes of memory.
    pub resident: u64,
    /// Threads.
    pub threads: u64,
    /// Open files and connections.
    pub descriptors: u64,
}

/// What a node was seen to be a moment ago: for who aims.
#[derive(Debug, Clone, Default)]
pub struct Sighting {
    /// When.
    pub at: u64,
    /// Which process it was.
    pub pid: u32,
    /// Whether it is ready.
    pub ready: bool,
    /// Who leads, as it thinks.
    pub leader: Option<String>,
    /// Who decides about the hottest key, as it was told.
    pub hot_owner: Option<String>,
    /// How many slots are on their way.
    pub moving: u64,
    /// How many slots each node owns.
    pub slots: BTreeMap<String, u64>,
    /// What is wrong with its log.
    pub trouble: Option<String>,
    /// Who votes.
    pub voters: Vec<String>,
    /// How many more may be lost.
    pub tolerated: Option<u64>,
}

/// The nodes that are to be looked at, as the driver says, and what was seen of them last.
#[derive(Debug, Default)]
pub struct Watched {
    nodes: Mutex<BTreeMap<String, (Place, u32)>>,
    seen: Mutex<BTreeMap<String, Sighting>>,
}

/// What was seen before that counts no more.
const FRESH: u64 = 1_500_000_000;

impl Watched {
    /// All nodes of the cluster whose processes run.
    pub fn set(&self, cluster: &Cluster) {
        let running =
            cluster.running().filter_map(|node| Some((node.name.clone(), (node.place(), node.pid()?))));
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = running.collect();
    }

    fn get(&self, name: &str) -> Option<(Place, u32)> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What was seen of all nodes a moment ago.
    pub fn seen(&self) -> BTreeMap<String, Sighting> {
        let now = monotonic();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.retain(|_, sighting| now < sighting.at + FRESH);
        seen
    }

    /// Looks at these nodes until it is told to stop, each in a thread of its own: who hangs keeps nobody waiting.
    ///
    /// # Panics
    /// When one of the threads does.
    pub fn look_at(&self, names: &[String], stop: &AtomicBool) -> Vec<Sample> {
        thread::scope(|scope| {
            let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| self.look(name, stop))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
        })
    }

    fn look(&self, name: &str, stop: &AtomicBool) -> Vec<Sample> {
        let (mut samples, mut client) = (Vec::new(), None);
        while !stop.load(Relaxed) {
            thread::sleep(BETWEEN);
            let Some((place, pid)) = self.get(name) else { continue };
            let client = client.get_or_insert_with(|| Client::following(place, PATIENCE));
            let mut ask =
                |path: &str| -> Option<Value> { serde_json::from_slice(&client.get(path).ok()?.body).ok() };
            let status = ask("/v1/cluster");
            let hot = status.as_ref().and_then(|_| ask(&peek_at_hottest()));
            let at = monotonic();
            let answered = status.is_some();
            if let Some(status) = &status {
                let sighting = Sighting::of(at, pid, status, hot.as_ref());
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), sighting);
            }
            let status = status.unwrap_or(Value::Null);
            samples.push(Sample {
                at,
                node: name.to_owned(),
                pid,
                leader: status["raft"]["leader"].as_str().map(str::to_owned),
                cluster: status["raft"]["cluster"].as_str().map(str::to_owned),
                term: status["raft"]["term"].as_u64().unwrap_or(0),
                session: status["session"] == true,
                moving: status["slots_moving"].as_u64().unwrap_or(0),
                applied: status["raft"]["applied"].as_u64().unwrap_or(0),
                answered,
                resident: of_process(pid, "VmRSS:") << 10,
                threads: of_process(pid, "Threads:"),
                descriptors: fs::read_dir(format!("/proc/{pid}/fd"))
                    .map_or(0, |entries| entries.count() as u64),
            });
        }
        samples
    }
}

impl Sighting {
    fn of(at: u64, pid: u32, status: &Value, hot: Option<&Value>) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
        let by_owner = |hot: &&Value| {
            matches!(hot["decided_by"].as_str(), Some("owner" | "forwarded" | "lease" | "denial"))
        };
        Self {
            at,
            pid,
            ready: status["ready"] == true,
            leader: text(&status["raft"]["leader"]),
            hot_owner: hot.filter(by_owner).and_then(|hot| text(&hot["node"])),
            moving: status["slots_moving"].as_u64().unwrap_or(0),
            slots: members
                .iter()
                .filter_map(|member| Some((text(&member["name"])?, member["slots"].as_u64()?)))
                .collect(),
            trouble: text(&status["raft"]["trouble"]),
            voters: status["raft"]["voters"]
                .as_array()
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .filter_map(text)
                .collect(),
            tolerated: status["raft"]["failures_tolerated"].as_u64(),
        }
    }
}

/// A number of `/proc/PID/status`.
fn of_process(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
