//! Which limits the rules have, and had lately: under each of them a key may have consumed something (`former.rs`).
//!
//! A former limit is known until nothing that was consumed under it counts any more. Where there are too many, the one goes first that
//! ended first. Each limit of a rule, its own and those of its overrides, has a number ([`LimitId`](crate::limits::LimitId)), and
//! former ones of its own: a rule with many overrides forgets no sooner than one without.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use dashmap::DashMap;
use smallvec::SmallVec;

use super::shard::Unhashed;
use crate::{Limit, RuleId, Rules, algorithm, limit_bits::mix};

/// Former limits that are known of each number. As many as a domain keeps texts of its rules (`MAX_KEPT_TEXTS` of the cluster's
/// state machine), from which a node that starts again knows them: it knows no less than one that did not stop.
const MAX_FORMER: usize = 64;
/// Former limits of all rules, in 13 MiB; an eighth more while a node learns those of before. Those that ended with the same change
/// are forgotten together or not at all.
const MAX_FORMER_IN_ALL: usize = 1 << 17;
/// Former limits that one check looks under, with a shard locked. A bucket does not say which override it is of, so where many of them
/// have the limit that is asked for, all of these ones' former limits are meant: only there it can be more than `MAX_FORMER`.
const MAX_TRIED: usize = 1024;
/// When a limit ends that is in force.
const IN_FORCE: u64 = u64::MAX;
/// Whose limit it is, where that is not known.
const ANY: u64 = u64::MAX;

/// Limits of each rule: those in force and those that were.
#[derive(Debug, Default)]
pub(super) struct KnownLimits {
    rules: DashMap<RuleId, Known, Unhashed>,
    /// Former limits, perhaps known ones, that were added since all were counted.
    added: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    /// By number. Those of one number: what is in force, then the others, the one that ended last first.
    limits: SmallVec<[KnownLimit; 1]>,
    /// The [bits](Limit::bits) and the number of each limit, in order.
    by_bits: SmallVec<[(u64, u64); 1]>,
    /// Until when a state of a former limit may say something: in force once, or put aside for a limit that comes back.
    former_until: u64,
    /// Whether overrides with the same condition and other limits follow each other in time.
    takes_turns: bool,
}

#[derive(Debug, Clone, Copy)]
struct KnownLimit {
    limit: Limit,
    /// Whose it is: the rule's own, or that of one of its overrides.
    number: u64,
    /// How far ahead its states are at most, and those of limits before whose states mean the same.
    horizon: u64,
    /// When nothing was charged by it any more.
    ended: u64,
}

impl KnownLimit {
    fn of(limit: &Limit, number: u64, ended: u64) -> Self {
        Self { limit: *limit, number, horizon: algorithm::horizon(limit), ended }
    }

    fn is_in_force(&self) -> bool {
        self.ended == IN_FORCE
    }

    /// From when on no state of it says anything.
    fn until(&self) -> u64 {
        self.ended.saturating_add(self.horizon)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.limit.bits() == other.limit.bits() && self.number == other.number
    }

    /// One whose states mean the same is the same limit. It is no less strict, nor sooner over, than either.
    fn merge(&mut self, other: &Self) {
        self.horizon = self.horizon.max(other.horizon);
        self.ended = self.ended.max(other.ended);
    }
}

impl KnownLimits {
    /// These are the limits in force. Those of a rule that is no more have ended too: it may come back.
    pub(super) fn set(&self, rules: &Rules, now: u64) {
        self.set_within(rules, now, MAX_FORMER_IN_ALL);
    }

    fn set_within(&self, rules: &Rules, now: u64, most: usize) {
        let ids: HashSet<RuleId> = rules.all().map(|rule| rule.id()).collect();
        self.rules.retain(|rule, known| {
            if ids.contains(rule) {
                return true;
            }
            known.become_of(SmallVec::new(), now);
            known.former_until > now
        });
        for rule in rules.all() {
            let limits = rule.numbered_limits().filter(|(_, limit)| !limit.denies());
            let in_force = limits.map(|(number, limit)| KnownLimit::of(limit, number, IN_FORCE)).collect();
            self.rules.entry(rule.id()).or_default().become_of(in_force, now);
        }
        self.forget_oldest(most, now);
    }

    /// Under these limits keys may have consumed something, too, until they ended.
    pub(super) fn add_former(&self, rules: &Rules, ended: u64, now: u64) {
        for rule in rules.all() {
            let limits = rule.numbered_limits().filter(|(_, limit)| !limit.denies());
            let limits = limits.map(|(number, limit)| KnownLimit::of(limit, number, ended.min(now)));
            let limits: SmallVec<[KnownLimit; 4]> = limits.filter(|limit| limit.until() > now).collect();
            if !limits.is_empty() {
                self.added.fetch_add(limits.len(), Ordering::Relaxed);
                self.rules.entry(rule.id()).or_default().add_former(&limits, now);
            }
        }
        // A look at all rules for each text of each domain would take long where there are many.
        if self.added.load(Ordering::Relaxed) > MAX_FORMER_IN_ALL / 8 {
            self.forget_oldest(MAX_FORMER_IN_ALL, now);
        }
    }

    /// Keeps so many former limits of all rules, and those that ended when the last one of them did.
    fn forget_oldest(&self, most: usize, now: u64) {
        self.added.store(0, Ordering::Relaxed);
        let mut ends: Vec<u64> = Vec::new();
        for known in &self.rules {
            let former = known.limits.iter().filter(|limit| !limit.is_in_force() && limit.until() > now);
            ends.extend(former.map(|limit| limit.ended));
        }
        if ends.len() <= most {
            return;
        }
        let (_, first, _) = ends.select_nth_unstable_by_key(most.saturating_sub(1), |ended| Reverse(*ended));
        for mut known in self.rules.iter_mut() {
            known.keep(|limit| limit.ended >= *first && limit.until() > now);
        }
    }

    /// The limits of a rule that are not in force any more, and whose states may say something: each with whose it was, of those of one
    /// the latest first.
    pub(super) fn former(&self, rule: RuleId, now: u64) -> SmallVec<[(u64, Limit); 4]> {
        let Some(known) = self.rules.get(&rule) else { return SmallVec::new() };
        let former = known.limits.iter().filter(|known| !known.is_in_force() && known.until() > now);
        former.map(|known| (known.number, known.limit)).collect()
    }

    /// The other limits under which the key of a charge may have consumed something; `None`: there is nothing to look for, not
    /// even what was put aside of its own one. A limit that is not known is one of newer rules, which another node has, and is
    /// known from then on.
    pub(super) fn others(&self, rule: RuleId, limit: &Limit, now: u64) -> Option<SmallVec<[Limit; 4]>> {
        let known = self.rules.get(&rule)?;
        // One that is in force at other nodes only is known for as long as they ask by it.
        let is_known =
            |asked: &KnownLimit| asked.is_in_force() || asked.until() > now.saturating_add(asked.horizon / 2);
        if known.with_bits(limit.bits()).any(is_known) {
            return known.others(limit, now);
        }
        drop(known);
        let mut known = self.rules.get_mut(&rule)?;
        known.add_asked(&KnownLimit::of(limit, ANY, now), now);
        known.others(limit, now)
    }
}

impl Known {
    fn become_of(&mut self, in_force: SmallVec<[KnownLimit; 1]>, now: u64) {
        let is_new = |limit: &KnownLimit| in_force.iter().any(|new| new.limit.bits() == limit.limit.bits());
        // Whose it was that another node has asked by is known as soon as the rules are.
        let mut all: SmallVec<[KnownLimit; 4]> =
            self.limits.iter().filter(|known| known.number != ANY || !is_new(known)).copied().collect();
        for known in all.iter_mut().filter(|known| known.is_in_force()) {
            known.ended = now;
        }
        self.limits = all.into_iter().chain(in_force).collect();
        self.sort(now);
    }

    fn add_former(&mut self, former: &[KnownLimit], now: u64) {
        // Of one that is in force again, states may have been put aside.
        let until = former.iter().map(KnownLimit::until).max().unwrap_or(0);
        self.former_until = self.former_until.max(until);
        self.limits.extend(former.iter().copied());
        self.sort(now);
    }

    /// By this limit another node has asked, whose rules are newer or older.
    fn add_asked(&mut self, asked: &KnownLimit, now: u64) {
        let bits = asked.limit.bits();
        let mut is_known = false;
        for known in self.limits.iter_mut().filter(|known| known.limit.bits() == bits) {
            known.merge(asked);
            is_known = true;
        }
        if !is_known {
            self.limits.push(*asked);
        }
        self.sort(now);
    }

    /// Each limit once, in order, without those that say nothing any more, and of each number no more than are kept.
    fn sort(&mut self, now: u64) {
        // The ones that are the same next to each other, the one that is in force first.
        self.limits.sort_unstable_by_key(|limit| (limit.number, limit.limit.bits(), Reverse(limit.ended)));
        self.limits.dedup_by(|other, kept| {
            let is_same = kept.is_like(other);
            if is_same {
                kept.merge(other);
            }
            is_same
        });
        for former in self.limits.iter().filter(|limit| !limit.is_in_force()) {
            self.former_until = self.former_until.max(former.until());
        }
        self.limits.sort_by_key(|limit| (limit.number, Reverse(limit.ended)));
        let (mut number, mut former) = (None, 0);
        self.keep(|limit| {
            if number.replace(limit.number) != Some(limit.number) {
                former = 0;
            }
            if limit.is_in_force() || limit.until() <= now {
                return limit.is_in_force();
            }
            former += 1;
            former <= MAX_FORMER
        });
    }

    fn keep(&mut self, mut is_kept: impl FnMut(&KnownLimit) -> bool) {
        self.limits.retain(|limit| is_kept(limit));
        self.limits.shrink_to_fit();
        self.by_bits = self.limits.iter().map(|limit| (limit.limit.bits(), limit.number)).collect();
        self.by_bits.sort_unstable();
        let in_force = |limit: &KnownLimit| limit.is_in_force().then_some(limit.number);
        let is_pair =
            |pair: &[KnownLimit]| in_force(&pair[0]).is_some() && in_force(&pair[0]) == in_force(&pair[1]);
        self.takes_turns = self.limits.windows(2).any(is_pair);
    }

    /// Whose limits have, or had, these bits.
    fn numbers(&self, bits: u64) -> impl Iterator<Item = u64> {
        let first = self.by_bits.partition_point(|(known, _)| *known < bits);
        self.by_bits[first..].iter().take_while(move |(known, _)| *known == bits).map(|(_, number)| *number)
    }

    fn of_number(&self, number: u64) -> impl Iterator<Item = &KnownLimit> {
        let first = self.limits.partition_point(|known| known.number < number);
        self.limits[first..].iter().take_while(move |known| known.number == number)
    }

    fn with_bits(&self, bits: u64) -> impl Iterator<Item = &KnownLimit> {
        let of = move |number| self.of_number(number).filter(move |known| known.limit.bits() == bits);
        self.numbers(bits).flat_map(of)
    }

    fn others(&self, limit: &Limit, now: u64) -> Option<SmallVec<[Limit; 4]>> {
        if self.former_until <= now && !self.takes_turns {
            // The usual case: no limit of the rule has changed.
            return None;
        }
        let bits = limit.bits();
        // Overrides often have few limits between them, and had.
        let mut others: HashMap<u64, KnownLimit, Unhashed> = HashMap::default();
        let mut add = |known: &KnownLimit| {
            let other = known.limit.bits();
            if other != bits && known.until() > now {
                others.entry(mix(other, 0)).or_insert(*known).merge(known);
            }
        };
        let is_any = self.numbers(bits).any(|number| number == ANY);
        match is_any {
            true => self.limits.iter().for_each(&mut add),
            false => self.numbers(bits).chain([ANY]).flat_map(|number| self.of_number(number)).for_each(add),
        }
        let mut others: SmallVec<[KnownLimit; 4]> = others.into_values().collect();
        if others.len() > MAX_TRIED {
            others.sort_unstable_by_key(|known| Reverse(known.ended));
            others.truncate(MAX_TRIED);
        }
        Some(others.iter().map(|known| known.limit).collect())
    }
}

#[cfg(all(test, feature = "yaml"))]
mod tests;
