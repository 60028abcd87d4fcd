//! Which limits the rules have, and had lately: under each of them a key may have consumed something (`former.rs`).

use std::collections::HashSet;

use dashmap::DashMap;
use smallvec::SmallVec;

use super::shard::Unhashed;
use crate::{Limit, RuleId, Rules, algorithm};

/// Limits of a rule that are known at the same time, those in force first; more changes than that in the time in which the
/// first one refills, and what was consumed under that one is forgotten.
const MAX_KNOWN: usize = 16;
/// In force.
const NO_END: u64 = u64::MAX;

/// Limits of each rule: those in force and those that were.
#[derive(Debug, Default)]
pub(super) struct KnownLimits(DashMap<RuleId, Known, Unhashed>);

type Known = SmallVec<[KnownLimit; 1]>;

#[derive(Debug, Clone, Copy)]
struct KnownLimit {
    limit: Limit,
    /// From when on no state of it says anything.
    until: u64,
}

impl KnownLimits {
    /// These are the limits in force. Of a rule that is no more nothing is kept.
    pub(super) fn set(&self, rules: &Rules, now: u64) {
        let ids: HashSet<RuleId> = rules.all().map(|rule| rule.id()).collect();
        self.0.retain(|rule, _| ids.contains(rule));
        for rule in rules.all() {
            let mut in_force = Known::new();
            for limit in rule.limits().filter(|limit| !limit.denies()) {
                if !contains(&in_force, limit) {
                    in_force.push(KnownLimit { limit: *limit, until: NO_END });
                }
            }
            let mut known = self.0.entry(rule.id()).or_default();
            for former in known.iter() {
                let until = if former.until == NO_END { end_of(&former.limit, now) } else { former.until };
                if until > now && !contains(&in_force, &former.limit) {
                    in_force.push(KnownLimit { until, ..*former });
                }
            }
            in_force.truncate(MAX_KNOWN);
            in_force.shrink_to_fit();
            *known = in_force;
        }
    }

    /// The other limits under which the key of a charge may have consumed something. A limit that is not known is one of newer rules,
    /// which another node has, and is known from then on.
    pub(super) fn others(&self, rule: RuleId, limit: &Limit, now: u64) -> SmallVec<[Limit; 4]> {
        let others = |known: &[KnownLimit]| {
            let is_other = |known: &&KnownLimit| known.until > now && known.limit.bits() != limit.bits();
            known.iter().filter(is_other).map(|known| known.limit).collect()
        };
        match self.0.get(&rule) {
            Some(known) if contains(&known, limit) => {
                // The usual case: no limit of the rule has changed.
                return match known.iter().any(|known| known.until != NO_END && known.until > now) {
                    true => others(&known),
                    false => SmallVec::new(),
                };
            }
            Some(_) => {}
            None => return SmallVec::new(),
        }
        let Some(mut known) = self.0.get_mut(&rule) else { return SmallVec::new() };
        if !contains(&known, limit) {
            known.truncate(MAX_KNOWN - 1);
            known.push(KnownLimit { limit: *limit, until: end_of(limit, now) });
        }
        others(&known)
    }
}

fn contains(known: &[KnownLimit], limit: &Limit) -> bool {
    known.iter().any(|known| known.limit.bits() == limit.bits())
}

fn end_of(limit: &Limit, now: u64) -> u64 {
    now.saturating_add(algorithm::horizon(limit))
}
