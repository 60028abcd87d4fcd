//! How the algorithms decide: functions of a bucket's state, a limit, a cost and the time.
//!
//! The state of all but the log is one number, an instant in ticks. Each algorithm is free in what it writes there, but
//! two things hold for all of them: **a state that is not after now means a bucket that knows of nothing**, so it needs
//! no memory; and **the later, the stricter**, so a state may always be replaced by a later one.

pub(crate) mod fixed;
pub(crate) mod gcra;
pub(crate) mod log;
pub(crate) mod sliding;
mod step;
pub(crate) mod window_from_first;

use std::time::Duration;

pub(crate) use self::step::{Asked, Bounds, Counted, Raise, Step};
use crate::{Algorithm, Cost, Decision, Limit, Period, Returned, calendar, time::duration};

/// Decides about `cost` units at `now`, for a bucket in state `state` of which `bounds` say more. When it denies, or nothing
/// is taken, the state after is the one before. Nobody says of windows that their first charge opens, and of logs, more than when they
/// were empty.
#[inline]
pub(crate) fn decide(limit: &Limit, state: u64, bounds: Bounds, cost: Cost, now: u64) -> Step {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => gcra::decide(limit, state, bounds, cost, now),
        Algorithm::FixedWindow if is_from_first(limit) => {
            window_from_first::decide(limit, state, bounds.floor(), cost, now)
        }
        Algorithm::FixedWindow => fixed::decide(limit, state, bounds, cost, now),
        Algorithm::SlidingWindow => sliding::decide(limit, state, bounds, cost, now),
        Algorithm::SlidingLog => unreachable!("a log is no single number; the store asks `log` itself"),
    }
}

/// A decision without its explanation, which takes longer than the decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) allowed: bool,
    /// The state after it, if something was taken.
    pub(crate) taken: Option<u64>,
}

/// As [`decide`].
#[inline]
pub(crate) fn outcome(asked: &Asked<'_>, state: u64, now: u64) -> Outcome {
    let (limit, cost) = (asked.limit, asked.cost);
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => {
            let raise = gcra::raise(limit, asked.bounds, cost, now);
            let outcome = gcra::Outcome::of(limit, state, raise, asked.bounds.at_most, cost, now);
            let is_taken = outcome.allowed && cost != Cost::PEEK;
            Outcome { allowed: outcome.allowed, taken: is_taken.then_some(outcome.wanted) }
        }
        Algorithm::SlidingWindow => {
            let outcome = sliding::Outcome::of(limit, state, asked.bounds, cost, now);
            Outcome { allowed: outcome.allowed, taken: outcome.state(limit, now) }
        }
        Algorithm::FixedWindow | Algorithm::SlidingLog => {
            let Step { decision, state } = decide(limit, state, asked.bounds, cost, now);
            let is_taken = decision.allowed && cost != Cost::PEEK;
            Outcome { allowed: decision.allowed, taken: is_taken.then_some(state) }
        }
    }
}

/// The state after `cost` units were given back.
pub(crate) fn refund(limit: &Limit, state: u64, cost: Cost, now: u64) -> u64 {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => gcra::refund(limit, state, cost, now),
        Algorithm::FixedWindow if is_from_first(limit) => window_from_first::refund(limit, state, cost, now),
        Algorithm::FixedWindow => fixed::refund(limit, state, cost, now),
        Algorithm::SlidingWindow => sliding::refund(limit, state, cost, now),
        Algorithm::SlidingLog => unreachable!("a log is no single number; the store asks `log` itself"),
    }
}

/// The state after units of an earlier charge were given back, as far as that still weighs. A window that its first charge begins does not
/// say of a charge whether that was its own: nothing is given back.
pub(crate) fn refund_charge(limit: &Limit, state: u64, returned: Returned, now: u64) -> u64 {
    if state <= now {
        return state;
    }
    let Returned { units, charged, .. } = returned;
    let charged = charged.ticks();
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => gcra::refund_charge(limit, state, returned, now),
        Algorithm::FixedWindow if is_from_first(limit) => state,
        Algorithm::FixedWindow if fixed::is_same_window(limit, charged, now) => {
            fixed::refund(limit, state, units, now)
        }
        Algorithm::FixedWindow => state,
        Algorithm::SlidingWindow => {
            sliding::undo(limit, state, units, Counted { at: charged, before: None }, false, now)
        }
        Algorithm::SlidingLog => unreachable!("a log is no single number; the store asks `log` itself"),
    }
}

impl Decision {
    /// What it says of a bucket that another one of the same check has denied for: the units are back, and nobody waits for
    /// a turn. `limit` and `cost` are those by which it was charged.
    #[must_use = "it is another decision"]
    pub fn given_back(self, limit: &Limit, cost: Cost) -> Self {
        let decision = Self { delay: Duration::ZERO, ..self };
        if !decision.allowed || cost == Cost::PEEK {
            return decision;
        }
        let steadily = limit.algorithm().has_burst();
        let is_log = limit.algorithm() == Algorithm::SlidingLog;
        let taken = if steadily || is_log {
            cost.get()
        } else {
            cost.get().div_ceil(limit.grain()).saturating_mul(limit.grain())
        };
        let remaining = decision.remaining.saturating_add(taken).min(decision.limit);
        let reset_after = if remaining == decision.limit {
            Duration::ZERO
        } else if steadily {
            decision.reset_after.saturating_sub(duration(gcra::ticks_for(limit, cost.get())))
        } else {
            // The window ends when it did; of a log nobody knows here when its other entries go.
            decision.reset_after
        };
        Self { remaining, reset_after, ..decision }
    }
}

/// A state that may have been written by another node, for the clock of this one. Where that one's was far ahead its window is
/// one that begins in a time to come, and as states are merged by their maximum nothing else would count until then. Such a
/// state is taken as one of the next window, used as far: the latest of which it can be true if both clocks agree.
#[inline]
pub(crate) fn nearest(limit: &Limit, state: u64, now: u64) -> u64 {
    let algorithm = limit.algorithm();
    if algorithm.has_burst() || algorithm == Algorithm::SlidingLog || state <= now {
        return state;
    }
    // The usual case: it ends with the next window at the latest.
    let ahead = calendar::longest(limit.period()).saturating_mul(2);
    if state - now <= ahead { state } else { nearest_window(limit, state, now) }
}

#[cold]
fn nearest_window(limit: &Limit, state: u64, now: u64) -> u64 {
    match limit.algorithm() {
        Algorithm::FixedWindow if is_from_first(limit) => window_from_first::nearest(limit, state, now),
        Algorithm::FixedWindow => fixed::nearest(limit, state, now),
        Algorithm::SlidingWindow => sliding::nearest(limit, state, now),
        Algorithm::TokenBucket | Algorithm::LeakyBucket | Algorithm::SlidingLog => state,
    }
}

/// How far ahead of now a charge can make a state at most.
pub(crate) fn horizon(limit: &Limit) -> u64 {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => gcra::longest_refill(limit),
        Algorithm::SlidingLog => limit.memory(),
        // Units take fewer ticks than a window has.
        Algorithm::FixedWindow => calendar::longest(limit.period()).saturating_mul(2),
        Algorithm::SlidingWindow => calendar::longest(limit.period()).saturating_mul(3),
    }
}

/// The units that a bucket has consumed and not got back by `now`, rounded up: more than the limit has, where that was larger
/// before.
pub(crate) fn consumed(limit: &Limit, state: u64, now: u64) -> u64 {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => gcra::consumed(limit, state, now),
        Algorithm::FixedWindow if is_from_first(limit) => window_from_first::consumed(limit, state, now),
        Algorithm::FixedWindow => fixed::consumed(limit, state, now),
        Algorithm::SlidingWindow => sliding::consumed(limit, state, now),
        Algorithm::SlidingLog => unreachable!("a log is no single number; the store asks `log` itself"),
    }
}

/// The state of a bucket that has consumed so many units now, at most all that it has, and nothing before.
pub(crate) fn having_consumed(limit: &Limit, units: u64, now: u64) -> u64 {
    match units.min(limit.burst_size()) {
        0 => 0,
        units => decide(limit, 0, Bounds::NONE, Cost::saturating(units), now).state,
    }
}

/// A state of which from now on no less is used than of either. Within the history of one bucket that is the larger number; of
/// windows that slide it is not between two that know nothing of each other: the later window may have fewer units than the one before it.
pub(crate) fn stricter(limit: &Limit, one: u64, other: u64, now: u64) -> u64 {
    match limit.algorithm() {
        Algorithm::SlidingWindow if one > now && other > now => sliding::stricter(limit, one, other, now),
        _ => one.max(other),
    }
}

/// As [`stricter`], where each may know of units that the other does not.
pub(crate) fn joined(limit: &Limit, one: u64, other: u64, now: u64) -> u64 {
    match limit.algorithm() {
        Algorithm::SlidingWindow if one > now && other > now => sliding::joined(limit, one, other, now),
        _ => one.max(other),
    }
}

/// The state that a bucket has under another limit after it has consumed as much as under this one, where both refill steadily:
/// then parts of units count too. `None` for others.
pub(crate) fn rescaled(from: &Limit, to: &Limit, state: u64, now: u64) -> Option<u64> {
    let steady = from.algorithm().has_burst() && to.algorithm().has_burst();
    steady.then(|| gcra::rescaled(from, to, state, now))
}

/// What a state of another bucket of the same rule stands for at most, where the true one is not later: the other's windows may be
/// others, so what it says beyond "that instant" says nothing about this one; and no bucket is more than empty.
pub(crate) fn strictest(limit: &Limit, state: u64, now: u64) -> u64 {
    if state <= now {
        return state;
    }
    match limit.algorithm() {
        Algorithm::FixedWindow if is_from_first(limit) => window_from_first::strictest(limit, state, now),
        Algorithm::FixedWindow => fixed::strictest(limit, state, now),
        Algorithm::SlidingWindow => sliding::strictest(limit, state, now),
        Algorithm::TokenBucket | Algorithm::LeakyBucket | Algorithm::SlidingLog => {
            state.min(now.saturating_add(horizon(limit)))
        }
    }
}

/// The charge as such a map; `None` for the algorithms that are not of that kind.
pub(crate) fn raise(limit: &Limit, bounds: Bounds, cost: Cost, now: u64) -> Option<Raise> {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => Some(gcra::raise(limit, bounds, cost, now)),
        Algorithm::FixedWindow if is_from_first(limit) => None,
        Algorithm::FixedWindow => Some(fixed::raise(limit, bounds, cost, now)),
        Algorithm::SlidingWindow | Algorithm::SlidingLog => None,
    }
}

/// Whether a fixed window begins with its first charge, not where the calendar has it.
fn is_from_first(limit: &Limit) -> bool {
    matches!(limit.period(), Period::FromFirst { .. })
}

/// Where a charge at `now` is counted, for algorithms without a [`Raise`].
pub(crate) fn counted(limit: &Limit, state: u64, now: u64) -> Counted {
    if is_from_first(limit) {
        Counted { at: window_from_first::counted_at(limit, state, now), before: None }
    } else {
        sliding::counted(limit, state, now)
    }
}

/// The same: whether the later one of two charges says when the last unit of the window was that counts the other one, too.
pub(crate) fn is_same_window(limit: &Limit, one: Counted, other: Counted) -> bool {
    limit.algorithm() == Algorithm::SlidingWindow && sliding::is_same_window(limit, one.at, other.at)
}

/// The same: whether what is said beside them is part of the counts, so that no charge can be taken out of them.
pub(crate) fn is_bound_by(limit: &Limit, state: u64, bounds: Bounds, now: u64) -> bool {
    limit.algorithm() == Algorithm::SlidingWindow && sliding::is_bound_by(limit, state, bounds, now)
}

/// The same: the state as others may be told of it while charges can be undone, and as it is from then on.
pub(crate) fn without_place(limit: &Limit, state: u64) -> u64 {
    if limit.algorithm() == Algorithm::SlidingWindow { sliding::without_place(limit, state) } else { state }
}

/// The same: the state without a charge that was counted there. With `is_last` none was counted in that window after it.
pub(crate) fn undo(limit: &Limit, state: u64, cost: Cost, counted: Counted, is_last: bool, now: u64) -> u64 {
    if is_from_first(limit) {
        window_from_first::undo(limit, state, cost, counted.at)
    } else {
        sliding::undo(limit, state, cost, counted, is_last, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::{PREVIOUS_CODES, UNIT_BITS};

    const MINUTE: u64 = 60 * 4_000_000_000;

    /// States as the sliding window writes them: the end of the next window, units used, a code of the window before.
    fn states(units: std::ops::Range<u64>) -> impl Strategy<Value = u64> {
        (0u64..5, units, 0u64..11).prop_map(|(window, units, code)| {
            (1_000 + window) * MINUTE + (units * PREVIOUS_CODES + code).min(MINUTE - 1)
        })
    }

    /// Those with the place of the current window's last unit, in one of 64.
    fn small_states(units: std::ops::Range<u64>) -> impl Strategy<Value = u64> {
        (0u64..5, units, 0u64..63, 0u64..11 * 64).prop_map(|(window, units, place, previous)| {
            let code = (units * 64 + place) << (UNIT_BITS + 6) | previous;
            (1_000 + window) * MINUTE - crate::limit::small_states(6) + code
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        /// Whatever the true state was, and whichever bucket the later one is of.
        #[test]
        fn a_later_state_taken_at_its_strictest_is_never_looser(
            algorithm in prop::sample::select(vec![
                Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow,
            ]),
            state in prop_oneof![states(0..11), small_states(0..10)],
            other in prop_oneof![
                states(0..1), states(0..14), states(0..MINUTE / PREVIOUS_CODES), small_states(0..3), small_states(0..31),
            ],
            fixed_units in prop::option::of(0u64..11),
            now in 0..5 * MINUTE,
            cost in 0u64..12,
        ) {
            let limit = Limit::parse("10/1m", None, algorithm).unwrap();
            let (now, cost) = (1_000 * MINUTE + now, Cost::new(cost).unwrap());
            // Or as the fixed window writes them.
            let state = fixed_units.map_or(state, |units| state - state % MINUTE + units);
            let later = state.max(other);
            if decide(&limit, strictest(&limit, later, now), Bounds::NONE, cost, now).decision.allowed {
                prop_assert!(decide(&limit, state, Bounds::NONE, cost, now).decision.allowed);
            }
        }
    }

    #[test]
    fn what_is_given_back_is_what_was_there_before() {
        let at = |seconds: u64| seconds * 4_000_000_000;
        let now = at(1_800_000_000);
        for text in
            ["10/1m", "7/1m burst 9", "10/1m fixed_window", "10/1m sliding_window", "1000003/1s burst 5000"]
        {
            let limit: Limit = text.parse().unwrap();
            let decide = |state, cost| super::decide(&limit, state, Bounds::NONE, cost, now);
            let used = decide(0, Cost::new(3).unwrap()).state;
            for state in [0, used] {
                let cost = Cost::new(4).unwrap();
                let given_back = decide(state, cost).decision.given_back(&limit, cost);
                let look = decide(state, Cost::PEEK).decision;
                assert_eq!(given_back.remaining, look.remaining, "{text}");
                let apart = given_back.reset_after.abs_diff(look.reset_after);
                assert!(apart <= Duration::from_nanos(1), "{text}: {given_back:?} {look:?}");
            }
        }
    }
}
