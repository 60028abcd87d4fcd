//! The sliding window counter: this window's count, and the one before weighted by how much of it is still within a
//! period.
//!
//! ```text
//!     usage at t  =  current  +  previous · max(start + last - t, 0) / last
//!     cost c is allowed at t  iff  usage + c  <=  count
//! ```
//!
//! The window before counts as evenly spread from its start to its *last* unit, which was so long after that start. (Cloudflare,
//! "How we built rate limiting capable of scaling to millions of domains", 2017, spreads it over the whole window. Of a count of one
//! that makes a unit in every other window, because a unit only comes back when the next window is over.) How far a window had come
//! with its last unit is known to 1/64 of it, rounded up, while windows have at most 31 units. Of windows with more it counts as the
//! whole window: that costs less than one unit of them. `layout.rs` says how all of it is written into one number.
//!
//! In any interval of length d at most count · (1 + d / period) units are admitted: less than twice the count in a period. For
//! units come back a period after the window's start at the earliest, and until its last unit does, at no more than the count in `last`,
//! which is less than a period by as much as it ends earlier. Where requests were not spread evenly it admits or denies some that the exact
//! log would not.
//!
//! Counts are exact up to 483,000 units a second and in grains above. The window before is written with 8 significant bits, rounded
//! up: exact to 256, at most 1/128 too high above.

mod layout;

use self::layout::{Count, Counts, read, write};
use super::step::{Bounds, Counted, Step};
use crate::{
    Cost, Decision, Limit,
    calendar::{self, window_end, window_start},
    limit::PLACED_UNITS,
    time::duration,
};

/// What counts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: u64,
    end: u64,
    /// The end of the window after it.
    next: u64,
    current: Count,
    previous: Count,
}

/// What is decided, before it is explained: explaining takes longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    before: Window,
    asked: u64,
    can_ever: bool,
    pub(crate) allowed: bool,
    taken: bool,
    /// The limit would allow it, but not the bounds.
    held: bool,
}

impl Outcome {
    #[inline]
    pub(crate) fn of(limit: &Limit, state: u64, bounds: Bounds, cost: Cost, now: u64) -> Self {
        let before = Window::at(limit, state, now).bound_by(limit, bounds, now);
        let can_ever = cost.get().max(1) <= limit.count();
        // A look says whether one unit would pass.
        let asked = limit.grains_of(cost).max(1);
        let ends = before.next.checked_add(before.end - before.start).is_none();
        let allowed = can_ever && before.has_room(limit, asked, now) && !ends;
        let taken = allowed && cost != Cost::PEEK;
        let outcome = Self { before, asked, can_ever, allowed, taken, held: false };
        if outcome.taken && bounds.at_most != u64::MAX {
            let is_within = outcome.after(limit, now).is_within(limit, bounds.at_most);
            return Self { allowed: is_within, taken: is_within, held: !is_within, ..outcome };
        }
        outcome
    }

    /// The state after it, if something was taken.
    #[inline]
    pub(crate) fn state(&self, limit: &Limit, now: u64) -> Option<u64> {
        self.taken.then(|| self.after(limit, now).pack(limit))
    }

    fn after(&self, limit: &Limit, now: u64) -> Window {
        let Window { start, end, current, previous, .. } = self.before;
        if !self.taken {
            return self.before;
        }
        let place = Count::place_of(limit, now.saturating_sub(start), end - start).max(current.place);
        let current = Count { units: current.units + self.asked, place };
        Window { current: current.beside(limit, previous), ..self.before }
    }

    fn explain(&self, limit: &Limit, now: u64) -> Decision {
        let after = self.after(limit, now);
        Decision {
            allowed: self.allowed,
            limit: limit.count(),
            remaining: limit.units_left(limit.grains().saturating_sub(after.used(limit, now))),
            reset_after: duration(after.forgotten_at(limit).saturating_sub(now)),
            retry_after: (!self.allowed && self.can_ever).then(|| match self.held {
                true => duration(0),
                false => duration(self.before.room_at(limit, self.asked).saturating_sub(now)),
            }),
            delay: duration(0),
            assumed: false,
            banned: false,
        }
    }
}

pub(crate) fn decide(limit: &Limit, state: u64, bounds: Bounds, cost: Cost, now: u64) -> Step {
    let outcome = Outcome::of(limit, state, bounds, cost, now);
    Step { decision: outcome.explain(limit, now), state: outcome.state(limit, now).unwrap_or(state) }
}

/// Units that count now, rounded up.
pub(crate) fn consumed(limit: &Limit, state: u64, now: u64) -> u64 {
    Window::at(limit, state, now).used(limit, now).saturating_mul(limit.grain())
}

/// Takes from this window first, then from the one before. As there are fewer units than there have been, the window is spread over
/// all of its length: a larger number that somebody was told of before must not say that its units come back sooner.
pub(crate) fn refund(limit: &Limit, state: u64, cost: Cost, now: u64) -> u64 {
    let window = Window::at(limit, state, now);
    if window.current.units == 0 && window.previous.units == 0 {
        return state;
    }
    let grains = cost.get() / limit.grain();
    let from_current = window.current.units.min(grains);
    let current = Count::placeless(limit, window.current.units - from_current);
    Window { current, previous: window.previous.without(grains - from_current), ..window }.pack(limit)
}

/// The state, with the last unit of its window at the end of it: of such a window later states say so too, so they are larger numbers
/// than this, also when they have fewer units.
pub(crate) fn without_place(limit: &Limit, state: u64) -> u64 {
    let Counts { next, current, previous, is_small } = read(limit, state);
    if !is_small {
        return state;
    }
    let end = window_start(limit.period(), next - 1);
    write(limit, end, next, Count::placeless(limit, current.units), previous)
}

/// Where a charge at `now` is counted.
pub(crate) fn counted(limit: &Limit, state: u64, now: u64) -> Counted {
    let Window { start, end, current, .. } = Window::at(limit, state, now);
    let before = (current != Count::NONE).then(|| start + current.last(limit, end - start));
    Counted { at: start.max(now), before }
}

/// Whether charges at these instants are counted in the same window.
pub(crate) fn is_same_window(limit: &Limit, one: u64, other: u64) -> bool {
    window_start(limit.period(), one) == window_start(limit.period(), other)
}

/// Takes back `cost` units that were counted there, as if they had not been. With `is_last` none came after them in that window.
pub(crate) fn undo(limit: &Limit, state: u64, cost: Cost, counted: Counted, is_last: bool, now: u64) -> u64 {
    let window = Window::at(limit, state, now);
    let (start, end) = calendar::window(limit.period(), counted.at);
    let without = |count: Count| {
        let count = count.without(limit.grains_of(cost));
        match counted.before {
            Some(before) if is_last => {
                let place = Count::place_of(limit, before - start, end - start);
                Count { place: place.min(count.place), ..count }
            }
            _ => count,
        }
    };
    let window = if counted.at >= window.start {
        Window { current: without(window.current), ..window }
    } else if end == window.start {
        Window { previous: without(window.previous), ..window }
    } else {
        return state;
    };
    window.pack(limit)
}

/// Whether the bounds say something of the windows that count now. Such counts are no sums of charges: also where they are not higher
/// for it, as taking a charge out of them would then make them lower than the bounds say.
pub(crate) fn is_bound_by(limit: &Limit, state: u64, bounds: Bounds, now: u64) -> bool {
    let nothing = Window { current: Count::NONE, previous: Count::NONE, ..Window::at(limit, state, now) };
    nothing.bound_by(limit, bounds, now) != nothing
}

/// What a bucket counts as of which nobody knows more than that at most so many units were taken in each window.
pub(crate) fn with_spent(limit: &Limit, units: u64, now: u64) -> u64 {
    let units = Count::placeless(limit, units);
    let (start, end, next) = calendar::two_windows(limit.period(), now);
    Window { start, end, next, current: units, previous: units }.pack(limit)
}

/// The state after so much more was taken, whether or not there is room.
pub(crate) fn with_more(limit: &Limit, state: u64, bounds: Bounds, cost: Cost, now: u64) -> u64 {
    let before = Window::at(limit, state, now).bound_by(limit, bounds, now);
    let asked = limit.grains_of(cost).max(1);
    Outcome { before, asked, can_ever: true, allowed: true, taken: true, held: false }
        .after(limit, now)
        .pack(limit)
}

/// The state with so many more units, as if they came as late in their window as they can. It is of the form that the states of the bucket
/// have from now on, until they have as many units: so of both the larger number knows more.
pub(crate) fn ahead(limit: &Limit, state: u64, units: u64, now: u64) -> u64 {
    let window = Window::at(limit, state, now);
    let (before, known) = (Count::before_the_last(limit).place, window.current);
    let place = Count::place_of(limit, now.saturating_sub(window.start), window.end - window.start);
    // More than the limit has never come; less than is known would be no floor.
    let units = known.units.saturating_add(units).min(limit.grains()).max(known.units);
    let current = Count { units, place: known.place.max(place).max(before) };
    Window { current, ..window }.pack(limit)
}

/// At least as strict as both, whichever units each of them knows of.
pub(crate) fn joined(limit: &Limit, one: u64, other: u64, now: u64) -> u64 {
    Window::at(limit, one, now).max(limit, Window::at(limit, other, now)).pack(limit)
}

/// From now on no less is used than of either; not the sum, because both may know of the same units.
pub(crate) fn stricter(limit: &Limit, one: u64, other: u64, now: u64) -> u64 {
    let [one, other] = [one, other].map(|state| Window::at(limit, state, now));
    let both = one.max(limit, other);
    if one.next != other.next {
        return both.pack(limit);
    }
    // With more units in this window fewer of the one before are needed. The weight of these only falls.
    let needed = |window: Window| {
        let (last, left) = window.weight(limit, now);
        let more = u128::from(both.current.units - window.current.units) * u128::from(last);
        let known = u128::from(window.previous.units);
        more.checked_div(left.into()).map_or(0, |covered| known.saturating_sub(covered)) as u64
    };
    let units = needed(one).max(needed(other));
    Window { previous: Count { units, ..both.previous }, ..both }.pack(limit)
}

/// The later window of two states, and where it is the same one, the one with more units in it.
pub(crate) fn more_in_window(limit: &Limit, one: u64, other: u64) -> u64 {
    let rank = |state: u64| {
        let Counts { next, current, .. } = read(limit, state);
        (next, current.units, state)
    };
    if rank(one) >= rank(other) { one } else { other }
}

/// How many units the window of one state has more than the one of the other; `None`: these are two windows.
pub(crate) fn units_between(limit: &Limit, less: u64, more: u64) -> Option<u64> {
    let (less, more) = (read(limit, less), read(limit, more));
    (less.next == more.next).then(|| more.current.units.saturating_sub(less.current.units))
}

/// As for the fixed window: the state holds the window after the one that it counts.
pub(crate) fn nearest(limit: &Limit, state: u64, now: u64) -> u64 {
    let period = limit.period();
    let last = window_end(period, window_end(period, window_end(period, now)));
    let next = read(limit, state).next;
    // The same distance from it, on whichever side.
    if next > last { state - (next - last) } else { state }
}

/// The number may be that of another bucket, so only what follows from its being large is taken from it: how many units its window
/// has at least. When they were, and what the window before had, it does not say: the last unit is at the end, and the window before is
/// full (more than that only a limit that has since been lowered could have let pass). A window that lies ahead is full too.
pub(crate) fn strictest(limit: &Limit, state: u64, now: u64) -> u64 {
    let (full, counts) = (Count::placeless(limit, limit.grains()), read(limit, state));
    // Any small state is less than this.
    let least = if counts.is_small { 0 } else { PLACED_UNITS.min(full.units) };
    let known = Count::placeless(limit, counts.current.units.max(least));
    let window = Window::at(limit, state, now);
    let window = if counts.next == window.end {
        Window { previous: known.as_previous(limit), ..window }
    } else if counts.next < window.end {
        return state;
    } else {
        let previous = Count::placeless(limit, window.previous.units.max(full.units));
        Window { current: if window.start > now { full } else { known }, previous, ..window }
    };
    window.pack(limit)
}

impl Window {
    /// The window at `now`, or the one of the state if that is later.
    #[inline]
    fn at(limit: &Limit, state: u64, now: u64) -> Self {
        let period = limit.period();
        let (start, end, next) = calendar::two_windows(period, now);
        let known = read(limit, state);
        if known.next == next {
            return Self { start, end, next, current: known.current, previous: known.previous };
        }
        if known.next > end {
            let (start, end) = calendar::window(period, window_start(period, known.next - 1) - 1);
            return Self { start, end, next: known.next, current: known.current, previous: known.previous };
        }
        let previous = if known.next == end { known.current.as_previous(limit) } else { Count::NONE };
        Self { start, end, next, current: Count::NONE, previous }
    }

    /// How many of the units of the window before have not come back: what the whole of them is to `last` is this to `left`.
    fn weight(&self, limit: &Limit, now: u64) -> (u64, u64) {
        let last = self.previous.last(limit, self.end - self.start);
        // Before the window's start when time went back.
        (last, last.saturating_sub(now.saturating_sub(self.start)))
    }

    #[inline]
    fn has_room(&self, limit: &Limit, asked: u64, now: u64) -> bool {
        let Some(room) = limit.grains().checked_sub(self.current.units.saturating_add(asked)) else {
            return false;
        };
        let (last, left) = self.weight(limit, now);
        u128::from(self.previous.units) * u128::from(left) <= u128::from(room) * u128::from(last)
    }

    /// Rounded up.
    fn used(&self, limit: &Limit, now: u64) -> u64 {
        let (last, left) = self.weight(limit, now);
        let previous = match self.previous.units.checked_mul(left) {
            Some(product) => product.div_ceil(last),
            // At most all of them.
            None => (u128::from(self.previous.units) * u128::from(left)).div_ceil(u128::from(last)) as u64,
        };
        self.current.units.saturating_add(previous)
    }

    /// At least as strict as the bounds say.
    #[inline]
    fn bound_by(mut self, limit: &Limit, bounds: Bounds, now: u64) -> Self {
        if let Some(floor) = bounds.floor() {
            self.empty_at(limit, floor, now);
        }
        if bounds.at_least == 0 {
            return self;
        }
        let mut least = Self::at(limit, bounds.at_least, now);
        // Whoever knows of one of the windows knows how many units the one before had.
        if self.next == least.next && self.current.units.max(self.previous.units) > 0 {
            least.previous = Count::NONE;
        }
        self.max(limit, least)
    }

    /// At least as strict as both.
    fn max(self, limit: &Limit, other: Self) -> Self {
        let (earlier, later) = if self.next <= other.next { (self, other) } else { (other, self) };
        let (current, previous) = if earlier.next == later.next {
            (earlier.current, earlier.previous)
        } else if earlier.end == later.start {
            (Count::NONE, earlier.current.as_previous(limit))
        } else {
            (Count::NONE, Count::NONE)
        };
        Self { current: later.current.max(current), previous: later.previous.max(previous), ..later }
    }

    /// Whether the window has no more units than that of the mark, and none later in it.
    fn is_within(&self, limit: &Limit, mark: u64) -> bool {
        let Counts { next, current, .. } = read(limit, mark);
        let is_covered = self.current.units <= current.units && self.current.place <= current.place;
        next > self.next || next == self.next && is_covered
    }

    /// Makes it at least as strict as if it had been exhausted at `floor`.
    fn empty_at(&mut self, limit: &Limit, floor: u64, now: u64) {
        let period = limit.period();
        let (start, end) = calendar::window(period, floor);
        let full = Count { units: limit.grains(), place: Count::place_of(limit, floor - start, end - start) };
        if floor >= self.end {
            let next = window_end(period, end);
            *self = Self { start, end, next, current: full, previous: Count::NONE };
        } else if floor >= self.start {
            self.current = self.current.max(full);
        } else if end == self.start {
            self.previous = self.previous.max(full);
        }
        debug_assert!(self.end > now || window_end(period, now) <= self.end);
    }

    fn pack(self, limit: &Limit) -> u64 {
        write(limit, self.end, self.next, self.current, self.previous)
    }

    /// From when on all of it is forgotten.
    fn forgotten_at(&self, limit: &Limit) -> u64 {
        if self.current.units > 0 {
            self.end.saturating_add(self.current.last(limit, self.next - self.end))
        } else if self.previous.units > 0 {
            self.start + self.previous.last(limit, self.end - self.start)
        } else {
            0
        }
    }

    /// From when on `asked` grains pass, if nothing else comes.
    fn room_at(&self, limit: &Limit, asked: u64) -> u64 {
        let previous = self.current.as_previous(limit);
        let here = room_in(limit, (self.start, self.end), self.current.units, self.previous, asked);
        let after = room_in(limit, (self.end, self.next), 0, previous, asked).unwrap_or(self.next);
        // What has room at the end of this window may have none when its count is rounded up. Whoever comes late finds that.
        match here {
            Some(here) if after <= self.end => here,
            _ => after,
        }
    }
}

/// When `asked` grains pass in a window, of which so many are taken already.
fn room_in(
    limit: &Limit,
    (start, end): (u64, u64),
    current: u64,
    previous: Count,
    asked: u64,
) -> Option<u64> {
    let room = limit.grains().checked_sub(current.saturating_add(asked))?;
    if previous.units <= room {
        return Some(start);
    }
    let last = previous.last(limit, end - start);
    // Less than `last`.
    let left = (u128::from(room) * u128::from(last) / u128::from(previous.units)) as u64;
    Some(start + last - left).filter(|at| *at < end)
}
