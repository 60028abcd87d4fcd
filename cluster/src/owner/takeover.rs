//! How a slot was begun from floors: what its buckets count as, of which few or no floors are known.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_limiter::{
    Limit, Nanos,
    cluster::{Formerly, Mark, Reserve, Reserves, RuleId},
};

use crate::planted::PlantedBug;

/// How a slot was begun from floors.
///
/// **A rule that was written since then owes nothing from before.** `rules` are those of the entry of the log that made this node
/// the owner, or of a later one: floors count under no others. A node whose log has a later change of them has that entry too, so no
/// owner before, which was one until then, has charged by it, and nobody has given shares by it for want of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakeoverBasis {
    /// The rules then: buckets of those that had no floors count as exhausted.
    pub(crate) rules: Arc<Reserves>,
    /// When the owner before was alive for the last time, as far as its successor knows.
    pub(crate) heard: Nanos,
    pub(crate) begun: Nanos,
    /// When the owner before had counted all buckets as exhausted.
    pub(crate) before: Option<Nanos>,
    /// The same two instants of owners before that had begun from floors too, the first of them first. Where the first is after the
    /// second, they are what a wall clock showed before and after it was set back.
    pub(crate) earlier: Vec<(Nanos, Nanos)>,
}

/// How far a bucket counts as used in a slot that was begun from floors, whatever floor of it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::owner) struct Assumed {
    /// It counts as exhausted at this instant.
    pub(in crate::owner) empty_at: Option<Nanos>,
    /// At least so far.
    pub(in crate::owner) at_least: Mark,
}

/// So many are kept apart; of more the first two count as one that has lasted as long as both and what was between them.
const MAX_EARLIER: usize = 8;

/// One takeover that lasted as long as all of these and what was between them: stricter.
pub(crate) fn as_one(earlier: &[(Nanos, Nanos)]) -> Option<(Nanos, Nanos)> {
    Some((earlier.iter().map(|(heard, _)| *heard).min()?, earlier.last()?.1))
}

/// When rules with floors became others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::owner) struct RuleChanges(BTreeMap<u64, Vec<Nanos>>);

/// Of more changes of a rule than that the later ones are not known: then more is assumed.
const MAX_CHANGES: usize = 16;

impl RuleChanges {
    /// Rules that are others in `after`, from now on. What was before slots were `begun` matters to nobody.
    pub(in crate::owner) fn note(
        &mut self,
        before: &Reserves,
        after: &Reserves,
        begun: Option<Nanos>,
        now: Nanos,
    ) {
        self.0.retain(|_, changes| {
            changes.retain(|at| begun.is_some_and(|begun| *at >= begun));
            !changes.is_empty()
        });
        if begun.is_none() {
            return;
        }
        let is_other = |(rule, reserve, _): &(RuleId, Reserve, _)| !after.is_as_in(before, *rule, *reserve);
        for (rule, ..) in before.all().filter(is_other) {
            let changes = self.0.entry(rule.get()).or_default();
            if changes.len() < MAX_CHANGES {
                changes.push(now);
            }
        }
    }

    /// When the rule became another one for the first time since then, as far as is known: else that very instant.
    fn first_after(&self, rule: RuleId, begun: Nanos) -> Nanos {
        let changes = self.0.get(&rule.get()).map_or(&[][..], Vec::as_slice);
        changes.iter().copied().find(|at| *at >= begun).unwrap_or(begun)
    }
}

impl TakeoverBasis {
    /// With the rules of then; `None` if nobody knows them any more: then its buckets count as exhausted.
    pub(crate) fn with(self, rules: Option<Arc<Reserves>>) -> Option<Arc<Self>> {
        Some(Arc::new(Self { rules: rules?, ..self }))
    }

    /// What a bucket of a rule counts as that has such a limit by now; `None`: as exhausted when the slot was begun. `now`: the rules in
    /// force.
    pub(in crate::owner) fn assumed(
        &self,
        now: &Reserves,
        changes: &RuleChanges,
        rule: RuleId,
        reserve: Option<Reserve>,
        limit: &Limit,
    ) -> Option<Assumed> {
        match (self.rules.formerly(now, rule, reserve, limit), reserve) {
            (Formerly::Absent, _) => Some(Assumed::default()),
            (Formerly::Same, Some(reserve)) => self.of_same(reserve, limit),
            // As many units as may have been consumed under a limit that was its own, and had not refilled when that changed.
            (Formerly::Other(former, limits), Some(_)) => {
                let at = changes.first_after(rule, self.begun);
                let counted = now.formerly_of(rule, limit, limits).map(|of| {
                    let mark = self.at_least(former, of);
                    let mark = mark.unwrap_or_else(|| Reserve::exhausted(of, self.begun));
                    let empty = self.empty_at(former).map(|at| Reserve::exhausted(of, at));
                    // Each by itself: of windows that slide the larger number may know less.
                    let converted = |mark| Reserve::converted(of, Some(mark), limit, at);
                    Reserve::stricter(limit, converted(mark), converted(empty.unwrap_or_default()), at)
                });
                let stricter = |one, other| Reserve::stricter(limit, one, other, at);
                Some(Assumed { empty_at: None, at_least: counted.reduce(stricter).unwrap_or_default() })
            }
            _ => None,
        }
    }

    /// What a bucket counts as whose rule is what it was.
    fn of_same(&self, reserve: Reserve, limit: &Limit) -> Option<Assumed> {
        let at_least = self.at_least(reserve, limit)?;
        Some(Assumed { empty_at: self.empty_at(reserve), at_least })
    }

    /// The instant that goes to the next owner, whose rules are those in force: the same of all of them. **Each bucket counts there at
    /// least as far as here.** So where a rule was another one when the slot was begun, and its buckets may be used farther than those
    /// that the next owner knows nothing of, the buckets of all rules count as exhausted early enough that these do.
    pub(super) fn told(&self, now: &Reserves, changes: &RuleChanges, at: Nanos) -> Option<Nanos> {
        let known = self.postponed_before();
        if *self.rules == *now {
            return known;
        }
        let inline = self.rules.has_inline_limits() != now.has_inline_limits();
        let of_others = now.all().filter_map(|(rule, reserve, limits)| {
            let owed = |(_, limit): &(u64, Limit)| self.owed(now, changes, (rule, reserve), limit, at);
            if limits.is_empty() {
                self.owed_by_many(now, rule, reserve)
            } else {
                limits.iter().filter_map(owed).max()
            }
        });
        known.max(of_others.max()).max(inline.then_some(self.begun))
    }

    /// From when on the buckets of a limit in force have to count as exhausted; `None`: they count as used as far in any case.
    fn owed(
        &self,
        now: &Reserves,
        changes: &RuleChanges,
        (rule, reserve): (RuleId, Reserve),
        limit: &Limit,
        at: Nanos,
    ) -> Option<Nanos> {
        let is_other = matches!(
            self.rules.formerly(now, rule, Some(reserve), limit),
            Formerly::Other(..) | Formerly::Unknown
        );
        if !is_other {
            return None;
        }
        let Some(assumed) = self.assumed(now, changes, rule, Some(reserve), limit) else {
            return Some(self.begun);
        };
        // What the next owner counts in any case: what it would if the rule had been the same, and a quantum, whenever it begins.
        let stricter = |one, other| Reserve::stricter(limit, one, other, at);
        let same = self.of_same(reserve, limit).map_or_else(
            || Reserve::exhausted(limit, self.begun),
            |same| {
                stricter(
                    same.at_least,
                    same.empty_at.map_or(Mark::default(), |at| Reserve::exhausted(limit, at)),
                )
            },
        );
        let counted = stricter(same, reserve.at_least(limit, at, at).unwrap_or_default());
        if stricter(counted, assumed.at_least) == stricter(counted, counted) {
            return None;
        }
        Some(Reserve::exhausted_at(limit, assumed.at_least).unwrap_or(self.begun).min(at))
    }

    /// The same of a rule of whose limits it is not known which they are.
    fn owed_by_many(&self, now: &Reserves, rule: RuleId, reserve: Reserve) -> Option<Nanos> {
        let is_other = self.rules.charged_by(rule) && !now.is_as_in(&self.rules, rule, reserve);
        is_other.then_some(self.begun)
    }

    /// When the owner before had counted all buckets as exhausted, as if time had stood still while nobody owned the slot: shares
    /// may have admitted what refilled.
    fn empty_at(&self, reserve: Reserve) -> Option<Nanos> {
        if reserve.refills_for_shares() { self.postponed_before() } else { self.before }
    }

    /// The same for every rule: what this owner sends the next one.
    pub(super) fn postponed_before(&self) -> Option<Nanos> {
        let unheard = self.begun.saturating_since(self.heard);
        self.before.map(|before| before.saturating_add(unheard).min(self.begun))
    }

    /// `None`: the bucket is exhausted when the slot was begun.
    fn at_least(&self, reserve: Reserve, limit: &Limit) -> Option<Mark> {
        // A window that ended between the last answer of an earlier owner and the takeover counts as exhausted, to the next owners
        // too.
        let ended = |(heard, begun): &(Nanos, Nanos)| {
            reserve.at_least(limit, *heard, *begun).is_none() && reserve.is_counted(limit, *begun, self.begun)
        };
        if self.earlier.iter().any(ended) {
            return None;
        }
        if PlantedBug::SharesForgotten.is_on() {
            return reserve.at_least(limit, self.begun, self.begun);
        }
        let mark = reserve.at_least(limit, self.heard, self.begun)?;
        if reserve.is_of_window() {
            return Some(mark);
        }
        // Owners before that had taken over from floors too need not have sent what they assumed themselves. It has stood still
        // in each takeover since.
        let (mut mark, mut unheard) = (mark, self.begun.saturating_since(self.heard));
        // A wall clock that was set back says nothing of buckets.
        for (heard, begun) in self.earlier.iter().rev().filter(|(heard, begun)| heard <= begun) {
            let assumed = reserve.at_least(limit, *heard, *begun).unwrap_or_default();
            mark = mark.max(assumed.postponed(unheard));
            unheard += begun.saturating_since(*heard);
        }
        Some(mark)
    }

    /// The takeovers that the next owner has to know of, this one with them.
    pub(super) fn takeovers(&self) -> Vec<(Nanos, Nanos)> {
        let mut takeovers = self.earlier.clone();
        // Where nobody can have given anything, nothing more is assumed.
        if self.heard != self.begun {
            takeovers.push((self.heard, self.begun));
        }
        if let Some(one) = takeovers.get(..2).filter(|_| takeovers.len() > MAX_EARLIER).and_then(as_one) {
            takeovers.splice(..2, [one]);
        }
        takeovers
    }
}

/// What an owner says when it has sent all floors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakeoverState {
    /// Of the rules that have floors, as the owner had them.
    pub(crate) fingerprint: u64,
    /// [Since](Since::number) when it had them.
    pub(crate) since: u64,
    /// When the owner had counted all buckets as exhausted.
    pub(crate) before: Option<Nanos>,
    /// As [`TakeoverBasis::earlier`].
    pub(crate) earlier: Vec<(Nanos, Nanos)>,
}

#[cfg(test)]
mod tests;
