//! The sliding window counter: this window's count, and the one before weighted by how much of it is still within a
//! period.
//!
//! ```text
//!     usage at t  =  current  +  previous · (end - t) / length
//!     cost c is allowed at t  iff  usage + c  <=  count
//!
//!     state  =  end of the next window  +  current · 2^13  +  code of previous
//! ```
//!
//! (Cloudflare, "How we built rate limiting capable of scaling to millions of domains", 2017.) As with the fixed window
//! the parts can be told from the sum. `current` is exact up to 488,000 units a second and in grains above; `previous` is
//! written in 13 bits with 8 significant ones, rounded up: exact to 256, at most 1/128 too high above.
//!
//! In any interval of length d at most count · (1 + d / period) units are admitted: less than twice the count in a
//! period. It takes the requests of the window before as evenly spread; where they were not, it admits or denies some
//! that the exact log would not.

use super::step::Step;
use crate::{
    Cost, Decision, Limit,
    calendar::{window_end, window_start},
    limit::PREVIOUS_CODES,
    time::duration,
};

/// A state, taken apart. Counts are in grains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: u64,
    end: u64,
    current: u64,
    previous: u64,
}

pub(crate) fn decide(limit: &Limit, state: u64, floor: Option<u64>, cost: Cost, now: u64) -> Step {
    let mut window = Window::at(limit, state, now);
    if let Some(floor) = floor {
        window.empty_at(limit, floor, now);
    }
    let Window { start, end, current, previous } = window;
    let (grains, length) = (limit.grains(), end - start);
    // Before the window's start when time went back.
    let left = |at: u64| end.saturating_sub(at.max(start));
    let usage = |current: u64| {
        u128::from(current) * u128::from(length) + u128::from(previous) * u128::from(left(now))
    };
    let full = u128::from(grains) * u128::from(length);
    let can_ever = cost.get().max(1) <= limit.count();
    let add = cost.get().div_ceil(limit.grain());
    let asked = add.max(1);
    let next = window_end(limit.period(), end);
    let allowed =
        can_ever && usage(current.saturating_add(asked)) <= full && next.checked_add(length).is_some();
    let taken = allowed && cost != Cost::PEEK;
    let after = Window { current: if taken { current + add } else { current }, ..window };
    let reset = match after {
        Window { current: 1.., .. } => next,
        Window { previous: 1.., .. } => end,
        _ => now,
    };
    let decision = Decision {
        allowed,
        limit: limit.count(),
        remaining: (full.saturating_sub(usage(after.current)) / u128::from(length)) as u64 * limit.grain(),
        reset_after: duration(reset.saturating_sub(now)),
        retry_after: (!allowed && can_ever)
            .then(|| duration(window.room_at(limit, asked).saturating_sub(now))),
        delay: duration(0),
        assumed: false,
    };
    Step { decision, state: if taken { after.pack(limit) } else { state } }
}

/// Takes from this window first, then from the one before.
pub(crate) fn refund(limit: &Limit, state: u64, cost: Cost, now: u64) -> u64 {
    let window = Window::at(limit, state, now);
    let grains = cost.get() / limit.grain();
    let from_current = window.current.min(grains);
    let previous = window.previous.saturating_sub(grains - from_current);
    Window { current: window.current - from_current, previous, ..window }.pack(limit)
}

/// Takes back `cost` units that were charged at the instant `charged`, as if they had not been.
pub(crate) fn undo(limit: &Limit, state: u64, cost: Cost, charged: u64, now: u64) -> u64 {
    let window = Window::at(limit, state, now);
    let grains = cost.get().div_ceil(limit.grain());
    let window = if charged >= window.start {
        Window { current: window.current.saturating_sub(grains), ..window }
    } else if window_end(limit.period(), charged) == window.start {
        Window { previous: window.previous.saturating_sub(grains), ..window }
    } else {
        return state;
    };
    window.pack(limit)
}

/// The instant in whose window a charge at `now` is counted: later than now when time went back.
pub(crate) fn counted_at(limit: &Limit, state: u64, now: u64) -> u64 {
    Window::at(limit, state, now).start.max(now)
}

/// Whether being empty at `floor` says something of the windows that count now. Such counts are no sums of charges: also where
/// they are not higher for it, as taking a charge out of them would then make them lower than the floor says.
pub(crate) fn is_bound_by(limit: &Limit, state: u64, floor: u64, now: u64) -> bool {
    let nothing = Window { current: 0, previous: 0, ..Window::at(limit, state, now) };
    let mut bound = nothing;
    bound.empty_at(limit, floor, now);
    bound != nothing
}

/// As for the fixed window: the state holds the window after the one that it counts.
pub(crate) fn nearest(limit: &Limit, state: u64, now: u64) -> u64 {
    let period = limit.period();
    let last = window_end(period, window_end(period, window_end(period, now)));
    let known = window_start(period, state);
    if known > last { last.saturating_add(state - known) } else { state }
}

/// A state that says something of the window of `now` says nothing of the one before: these bits may be those of another
/// bucket, or of this one in another window, so that counts as full (more than that only a limit that has since been
/// lowered could have let pass). A window that lies ahead does too.
pub(crate) fn strictest(limit: &Limit, state: u64, now: u64) -> u64 {
    if window_start(limit.period(), state) <= window_end(limit.period(), now) {
        return state;
    }
    let window = Window::at(limit, state, now);
    let grains = limit.grains();
    let current = if window.start > now { grains } else { window.current };
    Window { current, previous: window.previous.max(grains), ..window }.pack(limit)
}

impl Window {
    /// The window at `now`, or the one of the state if that is later.
    fn at(limit: &Limit, state: u64, now: u64) -> Self {
        let period = limit.period();
        let start = window_start(period, now);
        let end = window_end(period, now);
        let known = window_start(period, state);
        if known <= end {
            // It ended before the window before this one began, or with that one.
            let current = if known == end { (state - known) / PREVIOUS_CODES } else { 0 };
            return Self { start, end, current: 0, previous: decode(encode(current)) };
        }
        let current = (state - known) / PREVIOUS_CODES;
        let previous = decode((state - known) % PREVIOUS_CODES);
        let end = window_start(period, known - 1);
        Self { start: window_start(period, end - 1), end, current, previous }
    }

    /// Makes it at least as strict as if it had been exhausted at `floor`.
    fn empty_at(&mut self, limit: &Limit, floor: u64, now: u64) {
        let period = limit.period();
        if floor >= self.end {
            let (start, end) = (window_start(period, floor), window_end(period, floor));
            *self = Self { start, end, current: limit.grains(), previous: 0 };
        } else if floor >= self.start {
            self.current = self.current.max(limit.grains());
        } else if window_end(period, floor) == self.start {
            self.previous = self.previous.max(limit.grains());
        }
        debug_assert!(self.end > now || window_end(period, now) <= self.end);
    }

    fn pack(self, limit: &Limit) -> u64 {
        if self.current == 0 && self.previous == 0 {
            return 0;
        }
        let next = window_end(limit.period(), self.end);
        next.saturating_add(self.current.saturating_mul(PREVIOUS_CODES)).saturating_add(encode(self.previous))
    }

    /// When `asked` grains pass if nothing else comes.
    fn room_at(self, limit: &Limit, asked: u64) -> u64 {
        let grains = limit.grains();
        let in_window = |end: u64, length: u64, current: u64, previous: u64| {
            let room = grains.checked_sub(current)?.checked_sub(asked)?;
            let left = (u128::from(room) * u128::from(length)).checked_div(u128::from(previous));
            Some(left.map_or(end - length, |left| end - u64::try_from(left).unwrap_or(length).min(length)))
        };
        let next = window_end(limit.period(), self.end);
        in_window(self.end, self.end - self.start, self.current, self.previous)
            .or_else(|| in_window(next, next - self.end, 0, decode(encode(self.current))))
            .unwrap_or(next)
    }
}

/// Significant bits of a code.
const SIGNIFICANT: u32 = 8;
const EXACT: u64 = 1 << SIGNIFICANT;

/// A count in 13 bits, rounded up to 8 significant ones.
fn encode(count: u64) -> u64 {
    if count < EXACT {
        return count;
    }
    let exponent = count.ilog2() - (SIGNIFICANT - 1);
    let mantissa = count.div_ceil(1 << exponent);
    // A mantissa rounded up to 2^8 carries into the exponent by itself.
    EXACT + u64::from(exponent - 1) * (EXACT / 2) + mantissa - EXACT / 2
}

fn decode(code: u64) -> u64 {
    if code < EXACT {
        return code;
    }
    let (exponent, mantissa) = ((code - EXACT) / (EXACT / 2) + 1, (code - EXACT) % (EXACT / 2) + EXACT / 2);
    if exponent >= 56 { u64::MAX } else { mantissa << exponent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_exact_for_small_counts_and_never_too_low() {
        assert!((0..256).all(|count| decode(encode(count)) == count));
        let mut last = 0;
        for shift in 0..54 {
            for offset in [0, 1, 3, 7, 100] {
                let count = (1u64 << shift) + offset * (1 << shift) / 101;
                let read = decode(encode(count));
                assert!(read >= count && read <= count + count / 128, "{count} was read as {read}");
                assert!(encode(count) < PREVIOUS_CODES);
                assert_eq!(encode(read), encode(count), "reading and writing again changes nothing");
                assert!(encode(count) >= last);
                last = encode(count);
            }
        }
    }
}
