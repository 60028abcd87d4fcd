//! Charging buckets: one without a lock, or several with their shards locked.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
    time::Duration,
};

use sdd::Guard;
use smallvec::SmallVec;

use super::{
    Store, class::Class, holds::Keys, journal::ChargeEffect, line::MOVED, locked::Locked, table::table_key,
};
use crate::{
    Algorithm, Answer, Charge, Cost, Decision, KeyHash, Mode, Nanos,
    algorithm::{self, Asked},
};

/// A bucket of a check, with its state taken out of the table.
struct Bucket {
    key: u64,
    /// Of its shard, among those that are locked.
    place: usize,
    is_log: bool,
    /// Its state before the check, if it is in the table.
    known: Option<u64>,
    class: Class,
    /// Whether what it was before had to be assumed.
    assumed: bool,
    /// Its state with all that the check has done to it. Of a log, what the check has taken of it.
    state: u64,
    charged: bool,
}

impl Bucket {
    /// What it says with all that the check has done to it so far.
    fn decide(&self, locked: &mut Locked<'_>, asked: &Asked<'_>, now: u64) -> Decision {
        if self.is_log {
            return locked.decide_log(asked, self.state, now);
        }
        let decision = algorithm::decide(asked.limit, self.state, asked.bounds, asked.cost, now).decision;
        Decision { assumed: self.assumed, ..decision }
    }
}

/// What one charge of a check would do.
pub(super) struct Planned {
    /// The state before, with what the same check did to the bucket before. Of a log, what it took of it.
    pub(super) before: u64,
    taken: bool,
}

impl Store {
    /// The usual case: one bucket, which is there, and nothing of it can be undone. Then nothing is locked. `None` if it
    /// is another case.
    #[inline]
    pub(super) fn charge_unlocked<'l>(&self, asked: &Asked<'l>, now: Nanos) -> Option<Answer<'l>> {
        if asked.limit.algorithm() == Algorithm::SlidingLog || asked.ban.is_some() {
            return None;
        }
        self.ask_for(asked.key);
        let guard = Guard::new();
        let state = self.find(asked.key, &guard)?;
        self.charge_found(state, asked, now)
    }

    /// Has the line of a bucket brought near, to be charged.
    #[inline]
    pub(super) fn ask_for(&self, key: KeyHash) {
        self.hints[self.shard_of(key)].ask_for(table_key(key));
    }

    /// The state of a bucket in the tables; of `None`, only the thread that locks the shard can say more.
    #[inline]
    pub(super) fn find<'g>(&self, key: KeyHash, guard: &'g Guard) -> Option<&'g AtomicU64> {
        self.tables[self.shard_of(key)].load(Acquire, guard).as_ref()?.get(table_key(key))
    }

    /// Charges a bucket that was found; `None` if its state is not there, or is no single number, or its rule bans.
    #[inline]
    pub(super) fn charge_found<'l>(
        &self,
        state: &AtomicU64,
        asked: &Asked<'l>,
        now: Nanos,
    ) -> Option<Answer<'l>> {
        if asked.limit.algorithm() == Algorithm::SlidingLog || asked.ban.is_some() {
            return None;
        }
        let now = self.not_before(now);
        let mut found = state.load(Relaxed);
        while found > MOVED {
            let known = algorithm::nearest(asked.limit, found, now);
            let outcome = algorithm::outcome(asked, known, now);
            let next = outcome.taken.unwrap_or(known);
            if next == found {
                return Some(Answer::lazy(outcome.allowed, asked, known, now));
            }
            // Nothing else follows from this number, so it needs no order with anything.
            match state.compare_exchange_weak(found, next, Relaxed, Relaxed) {
                Ok(_) => return Some(Answer::lazy(outcome.allowed, asked, known, now)),
                Err(changed) => found = changed,
            }
        }
        None
    }

    /// One bucket, with its shard locked.
    #[cold]
    pub(super) fn charge_locked<'l>(&self, asked: &Asked<'l>, now: Nanos) -> Answer<'l> {
        let mut locked = self.lock(asked.key);
        let now = self.not_before(now);
        locked.take_over_former(asked, now);
        match asked.ban {
            None => locked.charge(asked, now),
            Some(ban) => locked.charge_unless_banned(asked, ban, now),
        }
    }

    /// What [`Store::check`] would say, and what remains without it: nothing is taken.
    pub fn preview(&self, charge: &Charge, now: Nanos) -> Decision {
        let (mut locked, now) = (self.lock(charge.key), self.not_before(now));
        let asked = charge.asked();
        locked.take_over_former(&asked, now);
        locked.preview(&asked, now)
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
        // Always in this order: two checks that need the same shards cannot wait for each other.
        let mut shards: SmallVec<[Locked<'_>; 4]> =
            numbers.into_iter().map(|number| self.lock_number(number)).collect();
        let now = self.not_before(now);

        let first = decisions.len();
        let mut buckets: SmallVec<[Bucket; 4]> = SmallVec::new();
        let mut plan: SmallVec<[Planned; 4]> = SmallVec::new();
        let mut allowed = true;
        for charge in charges {
            let place = place_of(&shards, self.shard_of(charge.key));
            shards[place].take_over_former(&charge.asked(), now);
        }
        for charge in charges {
            let (asked, place) = (charge.asked(), place_of(&shards, self.shard_of(charge.key)));
            let bucket = bucket_of(&mut buckets, &mut shards[place], place, &asked, now);
            let before = bucket.state;
            let decision = bucket.decide(&mut shards[place], &asked, now);
            let decision = match shards[place].banned_for(&asked, now) {
                Some(rest) if decision.allowed && charge.cost != Cost::PEEK => {
                    without(&mut shards[place], &asked, before, now, decision).banned(rest)
                }
                Some(rest) => decision.banned(rest),
                None => decision,
            };
            let taken = decision.allowed && charge.cost != Cost::PEEK;
            if taken {
                bucket.charged = true;
                bucket.state = after(&asked, before, now);
            }
            allowed &= decision.allowed || charge.mode == Mode::Shadow;
            decisions.push(decision);
            plan.push(Planned { before, taken });
        }
        if !allowed {
            for ((charge, planned), decision) in charges.iter().zip(&plan).zip(&mut decisions[first..]) {
                if planned.taken {
                    let place = place_of(&shards, self.shard_of(charge.key));
                    *decision = without(&mut shards[place], &charge.asked(), planned.before, now, *decision);
                }
            }
            for bucket in &buckets {
                if let Some(known) = bucket.known {
                    shards[bucket.place].put(bucket.key, known);
                }
            }
            self.ban_exceeded(charges, &plan, &mut shards, now, &mut decisions[first..]);
            return None;
        }
        let mut keys = Keys::new();
        for (charge, planned) in charges.iter().zip(&plan).filter(|(_, planned)| planned.taken) {
            let (asked, place) = (charge.asked(), place_of(&shards, self.shard_of(charge.key)));
            // While the states are taken out: a charge by another thread is noted after this.
            if asked.limit.algorithm() != Algorithm::SlidingLog {
                shards[place].note_charge(&asked, planned.before, now, hold);
            }
            if !keys.contains(&charge.key) {
                keys.push(charge.key);
            }
        }
        // First all that are in the tables, then the others: these can need room, and making it moves the former.
        for bucket in &buckets {
            if bucket.known.is_some() {
                shards[bucket.place].put(bucket.key, bucket.state);
            }
        }
        for bucket in
            buckets.iter().filter(|bucket| bucket.known.is_none() && bucket.charged && !bucket.is_log)
        {
            shards[bucket.place].add(bucket.key, bucket.class, bucket.state, now);
        }
        for (charge, _) in charges.iter().zip(&plan).filter(|(_, planned)| planned.taken) {
            if charge.limit.algorithm() == Algorithm::SlidingLog {
                let place = place_of(&shards, self.shard_of(charge.key));
                shards[place].push_log(&charge.asked(), now, hold);
            }
        }
        Some(keys)
    }
}

/// The bucket of a charge; taken out of its table if it is the first charge that needs it.
fn bucket_of<'b>(
    buckets: &'b mut SmallVec<[Bucket; 4]>,
    locked: &mut Locked<'_>,
    place: usize,
    asked: &Asked<'_>,
    now: u64,
) -> &'b mut Bucket {
    let (key, is_log) = (table_key(asked.key), asked.limit.algorithm() == Algorithm::SlidingLog);
    let at =
        buckets.iter().position(|bucket| bucket.key == key && bucket.is_log == is_log).unwrap_or_else(|| {
            let known = if is_log { None } else { locked.take(key) };
            let known = known.map(|state| algorithm::nearest(asked.limit, state, now));
            let class = if known.is_none() { locked.store.classes.of(asked.rule) } else { 0 };
            let assumed = match known {
                None if !is_log => locked.assumed(key, class, asked.limit, now),
                _ => None,
            };
            let state = known.or(assumed).unwrap_or(0);
            let assumed = assumed.is_some();
            buckets.push(Bucket { key, place, is_log, known, class, assumed, state, charged: false });
            buckets.len() - 1
        });
    &mut buckets[at]
}

/// The state after a charge that is allowed; of a log, what the check has taken of it.
fn after(asked: &Asked<'_>, before: u64, now: u64) -> u64 {
    if asked.limit.algorithm() == Algorithm::SlidingLog {
        before.saturating_add(asked.cost.get())
    } else {
        algorithm::outcome(asked, before, now).taken.unwrap_or(before)
    }
}

/// The decision about a charge that would have been allowed, but is not made.
fn without(
    locked: &mut Locked<'_>,
    asked: &Asked<'_>,
    before: u64,
    now: u64,
    decision: Decision,
) -> Decision {
    let look = Asked { cost: Cost::PEEK, ..*asked };
    let look = if asked.limit.algorithm() == Algorithm::SlidingLog {
        locked.decide_log(&look, before, now)
    } else {
        algorithm::decide(look.limit, before, look.bounds, look.cost, now).decision
    };
    Decision { remaining: look.remaining, reset_after: look.reset_after, delay: Duration::ZERO, ..decision }
}

pub(super) fn place_of(shards: &[Locked<'_>], number: usize) -> usize {
    shards.iter().position(|locked| locked.number == number).expect("the shards of all charges are locked")
}

impl Locked<'_> {
    /// One bucket, whatever is known of bans.
    pub(super) fn charge<'l>(&mut self, asked: &Asked<'l>, now: u64) -> Answer<'l> {
        let key = table_key(asked.key);
        if asked.limit.algorithm() == Algorithm::SlidingLog {
            let decision = self.decide_log(asked, 0, now);
            if decision.allowed && asked.cost != Cost::PEEK {
                self.push_log(asked, now, None);
            }
            return Answer::ready(decision);
        }
        let known = self.take(key).map(|state| algorithm::nearest(asked.limit, state, now));
        if let Some(before) = known {
            let outcome = algorithm::outcome(asked, before, now);
            if outcome.taken.is_some() {
                self.note_charge(asked, before, now, None);
            }
            self.put(key, outcome.taken.unwrap_or(before));
            return Answer::lazy(outcome.allowed, asked, before, now);
        }
        let class = self.store.classes.of(asked.rule);
        let assumed = self.assumed(key, class, asked.limit, now);
        let before = assumed.unwrap_or(0);
        let outcome = algorithm::outcome(asked, before, now);
        if let Some(after) = outcome.taken {
            self.note_charge(asked, before, now, None);
            self.add(key, class, after, now);
        }
        Answer::lazy(outcome.allowed, asked, before, now).with_assumed(assumed.is_some())
    }

    /// What a charge would be answered: nothing is taken.
    pub(super) fn preview(&mut self, asked: &Asked<'_>, now: u64) -> Decision {
        let mut buckets = SmallVec::new();
        let bucket = bucket_of(&mut buckets, self, 0, asked, now);
        let decision = bucket.decide(self, asked, now);
        let decision = match decision.allowed && asked.cost != Cost::PEEK {
            true => without(self, asked, bucket.state, now, decision),
            false => decision,
        };
        if let Some(known) = bucket.known {
            self.put(bucket.key, known);
        }
        match self.banned_for(asked, now) {
            Some(rest) => decision.banned(rest),
            None => decision,
        }
    }

    /// Notes a charge that is about to be made, if it or an earlier one may be undone.
    fn note_charge(&mut self, asked: &Asked<'_>, before: u64, now: u64, hold: Option<u64>) {
        if hold.is_none() && self.shard.journals.is_empty() {
            return;
        }
        let (key, limit) = (table_key(asked.key), *asked.limit);
        let effect = match algorithm::raise(&limit, asked.bounds, asked.cost, now) {
            Some(raise) => ChargeEffect::Raised(raise),
            None => {
                if algorithm::is_bound_by(&limit, before, asked.bounds, now) {
                    // Taking an earlier charge out of these counts would take some of the floor out.
                    self.forget_journal(key);
                }
                let counted = algorithm::counted(&limit, before, now);
                ChargeEffect::Counted { limit, counted, cost: asked.cost }
            }
        };
        self.note(key, before, effect, hold);
    }
}
