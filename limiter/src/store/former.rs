//! Limits that have changed: what a bucket has consumed under the limits before counts under the one in force, in units.
//!
//! A state says how much was consumed only together with its limit. So where a change of a rule gives states another meaning
//! ([`Limit::bits`]), the bucket of the new limit is another entry of the table, and the first check that does not find it looks
//! for those of the same key under the other limits of the rule. What it finds there it takes over, with the shard locked:
//!
//! - **At most one of a key's entries is in force**, that of the limit that was asked for last. The others are [`MOVED`](super::line::MOVED)
//!   or not there, so a check under another limit, of a node whose rules are older or newer, does not find its own either,
//!   and what it takes over is what all checks before have consumed.
//! - **What is taken over is no less than what was consumed**, rounded up to a unit (from bucket to bucket: to a tick), and never
//!   more than the limit has. So no wait is longer than the limit needs to refill.
//! - A limit that comes back finds its own former state again, too: it was put *aside* when another one took over. The stricter
//!   of both counts, so that a short period that was a mistake forgives nothing of a long one. No other limit looks at it: what
//!   had been consumed then was taken over once, and has refilled since.
//!
//! Checks that find their bucket pay nothing for this. A new bucket costs one look into a map, and of a rule whose limit has
//! changed lately, a look into the table for each of its limits.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::{Store, locked::Locked, table::table_key};
use crate::{
    Algorithm, Attributes, Charge, Cost, KeyHash, Limit, Matched, Nanos, RuleId, Rules,
    algorithm::{self, Asked},
};

impl Store {
    /// Says which limits the rules have from now on: to be called before anything is decided by them, in the store that has the
    /// buckets of their owner.
    pub fn set_limits(&self, rules: &Rules, now: Nanos) {
        self.limits.set(rules, now.ticks());
    }

    /// Under the limits of these rules, which were in force until they `ended`, keys may have consumed something that comes from other
    /// nodes or from the disk. One that ended longer ago than it takes to refill says nothing.
    pub fn add_former_limits(&self, rules: &Rules, ended: Nanos, now: Nanos) {
        self.limits.add_former(rules, ended.ticks(), now.ticks());
    }

    /// Finds the buckets that the keys of a request had before, where the rules that are about it say `unlimited` or `deny` now, each with
    /// the last limit that is known of it: what was consumed under that one counts again when a limit is back.
    pub fn former_buckets<'r, A: Attributes + ?Sized>(
        &self,
        rules: &'r Rules,
        domain: &str,
        attributes: &A,
        now: Nanos,
        found: &mut SmallVec<[(Matched<'r>, Limit); 4]>,
    ) {
        let now = self.not_before(now);
        rules.each_about(domain, attributes, |rule, key| {
            let places = [None].into_iter().chain((0..rule.overrides.len()).map(Some));
            let count_nothing = places.filter(|place| rule.limit_at(*place).is_none_or(Limit::denies));
            let mut places: HashMap<u64, Option<usize>> =
                count_nothing.map(|place| (rule.limit_id_at(place).number, place)).collect();
            if places.is_empty() {
                return;
            }
            for (number, limit) in self.limits.former(rule.id(), now) {
                // The latest comes first, and is enough.
                if let Some(place) = places.remove(&number) {
                    found.push((rule.matched_before(key, place, &limit), limit));
                }
            }
        });
    }

    /// Has what the key of a charge consumed under former limits count in its bucket, as a check would: before units are given
    /// back to it.
    pub fn take_over_former(&self, charge: &Charge, now: Nanos) {
        let mut locked = self.lock(charge.key);
        let now = self.not_before(now);
        locked.take_over_former(&charge.asked(), now);
    }

    /// Forgets what the key of a charge consumed under former limits of its rule.
    pub fn forget_former(&self, charge: &Charge, now: Nanos) {
        if charge.rule != RuleId::INLINE && !charge.limit.denies() {
            let mut locked = self.lock(charge.key);
            let now = self.not_before(now);
            locked.forget_former(charge, now);
        }
    }
}

/// What was consumed under a limit.
#[derive(Debug)]
enum Consumed {
    /// A state of the limit in force.
    State(u64),
    /// So many units, by now.
    Units(u64),
}

impl Locked<'_> {
    /// Takes over what the key of a charge has consumed under other limits of its rule, if its own bucket is not there. Room may
    /// be made for it, so no state may be taken out.
    pub(super) fn take_over_former(&mut self, asked: &Asked<'_>, now: u64) {
        if asked.rule == RuleId::INLINE || asked.limit.denies() || self.knows(asked) {
            return;
        }
        let Some(others) = self.store.limits.others(asked.rule, asked.limit, now) else { return };
        let is_log = asked.limit.algorithm() == Algorithm::SlidingLog;
        let mut found: SmallVec<[Consumed; 8]> = SmallVec::new();
        for other in &others {
            let key = asked.key.under(asked.limit, other);
            // Only what was in force until now. What was put aside earlier has been taken over before, and refilled since.
            if self.put_aside(key, asked.rule, other, now) {
                found.extend(self.consumed(key.aside(), other, asked.limit, now));
            }
        }
        let own = asked.key.aside();
        if is_log && let Some(log) = self.remove_log(table_key(own)) {
            let class = self.store.classes.of(asked.rule);
            self.put_log(table_key(asked.key), class, log, now);
        }
        found.extend(self.move_out(own).map(Consumed::State));
        self.begin_with(asked, &found, now);
    }

    /// Whether the bucket of a charge is there.
    fn knows(&self, asked: &Asked<'_>) -> bool {
        let key = table_key(asked.key);
        match asked.limit.algorithm() {
            Algorithm::SlidingLog => self.shard.logs.contains_key(&key),
            _ => self.is_there(key),
        }
    }

    /// The bucket of a limit that is not asked for any more, until it is again. Returns whether there is one.
    fn put_aside(&mut self, key: KeyHash, rule: RuleId, limit: &Limit, now: u64) -> bool {
        let aside = table_key(key.aside());
        let class = self.store.classes.of(rule);
        if limit.algorithm() == Algorithm::SlidingLog {
            self.forget_journal(table_key(key));
            let Some(log) = self.remove_log(table_key(key)) else { return false };
            let log = match self.remove_log(aside) {
                Some(known) => known.stricter(log),
                None => log,
            };
            self.put_log(aside, class, log, now);
            return true;
        }
        let Some(state) = self.move_out(key).filter(|state| *state > now) else { return false };
        match self.take(aside) {
            Some(known) => self.put(aside, algorithm::stricter(limit, known, state, now)),
            None => self.add(aside, class, state, now),
        }
        true
    }

    /// Takes a state out for ever: the bucket is not found any more.
    fn move_out(&mut self, key: KeyHash) -> Option<u64> {
        let key = table_key(key);
        // Nothing of what it was charged can be undone in another bucket.
        self.forget_journal(key);
        let state = self.take(key)?;
        self.leave(key);
        Some(state)
    }

    /// What was consumed in the bucket of another limit.
    fn consumed(&mut self, key: KeyHash, other: &Limit, limit: &Limit, now: u64) -> Option<Consumed> {
        let key = table_key(key);
        if other.algorithm() == Algorithm::SlidingLog {
            let log = &mut self.shard.logs.get_mut(&key)?.log;
            return Some(Consumed::Units(log.consumed(other, now)));
        }
        let state = self.take(key)?;
        self.put(key, state);
        let state = algorithm::nearest(other, state, now);
        match algorithm::rescaled(other, limit, state, now) {
            Some(state) => Some(Consumed::State(state)),
            None => Some(Consumed::Units(algorithm::consumed(other, state, now))),
        }
    }

    /// Begins the bucket of a charge with the strictest of what was found.
    fn begin_with(&mut self, asked: &Asked<'_>, found: &[Consumed], now: u64) {
        let (key, class) = (table_key(asked.key), self.store.classes.of(asked.rule));
        let units = found.iter().map(|one| match one {
            Consumed::Units(units) => *units,
            Consumed::State(_) => 0,
        });
        let units = units.max().unwrap_or(0).min(asked.limit.burst_size());
        if asked.limit.algorithm() == Algorithm::SlidingLog {
            let mut log = self.remove_log(key).unwrap_or_default();
            let more = units.saturating_sub(log.consumed(asked.limit, now));
            if more > 0 {
                log.push(asked.limit, Cost::saturating(more), now);
            }
            if log.busy_until() > now {
                self.put_log(key, class, log, now);
            }
            return;
        }
        // What was let go of may have consumed more.
        let let_go = self.assumed(key, class, asked.limit, now).unwrap_or(0);
        let own = algorithm::having_consumed(asked.limit, units, now);
        let states = found.iter().map(|one| match one {
            Consumed::State(state) => *state,
            Consumed::Units(_) => 0,
        });
        let stricter = |one, other| algorithm::stricter(asked.limit, one, other, now);
        let state = states.chain([let_go]).fold(own, stricter);
        if state > now {
            self.add(key, class, state, now);
        }
    }

    fn forget_former(&mut self, charge: &Charge, now: u64) {
        let Charge { key, rule, limit, .. } = *charge;
        let Some(others) = self.store.limits.others(rule, &limit, now) else { return };
        let others = others.iter().map(|other| key.under(&limit, other));
        for key in others.flat_map(|other| [other, other.aside()]).chain([key.aside()]) {
            self.move_out(key);
            self.remove_log(table_key(key));
        }
    }
}
