//! The window that its first charge begins: so many units until it ends, and then nothing until the next charge begins one.
//!
//! ```text
//!     state  =  end of the window  +  units used in it
//! ```
//!
//! So that both can be told from the sum, ends are multiples of an [`end_step`], a power of two of at most a 1024th of the
//! window, and the units are fewer. A window is as long as asked, or longer by up to that: stricter. Counts above a step
//! (2 million units a second) do not fit; there several units (a *grain*) are counted as one, and each cost is rounded up.
//!
//! At most `count` units in each window; in any interval of length d at most count · (⌊d / period⌋ + 2).

use std::time::Duration;

use super::step::Step;
use crate::{
    Cost, Decision, Limit,
    limit::end_step,
    time::{TICKS_PER_NANO, duration},
};

fn ticks(limit: &Limit) -> u64 {
    // Periods are at most ten years.
    limit.window().as_nanos() as u64 * TICKS_PER_NANO
}

/// The end of a window that begins at an instant.
fn end_of(limit: &Limit, start: u64) -> u64 {
    let (length, step) = (ticks(limit), end_step(ticks(limit)));
    // At the end of time (the year 2116) it ends with it.
    let end = start.saturating_add(length).saturating_add(step - 1);
    end - end % step
}

/// The end of the window that a state is of.
fn known_end(limit: &Limit, state: u64) -> u64 {
    state - state % end_step(ticks(limit))
}

/// The window at `now`: its end, and what is used of it.
fn window(limit: &Limit, state: u64, now: u64) -> (u64, u64) {
    let end = known_end(limit, state);
    if end > now { (end, state - end) } else { (end_of(limit, now), 0) }
}

/// A floor closes the bucket for as long as a window that was exhausted at that instant would have lasted.
pub(crate) fn decide(limit: &Limit, state: u64, floor: Option<u64>, cost: Cost, now: u64) -> Step {
    let (end, used) = window(limit, state, now);
    let closed = floor.map_or(0, |floor| end_of(limit, floor));
    let can_ever = cost.get().max(1) <= limit.count();
    let wanted = used.saturating_add(limit.grains_of(cost).max(1));
    let allowed = can_ever && closed <= now && wanted <= limit.grains() && end.checked_add(wanted).is_some();
    let taken = allowed && cost != Cost::PEEK;
    let used = if taken { wanted } else { used };
    let left = if closed > now { 0 } else { limit.units_left(limit.grains().saturating_sub(used)) };
    let reset = match used {
        0 => closed,
        _ => end.max(closed),
    };
    let until = if wanted <= limit.grains() { closed } else { end.max(closed) };
    let decision = Decision {
        allowed,
        limit: limit.count(),
        remaining: left,
        reset_after: duration(reset.saturating_sub(now)),
        retry_after: (!allowed && can_ever).then(|| duration(until.saturating_sub(now))),
        delay: Duration::ZERO,
        assumed: false,
        banned: false,
    };
    Step { decision, state: if taken { end + used } else { state } }
}

/// Units used of the present window.
pub(crate) fn consumed(limit: &Limit, state: u64, now: u64) -> u64 {
    window(limit, state, now).1.saturating_mul(limit.grain())
}

/// How many units a state that is not this bucket's own seems to count is by chance: they count as all of them.
pub(crate) fn strictest(limit: &Limit, state: u64, now: u64) -> u64 {
    let end = known_end(limit, state);
    if end > now { end.saturating_add(limit.grains()) } else { state }
}

/// A window that has not begun yet is taken as one that begins now.
pub(crate) fn nearest(limit: &Limit, state: u64, now: u64) -> u64 {
    let (end, last) = (known_end(limit, state), end_of(limit, now));
    if end > last { last.saturating_add(state - end) } else { state }
}

pub(crate) fn refund(limit: &Limit, state: u64, cost: Cost, now: u64) -> u64 {
    let end = known_end(limit, state);
    if end > now { state - (cost.get() / limit.grain()).min(state - end) } else { state }
}

/// The end of the window in which a charge at `now` is counted.
pub(crate) fn counted_at(limit: &Limit, state: u64, now: u64) -> u64 {
    window(limit, state, now).0
}

/// Takes back what was charged in the window that ends at `end`, if that is still the one. It stays open.
pub(crate) fn undo(limit: &Limit, state: u64, cost: Cost, end: u64) -> u64 {
    if known_end(limit, state) == end { state - limit.grains_of(cost).min(state - end) } else { state }
}
