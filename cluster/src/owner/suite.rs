//! Explores what three nodes, a leader and their clocks can do to one slot, with the code that runs: [`Table::apply`],
//! [`Slot`], [`Session`] and [`SessionTiming`]. A node may start again, with nothing in memory and as another incarnation; a thread may
//! be stopped between the claim of a slot, the charge, and the second look at the slot. **At no instant may two nodes
//! decide, and no charge may count that was made while another node could decide.** Each rule of the protocol is also left
//! out once, and it must be noticed: that is the test of this test.
//!
//! `TIDEGATE_MODEL=full cargo test --release -p tidegate-cluster --lib owner::suite` looks further: more entries, more time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use tidegate_limiter::Nanos;

use super::{
    floors::FloorReceiver,
    node::{Effect, Install, Role, Slot},
    session::{Session, SessionTiming},
    table::{Entry, SlotMove, SlotRow, Table},
};
use crate::ids::{Leadership, NodeStart};

const NODES: usize = 3;
/// Each node from its first start, and from its second.
const NODE_STARTS: usize = 2 * NODES;
const MAX_LOG: usize = 4;
const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };
/// When time begins, in ticks.
const START: u64 = 10;
/// States that one exploration may see; one more, and it has failed.
const MAX_STATES: usize = 60_000_000;

/// An entry of the log, small. The first, which is always the same, gives the slot to the node 0 and has the index 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Written {
    Nothing,
    Prepare(u8),
    Commit(u8),
    Refused(u8),
    /// `lapsed` has a bit for each start of a node.
    Expire {
        lapsed: u8,
        to: u8,
    },
}

/// A check of one node whose thread may be stopped anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Check {
    None,
    /// It has found the slot its node's, in this tenure.
    Claimed(u8, u8),
    /// It has charged while another node could decide: it must not count.
    Charged(u8, u8),
}

/// A renewal on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Renewal {
    None,
    Asked(u64),
    /// Confirmed by a quorum at this index, but not granted yet.
    Confirmed(u64, u8),
    Granted(u64, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct One {
    slot: Slot,
    session: Session,
    /// Grows when the node begins to decide, as in `ownership`.
    tenure: u8,
    applied: u8,
    clock: u8,
    renewal: Renewal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    time: u8,
    lag_left: u8,
    log: [Written; MAX_LOG],
    len: u8,
    /// The last entry may be in the leader's log and nowhere else: nobody applies more than this.
    committed: u8,
    /// Those that the leader is expiring, as bits of starts: it grants them nothing.
    expiring: u8,
    /// The leader was stopped for a while, and leads on.
    stopped: bool,
    nodes: [One; NODES],
    /// The node that has started again, of which there is one at most.
    again: Option<u8>,
    check: Check,
    /// To each start of a node.
    last_grant: [u8; NODE_STARTS],
    leader_since: u8,
    leader_changed: bool,
    /// The last message of a move that was sent: id, epoch, target.
    handover: Option<(u8, u8, u8)>,
    /// Moves that were installed or refused, as bits.
    installed: u8,
    refused: u8,
}

/// How far it is looked, and which rules are left out.
#[derive(Debug, Clone, Copy)]
struct Config {
    entries: u8,
    ticks: u8,
    /// How long a session lasts at the leader.
    length: u64,
    lag: u8,
    new_leader: bool,
    /// A node may start again.
    restart: bool,
    /// There are checks whose threads are stopped.
    checks: bool,
    /// An expiry takes time, and the leader may be stopped meanwhile.
    in_flight: bool,
    stop_forgets_expiry: bool,
    any_incarnation: bool,
    no_second_look: bool,
    no_bind: bool,
    no_wait_for_target: bool,
    no_wait_to_abort: bool,
    commit_without_move: bool,
    commit_any_move: bool,
    no_freeze: bool,
    no_epoch: bool,
    new_leader_does_not_wait: bool,
    no_margin: bool,
    any_answer: bool,
    expire_while_granting: bool,
    no_session_wait: bool,
}

const SMALL: Config = Config {
    entries: 1,
    ticks: 2,
    length: 2,
    lag: 0,
    new_leader: false,
    restart: false,
    checks: false,
    in_flight: false,
    stop_forgets_expiry: false,
    any_incarnation: false,
    no_second_look: false,
    no_bind: false,
    no_wait_for_target: false,
    no_wait_to_abort: false,
    commit_without_move: false,
    commit_any_move: false,
    no_freeze: false,
    no_epoch: false,
    new_leader_does_not_wait: false,
    no_margin: false,
    any_answer: false,
    expire_while_granting: false,
    no_session_wait: false,
};

/// The start with this number: the first of a node, or its second.
fn start(number: u8) -> NodeStart {
    let nodes = NODES as u8;
    NodeStart { node: u64::from(number % nodes), incarnation: u64::from(1 + number / nodes) }
}

fn number(start: NodeStart) -> usize {
    start.node as usize + NODES * (start.incarnation as usize - 1)
}

impl State {
    /// Which start of it a node is at.
    fn number(&self, node: usize) -> usize {
        node + if self.again == Some(node as u8) { NODES } else { 0 }
    }
}

fn ticks(count: u64) -> Nanos {
    Nanos::new(count)
}

impl Config {
    fn timing(&self) -> SessionTiming {
        let node = if self.no_margin { self.length } else { self.length - 1 };
        SessionTiming { node: Duration::from_nanos(node), leader: Duration::from_nanos(self.length) }
    }
}

impl One {
    fn decides(&self) -> bool {
        self.slot.role().decides() && ticks(u64::from(self.clock)) < self.session.until()
    }
}

type Unhashed = BuildHasherDefault<DefaultHasher>;

struct Explorer {
    config: Config,
    rows: HashMap<([Written; MAX_LOG], u8), SlotRow, Unhashed>,
}

impl Explorer {
    /// The row after so many entries beyond the first.
    fn row(&mut self, log: &[Written; MAX_LOG], len: u8) -> SlotRow {
        let key = Self::key(log, len);
        if let Some(row) = self.rows.get(&key) {
            return *row;
        }
        let mut table = Table::default();
        table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(0)]));
        for (index, written) in (2u64..).zip(&log[..usize::from(len)]) {
            let named = |id: u8| vec![SlotMove { slot: 0, id: u64::from(id) }];
            let pending = table.rows()[0].moving;
            let entry = match *written {
                Written::Nothing => continue,
                Written::Prepare(to) => Entry::Prepare { slots: vec![0], to: start(to) },
                Written::Commit(id) => match pending {
                    Some(pending) if self.config.commit_any_move => {
                        Entry::Commit(vec![SlotMove { slot: 0, id: pending.id }])
                    }
                    None if self.config.commit_without_move => {
                        // As if it were a move of its own.
                        let to = (table.rows()[0].owner.node as u8 + 1) % NODES as u8;
                        table.apply(index, LEADERSHIP, &Entry::Prepare { slots: vec![0], to: start(to) });
                        Entry::Commit(vec![SlotMove { slot: 0, id: index }])
                    }
                    _ => Entry::Commit(named(id)),
                },
                Written::Refused(id) => Entry::Abort { moves: named(id), refused: true },
                Written::Expire { lapsed, to } => Entry::Expire {
                    leadership: LEADERSHIP,
                    lapsed: (0..NODE_STARTS as u8).filter(|one| lapsed >> one & 1 == 1).map(start).collect(),
                    slots: vec![(0, start(to))],
                },
            };
            table.apply(index, LEADERSHIP, &entry);
        }
        let row = table.rows()[0];
        self.rows.insert(key, row);
        row
    }

    fn key(log: &[Written; MAX_LOG], len: u8) -> ([Written; MAX_LOG], u8) {
        let mut key = *log;
        key[usize::from(len)..].fill(Written::Nothing);
        (key, len)
    }

    fn first(&self) -> State {
        let one = |node: u8| {
            let mut slot = Slot::NEW;
            let mut table = Table::default();
            table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(0)]));
            slot.observe(start(node), &table.rows()[0], None, FloorReceiver::default(), |_| {});
            let mut session = Session::new(self.config.timing());
            let question = session.ask(ticks(START));
            session.grant(question, 0, 0);
            session.forget_count();
            One { slot, session, tenure: 0, applied: 0, clock: START as u8, renewal: Renewal::None }
        };
        State {
            time: START as u8,
            lag_left: self.config.lag,
            log: [Written::Nothing; MAX_LOG],
            len: 0,
            committed: 0,
            expiring: 0,
            stopped: false,
            nodes: [one(0), one(1), one(2)],
            again: None,
            check: Check::None,
            last_grant: [START as u8; NODE_STARTS],
            leader_since: 0,
            leader_changed: false,
            handover: None,
            installed: 0,
            refused: 0,
        }
    }

    fn next(&mut self, state: &State, out: &mut Vec<State>) {
        self.leader(state, out);
        self.check(state, out);
        for node in 0..NODES {
            if self.config.restart && state.again.is_none() {
                out.push(self.start_again(state, node));
            }
            self.node(state, node, out);
            self.renewal(state, node, out);
        }
        if u64::from(state.time) < START + u64::from(self.config.ticks) {
            for slow in 0..=NODES {
                if slow < NODES && state.lag_left == 0 {
                    continue;
                }
                let mut next = *state;
                next.time += 1;
                next.lag_left -= u8::from(slow < NODES);
                let clocks = next.nodes.iter_mut().enumerate().filter(|(node, _)| *node != slow);
                clocks.for_each(|(_, one)| one.clock += 1);
                out.push(next);
            }
        }
    }

    /// Memory is lost; what the log says is applied anew. Nobody hears the answers to the one that it was.
    fn start_again(&self, state: &State, node: usize) -> State {
        let mut next = *state;
        next.again = Some(node as u8);
        if matches!(next.check, Check::Claimed(of, _) | Check::Charged(of, _) if usize::from(of) == node) {
            next.check = Check::None;
        }
        let one = &mut next.nodes[node];
        let session = Session::new(self.config.timing());
        *one = One { slot: Slot::NEW, session, tenure: 0, applied: 0, renewal: Renewal::None, ..*one };
        self.observe(&mut next, node);
        next
    }

    /// A node takes in what it has applied.
    fn observe(&self, next: &mut State, node: usize) {
        let row = self.rows[&Self::key(&next.log, next.nodes[node].applied)];
        let mut me = start(next.number(node) as u8);
        if self.config.any_incarnation && row.owner.node == me.node {
            me = row.owner;
        }
        let one = &mut next.nodes[node];
        one.slot.observe(me, &row, None, FloorReceiver::default(), |effect| {
            one.tenure += u8::from(matches!(
                effect,
                Effect::BeginFull | Effect::BeginDrained | Effect::BeginKept | Effect::BeginReserved(_)
            ));
        });
    }

    fn check(&self, state: &State, out: &mut Vec<State>) {
        if !self.config.checks {
            return;
        }
        let check = match state.check {
            Check::None => {
                let claims = (0..NODES).filter(|node| state.nodes[*node].decides());
                out.extend(claims.map(|node| {
                    let check = Check::Claimed(node as u8, state.nodes[node].tenure);
                    State { check, ..*state }
                }));
                return;
            }
            Check::Claimed(of, tenure) => {
                let others = (0..NODES).filter(|node| *node != usize::from(of));
                if !others.into_iter().any(|node| state.nodes[node].decides()) {
                    return;
                }
                Check::Charged(of, tenure)
            }
            Check::Charged(..) => return,
        };
        out.push(State { check, ..*state });
    }

    /// Two nodes decide, or a charge counts that must not.
    fn is_broken(&self, state: &State) -> bool {
        let counts = match state.check {
            Check::Charged(of, tenure) => {
                let one = state.nodes[usize::from(of)];
                self.config.no_second_look || one.decides() && one.tenure == tenure
            }
            _ => false,
        };
        counts || state.nodes.iter().filter(|one| one.decides()).count() > 1
    }

    /// What may be written.
    fn leader(&mut self, state: &State, out: &mut Vec<State>) {
        let config = self.config;
        if config.in_flight {
            if state.committed < state.len {
                out.push(State { committed: state.len, expiring: 0, ..*state });
            }
            if !state.stopped {
                let mut next = Self::without_memory(state);
                next.stopped = true;
                next.leader_since = next.time;
                if config.stop_forgets_expiry {
                    next.expiring = 0;
                }
                out.push(next);
            }
        }
        if state.committed < state.len {
            return;
        }
        let row = self.row(&state.log, state.committed);
        let mut write = |written| {
            if state.len < config.entries {
                let mut next = *state;
                next.log[usize::from(next.len)] = written;
                next.len += 1;
                match written {
                    Written::Expire { lapsed, .. } if config.in_flight => next.expiring = lapsed,
                    _ => next.committed = next.len,
                }
                out.push(next);
            }
        };
        let owner = number(row.owner) as u8;
        if row.moving.is_none() {
            let to = (row.owner.node as usize + 1) % NODES;
            write(Written::Prepare(state.number(to) as u8));
        }
        for id in 0..8u8 {
            if state.installed >> id & 1 == 1 {
                write(Written::Commit(id));
            }
            if state.refused >> id & 1 == 1 {
                write(Written::Refused(id));
            }
        }
        let has_lapsed = |one: usize| {
            let node = one % NODES;
            let is_now = one == state.number(node);
            // Of one that has started again the leader knows when it has granted it a session.
            let again = state.number(node);
            if !is_now && again > one && state.last_grant[again] > START as u8 {
                return true;
            }
            let under_way = is_now && matches!(state.nodes[node].renewal, Renewal::Confirmed(..));
            let last = state.last_grant[one].max(state.leader_since);
            let waited = config.timing().has_lapsed(ticks(u64::from(last)), ticks(u64::from(state.time)));
            (config.no_session_wait || waited) && (config.expire_while_granting || !under_way)
        };
        let lapsed = (0..NODE_STARTS).filter(|one| has_lapsed(*one)).fold(0u8, |all, one| all | 1 << one);
        let target = row.moving.map(|pending| number(pending.to) as u8);
        if lapsed >> owner & 1 == 1 {
            for to in (0..NODES).map(|node| state.number(node) as u8).filter(|to| *to != owner) {
                let lapsed = match target {
                    Some(target) if target != to && config.no_wait_for_target => lapsed | 1 << target,
                    _ => lapsed,
                };
                write(Written::Expire { lapsed: lapsed & !(1 << to), to });
            }
        } else if let Some(target) = target
            && (lapsed >> target & 1 == 1 || config.no_wait_to_abort)
        {
            write(Written::Expire { lapsed: 1 << target, to: owner });
        }
        if config.new_leader && !state.leader_changed {
            let mut next = Self::without_memory(state);
            next.leader_changed = true;
            next.leader_since = if config.new_leader_does_not_wait { 0 } else { next.time };
            out.push(next);
        }
    }

    /// The leader has forgotten which sessions were granted, and which are being granted.
    fn without_memory(state: &State) -> State {
        let mut next = *state;
        next.last_grant = [0; NODE_STARTS];
        for one in &mut next.nodes {
            if matches!(one.renewal, Renewal::Asked(_) | Renewal::Confirmed(..)) {
                one.renewal = Renewal::None;
            }
        }
        next
    }

    /// What a node may do: apply an entry, hand over, take over, refuse.
    fn node(&mut self, state: &State, node: usize, out: &mut Vec<State>) {
        let (one, me) = (state.nodes[node], start(state.number(node) as u8));
        if one.applied < state.committed {
            let mut next = *state;
            let applied = one.applied + 1;
            self.row(&state.log, applied);
            next.nodes[node].applied = applied;
            self.observe(&mut next, node);
            next.nodes[node].session.applied(u64::from(applied));
            out.push(next);
        }
        let row = self.row(&state.log, one.applied);
        let target = row.moving.map(|pending| number(pending.to) as u8);
        if let (Role::Sending(id), Some(target)) = (one.slot.role(), target) {
            let mut next = *state;
            if !self.config.no_freeze {
                assert!(next.nodes[node].slot.freeze(id));
            }
            next.handover = Some((id as u8, one.slot.epoch() as u8, target));
            if next != *state {
                out.push(next);
            }
        }
        let index = u64::from(one.applied) + 1;
        if let Some((id, epoch, to)) = state.handover
            && usize::from(to) == state.number(node)
        {
            let mut next = *state;
            let (id, epoch) = match row.moving {
                Some(pending) if self.config.no_epoch => (pending.id, row.epoch),
                _ => (u64::from(id), u64::from(epoch)),
            };
            let outcome = next.nodes[node].slot.install(me, Some(&row), index, id, epoch);
            next.nodes[node].tenure += u8::from(outcome == Install::Now);
            if next != *state {
                next.installed |= 1 << id;
                next.handover = None;
                out.push(next);
            }
        }
        if let Some(pending) = row.moving.filter(|pending| pending.to == me) {
            let mut next = *state;
            if next.nodes[node].slot.refuse(Some(&row), pending.id) && next != *state {
                next.refused |= 1 << pending.id;
                out.push(next);
            }
        }
    }

    fn renewal(&self, state: &State, node: usize, out: &mut Vec<State>) {
        let one = state.nodes[node];
        let mut next = *state;
        let changed = &mut next.nodes[node];
        match one.renewal {
            Renewal::None => {
                let now = ticks(u64::from(one.clock));
                let gains = one.session.until() < now.saturating_add(self.config.timing().node);
                if gains {
                    changed.session.forget_count();
                    changed.renewal = Renewal::Asked(changed.session.ask(now));
                    out.push(next);
                }
                return;
            }
            Renewal::Asked(_) if state.expiring >> state.number(node) & 1 == 1 => return,
            Renewal::Asked(question) => changed.renewal = Renewal::Confirmed(question, state.committed),
            Renewal::Confirmed(question, index) => {
                changed.renewal = Renewal::Granted(question, index);
                next.last_grant[state.number(node)] = state.time;
            }
            Renewal::Granted(question, index) => {
                let applied = if self.config.no_bind { u64::MAX } else { u64::from(one.applied) };
                let question = if self.config.any_answer { one.session.asked() } else { question };
                changed.session.grant(question, u64::from(index), applied);
                changed.renewal = Renewal::None;
            }
        }
        out.push(next);
        // It takes too long, and is asked again; the question is lost, the answer to the first still comes.
        if matches!(one.renewal, Renewal::Granted(question, _) if question == one.session.asked())
            && self.config.ticks > 2
        {
            let mut next = *state;
            next.nodes[node].session.ask(ticks(u64::from(one.clock)));
            out.push(next);
        }
    }

    /// Whether two nodes can decide at the same time, and how many states it took to know.
    fn run(config: Config) -> (bool, usize) {
        let mut explorer = Self { config, rows: HashMap::default() };
        let hasher = Unhashed::default();
        let first = explorer.first();
        let mut seen: HashSet<u64, Unhashed> = HashSet::default();
        let mut queue = VecDeque::from([first]);
        seen.insert(hasher.hash_one(first));
        let mut out = Vec::new();
        while let Some(state) = queue.pop_front() {
            out.clear();
            explorer.next(&state, &mut out);
            for next in &out {
                if !seen.insert(hasher.hash_one(next)) {
                    continue;
                }
                if explorer.is_broken(next) {
                    return (true, seen.len());
                }
                queue.push_back(*next);
            }
            assert!(seen.len() < MAX_STATES, "too many states to tell");
        }
        (false, seen.len())
    }
}

fn is_full() -> bool {
    std::env::var_os("TIDEGATE_MODEL").is_some_and(|value| value == "full")
}

fn explore(name: &str, config: Config) -> bool {
    let (broken, states) = Explorer::run(config);
    eprintln!("{name}: {states} states, {}", if broken { "two nodes decide" } else { "holds" });
    broken
}

#[test]
fn at_most_one_node_decides() {
    let mut configs = vec![
        ("one entry", SMALL),
        ("a lagging clock", Config { lag: 1, ticks: 1, ..SMALL }),
        ("a new leader", Config { new_leader: true, ticks: 1, ..SMALL }),
        ("two entries", Config { entries: 2, ticks: 1, ..SMALL }),
        ("an expiry on its way", Config { in_flight: true, ..SMALL }),
        ("four entries, at one instant", Config { ticks: 0, entries: 4, ..SMALL }),
        ("a node that starts again", Config { restart: true, ticks: 1, ..SMALL }),
        ("threads that are stopped", Config { checks: true, ticks: 1, ..SMALL }),
        ("threads that are stopped, four entries", Config { checks: true, ticks: 0, entries: 4, ..SMALL }),
    ];
    if is_full() {
        configs.extend([
            ("a lagging clock, longer", Config { lag: 1, ..SMALL }),
            ("a new leader, longer", Config { new_leader: true, ..SMALL }),
            ("three entries", Config { entries: 3, ticks: 1, ..SMALL }),
            ("a node that starts again, longer", Config { restart: true, entries: 2, ..SMALL }),
            (
                "a node that starts again under a new leader",
                Config { restart: true, new_leader: true, ..SMALL },
            ),
            ("threads that are stopped, longer", Config { checks: true, ..SMALL }),
            ("all of it", Config { restart: true, checks: true, new_leader: true, ticks: 1, ..SMALL }),
        ]);
    }
    for (name, config) in configs {
        assert!(!explore(name, config), "{name}");
    }
}

#[test]
fn each_rule_that_is_left_out_is_missed() {
    let two = Config { entries: 2, ..SMALL };
    let instant = Config { ticks: 0, ..SMALL };
    let mutations = [
        ("no wait for the session", Config { no_session_wait: true, ..SMALL }),
        ("a renewal that is not bound to the applied index", Config { no_bind: true, ..SMALL }),
        ("a third node without the wait for the target", Config { no_wait_for_target: true, ..two }),
        ("an abort without the wait for the target", Config { no_wait_to_abort: true, ..two }),
        ("a commit without a move", Config { commit_without_move: true, entries: 3, ..instant }),
        ("a commit that ends any move", Config { commit_any_move: true, entries: 4, ..instant }),
        ("no freeze", Config { no_freeze: true, ..instant }),
        ("a handover of any epoch", Config { no_epoch: true, entries: 3, ..instant }),
        (
            "a new leader that does not wait",
            Config { new_leader: true, new_leader_does_not_wait: true, ..SMALL },
        ),
        ("no margin for clocks", Config { no_margin: true, lag: 1, ..SMALL }),
        ("an answer to any question", Config { any_answer: true, ticks: 3, ..SMALL }),
        ("an expiry while a session is granted", Config { expire_while_granting: true, ..SMALL }),
        ("a start that counts as the one before", Config { restart: true, any_incarnation: true, ..SMALL }),
        (
            "an expiry that a leader forgets which was stopped",
            Config { in_flight: true, stop_forgets_expiry: true, ..SMALL },
        ),
        ("no second look", Config { checks: true, no_second_look: true, ..SMALL }),
    ];
    for (name, config) in mutations {
        assert!(explore(name, config), "{name} is not noticed");
    }
}
