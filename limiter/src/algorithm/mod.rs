//! How the algorithms decide: functions of a bucket's state, a limit, a cost and the time.
//!
//! The state of all but the log is one number, an instant in ticks. Each algorithm is free in what it writes there, but
//! two things hold for all of them: **a state that is not after now means a bucket that knows of nothing**, so it needs
//! no memory; and **the later, the stricter**, so a state may always be replaced by a later one.

pub(crate) mod fixed;
pub(crate) mod gcra;
pub(crate) mod log;
pub(crate) mod sliding;

use crate::{Algorithm, Cost, Decision, Limit};

/// A decision, with the bucket's state after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) decision: Decision,
    pub(crate) state: u64,
}

/// Decides about `cost` units at `now`, for a bucket in state `state` that was empty at `floor` or later. When it denies,
/// or nothing is taken, the state after is the one before.
#[inline]
pub(crate) fn decide(limit: &Limit, state: u64, floor: Option<u64>, cost: Cost, now: u64) -> Step {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => gcra::decide(limit, state, floor, cost, now),
        Algorithm::FixedWindow => fixed::decide(limit, state, floor, cost, now),
        Algorithm::SlidingWindow => sliding::decide(limit, state, floor, cost, now),
        Algorithm::SlidingLog => unreachable!("a log is no single number; the store asks `log` itself"),
    }
}

/// The state after `cost` units were given back.
pub(crate) fn refund(limit: &Limit, state: u64, cost: Cost, now: u64) -> u64 {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => gcra::refund(limit, state, cost, now),
        Algorithm::FixedWindow => fixed::refund(limit, state, cost, now),
        Algorithm::SlidingWindow => sliding::refund(limit, state, cost, now),
        Algorithm::SlidingLog => unreachable!("a log is no single number; the store asks `log` itself"),
    }
}

/// A charge as a map of states, for algorithms of which each charge is `state -> max(state, at_least) + add`. These maps
/// are closed under composition, which is what makes a charge exactly removable later (see `store/holds.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) at_least: u64,
    pub(crate) add: u64,
}

/// The charge as such a map; `None` for the algorithms that are not of that kind.
pub(crate) fn raise(limit: &Limit, floor: Option<u64>, cost: Cost, now: u64) -> Option<Raise> {
    match limit.algorithm() {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => Some(gcra::raise(limit, floor, cost, now)),
        Algorithm::FixedWindow => Some(fixed::raise(limit, floor, cost, now)),
        Algorithm::SlidingWindow | Algorithm::SlidingLog => None,
    }
}
