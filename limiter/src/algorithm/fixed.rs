//! The fixed window: so many units in each window, and then anew.
//!
//! ```text
//!     state  =  end of the window  +  units used in it
//! ```
//!
//! The end is a multiple of the period (for months: a month's start) and the units are fewer than eight ninths of a window's ticks, so
//! both can be told from the sum, for windows of any length, also of a floor, which is up to two sixteenths ahead, and a state that is
//! over lies in the past. Counts above 3.5 units a nanosecond do not fit; there several units (a *grain*) are counted as one, and each cost is rounded up, but to no more
//! than all of them: what is not a whole number of grains still passes at once.
//!
//! At most `count` units in each window; in any interval of length d at most count · (⌊d / period⌋ + 2).

use super::step::{Bounds, Raise, Step};
use crate::{
    Cost, Decision, Limit,
    calendar::{window_end, window_start},
    time::duration,
};

pub(crate) fn decide(limit: &Limit, state: u64, bounds: Bounds, cost: Cost, now: u64) -> Step {
    let Raise { at_least, add } = raise(limit, bounds, cost, now);
    let before = state.max(at_least);
    // After the present one if time went back, or if the floor lies ahead.
    let end = window_start(limit.period(), before);
    let used = before - end;
    let can_ever = cost.get().max(1) <= limit.count();
    let wanted = used.saturating_add(if cost == Cost::PEEK { 1 } else { add });
    let fits = can_ever && wanted <= limit.grains();
    let allowed = fits && end.checked_add(wanted).is_some_and(|state| state <= bounds.at_most);
    let taken = allowed && cost != Cost::PEEK;
    let used = if taken { wanted } else { used };
    let decision = Decision {
        allowed,
        limit: limit.count(),
        remaining: limit.units_left(limit.grains().saturating_sub(used)),
        reset_after: duration(if used == 0 { 0 } else { end.saturating_sub(now) }),
        // What the window has room for is held by the bound.
        retry_after: (!allowed && can_ever).then(|| duration(if fits { 0 } else { end.saturating_sub(now) })),
        delay: duration(0),
        assumed: false,
        banned: false,
    };
    Step { decision, state: if taken { end + wanted } else { state } }
}

/// Units used of the present window.
pub(crate) fn consumed(limit: &Limit, state: u64, now: u64) -> u64 {
    let end = window_start(limit.period(), state);
    if end > now { (state - end).saturating_mul(limit.grain()) } else { 0 }
}

/// A window that ends later than the next one is taken as that one.
pub(crate) fn nearest(limit: &Limit, state: u64, now: u64) -> u64 {
    let period = limit.period();
    let (end, last) = (window_start(period, state), window_end(period, window_end(period, now)));
    if end > last { last.saturating_add(state - end) } else { state }
}

/// A state that lies in a later window than the one of `now` counts as that one exhausted: how many units it seems to
/// count there is by chance, and the window before it, this one, may be exhausted.
pub(crate) fn strictest(limit: &Limit, state: u64, now: u64) -> u64 {
    let end = window_start(limit.period(), state);
    if end > window_end(limit.period(), now) { end.saturating_add(limit.grains()) } else { state }
}

pub(crate) fn refund(limit: &Limit, state: u64, cost: Cost, now: u64) -> u64 {
    let end = window_end(limit.period(), now);
    if state <= end {
        return state;
    }
    state - (cost.get() / limit.grain()).min(state - window_start(limit.period(), state))
}

/// Whether the windows of two instants are one.
pub(crate) fn is_same_window(limit: &Limit, one: u64, other: u64) -> bool {
    window_end(limit.period(), one) == window_end(limit.period(), other)
}

pub(crate) fn raise(limit: &Limit, bounds: Bounds, cost: Cost, now: u64) -> Raise {
    let floor = bounds.floor();
    let floor = floor.map_or(0, |floor| window_end(limit.period(), floor).saturating_add(limit.grains()));
    let at_least = floor.max(bounds.at_least).max(window_end(limit.period(), now));
    Raise { at_least, add: limit.grains_of(cost) }
}
