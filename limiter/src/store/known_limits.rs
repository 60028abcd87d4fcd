//! Which limits the rules have, and had lately: under each of them a key may have consumed something (`former.rs`).

use std::collections::HashSet;

use dashmap::DashMap;
use smallvec::SmallVec;

use super::shard::Unhashed;
use crate::{Limit, RuleId, Rules, algorithm};

/// Former limits of a rule that are known, or as many as are in force if those are more; of more changes than that in the time in which
/// the first one refills, what was consumed under that one is forgotten.
const MAX_FORMER: usize = 16;
/// In force.
const NO_END: u64 = u64::MAX;
/// Whose limit it is, where that is not known.
const ANY: u64 = u64::MAX;

/// Limits of each rule: those in force and those that were.
#[derive(Debug, Default)]
pub(super) struct KnownLimits(DashMap<RuleId, Known, Unhashed>);

#[derive(Debug, Default)]
struct Known {
    limits: SmallVec<[KnownLimit; 1]>,
    /// Until when a state may have been put aside that still says something.
    aside_until: u64,
}

#[derive(Debug, Clone, Copy)]
struct KnownLimit {
    limit: Limit,
    /// Whose it is: the rule's own, or that of one of its overrides.
    number: u64,
    /// How far ahead its states are at most, and those of limits before whose states mean the same.
    horizon: u64,
    /// From when on no state of it says anything.
    until: u64,
}

impl KnownLimit {
    fn of(limit: &Limit, number: u64, until: u64) -> Self {
        Self { limit: *limit, number, horizon: algorithm::horizon(limit), until }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.limit.bits() == other.limit.bits() && self.number == other.number
    }

    /// The same, of which nothing is charged any more.
    fn ended(self, now: u64) -> Self {
        let until = if self.until == NO_END { now.saturating_add(self.horizon) } else { self.until };
        Self { until, ..self }
    }
}

impl KnownLimits {
    /// These are the limits in force. Of a rule that is no more nothing is kept.
    pub(super) fn set(&self, rules: &Rules, now: u64) {
        let ids: HashSet<RuleId> = rules.all().map(|rule| rule.id()).collect();
        self.0.retain(|rule, _| ids.contains(rule));
        for rule in rules.all() {
            let mut in_force: SmallVec<[KnownLimit; 1]> = SmallVec::new();
            for (number, limit) in rule.numbered_limits().filter(|(_, limit)| !limit.denies()) {
                let limit = KnownLimit::of(limit, number, NO_END);
                if !in_force.iter().any(|known| known.is_like(&limit)) {
                    in_force.push(limit);
                }
            }
            self.0.entry(rule.id()).or_default().become_of(in_force, now);
        }
    }

    /// Under these limits keys may have consumed something, too.
    pub(super) fn add_former(&self, rules: &Rules, now: u64) {
        for rule in rules.all() {
            let Some(mut known) = self.0.get_mut(&rule.id()) else { continue };
            for (number, limit) in rule.numbered_limits().filter(|(_, limit)| !limit.denies()) {
                known.add_former(KnownLimit::of(limit, number, NO_END).ended(now));
            }
        }
    }

    /// The limits of a rule that are not in force any more, and whose states may say something, the latest first: each with whose it was.
    pub(super) fn former(&self, rule: RuleId, now: u64) -> SmallVec<[(u64, Limit); 4]> {
        let Some(known) = self.0.get(&rule) else { return SmallVec::new() };
        let former = known.limits.iter().filter(|known| known.until != NO_END && known.until > now);
        former.map(|known| (known.number, known.limit)).collect()
    }

    /// The other limits under which the key of a charge may have consumed something; `None`: there is nothing to look for, not
    /// even what was put aside of its own one. A limit that is not known is one of newer rules, which another node has, and is
    /// known from then on.
    pub(super) fn others(&self, rule: RuleId, limit: &Limit, now: u64) -> Option<SmallVec<[Limit; 4]>> {
        let known = self.0.get(&rule)?;
        let is_asked = |known: &&KnownLimit| known.limit.bits() == limit.bits();
        if let Some(asked) = known.limits.iter().find(is_asked) {
            // One that is in force at other nodes only is known for as long as they ask by it.
            if asked.until == NO_END || asked.until > now.saturating_add(asked.horizon / 2) {
                return known.others(limit, now);
            }
        }
        drop(known);
        let mut known = self.0.get_mut(&rule)?;
        known.add_former(KnownLimit::of(limit, ANY, NO_END).ended(now));
        known.others(limit, now)
    }
}

impl Known {
    fn become_of(&mut self, mut in_force: SmallVec<[KnownLimit; 1]>, now: u64) {
        let mut former: SmallVec<[KnownLimit; 4]> = SmallVec::new();
        for known in &self.limits {
            match in_force.iter_mut().find(|limit| limit.is_like(known)) {
                Some(same) => same.horizon = same.horizon.max(known.horizon),
                None => {
                    let ended = known.ended(now);
                    self.aside_until = self.aside_until.max(ended.until);
                    former.push(ended);
                }
            }
        }
        former.retain(|known| known.until > now);
        former.truncate(MAX_FORMER.max(in_force.len()));
        in_force.extend(former);
        in_force.shrink_to_fit();
        self.limits = in_force;
    }

    /// As late as it is known, of one that ends.
    fn add_former(&mut self, former: KnownLimit) {
        self.aside_until = self.aside_until.max(former.until);
        let like = |known: &&mut KnownLimit| {
            known.limit.bits() == former.limit.bits()
                && (former.number == ANY || known.number == former.number)
        };
        if let Some(known) = self.limits.iter_mut().find(like) {
            known.until = known.until.max(former.until);
            known.horizon = known.horizon.max(former.horizon);
            return;
        }
        let in_force = self.limits.iter().filter(|known| known.until == NO_END).count();
        self.limits.truncate(in_force + MAX_FORMER.max(in_force) - 1);
        self.limits.insert(in_force, former);
    }

    fn others(&self, limit: &Limit, now: u64) -> Option<SmallVec<[Limit; 4]>> {
        let is_former = |known: &KnownLimit| known.until != NO_END && known.until > now;
        if self.aside_until <= now && !self.limits.iter().any(is_former) {
            // The usual case: no limit of the rule has changed.
            return None;
        }
        let is_asked = |known: &&KnownLimit| known.limit.bits() == limit.bits();
        let numbers: SmallVec<[u64; 4]> =
            self.limits.iter().filter(is_asked).map(|known| known.number).collect();
        let any = numbers.contains(&ANY);
        let is_other = |known: &&KnownLimit| {
            known.until > now
                && known.limit.bits() != limit.bits()
                && (any || known.number == ANY || numbers.contains(&known.number))
        };
        Some(self.limits.iter().filter(is_other).map(|known| known.limit).collect())
    }
}
