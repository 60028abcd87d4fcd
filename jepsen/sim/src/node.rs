//! One node of the simulated cluster: what `tidegate serve` starts, but for its front ends, and clients that ask it
//! directly.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use tidegate_cluster::{
    Clock, Cluster, ClusterConfig, ClusterKey, Timing, Weight,
    rules::{Ledger, NewRules, WriteError},
    simulation::{Probe, clock::elapsed},
    state::Expected,
};
use tidegate_limiter::{
    cluster::{KeyHash, Rules, Store, StoreConfig},
    rules::HashSecret,
};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    client::Client,
    plan::Plan,
    workload::{self, Mode},
};
use tidegate_jepsen::{
    check::{ledger::Told, linear::Act},
    history::{Operation, Refund},
};

/// The port for peers.
const PEER_PORT: u16 = 7803;
/// How long a node may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(6);
/// The pause before a node that could not start is started again.
const START_AGAIN: Duration = Duration::from_millis(500);
/// How long a write or read of rules may take.
const RULES_WITHIN: Duration = Duration::from_secs(4);
/// Domains whose rules are written and read.
pub(super) const DOMAINS: usize = 2;

/// A write or a read of the rules of a domain.
#[derive(Debug, Clone)]
pub(super) struct RuleOperation {
    pub(super) domain: usize,
    pub(super) called: u64,
    pub(super) answered: Option<u64>,
    pub(super) did: Did,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Did {
    /// It wrote this value; what came of it.
    Write(u64, Told),
    /// It read this; `None` within: there was nothing. Not answered: nothing is known.
    Read(Option<u64>),
}

impl RuleOperation {
    pub(super) fn act(&self) -> Act {
        match self.did {
            Did::Write(value, _) => Act::Write(value),
            Did::Read(value) => Act::Read(value),
        }
    }
}

/// What a node is asked for from outside.
#[derive(Debug)]
pub(super) enum Command {
    /// To end, so that nobody notices.
    Leave,
    /// To have this node's slots given to others, or back.
    Drain(String, bool),
    /// To write these rules.
    Rules(Mode),
}

/// A change of the rules that are limited by.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangeOfRules {
    pub(super) to: Mode,
    /// When it was asked for first, and when it was acknowledged.
    pub(super) called: u64,
    pub(super) answered: Option<u64>,
}

/// What is known of a node from outside.
#[derive(Default)]
pub(super) struct State {
    /// While it runs.
    pub(super) inside: Option<Inside>,
    /// How often its disk was lost.
    pub(super) disk: u32,
    /// Its disk takes nothing.
    pub(super) full: bool,
    /// How often it was started.
    pub(super) starts: u64,
    /// Its clients wait.
    pub(super) paused: bool,
}

/// A node that runs.
pub(super) struct Inside {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) probe: Probe,
    pub(super) cluster: Rc<Cluster>,
}

/// What all nodes and the world around them share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) addresses: RefCell<Vec<IpAddr>>,
    pub(super) clocks: Vec<Clock>,
    pub(super) nodes: Vec<RefCell<State>>,
    pub(super) operations: RefCell<Vec<Operation>>,
    pub(super) refunds: RefCell<Vec<Refund>>,
    pub(super) rule_operations: RefCell<Vec<RuleOperation>>,
    pub(super) hashes: RefCell<BTreeMap<u32, KeyHash>>,
    pub(super) next_value: Cell<u64>,
    /// Changes of the rules that are limited by; the last one is the one that is wanted.
    pub(super) changes: RefCell<Vec<ChangeOfRules>>,
    /// Keys that nobody had asked about before and that were denied for longer than their limit needs to refill.
    pub(super) locked_out: RefCell<Vec<String>>,
    /// A rule is flooded.
    pub(super) floods: Cell<bool>,
}

pub(super) fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

impl Shared {
    /// Where a node's disk is.
    pub(super) fn disk(&self, node: usize) -> PathBuf {
        PathBuf::from(format!("/sim/{}/{}", name(node), self.nodes[node].borrow().disk))
    }

    fn config(&self, node: usize) -> ClusterConfig {
        let addresses = self.addresses.borrow();
        let plan = &self.plan;
        let ghosts = (0..plan.ghosts as u8).map(|ghost| format!("172.16.0.{}:{PEER_PORT}", ghost + 1));
        // A check goes to another node and back, wherever that is. Its owner may have to ask the successor first: where that is
        // far it takes as long again.
        let ways = if plan.latency_ms.1 > 25 { 8 } else { 4 };
        let check_timeout = Timing::default().check_timeout + ways * Duration::from_millis(plan.latency_ms.1);
        ClusterConfig {
            name: name(node),
            cluster: "simulated".to_owned(),
            zone: None,
            weight: Weight::default(),
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise: Some(addresses[node]),
            peer_port: PEER_PORT,
            http: (addresses[node], 7800).into(),
            join: match plan.nodes {
                1 => Vec::new(),
                // Founders wait for whoever they are told of and is not there; who comes later knows all.
                _ => addresses[..if node < plan.expecting { plan.expecting } else { plan.nodes }]
                    .iter()
                    .map(|address| format!("{address}:{PEER_PORT}"))
                    .chain(ghosts)
                    .collect(),
            },
            bootstrap_expect: (node < plan.expecting && plan.nodes > 1).then_some(plan.expect as u32),
            key: ClusterKey::parse("the key of a simulated cluster").ok(),
            data_dir: Some(self.disk(node)),
            rules: vec![("default".to_owned(), workload::rules(Mode::default()))],
            timing: Timing {
                check_timeout,
                session: Duration::from_millis(plan.session_ms),
                ..Timing::default()
            },
        }
    }
}

/// Runs a node until it is asked to leave.
pub(super) async fn run(shared: Rc<Shared>, node: usize) -> turmoil::Result {
    let clock = shared.clocks[node];
    let starts = {
        let mut state = shared.nodes[node].borrow_mut();
        state.starts += 1;
        state.starts
    };
    let rules = Arc::new(ArcSwap::from_pointee(Rules::empty(&HashSecret::new([0; 16]))));
    let config = StoreConfig { max_memory: shared.plan.store_bytes, shards: 8 };
    let store = || Store::new(config, clock.now());
    let cluster = loop {
        let starting = Cluster::start(
            shared.config(node),
            Arc::new(store()),
            store(),
            Arc::clone(&rules),
            clock,
            vec![Handle::current()],
        );
        match starting.await {
            Ok(cluster) => break Rc::new(cluster),
            // It says so and ends, and whoever has started it does so again.
            Err(fault) if shared.nodes[node].borrow().full => tracing::info!(%fault, "a node cannot start"),
            Err(fault) => return Err(fault.into()),
        }
        sleep(START_AGAIN).await;
    };
    let (commands, mut asked) = mpsc::unbounded_channel();
    shared.nodes[node].borrow_mut().inside =
        Some(Inside { commands, probe: cluster.probe(), cluster: Rc::clone(&cluster) });

    let dice = |number: u64| Rng::with_seed(shared.plan.seed ^ (node as u64) << 48 ^ starts << 32 ^ number);
    let mut clients = Vec::new();
    for number in 0..shared.plan.clients {
        let client = Client {
            shared: Rc::clone(&shared),
            node,
            router: Arc::clone(cluster.router()),
            rules: Arc::clone(&rules),
            clock,
            dice: dice(number as u64),
            next_fresh: Cell::new(starts << 32 | (number as u64) << 24),
        };
        clients.push(spawn_local(client.run()));
    }
    if node < shared.plan.writers {
        let writer = write_rules(Rc::clone(&shared), node, cluster.ledger().clone(), dice(1 << 16));
        clients.push(spawn_local(writer));
    }

    loop {
        match asked.recv().await {
            None => return Ok(()),
            Some(Command::Drain(name, on)) => {
                let cluster = Rc::clone(&cluster);
                spawn_local(async move {
                    // Without a quorum it cannot be done.
                    let _ = cluster.drain(&name, on, Instant::now() + RULES_WITHIN).await;
                });
            }
            Some(Command::Rules(mode)) => {
                spawn_local(change_rules(Rc::clone(&shared), cluster.ledger().clone(), mode));
            }
            Some(Command::Leave) => break,
        }
    }
    let owned = cluster.leave(Instant::now() + LEAVE_WITHIN).await;
    clients.iter().for_each(|client| client.abort());
    if owned > 0 {
        cluster.keep_debts().await;
    }
    shared.nodes[node].borrow_mut().inside = None;
    // Who drains still has it for a moment.
    let mut cluster = cluster;
    loop {
        match Rc::try_unwrap(cluster) {
            Ok(cluster) => {
                cluster.stop().await;
                return Ok(());
            }
            Err(still) => cluster = still,
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Writes the rules that are limited by, on top of those that are there: a write that comes late changes nothing.
async fn change_rules(shared: Rc<Shared>, ledger: Ledger, mode: Mode) {
    let deadline = Instant::now() + RULES_WITHIN;
    let Ok(applied) = ledger.latest(deadline).await else { return };
    let Some(history) = applied.state.domains.get("default") else { return };
    let text = workload::rules(mode);
    let is_there = **history.text() == *text;
    let mut new = NewRules::new("default", &text);
    new.expected = Expected::At(history.current().revision);
    if (is_there || ledger.write(new, deadline).await.is_ok())
        && let Some(last) = shared.changes.borrow_mut().last_mut().filter(|last| last.to == mode)
    {
        last.answered.get_or_insert(elapsed());
        tracing::info!(?mode, "the rules are changed");
    }
}

/// Writes and reads rules, one after the other.
async fn write_rules(shared: Rc<Shared>, node: usize, ledger: Ledger, mut dice: Rng) {
    loop {
        sleep(Duration::from_millis(dice.u64(20..600))).await;
        if shared.nodes[node].borrow().paused {
            continue;
        }
        let domain = dice.usize(..DOMAINS);
        let name = format!("d{domain}");
        let deadline = Instant::now() + RULES_WITHIN;
        let called = elapsed();
        if dice.bool() {
            let value = shared.next_value.get();
            shared.next_value.set(value + 1);
            let place = {
                let mut all = shared.rule_operations.borrow_mut();
                // If the node ends before it is answered, this is what is known.
                let did = Did::Write(value, Told::Nothing);
                all.push(RuleOperation { domain, called, answered: None, did });
                all.len() - 1
            };
            let mut new = NewRules::new(&name, &format!("# {value}\nrules: []\n"));
            new.message = format!("v{value}");
            let told = match ledger.write(new, deadline).await {
                Ok(written) => Told::Written(written.revision.get()),
                Err(WriteError::NoQuorum(no_quorum)) if no_quorum.in_doubt => Told::Nothing,
                Err(_) => Told::NotWritten,
            };
            tracing::debug!(%name, value, ?told, "wrote rules");
            let one = &mut shared.rule_operations.borrow_mut()[place];
            one.answered = (told != Told::Nothing).then(elapsed);
            one.did = Did::Write(value, told);
        } else if let Ok(applied) = ledger.latest(deadline).await {
            let value = applied
                .state
                .domains
                .get(name.as_str())
                .and_then(|history| history.current().message.strip_prefix('v')?.parse().ok());
            tracing::debug!(%name, ?value, "read rules");
            let answered = Some(elapsed());
            let did = Did::Read(value);
            shared.rule_operations.borrow_mut().push(RuleOperation { domain, called, answered, did });
        }
    }
}
