//! Explores what an owner, two possible successors and the log can do to one bucket whose rule has floors, with the code that
//! runs: [`Table::apply`], [`Slot`], [`FloorSender`], [`FloorReceiver`] and [`Reserve`]. The network loses, repeats, delays and reorders;
//! the owner is stopped between looking and charging, and dies at any moment; shares admit what they may while nobody
//! decides. **A reference bucket that sees all that is admitted and starts full never goes below zero**, which is the same as
//! the bound on each interval. Each rule is also left out once, and it must be noticed.
//! `TIDEGATE_MODEL=full cargo test --release -p tidegate-cluster --lib floor_suite` looks further.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use tidegate_limiter::{
    Limit, Nanos,
    cluster::{Mark, Reserve, Rules},
    rules::HashSecret,
};

use super::{
    floors::{Agreement, FloorReceiver, FloorSender, SuccessorRef},
    node::{Effect, Slot},
    table::{Entry, SlotRow, Start, Table},
};
use crate::ids::{Leadership, NodeStart};

const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };
/// A unit refills in one tick.
const TICK: u64 = 100_000_000;
const BURST: u64 = 2;
const START: u64 = 1_800_000_000_000_000_000;
const MAX_STATES: usize = 30_000_000;

/// An entry of the log behind the first, which gives the slot to the node 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Written {
    Name(u8),
    Expire(u8),
    /// Whether the rule has floors from now on; at first it has.
    Floors(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Said {
    Begin,
    Mark(Mark),
    /// Under the rules that have had floors since this entry of the log.
    Complete(u8),
}

/// What was sent once may arrive at any time, and again; so may its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Word {
    to: u8,
    agreement: Agreement,
    said: Said,
    sent: u8,
}

/// What the owner does about its successor, as the replication task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    Begun(Agreement),
    /// It begins only to end it.
    Ending(Agreement),
    Bound(Agreement),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    applied: u8,
    slot: Slot,
    sender: FloorSender,
    tat: u64,
    acknowledged: Mark,
    attempts: u8,
    step: Step,
    /// Counts changes of the binding.
    changes: u8,
    /// Attempts up to this one do not count any more.
    stale: u8,
    /// A charge that has looked: how far it may go, and the count of changes.
    looked: Option<(Mark, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Successor {
    applied: u8,
    slot: Slot,
    receiver: FloorReceiver,
    mark: Mark,
    /// Since when the rules had floors by which it is complete.
    agreed: Option<u8>,
    heard: u8,
    /// What it has, once it decides.
    tat: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    log: Vec<Written>,
    owner: Option<Owner>,
    died: u8,
    shares: u8,
    successors: [Successor; 2],
    sent: BTreeSet<Word>,
    answered: BTreeSet<Word>,
    /// When the reference bucket is full again.
    reference: u64,
    broken: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Config {
    script: &'static [Written],
    ticks: u8,
    attempts: u8,
    full_start: bool,
    lagging: bool,
    any_naming: bool,
    any_successor: bool,
    spend_before_the_answer: bool,
    complete_unbound: bool,
    any_attempt: bool,
    free_too_early: bool,
    no_second_look: bool,
    time_goes_on: bool,
    old_floors: bool,
    /// As if shares admitted nothing of what refills while nobody owns the slot.
    shares_forgotten: bool,
}

struct World {
    limit: Limit,
    reserve: Reserve,
    config: Config,
}

fn start(node: u8) -> NodeStart {
    NodeStart { node: u64::from(node), incarnation: 1 }
}

fn at(tick: u8) -> Nanos {
    Nanos::new(START + u64::from(tick) * TICK)
}

fn raw(now: Nanos) -> u64 {
    now.get() * 4
}

const UNIT: u64 = TICK * 4;

impl World {
    fn new(config: Config) -> Self {
        let on_loss = if config.shares_forgotten { "deny" } else { "share" };
        let text = format!(
            "rules: [{{ name: r, key: [], limit: 1/100ms, burst: {BURST}, takeover: reserve, on_owner_loss: {on_loss} }}]"
        );
        let rules = Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap();
        let rule = &rules.rules("default")[0];
        Self { limit: *rule.limit().unwrap(), reserve: rule.reserve().unwrap(), config }
    }

    fn row(log: &[Written]) -> SlotRow {
        let mut table = Table::default();
        table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(0)]));
        for (index, written) in (2u64..).zip(log) {
            let entry = match *written {
                Written::Name(node) => Entry::Succeed(vec![(Some(start(node)), vec![0])]),
                Written::Expire(to) => Entry::Expire {
                    leadership: LEADERSHIP,
                    lapsed: vec![start(0)],
                    slots: vec![(0, start(to))],
                },
                // A write of rules leaves the table as it is.
                Written::Floors(_) => continue,
            };
            table.apply(index, LEADERSHIP, &entry);
        }
        table.rows()[0]
    }

    /// Since which entry the rule has floors; `None`: it has none.
    fn floors(log: &[Written]) -> Option<u8> {
        let last = log.iter().rposition(|written| matches!(written, Written::Floors(_)));
        let Some(last) = last else { return Some(0) };
        (log[last] == Written::Floors(true)).then_some(last as u8 + 1)
    }

    fn first(&self) -> State {
        let mut slot = Slot::NEW;
        slot.observe(start(0), &Self::row(&[]), None, FloorReceiver::default(), |_| {});
        let owner = Owner {
            applied: 0,
            slot,
            sender: FloorSender::default(),
            tat: 0,
            acknowledged: Mark::default(),
            attempts: 0,
            step: Step::Idle,
            changes: 0,
            stale: 0,
            looked: None,
        };
        let successor = Successor {
            applied: 0,
            slot: Slot::NEW,
            receiver: FloorReceiver::default(),
            mark: Mark::default(),
            agreed: None,
            heard: 0,
            tat: None,
        };
        State {
            now: 0,
            log: Vec::new(),
            owner: Some(owner),
            died: 0,
            shares: 0,
            successors: [successor; 2],
            sent: BTreeSet::new(),
            answered: BTreeSet::new(),
            reference: 0,
            broken: false,
        }
    }

    fn admit(state: &mut State) {
        let now = raw(at(state.now));
        state.reference = state.reference.max(now) + UNIT;
        state.broken |= state.reference > now + BURST * UNIT;
    }

    fn next(&self, state: &State, out: &mut Vec<State>) {
        if state.now < self.config.ticks {
            let mut next = state.clone();
            next.now += 1;
            out.push(next);
        }
        let written = self.config.script.get(state.log.len());
        if let Some(written) = written
            && (state.owner.is_none() || !matches!(written, Written::Expire(_)))
        {
            let mut next = state.clone();
            next.log.push(*written);
            out.push(next);
        }
        if let Some(owner) = state.owner {
            let mut next = state.clone();
            (next.owner, next.died) = (None, state.now);
            out.push(next);
            self.owner(state, owner, out);
        } else if state.successors.iter().all(|one| one.tat.is_none())
            && state.shares < state.now - state.died
        {
            let mut next = state.clone();
            next.shares += 1;
            Self::admit(&mut next);
            out.push(next);
        }
        for node in [1, 2] {
            self.successor(state, node, out);
        }
    }

    fn owner(&self, state: &State, owner: Owner, out: &mut Vec<State>) {
        let now = at(state.now);
        let mut push = |change: &dyn Fn(&mut Owner, &mut State)| {
            let (mut owner, mut next) = (owner, state.clone());
            change(&mut owner, &mut next);
            next.owner = Some(owner);
            if next != *state {
                out.push(next);
            }
        };
        if usize::from(owner.applied) < state.log.len() {
            push(&|owner, next| {
                owner.applied += 1;
                let row = Self::row(&next.log[..usize::from(owner.applied)]);
                owner.slot.observe(start(0), &row, None, FloorReceiver::default(), |_| {});
                if let Written::Floors(_) = next.log[usize::from(owner.applied) - 1] {
                    // All is to be sent anew; what binds, binds. A check is decided by the rules before or by these.
                    (owner.stale, owner.step, owner.changes) =
                        (owner.attempts, Step::Idle, owner.changes + 1);
                    owner.sender.doubt();
                }
                if owner.sender.observe(SuccessorRef::of(start(0), &row)) {
                    owner.changes += 1;
                    (owner.acknowledged, owner.step) = (Mark::default(), Step::Idle);
                }
            });
        }
        // A charge looks, and is made.
        let floors = Self::floors(&state.log[..usize::from(owner.applied)]);
        let is_bound = owner.sender.agreement().is_some() && floors.is_some() && !self.config.lagging;
        let at_most = if is_bound {
            self.reserve.at_most(&self.limit, Some(owner.acknowledged), now)
        } else {
            Mark::new(u64::MAX)
        };
        push(&|owner, _| owner.looked = Some((at_most, owner.changes)));
        if let Some((at_most, changes)) = owner.looked {
            push(&|owner, next| {
                owner.looked = None;
                let wanted = owner.tat.max(raw(now)) + UNIT;
                if wanted <= raw(now) + BURST * UNIT && wanted <= at_most.get() {
                    owner.tat = wanted;
                    if changes == owner.changes || self.config.no_second_look {
                        Self::admit(next);
                    }
                }
            });
        }
        // What it says.
        let Some(floors) = floors else { return };
        let row = Self::row(&state.log[..usize::from(owner.applied)]);
        let Some((successor_ref, to)) = owner.sender.successor_ref().zip(row.successor) else { return };
        let to = to.node.node as u8;
        if owner.attempts < self.config.attempts {
            let agreement =
                Agreement { successor_ref, attempt: u64::from(owner.attempts) + 1, owner: start(0) };
            for step in [Step::Begun(agreement), Step::Ending(agreement)] {
                push(&|owner, next| {
                    owner.attempts += 1;
                    owner.step = step;
                    next.sent.insert(Word { to, agreement, said: Said::Begin, sent: next.now });
                    if self.config.free_too_early && step == Step::Ending(agreement) {
                        owner.sender.bind(agreement);
                        owner.sender.free(agreement);
                        owner.changes += 1;
                    }
                });
            }
        }
        if let Step::Bound(agreement) | Step::Begun(agreement) = owner.step {
            let mark = self.reserve.ahead(&self.limit, Mark::new(owner.tat.max(raw(now))), now);
            if mark > owner.acknowledged {
                push(&|owner, next| {
                    next.sent.insert(Word { to, agreement, said: Said::Mark(mark), sent: next.now });
                    if self.config.spend_before_the_answer {
                        owner.acknowledged = owner.acknowledged.max(mark);
                    }
                });
            }
        }
        let has_told = owner.tat <= self.reserve.at_most(&self.limit, Some(owner.acknowledged), now).get();
        match owner.step {
            Step::Bound(agreement) if has_told => push(&|_, next| {
                next.sent.insert(Word { to, agreement, said: Said::Complete(floors), sent: next.now });
            }),
            Step::Begun(agreement) if self.config.complete_unbound && has_told => push(&|_, next| {
                next.sent.insert(Word { to, agreement, said: Said::Complete(floors), sent: next.now });
            }),
            _ => {}
        }
        for word in &state.answered {
            push(&|owner, _| match (word.said, owner.step) {
                (Said::Begin, Step::Begun(agreement)) if agreement == word.agreement => {
                    let was_bound = owner.sender.agreement().is_some();
                    if owner.sender.bind(agreement) {
                        owner.step = Step::Bound(agreement);
                        owner.changes += u8::from(!was_bound);
                    }
                }
                (Said::Begin, Step::Ending(agreement)) if agreement == word.agreement => {
                    let was_bound = owner.sender.agreement().is_some();
                    if owner.sender.bind(agreement) && owner.sender.free(agreement) {
                        owner.changes += u8::from(was_bound);
                    }
                    (owner.step, owner.acknowledged) = (Step::Idle, Mark::default());
                }
                (Said::Mark(mark), _)
                    if owner.sender.successor_ref() == Some(word.agreement.successor_ref) =>
                {
                    owner.acknowledged = owner.acknowledged.max(mark);
                }
                (Said::Complete(_), _) if word.agreement.attempt > u64::from(owner.stale) => {
                    owner.sender.completed(word.agreement);
                }
                _ => {}
            });
        }
    }

    fn successor(&self, state: &State, node: u8, out: &mut Vec<State>) {
        let (now, place) = (at(state.now), usize::from(node) - 1);
        let one = state.successors[place];
        let mut push = |change: &dyn Fn(&mut Successor, &mut State)| {
            let (mut one, mut next) = (one, state.clone());
            change(&mut one, &mut next);
            next.successors[place] = one;
            if next != *state {
                out.push(next);
            }
        };
        for word in state.sent.iter().filter(|word| word.to == node) {
            push(&|one, next| {
                match word.said {
                    Said::Begin => one.receiver.begin(word.agreement),
                    Said::Mark(mark) => one.mark = one.mark.max(mark),
                    Said::Complete(floors) => {
                        let attempts = if self.config.any_attempt {
                            1..=2
                        } else {
                            word.agreement.attempt..=word.agreement.attempt
                        };
                        if { attempts }
                            .any(|attempt| one.receiver.complete(Agreement { attempt, ..word.agreement }))
                        {
                            one.agreed = Some(floors);
                        }
                    }
                }
                one.heard = one.heard.max(word.sent);
                next.answered.insert(*word);
            });
        }
        if usize::from(one.applied) < state.log.len() {
            push(&|one, next| {
                one.applied += 1;
                let mut row = Self::row(&next.log[..usize::from(one.applied)]);
                let said = next
                    .sent
                    .iter()
                    .filter(|word| word.to == node)
                    .map(|word| word.agreement.successor_ref.named);
                match &mut row.start {
                    // As if the one by which it has received floors were the one that counts.
                    Start::Drained { named: Some(named), .. } if self.config.any_naming => {
                        *named = said.min().unwrap_or(*named);
                    }
                    Start::Drained { named, .. } if self.config.any_successor => *named = said.max(),
                    _ => {}
                }
                let mut begun = None;
                one.slot.observe(start(node), &row, None, one.receiver, |effect| begun = Some(effect));
                let floors = Self::floors(&next.log[..usize::from(one.applied)]);
                if begun.is_some_and(|effect| matches!(effect, Effect::BeginReserved(_)))
                    && (floors.is_none() || one.agreed != floors && !self.config.old_floors)
                {
                    begun = Some(Effect::BeginDrained);
                }
                let unheard = Duration::from_nanos(TICK * u64::from(next.now - one.heard));
                one.tat = match begun {
                    Some(Effect::BeginReserved(_)) if self.config.full_start => Some(0),
                    Some(Effect::BeginReserved(_)) => {
                        let known = self.reserve.at_least(&self.limit, at(one.heard), now).unwrap();
                        let stands = if self.config.time_goes_on {
                            0
                        } else {
                            raw(Nanos::new(unheard.as_nanos() as u64))
                        };
                        // As the store of floors gives them: without those that are over by now.
                        let mark = if one.mark.is_over(now) { 0 } else { one.mark.get() + stands };
                        Some(mark.max(known.get()))
                    }
                    Some(_) => Some(raw(now) + BURST * UNIT),
                    None => one.tat,
                };
            });
        }
        if let Some(tat) = one.tat {
            let wanted = tat.max(raw(now)) + UNIT;
            if wanted <= raw(now) + BURST * UNIT {
                push(&|one, next| {
                    one.tat = Some(wanted);
                    Self::admit(next);
                });
            }
        }
    }

    /// Whether the reference bucket can go below zero, and how many states it took to know.
    fn run(config: Config) -> (bool, usize) {
        let world = Self::new(config);
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let first = world.first();
        let mut seen: HashSet<u64, BuildHasherDefault<DefaultHasher>> = HashSet::default();
        seen.insert(hasher.hash_one(&first));
        let mut queue = VecDeque::from([first]);
        let mut out = Vec::new();
        while let Some(state) = queue.pop_front() {
            out.clear();
            world.next(&state, &mut out);
            for next in out.drain(..) {
                if !seen.insert(hasher.hash_one(&next)) {
                    continue;
                }
                if next.broken {
                    return (true, seen.len());
                }
                queue.push_back(next);
            }
            assert!(seen.len() < MAX_STATES, "too many states to tell");
        }
        (false, seen.len())
    }
}

fn explore(name: &str, config: Config) -> bool {
    let (broken, states) = World::run(config);
    eprintln!("{name}: {states} states, {}", if broken { "too much is admitted" } else { "holds" });
    broken
}

const CRASH: &[Written] = &[Written::Name(1), Written::Expire(1)];
const OTHER: &[Written] = &[Written::Name(1), Written::Name(2), Written::Expire(1)];
const FLOORS: &[Written] =
    &[Written::Name(1), Written::Floors(false), Written::Floors(true), Written::Expire(1)];
const AGAIN: &[Written] = &[Written::Name(1), Written::Name(2), Written::Name(1), Written::Expire(1)];

#[test]
fn who_begins_from_floors_admits_nothing_twice() {
    let mut configs = vec![
        ("a crash", Config { script: CRASH, ticks: 1, attempts: 1, ..Config::default() }),
        ("two attempts", Config { script: CRASH, ticks: 0, attempts: 2, ..Config::default() }),
        ("another successor", Config { script: OTHER, ticks: 0, attempts: 1, ..Config::default() }),
        ("no floors for a while", Config { script: FLOORS, ticks: 0, attempts: 1, ..Config::default() }),
    ];
    if std::env::var_os("TIDEGATE_MODEL").is_some_and(|value| value == "full") {
        configs.extend([
            ("a crash, longer", Config { script: CRASH, ticks: 2, attempts: 1, ..Config::default() }),
            ("two attempts, longer", Config { script: CRASH, ticks: 1, attempts: 2, ..Config::default() }),
            ("no floors for a while, longer", Config { script: FLOORS, attempts: 2, ..Config::default() }),
            ("named again", Config { script: AGAIN, ticks: 0, attempts: 2, ..Config::default() }),
        ]);
    }
    for (name, config) in configs {
        assert!(!explore(name, config), "{name}");
    }
}

#[test]
fn each_rule_of_floors_that_is_left_out_is_missed() {
    let crash = Config { script: CRASH, ticks: 0, attempts: 1, ..Config::default() };
    let twice = Config { attempts: 2, ..crash };
    let mutations = [
        ("a full start", Config { full_start: true, ..crash }),
        ("floors that lag behind", Config { lagging: true, ..crash }),
        ("spending before the answer", Config { spend_before_the_answer: true, ..crash }),
        ("all is told by an owner that is not bound", Config { complete_unbound: true, ..crash }),
        ("a charge that does not look again", Config { no_second_look: true, ..crash }),
        ("a word of an attempt that is over", Config { any_attempt: true, ..twice }),
        ("an owner that frees itself", Config { free_too_early: true, ..twice }),
        ("a successor that is none any more", Config { any_successor: true, script: OTHER, ..crash }),
        ("a successor that was another's before", Config { any_naming: true, script: AGAIN, ..crash }),
        ("floors of before a time without any", Config { old_floors: true, script: FLOORS, ..crash }),
        ("time that goes on while nobody is heard", Config { time_goes_on: true, ticks: 2, ..crash }),
        ("what shares admit meanwhile", Config { shares_forgotten: true, ticks: 2, ..crash }),
    ];
    for (name, config) in mutations {
        assert!(explore(name, config), "{name} is not noticed");
    }
}
