//! All nodes in one thread, and what is done to them.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use tidegate_cluster::simulation::{self, clock, disk, network};
use turmoil::Sim;

use super::{
    entropy,
    fault::{Aim, Fault, Kind},
    links::Links,
    node,
    outcome::Outcome,
    plan::Plan,
    shared::{ChangeOfRules, Command, Shared, State, name},
    trace,
    workload::{LONG, Mode},
};

/// How often the run looks at what changes slowly.
const OBSERVE_EVERY_MS: u64 = 50;
/// How long a cluster that is whole again is watched.
const WATCH_MS: u64 = 1_500;
/// Between one node and the next of a rolling restart.
const BETWEEN_RESTARTS_MS: u64 = 300;
/// After so long a change of rules is asked for again, at another node.
const RULES_AGAIN_MS: u64 = 1_500;

/// Runs a plan on this thread, which must be a fresh one.
pub(super) fn run(plan: &Plan) -> Outcome {
    entropy::seed(Some(plan.seed));
    trace::note_panics();
    let _simulating = simulation::enter();
    network::seed(plan.seed);
    let mut outcome = panic::catch_unwind(AssertUnwindSafe(|| World::new(plan.clone()).run()))
        .unwrap_or_else(|_| Outcome::broken("the simulation has ended with a panic"));
    outcome.faults.extend(trace::panics().into_iter().map(|panic| format!("a panic: {panic}")));
    entropy::seed(None);
    outcome
}

/// One run.
pub(super) struct World {
    pub(super) sim: Sim<'static>,
    pub(super) shared: Rc<Shared>,
    pub(super) now: u64,
    pub(super) dice: Rng,
    /// Nodes that have been started once.
    pub(super) started: usize,
    /// Faults that have begun and are not over.
    pub(super) active: Vec<Fault>,
    pub(super) links: Links,
    /// Nodes that are down, and from when on they may start again.
    pub(super) down: BTreeMap<usize, u64>,
    /// Nodes that are to leave one after the other, with when they come back, and the one that was asked last.
    pub(super) leaving: Vec<(usize, u64)>,
    pub(super) leaves: Option<usize>,
    /// Nodes that a rolling restart still has before it.
    pub(super) rolling: Vec<usize>,
    pub(super) rolls_at: u64,
    /// What was seen of the running process of a node: the index applied, and epochs.
    pub(super) seen: BTreeMap<usize, (u64, u64, BTreeMap<u32, u64>)>,
    pub(super) faults: BTreeSet<String>,
    pub(super) whole_at: Option<u64>,
    /// The highest vote that was seen of a node, with the number of its disk.
    pub(super) votes: BTreeMap<usize, (u32, (u64, u64))>,
    /// What is wanted of the rules, and when it was asked for last.
    pub(super) wanted: Mode,
    asked_at: u64,
    /// An owner crashes as soon as the rules are as they are wanted.
    pub(super) crashes_then: bool,
    /// Faults that came of others.
    more: Vec<Fault>,
    /// Faults that have begun, with the node that they were aimed at.
    pub(super) begun: Vec<Fault>,
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .tick_duration(Duration::from_millis(plan.tick_ms))
            .simulation_duration(Duration::from_secs(1 << 20))
            .min_message_latency(Duration::from_millis(plan.latency_ms.0))
            .max_message_latency(Duration::from_millis(plan.latency_ms.1))
            .tcp_capacity(1 << 14)
            .udp_capacity(1 << 12)
            .epoch(SystemTime::UNIX_EPOCH)
            .enable_random_order()
            .rng_seed(plan.seed);
        let sim = builder.build();
        let clocks = plan.clocks.iter().map(|(ahead, ppm)| clock::add(*ahead, *ppm)).collect();
        let addresses = (0..plan.nodes).map(|node| sim.lookup(name(node))).collect();
        let shared = Rc::new(Shared {
            addresses: RefCell::new(addresses),
            clocks,
            nodes: (0..plan.nodes).map(|_| RefCell::new(State::default())).collect(),
            operations: RefCell::default(),
            refunds: RefCell::default(),
            rule_operations: RefCell::default(),
            hashes: RefCell::default(),
            next_value: Cell::new(1),
            changes: RefCell::default(),
            locked_out: RefCell::default(),
            floods: Cell::new(false),
            strangers: RefCell::default(),
            plan,
        });
        Self {
            sim,
            dice: Rng::with_seed(shared.plan.seed ^ 0x5eed),
            shared,
            now: 0,
            started: 0,
            active: Vec::new(),
            links: Links::default(),
            down: BTreeMap::new(),
            leaving: Vec::new(),
            leaves: None,
            rolling: Vec::new(),
            rolls_at: 0,
            seen: BTreeMap::new(),
            faults: BTreeSet::new(),
            whole_at: None,
            votes: BTreeMap::new(),
            wanted: Mode::default(),
            asked_at: 0,
            crashes_then: false,
            more: Vec::new(),
            begun: Vec::new(),
        }
    }

    fn run(mut self) -> Outcome {
        let shared = Rc::clone(&self.shared);
        let plan = &shared.plan;
        let mut waiting = plan.faults.clone();
        waiting.reverse();
        while self.now < plan.end_ms {
            while plan.starts_ms.get(self.started).is_some_and(|at| *at <= self.now) {
                self.start_next();
            }
            while waiting.last().is_some_and(|next| next.at_ms <= self.now) {
                if let Some(fault) = waiting.pop() {
                    self.begin(fault);
                }
            }
            let now = self.now;
            let over: Vec<Fault> = self.active.extract_if(.., |fault| fault.ends_ms() <= now).collect();
            over.into_iter().for_each(|fault| self.end(fault));
            self.roll();
            self.leave_one_by_one();
            self.start_again();
            self.change_rules();
            self.votes_are_kept();
            self.more
                .clone()
                .into_iter()
                .filter(|fault| fault.at_ms <= now)
                .for_each(|fault| self.begin(fault));
            self.more.retain(|fault| fault.at_ms > now);

            if let Err(error) = self.sim.step() {
                self.faults.insert(format!("a node has ended: {error}"));
                break;
            }
            self.now += plan.tick_ms;
            clock::set(self.sim.elapsed());
            self.one_decider();
            if self.now.is_multiple_of(OBSERVE_EVERY_MS) {
                self.nothing_falls();
                let is_over = waiting.is_empty()
                    && self.active.is_empty()
                    && self.down.is_empty()
                    && self.more.is_empty()
                    && self.started == plan.nodes
                    && self.now >= plan.settled_ms();
                if is_over && self.is_whole().is_ok() {
                    let since = *self.whole_at.get_or_insert(self.now);
                    if self.now >= since + WATCH_MS {
                        break;
                    }
                } else {
                    self.whole_at = None;
                }
            }
        }
        self.judge()
    }

    fn start_next(&mut self) {
        let node = self.started;
        let shared = Rc::clone(&self.shared);
        self.sim.host(name(node), move || node::run(Rc::clone(&shared), node));
        self.started += 1;
        self.set_links();
    }

    pub(super) fn set_links(&mut self) {
        self.links.set(&self.sim, &self.shared, self.started, &self.active);
    }

    pub(super) fn runs(&self, node: usize) -> bool {
        node < self.started && self.shared.nodes[node].borrow().inside.is_some()
    }

    pub(super) fn command(&self, node: usize, command: Command) {
        if let Some(inside) = &self.shared.nodes[node].borrow().inside {
            // If it has just ended, it does not matter.
            let _ = inside.commands.send(command);
        }
    }

    pub(super) fn want(&mut self, mode: Mode) {
        self.wanted = mode;
        self.asked_at = 0;
        let called = self.now * 1_000_000;
        self.shared.changes.borrow_mut().push(ChangeOfRules { to: mode, called, answered: None });
    }

    /// Has the rules changed, by one node after the other until one has done it.
    fn change_rules(&mut self) {
        let is_done = self.shared.changes.borrow().last().is_none_or(|change| change.answered.is_some());
        if is_done {
            if std::mem::take(&mut self.crashes_then) {
                let at_ms = self.now + self.dice.u64(..150);
                let lasts_ms = self.dice.u64(1_500..3_500);
                let kind = Kind::Crash { aim: Aim::Owner(LONG), silent: false, forgets: false };
                self.more.push(Fault { place: 99, at_ms, lasts_ms, kind });
            }
            return;
        }
        if self.asked_at != 0 && self.now < self.asked_at + RULES_AGAIN_MS {
            return;
        }
        self.asked_at = self.now;
        let can = |node: &usize| self.runs(*node) && !self.shared.nodes[*node].borrow().paused;
        let able: Vec<usize> = (0..self.started).filter(can).collect();
        if !able.is_empty() {
            let node = able[self.dice.usize(..able.len())];
            self.command(node, Command::Rules(self.wanted));
        }
    }

    /// A vote that was given is never forgotten, whatever becomes of the node. And where the power goes at votes, it goes.
    fn votes_are_kept(&mut self) {
        let cuts = self.active.iter().any(|fault| fault.kind == Kind::PowerCutsAtVotes);
        for node in 0..self.started {
            let (vote, disk) = {
                let state = self.shared.nodes[node].borrow();
                (state.inside.as_ref().and_then(|inside| inside.probe.vote()), state.disk)
            };
            let Some(vote) = vote else { continue };
            let before = self.votes.insert(node, (disk, vote)).filter(|known| known.0 == disk);
            let Some((_, before)) = before else { continue };
            if vote < before {
                self.faults.insert(format!(
                    "a vote is forgotten: {} has voted in term {}",
                    name(node),
                    before.0
                ));
            }
            if cuts && vote > before && self.dice.u8(..3) != 0 && !self.down.contains_key(&node) {
                tracing::info!("the power goes at {}, which has voted in term {}", name(node), vote.0);
                self.crash(node, true, false);
                self.down.insert(node, self.now + self.dice.u64(30..400));
            }
        }
    }

    fn roll(&mut self) {
        if self.now < self.rolls_at || !self.down.is_empty() {
            return;
        }
        let Some(node) = self.rolling.pop() else { return };
        if self.runs(node) {
            self.command(node, Command::Leave);
            self.down.insert(node, self.now + 50);
        }
        self.rolls_at = self.now + BETWEEN_RESTARTS_MS;
    }

    /// Starts nodes whose time has come, if they have ended.
    fn start_again(&mut self) {
        let due: Vec<usize> =
            self.down.iter().filter(|(_, at)| **at <= self.now).map(|(node, _)| *node).collect();
        for node in due {
            if self.sim.is_host_running(name(node)) {
                continue;
            }
            tracing::info!("{} starts again", name(node));
            self.down.remove(&node);
            self.seen.remove(&node);
            // What the process before has left open is gone with it.
            disk::power_off(&self.shared.disk(node), || true);
            disk::power_off(&self.shared.stranger_disk(node), || true);
            self.sim.bounce(name(node));
            self.rolls_at = self.now + BETWEEN_RESTARTS_MS;
        }
    }
}
