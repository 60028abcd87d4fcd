//! One node of the simulated cluster: what `tidegate serve` starts, but for its front ends, and clients that ask it
//! directly.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use smallvec::SmallVec;
use tidegate_cluster::{
    Amendment, Clock, Cluster, ClusterConfig, ClusterKey, DecidedBy, Decisions, Local, Router, Timing,
    Weight, Wish,
    raft::{Ledger, NewRules, WriteFault},
    simulation::{Probe, clock::elapsed},
};
use tidegate_limiter::{Charge, Cost, HashSecret, KeyHash, Match, Rules, Store, StoreConfig};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::spawn_local,
    time::{Instant, sleep},
};

use super::plan::Plan;
use crate::{
    check::{ledger::Told, linear::Act},
    history::{Operation, Outcome, Refund},
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

/// The kinds of rules, by the value of the attribute `kind`.
pub(super) const KINDS: [&str; 4] = ["strict", "carved", "open", "long"];
/// Keys of each kind.
pub(super) const KEYS: u32 = 4;
/// The key, a strict one, of which a quarter of what is admitted is given back: it stays under pressure.
pub(super) const GIVEN_BACK: u32 = 0;
/// The key of the rule that is about all checks of some clients, beside another.
pub(super) const ALL: u32 = KINDS.len() as u32 * KEYS;

const RULES: &str = "\
rules:
  - { name: strict, when: { kind: strict }, key: [k], limit: 20/1s, burst: 8, consistency: strict, on_owner_loss: deny }
  - { name: carved, when: { kind: carved }, key: [k], limit: 24/1s, burst: 24, consistency: strict, on_owner_loss: share, carved: true }
  - { name: open, when: { kind: open }, key: [k], limit: 20/1s, burst: 8 }
  - { name: long, when: { kind: long }, key: [k], limit: 60/1h, burst: 60, consistency: strict, on_owner_loss: deny }
  - { name: all, when: { all: \"*\" }, key: [all], limit: 50/1s, burst: 20, consistency: strict, on_owner_loss: deny }
";

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
        let founder = node < self.plan.founders;
        ClusterConfig {
            name: name(node),
            cluster: "simulated".to_owned(),
            zone: None,
            weight: Weight::default(),
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise: Some(addresses[node]),
            peer_port: PEER_PORT,
            http: (addresses[node], 7800).into(),
            join: match self.plan.nodes {
                1 => Vec::new(),
                _ => addresses.iter().map(|address| format!("{address}:{PEER_PORT}")).collect(),
            },
            bootstrap_expect: (founder && self.plan.nodes > 1).then_some(self.plan.founders as u32),
            key: ClusterKey::parse("the key of a simulated cluster").ok(),
            data_dir: Some(self.disk(node)),
            rules: vec![("default".to_owned(), RULES.to_owned())],
            timing: Timing::default(),
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
    let config = StoreConfig { max_memory: 4 << 20, shards: 8 };
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
            Err(fault) if shared.nodes[node].borrow().full => tracing::info!(%fault, "a node can not start"),
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
                    // Without a quorum it can not be done.
                    let _ = cluster.drain(&name, on, Instant::now() + RULES_WITHIN).await;
                });
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

/// Asks one check after the other.
struct Client {
    shared: Rc<Shared>,
    node: usize,
    router: Arc<Router>,
    rules: Arc<ArcSwap<Rules>>,
    clock: Clock,
    dice: Rng,
}

impl Client {
    async fn run(mut self) {
        loop {
            let pause = self.shared.plan.pause_ms * 1_000;
            sleep(Duration::from_micros(self.dice.u64(1_000..2 * pause))).await;
            if self.shared.nodes[self.node].borrow().paused {
                continue;
            }
            // A few at once, as callers come.
            for _ in 0..self.dice.u32(1..4) {
                self.ask().await;
            }
        }
    }

    async fn ask(&mut self) {
        let mut key = self.dice.u32(..ALL);
        if self.dice.u8(..4) != 0 {
            // One of each kind is asked about more often than its rate.
            key -= key % KEYS;
        }
        let with_all = self.dice.u8(..4) == 0;
        let mut attributes: HashMap<&str, String> = HashMap::new();
        attributes.insert("kind", KINDS[(key / KEYS) as usize].to_owned());
        attributes.insert("k", key.to_string());
        if with_all {
            attributes.insert("all", "1".to_owned());
        }
        let invoked = elapsed();
        let now = self.clock.now();
        let (mut charges, mut wishes, mut keys) =
            (SmallVec::<[Charge; 4]>::new(), SmallVec::<[Wish; 4]>::new(), Vec::new());
        let rules = self.rules.load_full();
        let mut matched = SmallVec::new();
        if let Match::Unmatched { .. } = rules.matching("default", &attributes, &mut matched) {
            // The rules of the cluster are not here yet.
            return self.note(&[key], invoked, Outcome::Refused, &[]);
        }
        for one in matched {
            let Some(limit) = one.limit else { continue };
            charges.push(Charge {
                key: one.key,
                rule: one.rule.id(),
                limit: *limit,
                cost: Cost::ONE,
                mode: one.rule.mode(),
                floor: None,
            });
            wishes.push(Wish {
                on_owner_loss: one.rule.on_owner_loss(),
                consistency: one.rule.consistency(),
                carved: one.rule.is_carved(),
                reserve: one.rule.reserve(),
                limit_ref: one.limit_ref,
            });
            let number = if one.rule.name() == "all" { ALL } else { key };
            self.shared.hashes.borrow_mut().insert(number, one.key);
            keys.push(number);
        }
        let mut decisions = Decisions::new();
        let is_admitted = match self.router.decide_local(&mut charges, &wishes, now, &mut decisions) {
            Local::Decided { allowed, .. } => {
                let by = ("owner".to_owned(), name(self.node));
                self.note_decided(&keys, invoked, allowed, &vec![Some(by); keys.len()]);
                allowed
            }
            Local::NotReady => return self.note(&keys, invoked, Outcome::Refused, &[]),
            Local::Elsewhere => match self.router.decide(0, &mut charges, &wishes, now).await {
                Ok(verdict) => {
                    let by = |answer: &Option<tidegate_cluster::Answer>| {
                        let by = &answer.as_ref()?.by;
                        let who = match by {
                            DecidedBy::Forwarded(owner) => owner.to_string(),
                            _ => name(self.node),
                        };
                        Some((by.as_str().to_owned(), who))
                    };
                    let by: Vec<_> = verdict.answers.iter().map(by).collect();
                    self.note_decided(&keys, invoked, verdict.allowed, &by);
                    verdict.allowed
                }
                Err(_not_ready) => return self.note(&keys, invoked, Outcome::Refused, &[]),
            },
        };
        if key == GIVEN_BACK
            && is_admitted
            && self.dice.u8(..4) == 0
            && let Some(place) = keys.iter().position(|number| *number == key)
        {
            self.give_back(&charges[place..=place], &wishes[place..=place]).await;
        }
    }

    /// Gives a unit of the key back that is there for that.
    async fn give_back(&self, charges: &[Charge], wishes: &[Wish]) {
        let place = {
            let mut all = self.shared.refunds.borrow_mut();
            // If the node ends before it is answered, this is what is known.
            let (invoked, node) = (elapsed(), self.node as u16);
            all.push(Refund { invoked, completed: None, key: GIVEN_BACK, node });
            all.len() - 1
        };
        let amended =
            self.router.amend(0, Amendment::Refund, charges, wishes, self.rules.load().revision()).await;
        let mut all = self.shared.refunds.borrow_mut();
        match amended {
            Ok(amended) if amended.is_complete() => all[place].completed = Some(elapsed()),
            Ok(amended) if amended.unsure => {}
            // It was not made: as if it was over before all checks.
            Ok(_) | Err(_) => (all[place].invoked, all[place].completed) = (0, Some(0)),
        }
    }

    fn note_decided(&self, keys: &[u32], invoked: u64, allowed: bool, by: &[Option<(String, String)>]) {
        let outcome = if allowed { Outcome::Admitted } else { Outcome::Denied };
        self.note(keys, invoked, outcome, by);
    }

    fn note(&self, keys: &[u32], invoked: u64, outcome: Outcome, by: &[Option<(String, String)>]) {
        let completed = elapsed();
        let mut operations = self.shared.operations.borrow_mut();
        for (place, key) in keys.iter().enumerate() {
            let decided_by = by.get(place).cloned().flatten();
            tracing::debug!(key, since_ms = invoked / 1_000_000, ?outcome, ?decided_by, "asked");
            operations.push(Operation {
                invoked,
                completed,
                key: *key,
                node: self.node as u16,
                outcome,
                decided_by,
            });
        }
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
                Err(WriteFault::NoQuorum(no_quorum)) if no_quorum.in_doubt => Told::Nothing,
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
