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
//!
//! Where T is no whole number of ticks, c·T is rounded up and B·T down, so a cost near B does not fit. It passes all the same when the
//! bucket is full: then TAT was not later than t, and t + c·T is all that is added to it.

use super::step::{Bounds, Raise, Step};
use crate::{Algorithm, Cost, Decision, Limit, Returned, time::duration};

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
        let fits = wanted <= latest || before == now;
        let allowed = can_ever && fits && wanted <= at_most && wanted != u64::MAX;
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
            // No longer than until it is full; and none for what the limit would allow: that is held by the bound.
            retry_after: (!self.allowed && self.can_ever)
                .then(|| duration(self.wanted.saturating_sub(self.latest).min(self.before - now))),
            delay: duration(if waits { self.before - now } else { 0 }),
            assumed: false,
            banned: false,
        }
    }
}

/// Ever more units in a bucket that is full anyway are none. Rounded down: what was taken at once may be given back in parts.
pub(crate) fn refund(limit: &Limit, tat: u64, cost: Cost, now: u64) -> u64 {
    let (numerator, denominator) = limit.interval();
    let ticks = u128::from(numerator) * u128::from(cost.get()) / u128::from(denominator);
    tat.saturating_sub(u64::try_from(ticks).unwrap_or(u64::MAX)).max(now)
}

/// Had these units not been charged, the TAT would be earlier by their ticks, less the time since then in which the bucket would have been
/// full. It was not while the units that stay charged refilled, so that time is no longer than what has passed beyond that.
pub(crate) fn refund_charge(limit: &Limit, tat: u64, returned: Returned, now: u64) -> u64 {
    let (numerator, denominator) = limit.interval();
    let ticks = |units: Cost| {
        let ticks = u128::from(numerator) * u128::from(units.get()) / u128::from(denominator);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    };
    let (units, passed) = (ticks(returned.units), now.saturating_sub(returned.charged.ticks()));
    let weighs = units.min(units.saturating_add(ticks(returned.kept)).saturating_sub(passed));
    tat.saturating_sub(weighs).max(now)
}

#[inline]
pub(crate) fn raise(limit: &Limit, bounds: Bounds, cost: Cost, now: u64) -> Raise {
    // An instant at which the bucket was empty is a TAT one whole refill later.
    let floor = bounds.floor().map_or(0, |floor| floor.saturating_add(longest_refill(limit)));
    Raise { at_least: floor.max(bounds.at_least).max(now), add: ticks_for(limit, cost.get()) }
}

/// Units that have not refilled yet, rounded up.
pub(crate) fn consumed(limit: &Limit, tat: u64, now: u64) -> u64 {
    let ((ticks, units), debt) = (limit.interval(), tat.saturating_sub(now));
    let units = (u128::from(debt) * u128::from(units)).div_ceil(u128::from(ticks));
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// The TAT of a bucket that refills at the pace of `to` and has consumed as much as one with the pace of `from` in state `tat`:
/// rounded up, and at most all that it has.
pub(crate) fn rescaled(from: &Limit, to: &Limit, tat: u64, now: u64) -> u64 {
    let debt = u128::from(tat.saturating_sub(now));
    let ((from_ticks, from_units), (to_ticks, to_units)) = (from.interval(), to.interval());
    // Units consumed: debt · from_units / from_ticks. In ticks of the other limit: that · to_ticks / to_units.
    let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
    let ticks = debt
        .checked_mul(product(from_units, to_ticks))
        .map(|ticks| ticks.div_ceil(product(from_ticks, to_units)))
        // Of numbers as large as these, whole units tell enough.
        .unwrap_or_else(|| u128::from(ticks_for(to, consumed(from, tat, now))));
    now.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX).min(longest_refill(to)))
}

/// Ticks in which all units refill, rounded up: no charge makes a state further ahead of now.
pub(crate) fn longest_refill(limit: &Limit) -> u64 {
    limit.refill().max(ticks_for(limit, limit.burst_size()))
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
        _ if ticks >= limit.refill() => limit.burst_size(),
        (numerator, denominator) => {
            let units = u128::from(ticks) * u128::from(denominator) / u128::from(numerator);
            u64::try_from(units).unwrap_or(u64::MAX).min(limit.burst_size())
        }
    }
}
