//! Token bucket and leaky bucket as a *generic cell rate algorithm*.
//!
//! All state is one instant, the theoretical arrival time (TAT): when the bucket will be full (the queue: empty) again.
//! With an interval T in which one unit refills and a capacity of B units,
//!
//! ```text
//!     level at t  =  B - max(TAT - t, 0) / T
//!     cost c is allowed at t  iff  max(TAT, t) + c·T  <=  t + B·T,     and then  TAT := max(TAT, t) + c·T
//!     leaky bucket: the request's turn comes at  max(TAT, t),  that is after a delay of  max(TAT - t, 0)
//! ```
//!
//! (ITU-T I.371, annex A, virtual scheduling.) TAT only grows, so merging two states is their maximum; a TAT in the past
//! means a full bucket, which needs no memory. In any interval of length d at most B + d/T units are admitted: each unit
//! moves TAT by T, TAT starts at or after the interval's start and ends at most B·T after its end. The requests of a
//! leaky bucket have their turns at least c·T apart.

use super::step::{Bounds, Raise, Step};
use crate::{Algorithm, Cost, Decision, Limit, time::duration};

pub(crate) fn decide(limit: &Limit, tat: u64, bounds: Bounds, cost: Cost, now: u64) -> Step {
    let outcome = Outcome::of(limit, tat, raise(limit, bounds, cost, now), bounds.at_most, cost, now);
    Step { decision: outcome.explain(limit, now), state: outcome.state(tat) }
}

/// What is decided, before it is explained: explaining takes longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    before: u64,
    pub(crate) wanted: u64,
    latest: u64,
    pub(crate) allowed: bool,
    can_ever: bool,
    taken: bool,
}

impl Outcome {
    #[inline]
    pub(crate) fn of(limit: &Limit, tat: u64, raise: Raise, at_most: u64, cost: Cost, now: u64) -> Self {
        let before = tat.max(raise.at_least);
        let latest = now.saturating_add(limit.refill());
        let can_ever = cost.get().max(1) <= limit.burst_size();
        // A look says whether one unit would pass.
        let add = if cost == Cost::PEEK { ticks_for(limit, 1) } else { raise.add };
        let wanted = before.saturating_add(add);
        let allowed = can_ever && wanted <= latest.min(at_most) && wanted != u64::MAX;
        Self { before, wanted, latest, allowed, can_ever, taken: allowed && cost != Cost::PEEK }
    }

    /// The state after it, of a bucket that was in state `tat`.
    #[inline]
    pub(crate) fn state(&self, tat: u64) -> u64 {
        if self.taken { self.wanted } else { tat }
    }

    #[inline]
    pub(crate) fn explain(&self, limit: &Limit, now: u64) -> Decision {
        let after = if self.taken { self.wanted } else { self.before };
        let waits = self.taken && limit.algorithm() == Algorithm::LeakyBucket;
        Decision {
            allowed: self.allowed,
            limit: limit.burst_size(),
            remaining: units_in(limit, self.latest.saturating_sub(after)),
            reset_after: duration(after - now),
            // None of what the limit would allow: that is held by the bound.
            retry_after: (!self.allowed && self.can_ever)
                .then(|| duration(self.wanted.saturating_sub(self.latest))),
            delay: duration(if waits { self.before - now } else { 0 }),
            assumed: false,
        }
    }
}

/// Ever more units in a bucket that is full anyway are none.
pub(crate) fn refund(limit: &Limit, tat: u64, cost: Cost, now: u64) -> u64 {
    tat.saturating_sub(ticks_for(limit, cost.get())).max(now)
}

#[inline]
pub(crate) fn raise(limit: &Limit, bounds: Bounds, cost: Cost, now: u64) -> Raise {
    // An instant at which the bucket was empty is a TAT one whole refill later.
    let floor = bounds.floor().map_or(0, |floor| floor.saturating_add(limit.refill()));
    Raise { at_least: floor.max(bounds.at_least).max(now), add: ticks_for(limit, cost.get()) }
}

/// Ticks in which `units` refill, rounded up.
pub(crate) fn ticks_for(limit: &Limit, units: u64) -> u64 {
    match limit.interval() {
        (interval, 1) => interval.saturating_mul(units),
        (numerator, denominator) => {
            let ticks = (u128::from(numerator) * u128::from(units)).div_ceil(u128::from(denominator));
            u64::try_from(ticks).unwrap_or(u64::MAX)
        }
    }
}

/// The most units whose ticks fit.
fn units_in(limit: &Limit, ticks: u64) -> u64 {
    match limit.interval() {
        (interval, 1) => ticks / interval,
        (numerator, denominator) => {
            let units = u128::from(ticks) * u128::from(denominator) / u128::from(numerator);
            u64::try_from(units).unwrap_or(u64::MAX).min(limit.burst_size())
        }
    }
}
