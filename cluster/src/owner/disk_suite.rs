//! Explores what one node, its disk, and the log can do to one bucket whose rule has floors, with the code that runs:
//! [`Table::apply`], [`Slot`], [`goes_on`], [`FloorSender`] and [`Reserve`]. The process dies at any moment, also while it starts
//! and while something is being written, which then is on the disk or not; the disk fails, and then its file goes; rules are
//! without floors for a while, and those in force lag behind the log; a version of the program that keeps none runs in between.
//! **A reference bucket that sees all that is admitted and starts full never goes below zero.** Each rule is also left out once, and it
//! must be noticed.
//! `TIDEGATE_MODEL=full cargo test --release -p tidegate-cluster --lib disk_suite` looks further.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use tidegate_limiter::{
    Limit, Nanos,
    cluster::{Mark, Reserve, Rules},
    rules::HashSecret,
};

use super::{
    floors::{Agreement, FloorReceiver, FloorSender, SuccessorRef},
    kept::goes_on,
    node::{Effect, Slot},
    table::{Entry, SlotRow, Table},
};
use crate::ids::{Leadership, NodeStart};

const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };
/// A unit refills in one tick.
const TICK: u64 = 100_000_000;
const BURST: u64 = 2;
const BEGIN: u64 = 1_800_000_000_000_000_000;
const UNIT: u64 = TICK * 4;
const MAX_STATES: usize = 30_000_000;

/// An entry of the log behind the first, which gives the slot to the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Written {
    /// From one start to another one.
    Expire(u8, u8),
    /// Whether the rule has floors from now on; at first it has.
    Floors(bool),
}

/// What is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
    start: u8,
    epoch: u64,
    /// Since when the rules had floors by which it is complete.
    complete: Option<u8>,
    mark: Mark,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Disk {
    record: Option<Record>,
    readers: Vec<u8>,
}

/// One commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Write {
    Adopt(Option<(u8, u64)>),
    /// `forgets`: nothing that is there counts.
    Begin {
        agreement: Agreement,
        forgets: bool,
    },
    Mark(Mark),
    Complete {
        agreement: Agreement,
        since: u8,
    },
    /// Nothing is said of the slot any more: it is to begin without.
    Drop,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    /// It begins only to end it.
    Begun(Agreement, bool),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    start: u8,
    /// A version that knows no floors on a disk.
    is_old: bool,
    applied: u8,
    /// Up to where the rules of the log are in force.
    in_force: u8,
    /// The slot is to begin, and what the disk has of it does not count.
    is_refused: bool,
    slot: Slot,
    kept: Option<Record>,
    readers: Vec<u8>,
    is_adopted: bool,
    sender: FloorSender,
    inherited: Option<Agreement>,
    step: Step,
    attempts: u64,
    stale: u64,
    tat: u64,
    acknowledged: Mark,
    changes: u8,
    looked: Option<(Mark, u8)>,
    /// What is being written, and whether it is on the disk.
    writing: Option<(Write, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    log: Vec<Written>,
    /// Of the script.
    floors_written: u8,
    disk: Disk,
    process: Option<Process>,
    starts: u8,
    failed: u8,
    reference: u64,
    is_broken: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Config {
    ticks: u8,
    starts: u8,
    attempts: u64,
    /// How many times the rules change whether they have floors.
    floors: u8,
    old_version: bool,
    /// The rules in force lag behind the log, as far as to its beginning in a process that starts.
    lags: bool,
    /// How many times the disk fails.
    fails: u8,
    full_start: bool,
    lagging: bool,
    spend_before_the_answer: bool,
    complete_unbound: bool,
    no_second_look: bool,
    free_too_early: bool,
    old_floors: bool,
    unbound_heir: bool,
    any_reader: bool,
    kept_marks_forgotten: bool,
    begin_refused: bool,
}

struct World {
    limit: Limit,
    reserve: Reserve,
    config: Config,
}

fn start(number: u8) -> NodeStart {
    NodeStart { node: 1, incarnation: u64::from(number) }
}

fn raw(tick: u8) -> u64 {
    at(tick).get() * 4
}

fn at(tick: u8) -> Nanos {
    Nanos::new(BEGIN + u64::from(tick) * TICK)
}

fn row(log: &[Written]) -> SlotRow {
    let mut table = Table::default();
    table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1)]));
    for (index, written) in (2u64..).zip(log) {
        if let Written::Expire(from, to) = written {
            let (lapsed, slots) = (vec![start(*from)], vec![(0, start(*to))]);
            table.apply(index, LEADERSHIP, &Entry::Expire { leadership: LEADERSHIP, lapsed, slots });
        }
    }
    table.rows()[0]
}

/// Since which entry the rule has floors; `None`: it has none.
fn floors(log: &[Written]) -> Option<u8> {
    let last = log.iter().rposition(|written| matches!(written, Written::Floors(_)));
    let Some(last) = last else { return Some(0) };
    (log[last] == Written::Floors(true)).then_some(last as u8 + 1)
}

impl World {
    fn new(config: Config) -> Self {
        let text = format!(
            "rules: [{{ name: r, key: [], limit: 1/100ms, burst: {BURST}, takeover: reserve, on_owner_loss: deny }}]"
        );
        let rules = Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap();
        let rule = &rules.rules("default")[0];
        Self { limit: *rule.limit().unwrap(), reserve: rule.reserve().unwrap(), config }
    }

    fn admit(state: &mut State) {
        let now = raw(state.now);
        state.reference = state.reference.max(now) + UNIT;
        state.is_broken |= state.reference > now + BURST * UNIT;
    }

    fn next(&self, state: &State, out: &mut Vec<State>) {
        if state.now < self.config.ticks {
            out.push(State { now: state.now + 1, ..state.clone() });
        }
        if state.floors_written < self.config.floors {
            let mut next = state.clone();
            next.floors_written += 1;
            next.log.push(Written::Floors(next.floors_written.is_multiple_of(2)));
            out.push(next);
        }
        let Some(process) = &state.process else {
            if state.starts < self.config.starts {
                out.push(self.begin(state, false));
                if self.config.old_version {
                    out.push(self.begin(state, true));
                }
            }
            return;
        };
        out.push(State { process: None, ..state.clone() });
        let owner = row(&state.log).owner;
        if owner != start(process.start) && process.is_adopted {
            let mut next = state.clone();
            next.log.push(Written::Expire(owner.incarnation as u8, process.start));
            out.push(next);
        }
        self.step(state, process, out);
    }

    /// A process starts: it reads the disk, and the disk that it has.
    fn begin(&self, state: &State, is_old: bool) -> State {
        let mut next = state.clone();
        next.starts += 1;
        let number = next.starts;
        let (kept, readers) =
            if is_old { (None, Vec::new()) } else { (next.disk.record, next.disk.readers.clone()) };
        if !is_old {
            next.disk.readers.push(number);
        }
        next.process = Some(Process {
            start: number,
            is_old,
            applied: 0,
            in_force: 0,
            is_refused: false,
            slot: Slot::NEW,
            is_adopted: is_old || kept.is_none(),
            kept: kept.filter(|record| record.complete.is_some()),
            readers,
            sender: FloorSender::default(),
            inherited: None,
            step: Step::Idle,
            attempts: 0,
            stale: 0,
            tat: 0,
            acknowledged: Mark::default(),
            changes: 0,
            looked: None,
            writing: None,
        });
        // What an earlier start has applied was committed, so this one applies it before it decides; without a log there is
        // the first entry.
        self.apply(&mut next);
        next
    }

    /// Whether what the disk has of the slot counts by the rules in force, where the process has applied so much of the log.
    fn counts(&self, process: &Process, log: &[Written], applied: u8) -> bool {
        let since = floors(&log[..usize::from(process.in_force)]);
        let are_in_force = since.is_some() && since == floors(&log[..usize::from(applied)]);
        let is_dropped = matches!(process.writing, Some((Write::Drop, _)));
        let counts = |kept: &Record| are_in_force && (kept.complete == since || self.config.old_floors);
        !is_dropped && process.kept.as_ref().is_some_and(counts)
    }

    /// Whether the slot would begin by these entries, and has to wait for the disk first.
    fn has_to_wait(&self, process: &Process, log: &[Written], applied: u8) -> bool {
        let row = row(&log[..usize::from(applied)]);
        let begins = |kept: Record| {
            process.slot.begins_kept(start(process.start), &row, (start(kept.start), kept.epoch))
        };
        process.kept.is_some_and(begins) && !self.counts(process, log, applied) && !self.config.begin_refused
    }

    /// The process takes in what it has applied of the log.
    fn apply(&self, next: &mut State) {
        let (log, now) = (next.log.clone(), next.now);
        let Some(process) = &mut next.process else { return };
        let me = start(process.start);
        let row = row(&log[..usize::from(process.applied)]);
        if let Some(kept) = &mut process.kept {
            let readers: Vec<NodeStart> = process.readers.iter().map(|one| start(*one)).collect();
            let all: Vec<NodeStart> = (1..process.start).map(start).collect();
            let readers = if self.config.any_reader { &all } else { &readers };
            if row.owner != me && goes_on(&row, (start(kept.start), kept.epoch), readers) {
                (kept.start, kept.epoch) = (row.owner.incarnation as u8, row.epoch);
            }
        }
        let disk =
            (row.owner == me && !process.is_old).then_some(SuccessorRef { epoch: row.epoch, named: 0 });
        if process.sender.observe(disk) {
            (process.acknowledged, process.step, process.inherited) = (Mark::default(), Step::Idle, None);
            process.changes += 1;
        }
        let kept = process.kept.map(|kept| (start(kept.start), kept.epoch));
        let mut begun = None;
        process.slot.observe(me, &row, kept, FloorReceiver::default(), |effect| begun = Some(effect));
        match begun {
            Some(Effect::BeginFull) => process.tat = 0,
            Some(Effect::BeginKept) if self.counts(process, &log, process.applied) => {
                let kept = process.kept.expect("it is kept");
                let known = self.reserve.at_least(&self.limit, at(now), at(now)).unwrap();
                process.tat = if self.config.full_start { 0 } else { kept.mark.max(known).get() };
                process.acknowledged =
                    if self.config.kept_marks_forgotten { Mark::new(u64::MAX) } else { kept.mark };
                process.attempts += 1;
                if let Some(successor_ref) =
                    process.sender.successor_ref().filter(|_| !self.config.unbound_heir)
                {
                    let agreement = Agreement { successor_ref, attempt: process.attempts, owner: me };
                    assert!(process.sender.bind(agreement));
                    process.inherited = Some(agreement);
                    process.changes += 1;
                }
            }
            Some(Effect::BeginDrained | Effect::BeginKept) => process.tat = raw(now) + BURST * UNIT,
            _ => {}
        }
    }

    fn step(&self, state: &State, process: &Process, out: &mut Vec<State>) {
        let mut push = |change: &dyn Fn(&mut Process, &mut State)| {
            let (mut process, mut next) = (process.clone(), state.clone());
            change(&mut process, &mut next);
            next.process = Some(process);
            if next != *state {
                out.push(next);
            }
        };
        let (all, lags) = (state.log.len() as u8, self.config.lags);
        let last = if lags { all } else { all.min(process.applied + 1) };
        for applied in process.applied + 1..=last {
            push(&|process, next| {
                if !lags {
                    Self::put_in_force(process, &next.log, applied);
                }
                process.is_refused = self.has_to_wait(process, &next.log, applied);
                if process.is_refused {
                    return;
                }
                process.applied = applied;
                let mut whole = State { process: Some(process.clone()), ..next.clone() };
                self.apply(&mut whole);
                *process = whole.process.expect("it runs");
            });
        }
        if lags && process.in_force < all {
            push(&|process, next| Self::put_in_force(process, &next.log, all));
        }
        if process.slot.role().decides() {
            self.charge(state, process, &mut push);
        }
        if !process.is_old {
            self.write(state, process, &mut push);
        }
    }

    fn put_in_force(process: &mut Process, log: &[Written], index: u8) {
        let new = &log[usize::from(process.in_force)..usize::from(index.max(process.in_force))];
        if new.iter().any(|written| matches!(written, Written::Floors(_))) {
            (process.stale, process.step) = (process.attempts, Step::Idle);
            process.changes += 1;
            process.sender.doubt();
        }
        process.in_force = index.max(process.in_force);
    }

    fn charge(
        &self,
        state: &State,
        process: &Process,
        push: &mut impl FnMut(&dyn Fn(&mut Process, &mut State)),
    ) {
        let has_floors = floors(&state.log[..usize::from(process.in_force)]).is_some();
        let is_bound = process.sender.agreement().is_some() && has_floors && !self.config.lagging;
        let at_most = if is_bound {
            self.reserve.at_most(&self.limit, Some(process.acknowledged), at(state.now))
        } else {
            Mark::new(u64::MAX)
        };
        push(&|process, _| process.looked = Some((at_most, process.changes)));
        if let Some((at_most, changes)) = process.looked {
            push(&|process, next| {
                process.looked = None;
                let now = raw(next.now);
                let wanted = process.tat.max(now) + UNIT;
                if wanted <= now + BURST * UNIT && wanted <= at_most.get() {
                    process.tat = wanted;
                    if changes == process.changes || self.config.no_second_look {
                        Self::admit(next);
                    }
                }
            });
        }
    }

    fn write(
        &self,
        state: &State,
        process: &Process,
        push: &mut impl FnMut(&dyn Fn(&mut Process, &mut State)),
    ) {
        let me = start(process.start);
        if let Some((write, is_durable)) = process.writing {
            if is_durable {
                push(&|process, _| {
                    process.writing = None;
                    self.acknowledge(process, write);
                });
            } else {
                push(&|process, next| {
                    process.writing = Some((write, true));
                    Self::keep(next, write, process.start);
                });
                // Nobody knows whether it is there, and the file goes.
                if state.failed >= self.config.fails || write == Write::Remove {
                    return;
                }
                push(&|process, next| {
                    next.failed += 1;
                    process.writing = Some((Write::Remove, false));
                });
                push(&|process, next| {
                    next.failed += 1;
                    Self::keep(next, write, process.start);
                    process.writing = Some((Write::Remove, false));
                });
            }
            return;
        }
        let mut begin = |write: Write| push(&|process, _| process.writing = Some((write, false)));
        if !process.is_adopted {
            let renamed = process.kept.map(|kept| (kept.start, kept.epoch));
            if usize::from(process.applied) == state.log.len() {
                begin(Write::Adopt(renamed));
            }
            return;
        }
        if process.is_refused {
            begin(Write::Drop);
            return;
        }
        let has_told =
            process.tat <= self.reserve.at_most(&self.limit, Some(process.acknowledged), at(state.now)).get();
        let mark = self.reserve.ahead(&self.limit, Mark::new(process.tat.max(raw(state.now))), at(state.now));
        if process.sender.successor_ref().is_some() && mark > process.acknowledged {
            begin(Write::Mark(mark));
            if self.config.spend_before_the_answer {
                push(&|process, _| process.acknowledged = process.acknowledged.max(mark));
            }
        }
        let mut begin = |write: Write| push(&|process, _| process.writing = Some((write, false)));
        let Some(since) = floors(&state.log[..usize::from(process.in_force)]) else { return };
        let holds = |agreement: &Agreement| {
            agreement.attempt > process.stale && process.sender.agreement() == Some(*agreement)
        };
        if let Some(agreement) = process.inherited.filter(|one| holds(one)) {
            if has_told && !process.sender.is_complete() {
                begin(Write::Complete { agreement, since });
            }
            return;
        }
        match process.step {
            Step::Begun(agreement, false)
                if has_told && holds(&agreement) && !process.sender.is_complete() =>
            {
                begin(Write::Complete { agreement, since });
            }
            Step::Begun(agreement, false) if self.config.complete_unbound && has_told => {
                begin(Write::Complete { agreement, since });
            }
            _ => {}
        }
        if let Some(successor_ref) = process.sender.successor_ref()
            && process.attempts < self.config.attempts
        {
            let agreement = Agreement { successor_ref, attempt: process.attempts + 1, owner: me };
            for ends in [false, true] {
                push(&|process, _| {
                    process.attempts += 1;
                    process.step = Step::Begun(agreement, ends);
                    let forgets = process.sender.agreement().is_none();
                    if forgets {
                        process.acknowledged = Mark::default();
                    }
                    process.writing = Some((Write::Begin { agreement, forgets }, false));
                    if ends && self.config.free_too_early {
                        process.sender.bind(agreement);
                        process.sender.free(agreement);
                        process.changes += 1;
                    }
                });
            }
        }
    }

    /// It is on the disk.
    fn keep(next: &mut State, write: Write, number: u8) {
        let record = &mut next.disk.record;
        match write {
            Write::Adopt(renamed) => {
                if let Some((known, (start, epoch))) = record.as_mut().zip(renamed) {
                    (known.start, known.epoch) = (start, epoch);
                }
                next.disk.readers = vec![number];
            }
            Write::Begin { agreement, forgets } => {
                let mark = record.filter(|_| !forgets).map_or_else(Mark::default, |known| known.mark);
                let epoch = agreement.successor_ref.epoch;
                *record = Some(Record { start: number, epoch, complete: None, mark });
            }
            Write::Mark(mark) => {
                if let Some(known) = record {
                    known.mark = known.mark.max(mark);
                }
            }
            Write::Complete { agreement, since } => {
                let mark = record.map_or_else(Mark::default, |known| known.mark);
                let epoch = agreement.successor_ref.epoch;
                *record = Some(Record { start: number, epoch, complete: Some(since), mark });
            }
            Write::Drop => *record = None,
            Write::Remove => next.disk = Disk { record: None, readers: vec![number] },
        }
    }

    fn acknowledge(&self, process: &mut Process, write: Write) {
        match write {
            Write::Adopt(_) => process.is_adopted = true,
            Write::Begin { agreement, .. } => {
                let was_bound = process.sender.agreement().is_some();
                let binds = agreement.attempt > process.stale
                    && !self.config.complete_unbound
                    && process.sender.bind(agreement);
                process.changes += u8::from(binds && !was_bound);
                if process.step == Step::Begun(agreement, true) {
                    if process.sender.free(agreement) {
                        process.changes += 1;
                        process.acknowledged = Mark::default();
                    }
                    process.step = Step::Idle;
                }
            }
            Write::Mark(mark) => process.acknowledged = process.acknowledged.max(mark),
            Write::Complete { agreement, .. } => {
                if agreement.attempt > process.stale {
                    process.sender.completed(agreement);
                    process.inherited = None;
                }
            }
            Write::Drop => (process.kept, process.is_refused) = (None, false),
            Write::Remove => {
                process.is_refused = false;
                process.sender.doubt();
                if let Some(agreement) = process.sender.agreement() {
                    process.sender.free(agreement);
                }
                (process.stale, process.step, process.inherited) = (process.attempts, Step::Idle, None);
                (process.acknowledged, process.is_adopted, process.kept) = (Mark::default(), true, None);
                process.changes += 1;
            }
        }
    }

    /// Whether the reference bucket can go below zero, and how many states it took to know.
    fn run(config: Config) -> (bool, usize) {
        let world = Self::new(config);
        let empty = State {
            now: 0,
            log: Vec::new(),
            floors_written: 0,
            disk: Disk::default(),
            process: None,
            starts: 0,
            failed: 0,
            reference: 0,
            is_broken: false,
        };
        let first = world.begin(&empty, false);
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
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
                if next.is_broken {
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
    let (is_broken, states) = World::run(config);
    eprintln!("{name}: {states} states, {}", if is_broken { "too much is admitted" } else { "holds" });
    is_broken
}

#[test]
fn a_node_that_begins_from_its_disk_admits_nothing_twice() {
    let crash = Config { starts: 2, attempts: 1, ..Config::default() };
    let mut configs = vec![
        ("a crash", Config { ticks: 1, ..crash }),
        ("two attempts", Config { attempts: 2, ..crash }),
        ("crash after crash", Config { starts: 3, ..crash }),
        ("crash after crash, longer", Config { starts: 4, ticks: 1, ..crash }),
        ("two attempts, longer", Config { starts: 3, attempts: 2, ticks: 1, ..crash }),
        ("no floors for a while", Config { floors: 2, ..crash }),
        ("another version in between", Config { starts: 3, old_version: true, ..crash }),
        ("a disk that fails", Config { fails: 1, ..crash }),
        ("rules that lag behind", Config { floors: 2, lags: true, ..crash }),
    ];
    if std::env::var_os("TIDEGATE_MODEL").is_some_and(|value| value == "full") {
        configs.extend([
            (
                "another version in between, longer",
                Config { starts: 4, ticks: 2, old_version: true, ..crash },
            ),
            ("a disk that fails, longer", Config { starts: 3, fails: 2, attempts: 2, ..crash }),
            ("no floors for a while, longer", Config { starts: 3, floors: 2, attempts: 2, ..crash }),
            ("rules that lag behind, longer", Config { starts: 3, floors: 2, lags: true, ticks: 1, ..crash }),
        ]);
    }
    for (name, config) in configs {
        assert!(!explore(name, config), "{name}");
    }
}

#[test]
fn each_rule_of_floors_on_a_disk_that_is_left_out_is_missed() {
    let crash = Config { starts: 2, attempts: 1, ..Config::default() };
    let again = Config { starts: 3, ..crash };
    let mutations = [
        ("a full start", Config { full_start: true, ..crash }),
        ("floors that lag behind", Config { lagging: true, ..crash }),
        ("spending before the answer", Config { spend_before_the_answer: true, ..crash }),
        ("all is there of an owner that is not bound", Config { complete_unbound: true, ..crash }),
        ("a charge that does not look again", Config { no_second_look: true, ..crash }),
        ("an owner that frees itself", Config { free_too_early: true, attempts: 2, ..crash }),
        ("floors of before a time without any", Config { old_floors: true, floors: 2, ..crash }),
        ("an heir that is not bound", Config { unbound_heir: true, ..again }),
        ("an heir that may spend more than the disk has", Config { kept_marks_forgotten: true, ..again }),
        (
            "a version that keeps no floors, and counts",
            Config { any_reader: true, old_version: true, ticks: 2, ..again },
        ),
        (
            "a slot that begins without its floors while the disk has them",
            Config { begin_refused: true, floors: 2, lags: true, ticks: 1, ..again },
        ),
    ];
    for (name, config) in mutations {
        assert!(explore(name, config), "{name} is not noticed");
    }
}
