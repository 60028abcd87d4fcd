//! Starts of whole clusters: whatever the order of the commands, the delays between them, and what is killed meanwhile, one
//! cluster is founded, all nodes get ready, and nodes that are started later with the same arguments join it.

use std::{collections::BTreeSet, fmt, thread, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use crate::{
    client::Client,
    cluster::{Cluster, Settings},
    node::PLANTED_BUG,
    ports::{NODE_STEP, free_ports_for},
};

/// How long a start may take after its last command.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The founders of the README, and the node that only joins.
const FOUNDERS: usize = 3;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// In which way the nodes are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The four commands of the README, one after the other.
    Pasted,
    /// All four in the same instant.
    SameInstant,
    /// In any order, with up to two seconds between one and the next.
    Shuffled,
    /// The node that only joins comes first.
    JoinerFirst,
    /// One of the three comes some seconds later.
    OneLate,
    /// One of the three is killed while they found, and comes back after a while.
    Killed,
    /// Some are killed, and come back at once, more than once.
    KilledAgain,
    /// The same without data directories: each comes back as another node.
    KilledInMemory,
    /// One of the three is asked to stop while they found, and comes back.
    Stopped,
    /// Three of many; later more are started with the same arguments, of whose `--join` not all exist.
    ScaledUp,
    /// All of those in the same instant: some of them found, the others join.
    ManyAtOnce,
}

impl Way {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 11] = [
        ("pasted", Self::Pasted),
        ("same-instant", Self::SameInstant),
        ("shuffled", Self::Shuffled),
        ("joiner-first", Self::JoinerFirst),
        ("one-late", Self::OneLate),
        ("killed", Self::Killed),
        ("killed-again", Self::KilledAgain),
        ("killed-in-memory", Self::KilledInMemory),
        ("stopped", Self::Stopped),
        ("scaled-up", Self::ScaledUp),
        ("many-at-once", Self::ManyAtOnce),
    ];

    /// The way of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, way)| way)
    }

    fn is_of_many(self) -> bool {
        matches!(self, Self::ScaledUp | Self::ManyAtOnce)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, way)| way == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Start(usize),
    Kill(usize),
    Stop(usize),
    StartAgain(usize),
}

/// A start that was made.
#[derive(Debug)]
pub struct Started {
    /// How it was made.
    pub way: Way,
    /// From the last command until all were ready and of one cluster.
    pub took: Duration,
    /// Why it came to nothing.
    pub fault: Option<String>,
}

/// How many nodes a start of many has, and for how many `--join` has addresses.
const MANY: usize = 12;
const MANY_ADDRESSES: usize = 32;

/// What is done when, in milliseconds from the beginning.
fn plan(way: Way, dice: &mut Rng) -> Vec<(u64, Action)> {
    let mut actions: Vec<(u64, Action)> = Vec::new();
    let mut order: Vec<usize> = (0..=FOUNDERS).collect();
    let mut at = 0;
    match way {
        Way::Pasted => {
            for node in order {
                actions.push((at, Action::Start(node)));
                at += dice.u64(0..=5);
            }
        }
        Way::SameInstant => actions.extend(order.into_iter().map(|node| (0, Action::Start(node)))),
        Way::Shuffled => {
            dice.shuffle(&mut order);
            for node in order {
                actions.push((at, Action::Start(node)));
                at += dice.u64(0..2_000);
            }
        }
        Way::JoinerFirst => {
            actions.push((0, Action::Start(FOUNDERS)));
            at = dice.u64(0..2_000);
            actions.extend((0..FOUNDERS).map(|node| (at, Action::Start(node))));
        }
        Way::OneLate => {
            let late = dice.usize(..FOUNDERS);
            for node in order {
                actions.push((if node == late { dice.u64(2_000..7_000) } else { 0 }, Action::Start(node)));
            }
        }
        Way::Killed | Way::Stopped => {
            actions.extend(order.into_iter().map(|node| (0, Action::Start(node))));
            let (node, killed) = (dice.usize(..FOUNDERS), dice.u64(300..2_500));
            let end = if way == Way::Killed { Action::Kill(node) } else { Action::Stop(node) };
            actions.push((killed, end));
            actions.push((killed + dice.u64(0..4_000), Action::StartAgain(node)));
        }
        Way::KilledAgain | Way::KilledInMemory => {
            actions.extend(order.into_iter().map(|node| (0, Action::Start(node))));
            let mut free = [300; FOUNDERS];
            // Two of three that lose what they know are most of the cluster, once it is founded.
            let only = dice.usize(..FOUNDERS);
            for _ in 0..dice.usize(2..=5) {
                let node = if way == Way::KilledInMemory { only } else { dice.usize(..FOUNDERS) };
                let killed = free[node] + dice.u64(0..900);
                let again = killed + dice.u64(0..600);
                actions.push((killed, Action::Kill(node)));
                actions.push((again, Action::StartAgain(node)));
                free[node] = again + 100;
            }
        }
        Way::ScaledUp => {
            actions.extend((0..FOUNDERS).map(|node| (0, Action::Start(node))));
            // Sometimes into the middle of the founding.
            at = if dice.bool() { dice.u64(6_000..9_000) } else { dice.u64(500..7_000) };
            let between = dice.u64(0..=100);
            actions.extend((FOUNDERS..MANY).map(|node| (at + between * node as u64, Action::Start(node))));
        }
        Way::ManyAtOnce => {
            actions.extend((0..MANY).map(|node| (dice.u64(..300), Action::Start(node))));
        }
    }
    actions.sort_by_key(|(at, _)| *at);
    actions
}

/// Makes one start, from a seed, and ends all of its nodes.
pub fn start(way: Way, seed: u64, settings: &Settings, planted_bug: Option<&str>) -> Started {
    let mut dice = Rng::with_seed(seed);
    let mut settings = settings.clone();
    settings.keeps_data = way != Way::KilledInMemory;
    let addresses = if way.is_of_many() { MANY_ADDRESSES } else { FOUNDERS + 1 };
    let first = free_ports_for(addresses as u16);
    let ports: Vec<u16> = (0..addresses as u16).map(|node| first + node * NODE_STEP).collect();
    let mut cluster = Cluster::empty(settings);
    if let Some(bug) = planted_bug {
        cluster.set_environment(PLANTED_BUG, bug);
    }
    let begun = Instant::now();
    for (at, action) in plan(way, &mut dice) {
        thread::sleep((begun + Duration::from_millis(at)).saturating_duration_since(Instant::now()));
        act(&mut cluster, way, &ports, action);
    }
    let last = Instant::now();
    let fault = loop {
        match look(&cluster) {
            Ok(()) => break None,
            Err(fault) if last.elapsed() >= READY_WITHIN => break Some(fault),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    };
    let took = last.elapsed();
    let fault = fault.map(|fault| {
        let logs = cluster.running().map(|node| format!("--- {}\n{}", node.name, node.log()));
        format!("{fault}\n{}", logs.collect::<Vec<_>>().join("\n"))
    });
    Started { way, took, fault }
}

fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

fn act(cluster: &mut Cluster, way: Way, ports: &[u16], action: Action) {
    match action {
        Action::Start(node) => {
            let expects = ["--bootstrap-expect".to_owned(), FOUNDERS.to_string()];
            let is_joiner = !way.is_of_many() && node == FOUNDERS;
            let (join, flags) = match (way.is_of_many(), is_joiner) {
                (true, _) => (ports, &expects[..]),
                (false, true) => (&ports[..1], &[][..]),
                (false, false) => (&ports[..FOUNDERS], &expects[..]),
            };
            cluster.spawn_as(&name(node), ports[node], join, flags);
        }
        Action::Kill(node) => cluster.kill(&name(node)),
        Action::Stop(node) => drop(cluster.terminate(&name(node))),
        Action::StartAgain(node) => cluster.restart(&name(node)),
    }
}

/// Whether all nodes are ready, in one cluster, and own all slots together.
fn look(cluster: &Cluster) -> Result<(), String> {
    let mut clusters = BTreeSet::new();
    let mut waiting = Vec::new();
    for node in cluster.running() {
        match Client::new(node.http, Duration::from_secs(2)).get("/v1/cluster") {
            Ok(answer) => {
                let status = answer.json();
                clusters.extend(status["raft"]["cluster"].as_str().map(str::to_owned));
                if status["ready"] != true {
                    waiting.push(format!("{}: {} {}", node.name, status["waiting_for"], status["raft"]));
                }
            }
            Err(error) => waiting.push(format!("{}: {error}", node.name)),
        }
    }
    if clusters.len() > 1 {
        waiting.push(format!("{} clusters: {clusters:?}", clusters.len()));
    }
    if waiting.is_empty() { Ok(()) } else { Err(waiting.join("\n")) }
}

/// What many starts took.
#[derive(Debug, Default)]
pub struct Tally {
    /// How long those that came to something took.
    pub took: Vec<(Way, Duration)>,
    /// The others.
    pub faults: Vec<(Way, u64, String)>,
}

impl Tally {
    /// The distribution of times for each way, a line each.
    pub fn lines(&self) -> Vec<String> {
        let ways = Way::ALL.iter().filter_map(|(name, way)| {
            let mut took: Vec<Duration> =
                self.took.iter().filter(|(known, _)| known == way).map(|(_, took)| *took).collect();
            let failed = self.faults.iter().filter(|(known, ..)| known == way).count();
            took.sort_unstable();
            let part = |part: usize| took.get(((took.len() * part) / 100).min(took.len().saturating_sub(1)));
            let seconds = |one: Option<&Duration>| {
                one.map_or("-".to_owned(), |one| format!("{:.1}", one.as_secs_f64()))
            };
            (!took.is_empty() || failed > 0).then(|| {
                format!(
                    "{name:<17} {:>4} of {:>4} ready; seconds: least {}, half {}, 90 % {}, most {}",
                    took.len(),
                    took.len() + failed,
                    seconds(took.first()),
                    seconds(part(50)),
                    seconds(part(90)),
                    seconds(took.last()),
                )
            })
        });
        ways.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plan_starts_every_node_and_leaves_none_down() {
        for seed in 0..500 {
            for (_, way) in Way::ALL {
                let mut runs = BTreeSet::new();
                let mut last = 0;
                for (at, action) in plan(way, &mut Rng::with_seed(seed)) {
                    assert!(at >= last);
                    last = at;
                    let is_sound = match action {
                        Action::Start(node) | Action::StartAgain(node) => runs.insert(node),
                        Action::Kill(node) | Action::Stop(node) => runs.remove(&node),
                    };
                    assert!(is_sound, "{way} of seed {seed}: {action:?}");
                }
                let nodes = if way.is_of_many() { MANY } else { FOUNDERS + 1 };
                assert_eq!(runs.len(), nodes, "{way} of seed {seed}");
            }
        }
    }
}
