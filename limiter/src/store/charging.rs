//! Charging buckets, with their shards locked.

use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::{
    Shard, Store,
    holds::Keys,
    journal::{Deed, Journal, Undo},
    table,
};
use crate::{
    Algorithm, Charge, Cost, Decision, KeyHash, Limit, Mode, Nanos,
    algorithm::{self, gcra, log::Log, sliding},
};

/// One bucket, with its shard locked.
pub(super) struct Locked<'s> {
    store: &'s Store,
    number: usize,
    key: u64,
    shard: Shard<'s>,
}

/// What one charge of a check would do.
struct Planned {
    /// The state before, with what the same check did to the bucket before.
    before: u64,
    /// `None`: nothing.
    after: Option<u64>,
    now: u64,
}

impl<'s> Locked<'s> {
    pub(super) fn new(store: &'s Store, number: usize, key: KeyHash) -> Self {
        Self { store, number, key: key.get(), shard: store.lock_number(number) }
    }

    /// Decides, and charges if it allows. True if something was charged.
    pub(super) fn charge(&mut self, charge: &Charge, now: u64, hold: Option<u64>) -> (Decision, bool) {
        let floor = charge.floor.map(Nanos::ticks);
        if charge.limit.algorithm() == Algorithm::SlidingLog {
            let decision = self.decide_log(charge, 0, now);
            let taken = decision.allowed && charge.cost != Cost::PEEK;
            if taken {
                self.push_log(&charge.limit, charge.cost, now, hold);
            }
            return (decision, taken);
        }
        let before = self.state(&charge.limit, now);
        let step = algorithm::decide(&charge.limit, before, floor, charge.cost, now);
        let taken = step.decision.allowed && charge.cost != Cost::PEEK;
        if taken {
            self.write(charge, Planned { before, after: Some(step.state), now }, hold);
        }
        (step.decision, taken)
    }

    /// The bucket's state in the table; in the sketch; or that of one never seen.
    fn state(&self, limit: &Limit, now: u64) -> u64 {
        state_in(self.store, self.number, &self.shard, self.key, limit, now)
    }

    pub(super) fn state_mut(&mut self) -> Option<&mut u64> {
        table::get_mut(&mut self.shard, self.key)
    }

    fn write(&mut self, charge: &Charge, planned: Planned, hold: Option<u64>) {
        write_in(self.store, self.number, &mut self.shard, charge, planned, hold);
    }

    fn decide_log(&mut self, charge: &Charge, pending: u64, now: u64) -> Decision {
        decide_log_in(self.store, self.number, charge, pending, now)
    }

    fn push_log(&mut self, limit: &Limit, cost: Cost, now: u64, hold: Option<u64>) {
        push_log_in(self.store, self.number, self.key, limit, cost, now, hold);
    }

    pub(super) fn refund_log(&mut self, cost: Cost) {
        let mut rare = self.store.beside[self.number].rare();
        if let Some(log) = rare.logs.get_mut(&self.key) {
            log.refund(cost);
        }
    }

    pub(super) fn remove_log(&mut self) {
        let log = self.store.beside[self.number].rare().logs.remove(&self.key);
        self.store.log_bytes.fetch_sub(log.as_ref().map_or(0, bytes_of), Relaxed);
    }

    fn has_journals(&self) -> bool {
        self.store.marks[self.number].journals()
    }

    /// Nothing that was charged before can be undone any more.
    pub(super) fn forget_journal(&mut self) {
        if self.has_journals() {
            let beside = &self.store.beside[self.number];
            let mut rare = beside.rare();
            rare.journals.remove(&self.key);
            self.store.marks[self.number].set_journals(!rare.journals.is_empty());
        }
    }

    pub(super) fn close(&mut self, hold: u64) {
        let beside = &self.store.beside[self.number];
        let mut rare = beside.rare();
        if let Some(journal) = rare.journals.get_mut(&self.key) {
            journal.close(hold);
            if journal.is_empty() {
                rare.journals.remove(&self.key);
                self.store.marks[self.number].set_journals(!rare.journals.is_empty());
            }
        }
    }

    pub(super) fn undo(&mut self, hold: u64, now: u64) {
        let beside = &self.store.beside[self.number];
        let mut rare = beside.rare();
        let rare = &mut *rare;
        let Some(journal) = rare.journals.get_mut(&self.key) else { return };
        while let Some(undo) = journal.undo(hold) {
            match undo {
                Undo::State(without) => {
                    // Where the bucket has been removed meanwhile, it knew of nothing with the charge.
                    if let Some(state) = table::get_mut(&mut self.shard, self.key) {
                        *state = without.min(*state);
                    }
                }
                Undo::Count { limit, at, cost } if limit.algorithm() == Algorithm::SlidingLog => {
                    // A log that was forgotten as a whole may have been followed by a new one.
                    let counts = at.saturating_add(limit.memory()) > now;
                    if let (true, Some(log)) = (counts, rare.logs.get_mut(&self.key)) {
                        log.undo(cost, at);
                    }
                }
                Undo::Count { limit, at, cost } => {
                    if let Some(state) = table::get_mut(&mut self.shard, self.key) {
                        *state = sliding::undo(&limit, *state, cost, at, now);
                    }
                }
            }
        }
        if journal.is_empty() {
            rare.journals.remove(&self.key);
            self.store.marks[self.number].set_journals(!rare.journals.is_empty());
        }
    }
}

impl Store {
    /// The usual case: one bucket, which is there, and nothing that could be undone. Then the shard's lock is only read,
    /// so that threads that need the same bucket do not put each other to sleep. `None` if it is another case.
    #[inline]
    pub(super) fn charge_shared(&self, charge: &Charge, now: Nanos) -> Option<Decision> {
        if charge.limit.algorithm() == Algorithm::SlidingLog {
            return None;
        }
        let number = self.shard_of(charge.key);
        let shard = self.tables.shards()[number].read();
        // Both are only changed with the lock held for writing.
        if self.marks[number].journals() {
            return None;
        }
        let state = table::get(&shard, charge.key.get())?;
        let (now, floor) = (self.not_before(now), charge.floor.map(Nanos::ticks));
        let mut known = state.load(Relaxed);
        if charge.limit.algorithm().has_burst() {
            // As below, but what takes longer is done when others can go on.
            let raise = gcra::raise(&charge.limit, floor, charge.cost, now);
            let verdict = loop {
                let verdict = gcra::Verdict::of(&charge.limit, known, raise, charge.cost, now);
                let next = verdict.state(known);
                if next == known {
                    break verdict;
                }
                match state.compare_exchange_weak(known, next, Relaxed, Relaxed) {
                    Ok(_) => break verdict,
                    Err(changed) => known = changed,
                }
            };
            drop(shard);
            return Some(verdict.explain(&charge.limit, now));
        }
        loop {
            let step = algorithm::decide(&charge.limit, known, floor, charge.cost, now);
            if step.state == known {
                return Some(step.decision);
            }
            // Nothing else is told by this number, so it needs no order with anything.
            match state.compare_exchange_weak(known, step.state, Relaxed, Relaxed) {
                Ok(_) => return Some(step.decision),
                Err(changed) => known = changed,
            }
        }
    }

    /// Charges all buckets or none, with all their shards locked. Returns which were charged.
    pub(super) fn charge_all(
        &self,
        charges: &[Charge],
        now: Nanos,
        hold: Option<u64>,
        decisions: &mut SmallVec<[Decision; 4]>,
    ) -> Option<Keys> {
        let mut numbers: SmallVec<[usize; 4]> = charges.iter().map(|one| self.shard_of(one.key)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        // Always in this order: two checks that need the same shards can not wait for each other.
        let mut shards: SmallVec<[(usize, Shard<'_>); 4]> =
            numbers.into_iter().map(|number| (number, self.lock_number(number))).collect();
        let now = self.not_before(now);

        let first = decisions.len();
        let mut plan: SmallVec<[Planned; 4]> = SmallVec::new();
        let mut allowed = true;
        for (place, charge) in charges.iter().enumerate() {
            let number = self.shard_of(charge.key);
            // The same bucket may be charged twice by one check.
            let earlier = |plan: &[Planned]| {
                let mut same = charges[..place].iter().zip(plan).rev();
                same.find(|(one, planned)| one.key == charge.key && planned.after.is_some())
                    .and_then(|(_, planned)| planned.after)
            };
            let (decision, before, after) = if charge.limit.algorithm() == Algorithm::SlidingLog {
                // Of a log that is what this check has taken of it.
                let pending = earlier(&plan).unwrap_or(0);
                let decision = decide_log_in(self, number, charge, pending, now);
                (decision, pending, pending.saturating_add(charge.cost.get()))
            } else {
                let shard = &shards[place_of(&shards, number)].1;
                let before = earlier(&plan)
                    .unwrap_or_else(|| state_in(self, number, shard, charge.key.get(), &charge.limit, now));
                let floor = charge.floor.map(Nanos::ticks);
                let step = algorithm::decide(&charge.limit, before, floor, charge.cost, now);
                (step.decision, before, step.state)
            };
            allowed &= decision.allowed || charge.mode == Mode::Shadow;
            decisions.push(decision);
            let taken = decision.allowed && charge.cost != Cost::PEEK;
            plan.push(Planned { before, after: taken.then_some(after), now });
        }
        if !allowed {
            for ((charge, planned), decision) in charges.iter().zip(&plan).zip(&mut decisions[first..]) {
                if planned.after.is_some() {
                    *decision = self.without(charge, planned, *decision);
                }
            }
            return None;
        }
        let mut keys = Keys::new();
        for (charge, planned) in charges.iter().zip(plan) {
            if planned.after.is_none() {
                continue;
            }
            let number = self.shard_of(charge.key);
            if charge.limit.algorithm() == Algorithm::SlidingLog {
                push_log_in(self, number, charge.key.get(), &charge.limit, charge.cost, now, hold);
            } else {
                let place = place_of(&shards, number);
                write_in(self, number, &mut shards[place].1, charge, planned, hold);
            }
            if !keys.contains(&charge.key) {
                keys.push(charge.key);
            }
        }
        Some(keys)
    }

    /// The decision about a charge that would have been allowed, but is not made.
    fn without(&self, charge: &Charge, planned: &Planned, decision: Decision) -> Decision {
        let look = if charge.limit.algorithm() == Algorithm::SlidingLog {
            let look = Charge { cost: Cost::PEEK, ..*charge };
            decide_log_in(self, self.shard_of(charge.key), &look, planned.before, planned.now)
        } else {
            let floor = charge.floor.map(Nanos::ticks);
            algorithm::decide(&charge.limit, planned.before, floor, Cost::PEEK, planned.now).decision
        };
        Decision { remaining: look.remaining, reset_after: look.reset_after, ..decision }
    }
}

fn place_of(shards: &[(usize, Shard<'_>)], number: usize) -> usize {
    shards.iter().position(|(known, _)| *known == number).expect("the shards of all charges are locked")
}

fn state_in(store: &Store, number: usize, shard: &Shard<'_>, key: u64, limit: &Limit, now: u64) -> u64 {
    let known = table::get(shard, key).map(|state| state.load(Relaxed));
    known.unwrap_or_else(|| algorithm::strictest(limit, estimate(store, number, key), now))
}

/// What the sketch says of a bucket.
fn estimate(store: &Store, number: usize, key: u64) -> u64 {
    if !store.marks[number].folds() {
        return 0;
    }
    store.beside[number].rare().sketch.as_ref().map_or(0, |sketch| sketch.estimate(key))
}

fn write_in(
    store: &Store,
    number: usize,
    shard: &mut Shard<'_>,
    charge: &Charge,
    planned: Planned,
    hold: Option<u64>,
) {
    let (key, Some(after)) = (charge.key.get(), planned.after) else { return };
    if let Some(state) = table::get_mut(shard, key) {
        *state = after;
    } else {
        if table::is_full(shard) {
            store.make_room(number, shard, 1, planned.now);
        }
        table::add(shard, key, after);
    }
    if hold.is_some() || store.marks[number].journals() {
        let floor = charge.floor.map(Nanos::ticks);
        let deed = match algorithm::raise(&charge.limit, floor, charge.cost, planned.now) {
            Some(raise) => Deed::Raised(raise),
            None => {
                if floor.is_some_and(|floor| {
                    sliding::is_raised_by(&charge.limit, planned.before, floor, planned.now)
                }) {
                    // Taking an earlier charge out of these counts would take some of the floor out.
                    store.beside[number].rare().journals.remove(&key);
                }
                let at = sliding::counted_at(&charge.limit, planned.before, planned.now);
                Deed::Counted { limit: charge.limit, at, cost: charge.cost }
            }
        };
        note(store, number, key, planned.before, deed, hold);
    }
}

fn note(store: &Store, number: usize, key: u64, before: u64, deed: Deed, hold: Option<u64>) {
    let beside = &store.beside[number];
    let mut rare = beside.rare();
    if let Some(journal) = rare.journals.get_mut(&key)
        && !journal.note(hold, deed)
    {
        rare.journals.remove(&key);
    }
    if let Some(hold) = hold
        && !rare.journals.contains_key(&key)
    {
        rare.journals.insert(key, Journal::begin(before, hold, deed));
    }
    store.marks[number].set_journals(!rare.journals.is_empty());
}

fn decide_log_in(store: &Store, number: usize, charge: &Charge, pending: u64, now: u64) -> Decision {
    let key = charge.key.get();
    let used_up = charge.floor.map_or(0, |floor| floor.ticks().saturating_add(charge.limit.memory()));
    let until = used_up.max(estimate(store, number, key));
    let mut rare = store.beside[number].rare();
    match rare.logs.get_mut(&key) {
        Some(log) => log.decide(&charge.limit, until, pending, charge.cost, now),
        None => Log::default().decide(&charge.limit, until, pending, charge.cost, now),
    }
}

fn push_log_in(
    store: &Store,
    number: usize,
    key: u64,
    limit: &Limit,
    cost: Cost,
    now: u64,
    hold: Option<u64>,
) {
    let beside = &store.beside[number];
    let mut rare = beside.rare();
    let known = rare.logs.get(&key).map_or(0, bytes_of);
    let log = rare.logs.entry(key).or_default();
    let at = log.push(limit, cost, now);
    let bytes = bytes_of(log);
    let all = store.log_bytes.fetch_add(bytes, Relaxed).saturating_add(bytes);
    store.log_bytes.fetch_sub(known, Relaxed);
    if all.saturating_sub(known) > store.budget.log_bytes && bytes > known {
        // The log goes into the sketch: until its last entry is forgotten, nothing passes.
        store.shed_logs(&mut rare, number, key, now);
    } else if hold.is_some() || store.marks[number].journals() {
        drop(rare);
        note(store, number, key, 0, Deed::Counted { limit: *limit, at, cost }, hold);
    }
}

/// Bytes of a log with its place in the map.
pub(super) fn bytes_of(log: &Log) -> usize {
    log.bytes() + 2 * size_of::<(u64, Log)>()
}
