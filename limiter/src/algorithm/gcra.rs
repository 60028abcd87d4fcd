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

use crate::{
    Algorithm, Cost, Decision, Limit,
    algorithm::{Raise, Step},
    time::duration,
};

// Inlined, so that the decision is built where it is wanted: copying it is a good part of a check's time.
#[inline(always)]
pub(crate) fn decide(limit: &Limit, tat: u64, floor: Option<u64>, cost: Cost, now: u64) -> Step {
    let Raise { at_least, add } = raise(limit, floor, cost, now);
    let before = tat.max(at_least);
    let latest = now.saturating_add(limit.refill());
    let can_ever = cost.get() <= limit.burst();
    // A look says whether one unit would pass.
    let wanted = before.saturating_add(if cost == Cost::PEEK { ticks_for(limit, 1) } else { add });
    let allowed = can_ever && wanted <= latest && wanted != u64::MAX;
    let taken = allowed && cost != Cost::PEEK;
    let after = if taken { wanted } else { before };
    let delay = if taken && limit.algorithm() == Algorithm::LeakyBucket { before - now } else { 0 };
    let decision = Decision {
        allowed,
        limit: limit.burst(),
        remaining: units_in(limit, latest.saturating_sub(after)),
        reset_after: duration(after - now),
        retry_after: (!allowed && can_ever).then(|| duration(wanted - latest)),
        delay: duration(delay),
    };
    Step { decision, state: if taken { wanted } else { tat } }
}

/// Ever more units in a bucket that is full anyway are none.
pub(crate) fn refund(limit: &Limit, tat: u64, cost: Cost, now: u64) -> u64 {
    tat.saturating_sub(ticks_for(limit, cost.get())).max(now)
}

pub(crate) fn raise(limit: &Limit, floor: Option<u64>, cost: Cost, now: u64) -> Raise {
    // An instant at which the bucket was empty is a TAT one whole refill later.
    let floor = floor.map_or(0, |floor| floor.saturating_add(limit.refill()));
    Raise { at_least: floor.max(now), add: ticks_for(limit, cost.get()) }
}

/// Ticks in which `units` refill, rounded up.
fn ticks_for(limit: &Limit, units: u64) -> u64 {
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
            u64::try_from(units).unwrap_or(u64::MAX).min(limit.burst())
        }
    }
}
