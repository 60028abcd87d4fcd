//! What a bucket's owner keeps with the node that would take the bucket over.
//!
//! The *successor* holds a floor of each bucket: a state that is not earlier than the owner's can be. **No charge may make the
//! state later than that**, so that whoever begins from the floor admits nothing twice. A floor is told ahead of spending, by
//! a *quantum*: so much is lost at most when it is begun from. A bucket of which the successor knows nothing counts as if
//! one quantum had been spent: below that nothing needs to be told.
//!
//! All states of a bucket are numbers of which the later is the stricter, so floors may come late, twice, or in any order.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Algorithm, Cost, Decision, Held, KeyHash, Limit, Nanos, Period, RuleId, algorithm::gcra,
    calendar::window_end, decision::Bounds, time::TICKS_PER_NANO,
};

/// Of a burst, or a window's count, this part is one quantum; at least one unit.
pub(crate) const QUANTUM_PART: u64 = 16;
/// Where an empty bucket is full again in less time, starting anew with an empty one is the default.
const SHORT_REFILL: Duration = Duration::from_secs(10);

/// How the buckets of a rule begin when their owner was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Takeover {
    /// Exhausted: nothing is told to the successor.
    Zero,
    /// From the floor that the successor holds.
    Reserve,
}

impl Takeover {
    /// Its name in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Reserve => "reserve",
        }
    }

    /// Whether floors can be told of buckets of this algorithm: of those that a single number describes, whatever was in the
    /// window before.
    pub const fn is_possible(algorithm: Algorithm) -> bool {
        matches!(algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket | Algorithm::FixedWindow)
    }

    /// What a rule with these limits does if it does not say.
    pub(crate) fn default_of<'l>(limits: impl IntoIterator<Item = &'l Limit>) -> Self {
        let is_long = |limit: &Limit| Self::is_possible(limit.algorithm()) && refill(limit) > SHORT_REFILL;
        if limits.into_iter().any(is_long) { Self::Reserve } else { Self::Zero }
    }
}

/// The time after which nothing is left of what was spent.
fn refill(limit: &Limit) -> Duration {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => crate::time::duration(limit.refill()),
        _ => limit.window(),
    }
}

/// How far a bucket has been used, as its algorithm writes it: the later, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(u64);

impl Mark {
    /// A mark that was [taken apart](Self::get) before, by the same clock.
    pub const fn new(state: u64) -> Self {
        Self(state)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The mark for another clock.
    pub fn held(self, key: KeyHash, now: Nanos) -> Held {
        if key.is_of_window() { Held::Window(self.0) } else { Held::Debt(self.0.saturating_sub(now.ticks())) }
    }

    /// As if time had stood still for so long.
    pub fn postponed(self, by: Duration) -> Self {
        Self(self.0.saturating_add(Nanos::new(0).saturating_add(by).ticks()))
    }

    /// Whether such a bucket knows of nothing any more.
    pub fn is_over(self, now: Nanos) -> bool {
        self.0 <= now.ticks()
    }
}

impl Held {
    /// As a mark on this clock; none of a log.
    pub fn mark(&self, now: Nanos) -> Option<Mark> {
        match self {
            Self::Debt(debt) => Some(Mark(now.ticks().saturating_add(*debt))),
            Self::Window(state) => Some(Mark(*state)),
            Self::Log { .. } => None,
        }
    }

    /// Until when it knows of something: of a log, as of a bucket that is empty until then. None if it does not any more.
    pub fn until(&self, now: Nanos) -> Option<Self> {
        match self {
            Self::Log { memory, entries } => {
                let (age, _) = entries.last()?;
                memory.checked_sub(*age).map(Self::Debt)
            }
            other => other.mark(now).filter(|mark| !mark.is_over(now)).map(|_| other.clone()),
        }
    }

    /// As if time had stood still for so long. Windows and logs lie where they lie.
    pub fn postponed(self, by: Duration) -> Self {
        match self {
            Self::Debt(debt) => Self::Debt(debt.saturating_add(Nanos::new(0).saturating_add(by).ticks())),
            other => other,
        }
    }

    /// As a mark on this clock, and a little more, so that the next charges fit below it: less than a quantum of the limit
    /// that let it be used so far.
    pub fn mark_ahead(&self, now: Nanos) -> Option<Mark> {
        let mark = self.mark(now)?;
        let used = match self {
            Self::Debt(debt) => *debt,
            // What was used of the window stands above its end, which is a multiple of a millisecond.
            Self::Window(state) => state % (TICKS_PER_NANO * 1_000_000),
            Self::Log { .. } => 0,
        };
        Some(Mark(mark.0.saturating_add(used / QUANTUM_PART)))
    }
}

/// What is said of a bucket beside what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    empty_at: Option<Nanos>,
    at_least: Mark,
    at_most: Mark,
}

impl Floor {
    /// The bucket is not fuller than if it had been *empty* at this instant, whatever is known of it. The instant may lie
    /// ahead.
    pub const fn empty_at(at: Nanos) -> Self {
        Self { empty_at: Some(at), at_least: Mark(0), at_most: Mark(u64::MAX) }
    }

    /// As [`Floor::empty_at`], if that is said; and the bucket is used that far at least, and no charge may make it more
    /// than that.
    pub const fn between(empty_at: Option<Nanos>, at_least: Mark, at_most: Mark) -> Self {
        Self { empty_at, at_least, at_most }
    }

    /// For who only looks: whatever a charge may do.
    pub const fn unbounded(self) -> Self {
        Self { at_most: Mark(u64::MAX), ..self }
    }

    pub(crate) fn bounds(self) -> Bounds {
        Bounds {
            empty_at: self.empty_at.map_or(0, Nanos::ticks),
            at_least: self.at_least.0,
            at_most: self.at_most.0,
        }
    }
}

/// A rule whose owner tells floors: the same for all of its buckets, whatever override is in force, so that those who tell
/// and those who begin mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reserve {
    rule: u64,
    /// Buckets: ticks. Windows: grains.
    quantum: u64,
    is_of_window: bool,
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
        let mut limits = limits.into_iter().peekable();
        let is_of_window = limits.peek()?.algorithm() == Algorithm::FixedWindow;
        let quantum = limits.map(quantum).min().flatten()?;
        Some(Self { rule: rule.get(), quantum, is_of_window, has_shares })
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
        acknowledged.unwrap_or_default().max(self.spent(limit, now))
    }

    /// How far a bucket counts as used by the node that has taken it over at `begun`, and has heard of its owner at `heard` for
    /// the last time, whatever floor it knows. `None`: the bucket is exhausted, because a window has ended in between, about which
    /// nobody can tell.
    ///
    /// With `u = begun - heard`, the owner had spent one quantum at most beyond what refilled, and shares have admitted at most
    /// what refills in `u`, perhaps all of it in the end: the bucket is used as far as the larger of both. A floor `f` that
    /// stood still counts until `f + u`; one that is over by `begun` is covered, because then `f + u <= begun + u`. Shares of a
    /// window admit nothing before the next one begins.
    pub fn at_least(&self, limit: &Limit, heard: Nanos, begun: Nanos) -> Option<Mark> {
        let is_known = limit.algorithm() != Algorithm::FixedWindow
            || window_end(limit.period(), heard.ticks()) == window_end(limit.period(), begun.ticks());
        let spent = is_known.then(|| self.spent(limit, begun))?;
        if !self.refills_for_shares() {
            return Some(spent);
        }
        let refilled =
            begun.ticks().saturating_sub(heard.ticks()).min(gcra::ticks_for(limit, limit.burst_size()));
        Some(spent.max(Mark(begun.ticks().saturating_add(refilled))))
    }

    /// One quantum spent of a full bucket.
    fn spent(&self, limit: &Limit, now: Nanos) -> Mark {
        let full = match limit.algorithm() {
            Algorithm::FixedWindow => window_end(limit.period(), now.ticks()),
            _ => now.ticks(),
        };
        Mark(full.saturating_add(self.quantum))
    }

    /// How far the bucket is used after this decision; by one that is [held](Decision::is_held), how far it would be. It may
    /// tell less where the time of the decision is not `now`, but not more.
    pub fn mark(&self, limit: &Limit, cost: Cost, decision: &Decision, now: Nanos) -> Mark {
        let add = if decision.allowed { 0 } else { cost.get().max(1) };
        match limit.algorithm() {
            Algorithm::FixedWindow => {
                let used = decision.limit.saturating_sub(decision.remaining).saturating_add(add);
                let end = window_end(limit.period(), now.ticks());
                Mark(end.saturating_add(used.div_ceil(limit.grain())))
            }
            _ => {
                let debt = decision.reset_after.as_nanos() as u64 * TICKS_PER_NANO;
                Mark(now.ticks().saturating_add(debt).saturating_add(gcra::ticks_for(limit, add)))
            }
        }
    }

    /// What to tell the successor of a bucket that is used that far.
    pub fn ahead(&self, mark: Mark) -> Mark {
        Mark(mark.0.saturating_add(self.quantum))
    }

    /// Whether it is time to tell the successor more: less than half a quantum is left.
    pub fn is_near(&self, mark: Mark, at_most: Mark) -> bool {
        at_most.0.saturating_sub(mark.0) < self.quantum.div_ceil(2)
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
        Algorithm::SlidingWindow | Algorithm::SlidingLog => None,
    }
}

/// All rules whose owners tell floors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserves {
    rules: BTreeMap<u64, Reserve>,
    least_debt: Option<Duration>,
}

impl Reserves {
    pub(crate) fn of(rules: impl IntoIterator<Item = Reserve>) -> Self {
        let rules: BTreeMap<u64, Reserve> =
            rules.into_iter().map(|reserve| (reserve.rule, reserve)).collect();
        let buckets = rules.values().filter(|reserve| !reserve.is_of_window);
        // Rounded down, to be on the safe side.
        let least = buckets.map(|reserve| reserve.quantum / TICKS_PER_NANO).min();
        Self { rules, least_debt: least.map(Duration::from_nanos) }
    }

    /// The rule with this number, if its owner tells floors.
    pub fn get(&self, rule: u64) -> Option<Reserve> {
        self.rules.get(&rule).copied()
    }

    /// Whether this very rule, with this quantum, is among them.
    pub fn contains(&self, reserve: Reserve) -> bool {
        self.get(reserve.rule) == Some(reserve)
    }

    /// Whether something has to be told of such a bucket: below a quantum of all rules nothing has.
    pub fn concerns(&self, held: &Held) -> bool {
        match held {
            Held::Debt(debt) => self.least_debt.is_some_and(|least| crate::time::duration(*debt) > least),
            Held::Window(_) => true,
            Held::Log { .. } => false,
        }
    }

    /// Whether a bucket of that rule has to be told that is used so far.
    pub fn wants(&self, rule: RuleId, mark: Mark, now: Nanos) -> bool {
        match self.get(rule.get()) {
            Some(reserve) => reserve.is_of_window || mark.0 > now.ticks().saturating_add(reserve.quantum),
            // It may be one of these.
            None => rule.is_shared(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// A number that differs where the rules differ; nobody gains anything by choosing rules for which it does not.
    pub fn fingerprint(&self) -> u64 {
        let mix = |bits: u64, word: u64| (bits ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let rules = self.rules.values();
        let kind = |one: &Reserve| u64::from(one.is_of_window) << 1 | u64::from(one.has_shares);
        rules.fold(self.rules.len() as u64, |bits, one| mix(mix(mix(bits, one.rule), one.quantum), kind(one)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Charge, Mode, Store, StoreConfig};

    const START: u64 = 1_800_000_000_000_000_000;

    fn store(now: Nanos) -> Store {
        Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, now)
    }

    fn charge(limit: Limit, cost: u64, floor: Option<Floor>) -> Charge {
        let windows = limit.algorithm() == Algorithm::FixedWindow;
        let key = KeyHash::from_raw(0x9e37_79b9_7f4a_7c14 | u64::from(windows));
        Charge {
            key,
            rule: RuleId::INLINE,
            limit,
            cost: Cost::new(cost).unwrap(),
            mode: Mode::Enforce,
            floor,
        }
    }

    #[test]
    fn a_charge_beyond_what_the_successor_knows_is_held_and_passes_when_it_knows() {
        for algorithm in [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow] {
            let now = Nanos::new(START);
            let limit = Limit::parse("160/1h", None, algorithm).unwrap();
            let reserve = Reserve::of(RuleId::from_raw(1), [&limit], true).unwrap();
            let store = store(now);
            let floor = |acknowledged| {
                Some(Floor::between(None, Mark::default(), reserve.at_most(&limit, acknowledged, now)))
            };
            let first = store.check(&charge(limit, 10, floor(None)), now);
            assert!(first.allowed, "{algorithm:?}: one quantum is free");
            let mark = reserve.mark(&limit, Cost::new(10).unwrap(), &first, now);
            assert!(reserve.is_near(mark, reserve.at_most(&limit, None, now)));
            let held = store.check(&charge(limit, 3, floor(None)), now);
            assert!(held.is_held() && held.remaining == 150, "{algorithm:?} {held:?}");
            let wanted = reserve.mark(&limit, Cost::new(3).unwrap(), &held, now);
            assert!(store.check(&charge(limit, 3, floor(Some(wanted))), now).allowed, "{algorithm:?}");
            assert!(store.check(&charge(limit, 1, floor(Some(wanted))), now).is_held());
            // What the limit itself denies is no matter of floors.
            let all = floor(Some(Mark::new(u64::MAX)));
            assert!(store.check(&charge(limit, 147, all), now).allowed);
            let denied = store.check(&charge(limit, 1, floor(Some(wanted))), now);
            assert!(!denied.allowed && !denied.is_held());
        }
    }

    #[test]
    fn a_debt_that_is_postponed_lasts_longer_and_a_window_lies_where_it_lies() {
        let minute = Duration::from_secs(60);
        assert_eq!(Held::Debt(8).postponed(minute), Held::Debt(8 + 240_000_000_000));
        assert_eq!(Held::Window(8).postponed(minute), Held::Window(8));
    }

    #[test]
    fn windows_that_end_between_the_last_word_and_the_takeover_count_as_used_up() {
        let limit = Limit::parse("160/1m", None, Algorithm::FixedWindow).unwrap();
        let reserve = Reserve::of(RuleId::from_raw(1), [&limit], true).unwrap();
        let at = |seconds: u64| Nanos::new(START + seconds * 1_000_000_000);
        assert!(reserve.at_least(&limit, at(10), at(50)).is_some());
        assert!(reserve.at_least(&limit, at(50), at(65)).is_none());
        let bucket = Limit::parse("160/1m", None, Algorithm::TokenBucket).unwrap();
        assert!(reserve.at_least(&bucket, at(50), at(65)).is_some());
    }

    /// Found by a review: shares of an idle bucket admitted what refilled in some seconds, and its new owner all but a quantum.
    #[test]
    fn what_shares_may_have_admitted_counts_as_used_and_not_more_than_a_burst() {
        let limit = Limit::parse("100/12s", None, Algorithm::TokenBucket).unwrap();
        let at = |millis: u64| Nanos::new(START + millis * 1_000_000);
        let left = |has_shares, heard, begun| {
            let reserve = Reserve::of(RuleId::from_raw(1), [&limit], has_shares).unwrap();
            let floor =
                Floor::between(None, reserve.at_least(&limit, heard, begun).unwrap(), Mark::new(u64::MAX));
            store(begun).check(&charge(limit, 0, Some(floor)), begun).remaining
        };
        // 100 units in 12 s are 37.5 in 4.5 s; a quantum is 6.
        assert_eq!(left(true, at(0), at(4_500)), 62);
        assert_eq!(left(true, at(0), at(100)), 94);
        assert_eq!(left(false, at(0), at(4_500)), 94);
        assert_eq!(left(true, at(0), at(60_000)), 0);
    }

    #[test]
    fn who_refills_for_long_tells_floors_unless_said_otherwise() {
        let limit = |text, burst, algorithm| Limit::parse(text, burst, algorithm).unwrap();
        let of = |text, burst, algorithm| Takeover::default_of([&limit(text, burst, algorithm)]);
        assert_eq!(of("100/1s", None, Algorithm::TokenBucket), Takeover::Zero);
        assert_eq!(of("100/1s", Some(1000), Algorithm::TokenBucket), Takeover::Zero);
        assert_eq!(of("100/1m", None, Algorithm::TokenBucket), Takeover::Reserve);
        assert_eq!(of("1000/day", None, Algorithm::FixedWindow), Takeover::Reserve);
        assert_eq!(of("1000/day", None, Algorithm::SlidingLog), Takeover::Zero);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        /// Whoever begins from what was acknowledged has never more left than a bucket that saw all charges.
        #[test]
        fn who_begins_from_the_floor_admits_nothing_twice(
            algorithm in prop::sample::select(vec![
                Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow,
            ]),
            count in 1u64..200,
            burst in prop::option::of(1u64..300),
            steps in prop::collection::vec((0u64..400, 1u64..40, any::<bool>()), 1..60),
            gap in 0u64..5_000,
        ) {
            let burst = burst.filter(|_| algorithm.has_burst());
            let limit = Limit::new(algorithm, count, Period::Fixed(Duration::from_secs(20)), burst).unwrap();
            let reserve = Reserve::of(RuleId::from_raw(1), [&limit], true).unwrap();
            let mut now = Nanos::new(START);
            let (owner, truth, successor) = (store(now), store(now), store(now));
            let mut acknowledged: Option<Mark> = None;
            for (pause, cost, comes) in steps {
                now = now.saturating_add(Duration::from_millis(pause));
                let at_most = reserve.at_most(&limit, acknowledged, now);
                let one = charge(limit, cost, Some(Floor::between(None, Mark::default(), at_most)));
                let decision = owner.check(&one, now);
                let mark = reserve.mark(&limit, one.cost, &decision, now);
                if decision.allowed {
                    let same = truth.check(&charge(limit, cost, None), now);
                    prop_assert!(same.allowed);
                    prop_assert_eq!(same.remaining, decision.remaining);
                }
                // The floor is told; it may get lost.
                if comes && (decision.is_held() || decision.allowed && reserve.is_near(mark, at_most)) {
                    let told = reserve.ahead(mark);
                    successor.take_over(&crate::store::Bucket { key: one.key, rule: one.rule, held: told.held(one.key, now) }, now);
                    acknowledged = acknowledged.max(Some(told));
                }
            }
            let heard = now;
            let begun = now.saturating_add(Duration::from_millis(gap));
            // Shares admit what refills, all of it at the last moment.
            if algorithm != Algorithm::FixedWindow {
                let refilled = u64::try_from(u128::from(count) * u128::from(gap) / 20_000).unwrap();
                for _ in 0..refilled {
                    truth.check(&charge(limit, 1, None), begun);
                }
            }
            // As the store of floors is taken over: what is over is left out, and the rest stands still.
            let taken = store(begun);
            successor.buckets(begun, |_| true, |bucket| {
                let held = bucket.held.postponed(begun.saturating_since(heard));
                taken.take_over(&crate::store::Bucket { held, ..bucket }, begun);
            });
            let left = |store: &Store, floor| store.check(&charge(limit, 0, floor), begun).remaining;
            let floor = match reserve.at_least(&limit, heard, begun) {
                Some(at_least) => Floor::between(None, at_least, Mark::new(u64::MAX)),
                None => Floor::empty_at(begun),
            };
            prop_assert!(left(&taken, Some(floor)) <= left(&truth, None));
        }
    }
}
