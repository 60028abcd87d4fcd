//! What a bucket's owner keeps with the node that would take the bucket over.
//!
//! The *successor* holds a floor of each bucket: a state that is not earlier than the owner's can be. **No charge may make the
//! state later than that**, so that a successor that begins from the floor admits nothing twice. A floor is sent ahead of spending, by
//! a *quantum*: at most that much is lost when a successor begins from it. A bucket of which the successor knows nothing counts
//! as if one quantum had been spent: below that no floor needs to be sent.
//!
//! All states of a bucket are numbers of which the later is the stricter, so floors may come late, twice, or in any order.
//!
//! A floor of a sliding window is a state of it, with the window before as it is: that one's count is over. Of the window that counts a
//! floor says how many units, and leaves open how late they come in it.

mod limits;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use self::limits::RuleLimits;
use crate::{
    Algorithm, Charge, Decision, KeyHash, Limit, Nanos, Period, RuleId, Takeover,
    algorithm::{self, gcra, sliding},
    calendar::window_end,
    limit_bits::mix,
    mark::{Held, Mark, QUANTUM_PART},
    takeover::SHORT_REFILL,
    time::TICKS_PER_NANO,
};

/// Of a limit that came with a check nobody knows the quantum who has only its bucket. It is more than this: a thirty-second of the
/// shortest time in which such a limit refills that has floors, because a sixteenth of a burst is rounded down.
const LEAST_INLINE: u64 = SHORT_REFILL.as_nanos() as u64 * TICKS_PER_NANO / (2 * QUANTUM_PART);

/// A rule whose floors are replicated: the same for all of its buckets, whatever override is in force, so that the owner and the
/// successor mean the same. Of limits that come with checks each has its own: a bucket of these knows of one limit only, because
/// all of the limit is part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reserve {
    rule: u64,
    /// Buckets: ticks. Windows: grains.
    quantum: u64,
    is_of_window: bool,
    is_sliding: bool,
    /// While nobody owns a bucket, shares admit what refills of it.
    has_shares: bool,
}

impl Reserve {
    /// `None` if a limit's algorithm has no floors.
    pub(crate) fn of<'l>(
        rule: RuleId,
        limits: impl IntoIterator<Item = &'l Limit>,
        has_shares: bool,
    ) -> Option<Self> {
        // What denies takes nothing that could be lost.
        let mut limits = limits.into_iter().filter(|limit| !limit.denies()).peekable();
        let is_sliding = limits.peek()?.algorithm() == Algorithm::SlidingWindow;
        let is_of_window = is_sliding || limits.peek()?.algorithm() == Algorithm::FixedWindow;
        let quantum = limits.map(quantum).min().flatten()?;
        Some(Self { rule: rule.get(), quantum, is_of_window, is_sliding, has_shares })
    }

    /// Of a limit that came with a check; `None`: its buckets have no floors. They have where those of a rule have that says nothing of
    /// it.
    pub fn of_inline(limit: &Limit) -> Option<Self> {
        // Nodes give shares of it that are not carved out.
        (Takeover::default_of([limit]) == Takeover::Reserve)
            .then(|| Self::of(RuleId::INLINE, [limit], true))
            .flatten()
    }

    /// Which rule, the same at each node of a cluster.
    pub fn rule(&self) -> u64 {
        self.rule
    }

    /// Whether shares admit what refills of a bucket that has no owner.
    pub fn refills_for_shares(&self) -> bool {
        self.has_shares && !self.is_of_window
    }

    /// How far a charge may go: as far as the successor has acknowledged, or as far as it would believe anyway.
    pub fn at_most(&self, limit: &Limit, acknowledged: Option<Mark>, now: Nanos) -> Mark {
        let (acknowledged, spent) = (acknowledged.unwrap_or_default(), self.spent(limit, now));
        if self.is_sliding {
            return Mark::new(sliding::more_in_window(limit, acknowledged.get(), spent.get()));
        }
        acknowledged.max(spent)
    }

    /// How far a bucket counts as used by the node that has taken it over at `begun`, and has heard of its owner at `heard` for
    /// the last time, whatever floor it knows. `None`: the bucket is exhausted, because a window has ended in between, of which
    /// shares may have given any part.
    ///
    /// With `u = begun - heard`, the owner had spent one quantum at most beyond what refilled, and shares have admitted at most
    /// what refills in `u`, perhaps all of it in the end: the bucket is used as far as the larger of both. A floor `f` that
    /// stood still counts until `f + u`; one that is over by `begun` is covered, because then `f + u <= begun + u`. Shares of a
    /// window admit nothing before the next one begins.
    ///
    /// `heard` is after `begun` where the wall clock was set back in between: then the window of `begun` had been before, and floors of
    /// it may be gone since.
    pub fn at_least(&self, limit: &Limit, heard: Nanos, begun: Nanos) -> Option<Mark> {
        let window = |at: Nanos| window_end(limit.period(), at.ticks());
        let is_known = || match window(heard).cmp(&window(begun)) {
            Ordering::Less => !self.has_shares,
            Ordering::Equal => true,
            Ordering::Greater => false,
        };
        let is_known = !self.is_of_window || is_known();
        let spent = is_known.then(|| self.spent(limit, begun))?;
        if !self.refills_for_shares() {
            return Some(spent);
        }
        let refilled =
            begun.ticks().saturating_sub(heard.ticks()).min(gcra::ticks_for(limit, limit.burst_size()));
        Some(spent.max(Mark::new(begun.ticks().saturating_add(refilled))))
    }

    /// How far a bucket counts as used at `at` under its limit in force, if it was used as far as `mark` says under another one that
    /// its rule had, or was exhausted, at that instant: as many units are consumed.
    pub fn converted(former: &Limit, mark: Option<Mark>, limit: &Limit, at: Nanos) -> Mark {
        let at = at.ticks();
        let state = match mark {
            Some(mark) => mark.get(),
            None => algorithm::having_consumed(former, u64::MAX, at),
        };
        let state = algorithm::rescaled(former, limit, state, at)
            .unwrap_or_else(|| algorithm::having_consumed(limit, algorithm::consumed(former, state, at), at));
        Mark::new(state.min(algorithm::having_consumed(limit, u64::MAX, at)))
    }

    /// At least as strict as both: of windows that slide that is not always the larger number.
    pub fn stricter(limit: &Limit, one: Mark, other: Mark, at: Nanos) -> Mark {
        Mark::new(algorithm::joined(limit, one.get(), other.get(), at.ticks()))
    }

    /// How far a bucket is used that was exhausted at an instant.
    pub fn exhausted(limit: &Limit, at: Nanos) -> Mark {
        Mark::new(algorithm::having_consumed(limit, u64::MAX, at.ticks()))
    }

    /// When a bucket was exhausted at the earliest that is used that far; `None`: it is of windows, of which that says nothing.
    pub fn exhausted_at(limit: &Limit, mark: Mark) -> Option<Nanos> {
        let refill = gcra::ticks_for(limit, limit.burst_size());
        let ticks = mark.get().saturating_sub(refill);
        limit.algorithm().has_burst().then(|| Nanos::new(ticks.div_ceil(TICKS_PER_NANO)))
    }

    /// Whether the window of an instant still counts at a later one.
    pub fn is_counted(&self, limit: &Limit, window_of: Nanos, at: Nanos) -> bool {
        let end = |ticks: u64| window_end(limit.period(), ticks);
        let (known, now) = (end(window_of.ticks()), end(at.ticks()));
        known == now || self.is_sliding && end(known) == now
    }

    /// Whether its buckets are of windows.
    pub fn is_of_window(&self) -> bool {
        self.is_of_window
    }

    /// One quantum spent of a full bucket.
    fn spent(&self, limit: &Limit, now: Nanos) -> Mark {
        let full = match limit.algorithm() {
            Algorithm::SlidingWindow => {
                return Mark::new(sliding::with_spent(limit, self.quantum, now.ticks()));
            }
            Algorithm::FixedWindow => window_end(limit.period(), now.ticks()),
            _ => now.ticks(),
        };
        Mark::new(full.saturating_add(self.quantum))
    }

    /// How far the bucket is used after this decision; by one that is [held](Decision::is_held), how far it would be. It may
    /// be less where the time of the decision is not `now`, but not more. `state` is what the bucket knows by now: it is asked for only
    /// where the decision does not tell.
    pub fn mark(
        &self,
        charge: &Charge,
        decision: &Decision,
        now: Nanos,
        state: impl FnOnce() -> Option<Mark>,
    ) -> Mark {
        let Charge { ref limit, cost, .. } = *charge;
        let add = if decision.allowed { 0 } else { cost.get().max(1) };
        match limit.algorithm() {
            Algorithm::SlidingWindow => {
                let (state, bounds) = (state().unwrap_or_default().get(), charge.asked().bounds);
                Mark::new(match decision.allowed {
                    true => state,
                    false => sliding::with_more(limit, state, bounds, cost, now.ticks()),
                })
            }
            Algorithm::FixedWindow => {
                let used = decision.limit.saturating_sub(decision.remaining).saturating_add(add);
                let end = window_end(limit.period(), now.ticks());
                Mark::new(end.saturating_add(used.div_ceil(limit.grain())))
            }
            _ => {
                let debt = decision.reset_after.as_nanos() as u64 * TICKS_PER_NANO;
                Mark::new(now.ticks().saturating_add(debt).saturating_add(gcra::ticks_for(limit, add)))
            }
        }
    }

    /// The floor to send to the successor, of a bucket that is used that far.
    pub fn ahead(&self, limit: &Limit, mark: Mark, now: Nanos) -> Mark {
        if self.is_sliding {
            return Mark::new(sliding::ahead(limit, mark.get(), self.quantum, now.ticks()));
        }
        Mark::new(mark.get().saturating_add(self.quantum))
    }

    /// Whether it is time to send the successor a later floor: less than half a quantum is left.
    pub fn is_near(&self, limit: &Limit, mark: Mark, at_most: Mark) -> bool {
        let left = if self.is_sliding {
            sliding::units_between(limit, mark.get(), at_most.get())
        } else {
            Some(at_most.get().saturating_sub(mark.get()))
        };
        left.is_some_and(|left| left < self.quantum.div_ceil(2))
    }
}

fn quantum(limit: &Limit) -> Option<u64> {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => {
            Some(gcra::ticks_for(limit, (limit.burst_size() / QUANTUM_PART).max(1)))
        }
        // One that its first charge opens has no end before that.
        Algorithm::FixedWindow if matches!(limit.period(), Period::FromFirst { .. }) => None,
        Algorithm::FixedWindow => Some((limit.grains() / QUANTUM_PART).max(1)),
        // Of a bucket that nobody knows as much may have been spent in the window before.
        Algorithm::SlidingWindow => Some((limit.grains() / (2 * QUANTUM_PART)).max(1)),
        Algorithm::SlidingLog => None,
    }
}

/// All rules whose floors are replicated. By default: none, not even of the limits that come with checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserves {
    rules: BTreeMap<u64, Reserve>,
    /// Whether limits that come with checks have floors.
    has_inline: bool,
    least_debt: Option<Duration>,
    /// The limits of each of these rules.
    limits: BTreeMap<u64, RuleLimits>,
    /// All other rules: they have no floors.
    others: BTreeSet<u64>,
    /// Those of the others by which nothing can have been charged, because they deny.
    denying: BTreeSet<u64>,
    /// Of all rules, those whose buckets start full when nobody can tell what they had admitted.
    full: BTreeSet<u64>,
    fingerprint: u64,
    number: u64,
}

impl Default for Reserves {
    fn default() -> Self {
        Self {
            rules: BTreeMap::new(),
            has_inline: false,
            least_debt: None,
            limits: BTreeMap::new(),
            others: BTreeSet::new(),
            denying: BTreeSet::new(),
            full: BTreeSet::new(),
            fingerprint: 0,
            number: 0,
        }
        .numbered()
    }
}

/// What rules that were in force before say of one that is in force now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formerly<'r> {
    /// It was the same: it had the same limits, and floors.
    Same,
    /// It was not there, or admitted nothing.
    Absent,
    /// It had floors, under these limits: each with its [number](Reserves::formerly_of).
    Other(Reserve, &'r [(u64, Limit)]),
    /// It had no floors, or too many limits to say under which.
    Unknown,
}

impl Reserves {
    pub(crate) fn of<'l, L: IntoIterator<Item = (u64, &'l Limit)>>(
        all: impl IntoIterator<Item = (RuleId, Option<Reserve>, L)>,
        full: impl IntoIterator<Item = RuleId>,
    ) -> Self {
        let (mut rules, mut limits) = (BTreeMap::new(), BTreeMap::new());
        let (mut others, mut denying) = (BTreeSet::new(), BTreeSet::new());
        for (rule, reserve, of_rule) in all {
            match reserve {
                Some(reserve) => {
                    rules.insert(rule.get(), reserve);
                    limits.insert(rule.get(), RuleLimits::of(of_rule));
                }
                None => {
                    others.insert(rule.get());
                    if of_rule.into_iter().all(|(_, limit)| limit.denies()) {
                        denying.insert(rule.get());
                    }
                }
            }
        }
        let buckets = rules.values().filter(|reserve: &&Reserve| !reserve.is_of_window);
        // Rounded down, to be on the safe side.
        let least = buckets.map(|reserve| reserve.quantum).chain([LEAST_INLINE]).min();
        let least = least.map(|least| Duration::from_nanos(least / TICKS_PER_NANO));
        let full = full.into_iter().map(RuleId::get).collect();
        let all = Self {
            rules,
            has_inline: true,
            least_debt: least,
            limits,
            others,
            denying,
            full,
            fingerprint: 0,
            number: 0,
        };
        all.numbered()
    }

    /// Those of several domains together.
    pub fn of_all<'r>(parts: impl IntoIterator<Item = &'r Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.has_inline |= part.has_inline;
            all.least_debt = [all.least_debt, part.least_debt].into_iter().flatten().min();
            all.rules.extend(&part.rules);
            all.limits.extend(part.limits.clone());
            all.others.extend(&part.others);
            all.denying.extend(&part.denying);
            all.full.extend(&part.full);
        }
        all.numbered()
    }

    /// Whether the buckets of this rule start full when nobody can tell what they had admitted.
    pub fn starts_full(&self, rule: RuleId) -> bool {
        !self.full.is_empty() && self.full.contains(&rule.get())
    }

    /// The rule with this number, if its floors are replicated.
    pub fn get(&self, rule: u64) -> Option<Reserve> {
        self.rules.get(&rule).copied()
    }

    /// Whether this very rule, with this quantum, is among them. Of limits that come with checks all are, or none.
    pub fn contains(&self, reserve: Reserve) -> bool {
        if reserve.rule == RuleId::INLINE.get() {
            return self.has_inline;
        }
        self.get(reserve.rule) == Some(reserve)
    }

    /// What these rules, which were in force before, say of one that has such a limit by now. `now`: the rules in force.
    pub fn formerly(
        &self,
        now: &Self,
        rule: RuleId,
        reserve: Option<Reserve>,
        limit: &Limit,
    ) -> Formerly<'_> {
        if rule == RuleId::INLINE {
            // What requests are charged by that carry their limit is no rule that could have been written since.
            let is_same = reserve.is_some_and(|reserve| self.contains(reserve));
            return if is_same { Formerly::Same } else { Formerly::Unknown };
        }
        match (self.get(rule.get()), self.limits.get(&rule.get())) {
            (Some(former), Some(limits)) => {
                // The limit may be of newer rules than those that are said to be in force.
                let is_same = reserve == Some(former)
                    && limits.has(limit)
                    && now.limits.get(&rule.get()).is_some_and(|now| now.number() == limits.number());
                match limits.few() {
                    _ if is_same => Formerly::Same,
                    [] => Formerly::Unknown,
                    few => Formerly::Other(former, few),
                }
            }
            _ if self.charged_by(rule) => Formerly::Unknown,
            _ => Formerly::Absent,
        }
    }

    /// Of a rule's `former` limits those under which a bucket may have been charged that has this limit by now, as these rules in
    /// force say: the one of the same override, or of the rule itself. All, where that one was not there.
    pub fn formerly_of<'r>(
        &'r self,
        rule: RuleId,
        limit: &'r Limit,
        former: &'r [(u64, Limit)],
    ) -> impl Iterator<Item = &'r Limit> {
        let own = self.limits.get(&rule.get()).map_or(&[][..], RuleLimits::few);
        let is_own = move |(number, _): &&(u64, Limit)| {
            own.iter().any(|(own_number, own)| own_number == number && own == limit)
        };
        let is_known = former.iter().any(|one| is_own(&one));
        former.iter().filter(move |one| !is_known || is_own(one)).map(|(_, limit)| limit)
    }

    /// The rules with floors, with the limits of each; none of one that has more than are kept.
    pub fn all(&self) -> impl Iterator<Item = (RuleId, Reserve, &[(u64, Limit)])> {
        let limits = |rule: &u64| self.limits.get(rule).map_or(&[][..], RuleLimits::few);
        self.rules.iter().map(move |(rule, reserve)| (RuleId::from_raw(*rule), *reserve, limits(rule)))
    }

    /// Whether anything may have been charged by that rule.
    pub fn charged_by(&self, rule: RuleId) -> bool {
        let is_other = self.others.contains(&rule.get()) && !self.denying.contains(&rule.get());
        is_other || self.get(rule.get()).is_some()
    }

    /// Whether a rule that had such floors in `before` has the same ones, and the same limits.
    pub fn is_as_in(&self, before: &Self, rule: RuleId, reserve: Reserve) -> bool {
        let number = |of: &Self| of.limits.get(&rule.get()).map(RuleLimits::number);
        before.get(rule.get()) == Some(reserve)
            && self.get(rule.get()) == Some(reserve)
            && number(self) == number(before)
    }

    /// Whether limits that come with checks have floors.
    pub fn has_inline_limits(&self) -> bool {
        self.has_inline
    }

    /// How many rules it knows of.
    pub fn count(&self) -> usize {
        self.rules.len() + self.others.len()
    }

    /// The floor of a bucket that knows this, a little ahead of it; `None`: it needs none. Of a ban it is just that.
    pub fn floor_of(&self, key: KeyHash, rule: RuleId, held: &Held, now: Nanos) -> Option<Mark> {
        if key.is_of_ban() {
            // Of a limit that came with a check it only looks like one, and is a window.
            let has_floors = self.get(rule.get()).is_some() || rule.is_shared() || self.has_inline(rule);
            return held.mark(now).filter(|_| has_floors);
        }
        // A number of a sliding window that is a little larger says something else.
        let is_exact =
            matches!(held, Held::Window(_)) && self.get(rule.get()).is_none_or(|one| one.is_sliding);
        let mark = if is_exact { held.mark(now) } else { held.mark_ahead(now) }?;
        let wants = self.has_inline(rule) || self.wants(rule, mark, now);
        (self.concerns(held) && wants).then_some(mark)
    }

    fn has_inline(&self, rule: RuleId) -> bool {
        self.has_inline && rule == RuleId::INLINE
    }

    /// Whether such a bucket needs a floor: below a quantum of all rules none does.
    fn concerns(&self, held: &Held) -> bool {
        match held {
            Held::Debt(debt) => self.least_debt.is_some_and(|least| crate::time::duration(*debt) > least),
            Held::Window(_) => true,
            Held::Log { .. } => false,
        }
    }

    /// Whether a bucket of that rule that is used so far needs a floor.
    fn wants(&self, rule: RuleId, mark: Mark, now: Nanos) -> bool {
        match self.get(rule.get()) {
            Some(reserve) => reserve.is_of_window || mark.get() > now.ticks().saturating_add(reserve.quantum),
            // It may be one of these.
            None => rule.is_shared(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.has_inline
    }

    /// A number that differs where the rules or their quanta differ; nobody gains anything by choosing rules for which it does not.
    /// Two nodes that agree about it have the same floors.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// As [`Self::fingerprint`], and it differs where limits differ that have the same quanta.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn numbered(mut self) -> Self {
        let rules = self.rules.values();
        let kind = |one: &Reserve| {
            u64::from(one.is_sliding) << 2 | u64::from(one.is_of_window) << 1 | u64::from(one.has_shares)
        };
        // Earlier versions had no floors of limits that come with checks.
        let first = self.rules.len() as u64 | u64::from(self.has_inline) << 32;
        let first = self.others.iter().fold(first, |bits, rule| mix(bits, *rule));
        let of_rule = |bits, one: &Reserve| mix(mix(mix(bits, one.rule), one.quantum), kind(one));
        self.fingerprint = rules.fold(mix(first, 0), of_rule);
        let of_limits = |bits, (rule, limits): (&u64, &RuleLimits)| mix(mix(bits, *rule), limits.number());
        self.number = self.limits.iter().fold(self.fingerprint, of_limits);
        self
    }
}

#[cfg(test)]
mod tests;
