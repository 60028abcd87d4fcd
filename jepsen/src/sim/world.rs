//! All nodes in one thread, the network between them, and what is done to them.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    sync::Once,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use tidegate_cluster::{
    Readiness,
    simulation::{self, clock, disk},
};
use turmoil::Sim;

use super::{
    Outcome, Wishes, entropy,
    node::{self, Command, KINDS, Shared, State, name},
    plan::{Fault, Kind, Plan},
    verdict,
};

/// How often it is looked at what only changes slowly.
const LOOK_EVERY_MS: u64 = 50;
/// How long a cluster that is whole again is watched.
const WATCH_MS: u64 = 1_500;
/// Between one node and the next of a rolling restart.
const BETWEEN_RESTARTS_MS: u64 = 300;

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A panic of a task is kept by its runtime and by nobody seen; here it is a fault.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let noted = PANICS.try_with(|panics| match &mut *panics.borrow_mut() {
                Some(panics) => {
                    panics.push(panic.to_string());
                    true
                }
                None => false,
            });
            if noted != Ok(true) {
                before(panic);
            }
        }));
    });
    PANICS.set(Some(Vec::new()));
}

/// Runs a plan on this thread, which must be a fresh one.
pub(super) fn run(plan: &Plan, wishes: &Wishes) -> Outcome {
    entropy::seed(Some(plan.seed));
    note_panics();
    let _simulating = simulation::enter();
    let _tracing = wishes.trace.then(trace);
    #[cfg(feature = "planted-bugs")]
    tidegate_cluster::planted::plant_here(wishes.planted);
    let mut outcome = panic::catch_unwind(AssertUnwindSafe(|| World::new(plan.clone()).run()))
        .unwrap_or_else(|_| Outcome::broken("the simulation has ended with a panic"));
    outcome
        .faults
        .extend(PANICS.take().unwrap_or_default().into_iter().map(|panic| format!("a panic: {panic}")));
    entropy::seed(None);
    outcome
}

struct SimTime;

impl tracing_subscriber::fmt::time::FormatTime for SimTime {
    fn format_time(&self, to: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(to, "{:10.6}", clock::elapsed() as f64 / 1e9)
    }
}

fn trace() -> tracing::subscriber::DefaultGuard {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| {
        "info,jepsen=debug,tidegate_jepsen=debug,turmoil=warn,openraft=warn,chitchat=warn".to_owned()
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_timer(SimTime)
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_default(subscriber)
}

/// What becomes of messages from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Way {
    #[default]
    Open,
    Closed,
    Held,
}

struct World {
    sim: Sim<'static>,
    shared: Rc<Shared>,
    now: u64,
    dice: Rng,
    /// Nodes that have been started once.
    there: usize,
    /// Faults that have begun and are not over.
    active: Vec<Fault>,
    /// The link of two nodes, in both directions.
    ways: BTreeMap<(usize, usize), (Way, Way)>,
    /// Nodes that are down, and from when on they may start again.
    down: BTreeMap<usize, u64>,
    /// Nodes that a rolling restart still has before it.
    rolling: Vec<usize>,
    rolls_at: u64,
    /// What was seen of the running process of a node: the index applied, and epochs.
    seen: BTreeMap<usize, (u64, u64, BTreeMap<u32, u64>)>,
    faults: BTreeSet<String>,
    whole_at: Option<u64>,
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
            plan,
        });
        Self {
            sim,
            dice: Rng::with_seed(shared.plan.seed ^ 0x5eed),
            shared,
            now: 0,
            there: 0,
            active: Vec::new(),
            ways: BTreeMap::new(),
            down: BTreeMap::new(),
            rolling: Vec::new(),
            rolls_at: 0,
            seen: BTreeMap::new(),
            faults: BTreeSet::new(),
            whole_at: None,
        }
    }

    fn run(mut self) -> Outcome {
        let shared = Rc::clone(&self.shared);
        let plan = &shared.plan;
        let mut waiting = plan.faults.clone();
        waiting.reverse();
        let late_at = plan.end_ms.min(7_000);
        while self.now < plan.end_ms {
            while self.there < plan.founders || self.there < plan.nodes && self.now >= late_at {
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
            self.start_again();

            if let Err(error) = self.sim.step() {
                self.faults.insert(format!("a node has ended: {error}"));
                break;
            }
            self.now += plan.tick_ms;
            clock::set(self.sim.elapsed());
            self.one_decider();
            if self.now.is_multiple_of(LOOK_EVERY_MS) {
                self.nothing_falls();
                let is_over = waiting.is_empty()
                    && self.active.is_empty()
                    && self.there == plan.nodes
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
        let node = self.there;
        let shared = Rc::clone(&self.shared);
        self.sim.host(name(node), move || node::run(Rc::clone(&shared), node));
        self.there += 1;
        self.set_ways();
    }

    fn runs(&self, node: usize) -> bool {
        node < self.there && self.shared.nodes[node].borrow().inside.is_some()
    }

    fn command(&self, node: usize, command: Command) {
        if let Some(inside) = &self.shared.nodes[node].borrow().inside {
            // If it has just ended, it does not matter.
            let _ = inside.commands.send(command);
        }
    }

    fn begin(&mut self, fault: Fault) {
        tracing::info!("begins: {fault}");
        match fault.kind {
            Kind::Crash { node, silent, forgets } if self.runs(node) => {
                self.crash(node, silent, forgets);
                self.down.insert(node, fault.ends_ms());
            }
            Kind::Restart(node) if self.runs(node) => {
                self.command(node, Command::Leave);
                self.down.insert(node, fault.ends_ms());
            }
            Kind::RollingRestart => {
                self.rolling = (0..self.there).rev().collect();
                self.rolls_at = self.now;
            }
            Kind::Drain(node) => self.drain(node, true),
            Kind::Pause(node) if self.runs(node) => self.pause(node, true),
            Kind::Disk(node) => self.fill_disk(node, true),
            _ => {}
        }
        self.active.push(fault);
        self.set_ways();
    }

    fn end(&mut self, fault: Fault) {
        tracing::info!("is over: {fault}");
        match fault.kind {
            Kind::Drain(node) => self.drain(node, false),
            Kind::Pause(node) => self.pause(node, false),
            Kind::Disk(node) => self.fill_disk(node, false),
            Kind::RollingRestart => self.rolling.clear(),
            Kind::Slow(side, _) => {
                // The least that it can be set to again: always the same.
                self.set_latency(side, self.shared.plan.latency_ms.0);
            }
            _ => {}
        }
        self.set_ways();
    }

    fn crash(&mut self, node: usize, silent: bool, forgets: bool) {
        let path = self.shared.disk(node);
        let dice = &mut self.dice;
        // What a process has written is with the system when it dies; when the power goes, only what was synced is safe.
        disk::power_off(&path, || !silent || dice.bool());
        if silent {
            for other in (0..self.there).filter(|other| *other != node) {
                self.sim.partition(name(node), name(other));
            }
        }
        self.shared.nodes[node].borrow_mut().inside = None;
        self.sim.crash(name(node));
        if silent {
            self.ways.retain(|(one, other), _| *one != node && *other != node);
            for other in (0..self.there).filter(|other| *other != node) {
                self.sim.repair(name(node), name(other));
            }
        }
        if forgets {
            self.shared.nodes[node].borrow_mut().disk += 1;
        }
    }

    fn fill_disk(&self, node: usize, full: bool) {
        disk::fail(&self.shared.disk(node), full);
        self.shared.nodes[node].borrow_mut().full = full;
    }

    /// By a node that can be asked.
    fn drain(&mut self, node: usize, on: bool) {
        let can = |other: &usize| self.runs(*other) && !self.shared.nodes[*other].borrow().paused;
        if let Some(other) = (0..self.there).rev().find(can) {
            self.command(other, Command::Drain(name(node), on));
        }
    }

    fn pause(&mut self, node: usize, paused: bool) {
        let mut state = self.shared.nodes[node].borrow_mut();
        state.paused = paused;
        if let Some(inside) = &state.inside {
            inside.probe.freeze_clock(paused);
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
            self.sim.bounce(name(node));
            self.rolls_at = self.now + BETWEEN_RESTARTS_MS;
        }
    }

    /// Sets each link as the faults want it that are active.
    fn set_ways(&mut self) {
        for one in 0..self.there {
            for other in one + 1..self.there {
                let wanted = self.wanted(one, other);
                let known = self.ways.insert((one, other), wanted).unwrap_or_default();
                if known == wanted {
                    continue;
                }
                let (a, b) = (name(one), name(other));
                if known.0 == Way::Held {
                    self.sim.release(&*a, &*b);
                } else {
                    self.sim.repair(&*a, &*b);
                }
                if wanted.0 == Way::Held {
                    self.sim.hold(&*a, &*b);
                    continue;
                }
                if wanted.0 == Way::Closed {
                    self.sim.partition_oneway(&*a, &*b);
                }
                if wanted.1 == Way::Closed {
                    self.sim.partition_oneway(&*b, &*a);
                }
            }
        }
        let slow: Vec<(u64, u64)> = self
            .active
            .iter()
            .filter_map(|fault| match fault.kind {
                Kind::Slow(side, millis) => Some((side, millis)),
                _ => None,
            })
            .collect();
        slow.into_iter().for_each(|(side, millis)| self.set_latency(side, millis));
    }

    fn set_latency(&mut self, side: u64, millis: u64) {
        for one in 0..self.there {
            for other in one + 1..self.there {
                if (side >> one ^ side >> other) & 1 == 1 {
                    self.sim.set_link_latency(name(one), name(other), Duration::from_millis(millis));
                }
            }
        }
    }

    fn wanted(&self, one: usize, other: usize) -> (Way, Way) {
        let paused = |node: usize| self.shared.nodes[node].borrow().paused;
        if paused(one) || paused(other) {
            return (Way::Held, Way::Held);
        }
        let splits = |side: u64| (side >> one ^ side >> other) & 1 == 1;
        let within = |side: u64, node: usize| side >> node & 1 == 1;
        let mut ways = (Way::Open, Way::Open);
        for fault in &self.active {
            match fault.kind {
                Kind::Hold(side) if splits(side) => return (Way::Held, Way::Held),
                Kind::Partition(side) if splits(side) => ways = (Way::Closed, Way::Closed),
                Kind::OneWay(from, to) => {
                    if within(from, one) && within(to, other) {
                        ways.0 = Way::Closed;
                    }
                    if within(from, other) && within(to, one) {
                        ways.1 = Way::Closed;
                    }
                }
                _ => {}
            }
        }
        ways
    }

    /// At no instant do two nodes decide about one slot, for rules that are `strict`.
    fn one_decider(&mut self) {
        for (key, hash) in &*self.shared.hashes.borrow() {
            let mut deciders: Option<usize> = None;
            for node in 0..self.there {
                let state = self.shared.nodes[node].borrow();
                let Some(inside) = state.inside.as_ref().filter(|_| !state.paused) else { continue };
                if !inside.probe.decides_strictly(*hash) {
                    continue;
                }
                if let Some(other) = deciders.replace(node) {
                    self.faults.insert(format!(
                        "two deciders of one slot: {} and {} both decide about key {key}",
                        name(other),
                        name(node)
                    ));
                    tracing::error!("two deciders: {} and {}", name(other), name(node));
                }
            }
        }
    }

    /// What a node has applied, and epochs, never fall.
    fn nothing_falls(&mut self) {
        for node in 0..self.there {
            let state = self.shared.nodes[node].borrow();
            let Some(inside) = &state.inside else { continue };
            let seen = self.seen.entry(node).or_default();
            if seen.0 != state.starts {
                *seen = (state.starts, 0, BTreeMap::new());
            }
            let applied = inside.probe.applied();
            if applied < seen.1 {
                self.faults.insert(format!("{} has applied less than before", name(node)));
            }
            seen.1 = applied;
            for (key, hash) in &*self.shared.hashes.borrow() {
                let Some(epoch) = inside.probe.epoch(*hash) else { continue };
                let before = seen.2.insert(*key, epoch).unwrap_or(0);
                if epoch < before {
                    self.faults.insert(format!("an epoch has fallen at {}", name(node)));
                }
            }
        }
    }

    /// Whether all nodes are there, agree, and have the slots that they should.
    fn is_whole(&self) -> Result<(), String> {
        let mut index = None;
        for node in 0..self.shared.plan.nodes {
            let state = self.shared.nodes[node].borrow();
            let Some(inside) = &state.inside else { return Err(format!("{} does not run", name(node))) };
            if let Readiness::NotReady(reason) = inside.cluster.readiness() {
                return Err(format!("{} is not ready: {reason}", name(node)));
            }
            let status = inside.cluster.status();
            if !status.has_session || !inside.probe.has_session() {
                return Err(format!("{} has no session", name(node)));
            }
            if status.moving + status.misplaced > 0 {
                let (moving, misplaced) = (status.moving, status.misplaced);
                return Err(format!("{}: {moving} slots move, {misplaced} are misplaced", name(node)));
            }
            // Rules are written all the time.
            let applied = inside.probe.applied();
            if index.replace(applied).is_some_and(|other: u64| other.abs_diff(applied) > 20) {
                return Err(format!("{} is behind", name(node)));
            }
        }
        Ok(())
    }

    fn judge(mut self) -> Outcome {
        let mut faults: Vec<String> = std::mem::take(&mut self.faults).into_iter().collect();
        let shared = Rc::clone(&self.shared);
        match (self.whole_at, self.is_whole()) {
            (None, Err(reason)) if faults.is_empty() => {
                faults.push(format!("the cluster does not become whole again: {reason}"));
            }
            _ => {}
        }
        let operations = shared.operations.take();
        let rules = shared.rule_operations.take();
        let refunds = shared.refunds.take();
        faults.extend(verdict::bounds(&shared.plan, &operations, &refunds));
        if let Some(since) = self.whole_at {
            faults.extend(verdict::owners_decide(&operations, since));
        }
        let histories = self.histories();
        faults.extend(verdict::rules(&rules, &histories));

        let mut hasher = DefaultHasher::new();
        for operation in &operations {
            (operation.invoked, operation.completed, operation.key, operation.node).hash(&mut hasher);
            (operation.outcome as u8, &operation.decided_by).hash(&mut hasher);
        }
        for refund in &refunds {
            (refund.invoked, refund.completed, refund.node).hash(&mut hasher);
        }
        for operation in &rules {
            format!("{operation:?}").hash(&mut hasher);
        }
        format!("{histories:?} {} {faults:?}", self.now).hash(&mut hasher);
        for node in 0..self.there {
            let state = shared.nodes[node].borrow();
            state.inside.as_ref().map(|inside| inside.probe.applied()).hash(&mut hasher);
        }
        tracing::info!("{} checks, kinds {KINDS:?}", operations.len());
        Outcome {
            hash: hasher.finish(),
            faults,
            checks: operations.len(),
            admitted: operations
                .iter()
                .filter(|one| one.outcome == crate::history::Outcome::Admitted)
                .count(),
            rule_operations: rules.iter().filter(|one| one.answered.is_some()).count(),
            simulated_ms: self.now,
        }
    }

    /// What each node tells of the rules that were written.
    fn histories(&self) -> Vec<verdict::Histories> {
        let mut histories = vec![verdict::Histories::new(); node::DOMAINS];
        for node in 0..self.there {
            let state = self.shared.nodes[node].borrow();
            let Some(inside) = &state.inside else { continue };
            let applied = inside.cluster.ledger().applied();
            for (domain, told) in histories.iter_mut().enumerate() {
                let history = applied.state.domains.get(format!("d{domain}").as_str());
                let lines = history.map(|history| {
                    let line = |change: &tidegate_cluster::raft::Change| {
                        let value = change.message.strip_prefix('v').and_then(|value| value.parse().ok());
                        (change.revision.get(), value)
                    };
                    history.changes().iter().map(line).collect()
                });
                told.insert(name(node), lines.unwrap_or_default());
            }
        }
        histories
    }
}
