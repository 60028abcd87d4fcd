//! How two counts, and how far each window had come with its last unit, are written into the ticks of one window.
//!
//! ```text
//!      next - SMALL              next                                              next + length - SMALL
//!      |  small: both counts     |  plain: current · 2^13  +  code of previous     |
//!      |  are at most 31         |                                                 |
//!
//!      small  =  current - 1 (5 bits)  ·  its place (6 bits)  ·  previous (5 bits)  ·  its place (6 bits)
//! ```
//!
//! `next` is the end of the window after the one that is counted. The *place* of a window's last unit says in which of 64 equal
//! parts of the window it was (of periods below 66 ms, 32 or fewer). In both forms the place of the window before is known if that has
//! at most 31 units; that of the current one only in the small form. Otherwise it is the last place. A unit that really is in the
//! last place makes a state plain, so that no small state lies in the past before its units are forgotten.
//!
//! Within a window the numbers only grow: `previous` stays the same, `current` stands before all else, and what is no longer small
//! does not become so again unless a charge that nobody was told of is undone. So of two states of a bucket the larger one knows of all
//! that the other one does, whichever is the later, and a state from which units were taken stays plain (`sliding.rs`, `without_place`).
//! While `current` is nothing the state stays that of the window before. A plain state without a place of `previous` is what was written before there were places.

use crate::{
    Limit, calendar,
    limit::{PLACED_UNITS, PREVIOUS_CODES, UNIT_BITS, small_states},
};

/// What was counted in one window, in grains, and the place of the last of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) units: u64,
    pub(super) place: u64,
}

/// A state, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// The end of the window after the one that is counted.
    pub(super) next: u64,
    pub(super) current: Count,
    pub(super) previous: Count,
    pub(super) is_small: bool,
}

impl Count {
    /// Of a window that nothing is known of.
    pub(super) const NONE: Self = Self { units: 0, place: 0 };

    /// Of which the last unit may have been at the end of the window.
    pub(super) fn placeless(limit: &Limit, units: u64) -> Self {
        Self { units, place: last_place(limit) }
    }

    /// Of no units, at the end of the place before the last one.
    pub(super) fn before_the_last(limit: &Limit) -> Self {
        Self { units: 0, place: last_place(limit).saturating_sub(1) }
    }

    /// The place of an instant that is so long after the start of its window.
    pub(super) fn place_of(limit: &Limit, since: u64, length: u64) -> u64 {
        let bits = limit.place_bits();
        // Of windows longer than two years the number may have more than 64 bits.
        let place = match since.leading_zeros() < bits {
            false => (since << bits).div_ceil(length),
            true => (u128::from(since) << bits).div_ceil(length.into()) as u64,
        };
        // The end of a place belongs to it.
        place.saturating_sub(1).min(last_place(limit))
    }

    /// How long after the start of its window the last unit was at most, in a window of this length.
    #[inline]
    pub(super) fn last(self, limit: &Limit, length: u64) -> u64 {
        // At most the length.
        ((u128::from(self.place + 1) * u128::from(length)) >> limit.place_bits()) as u64
    }

    /// Without so many units.
    pub(super) fn without(self, units: u64) -> Self {
        Self { units: self.units.saturating_sub(units), ..self }
    }

    /// At least as strict as both.
    pub(super) fn max(self, other: Self) -> Self {
        match (self.units, other.units) {
            (0, _) => other,
            (_, 0) => self,
            (one, two) => Self { units: one.max(two), place: self.place.max(other.place) },
        }
    }

    /// As it will be read when it is written as that of the current window.
    pub(super) fn beside(self, limit: &Limit, previous: Self) -> Self {
        if is_small(limit, self, previous) { self } else { Self::placeless(limit, self.units) }
    }

    /// As it will be read when its window is the one before: exact up to 256 units.
    pub(super) fn as_previous(self, limit: &Limit) -> Self {
        decode(limit, encode(limit, self))
    }

    fn is_placed(self, limit: &Limit) -> bool {
        self.units > 0 && self.units <= PLACED_UNITS && self.place < last_place(limit)
    }
}

#[inline]
pub(super) fn read(limit: &Limit, state: u64) -> Counts {
    let (start, end) = calendar::window(limit.period(), state);
    // Shorter than that is only what is left of the last window of time.
    let small = small_states(limit.place_bits()).min(end - start);
    match state.checked_sub(end - small) {
        Some(code) => {
            let bits = limit.place_bits();
            let count = |code: u64| Count { units: code >> bits, place: code & last_place(limit) };
            let Count { units, place } = count(code >> (UNIT_BITS + bits));
            let previous = count(code & ((1 << (UNIT_BITS + bits)) - 1));
            Counts { next: end, current: Count { units: units + 1, place }, previous, is_small: true }
        }
        None => Counts {
            next: start,
            current: Count::placeless(limit, (state - start) / PREVIOUS_CODES),
            previous: decode(limit, (state - start) % PREVIOUS_CODES),
            is_small: false,
        },
    }
}

/// The state of a window that ends at `end`, and the one after it at `next`.
pub(super) fn write(limit: &Limit, end: u64, next: u64, current: Count, previous: Count) -> u64 {
    if current.units > 0 || current.place == last_place(limit) || previous.units > PLACED_UNITS {
        write_counts(limit, next, current, previous)
    } else if previous.units > 0 {
        // As that window was written when it was the current one: before any state of this one that is small.
        write_counts(limit, end, previous, Count::NONE)
    } else {
        0
    }
}

fn write_counts(limit: &Limit, next: u64, current: Count, previous: Count) -> u64 {
    if is_small(limit, current, previous) {
        let bits = limit.place_bits();
        let code = |count: Count| count.units << bits | count.place;
        let current = code(Count { units: current.units - 1, ..current });
        let small = current << (UNIT_BITS + bits) | code(previous);
        return next.saturating_sub(small_states(bits)) + small;
    }
    next.saturating_add(current.units.saturating_mul(PREVIOUS_CODES)).saturating_add(encode(limit, previous))
}

fn is_small(limit: &Limit, current: Count, previous: Count) -> bool {
    current.is_placed(limit) && previous.units <= PLACED_UNITS
}

fn last_place(limit: &Limit) -> u64 {
    (1 << limit.place_bits()) - 1
}

/// Significant bits of a code.
const SIGNIFICANT: u32 = 8;
const EXACT: u64 = 1 << SIGNIFICANT;
/// From this code on there is a place. It stands for 2^54 units, which no window has.
const PLACED: u64 = 6144;

/// A count in 13 bits: a few units with their place, or any number of them rounded up to 8 significant bits.
fn encode(limit: &Limit, count: Count) -> u64 {
    let Count { units, place } = count;
    if count.is_placed(limit) {
        return PLACED + ((units - 1) << limit.place_bits()) + place;
    }
    if units < EXACT {
        return units;
    }
    let exponent = units.ilog2() - (SIGNIFICANT - 1);
    let mantissa = units.div_ceil(1 << exponent);
    // A mantissa rounded up to 2^8 carries into the exponent by itself.
    let code = EXACT + u64::from(exponent - 1) * (EXACT / 2) + mantissa - EXACT / 2;
    code.min(PLACED - 1)
}

fn decode(limit: &Limit, code: u64) -> Count {
    if let Some(placed) = code.checked_sub(PLACED) {
        return Count { units: (placed >> limit.place_bits()) + 1, place: placed & last_place(limit) };
    }
    if code < EXACT {
        return Count::placeless(limit, code);
    }
    let (exponent, mantissa) = ((code - EXACT) / (EXACT / 2) + 1, (code - EXACT) % (EXACT / 2) + EXACT / 2);
    Count::placeless(limit, mantissa << exponent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Algorithm, Period};

    fn limit(period: Period) -> Limit {
        Limit::new(Algorithm::SlidingWindow, 10, period, None).unwrap()
    }

    fn periods() -> [Period; 4] {
        let fixed = |millis| Period::Fixed(Duration::from_millis(millis));
        [fixed(100), fixed(60_000), Period::Day, Period::Month]
    }

    #[test]
    fn counts_are_exact_while_they_are_small_and_never_too_low() {
        let limit = limit(Period::Day);
        let read = |units| Count::placeless(&limit, units).as_previous(&limit).units;
        assert!((0..=256).all(|units| read(units) == units));
        let mut last = 0;
        for shift in 0..54 {
            for offset in [0, 1, 3, 7, 100] {
                let units = (1u64 << shift) + offset * (1 << shift) / 101;
                assert!(
                    read(units) >= units && read(units) <= units + units / 128,
                    "{units}: {}",
                    read(units)
                );
                let code = encode(&limit, Count::placeless(&limit, units));
                assert!(code < PLACED && code >= last);
                assert_eq!(read(read(units)), read(units), "reading and writing again changes nothing");
                last = code;
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_later_charge_is_a_larger_number() {
        for limit in periods().map(limit) {
            let end = calendar::window_end(limit.period(), 7_200_000_000_000_000_000);
            let next = calendar::window_end(limit.period(), end);
            let length = calendar::window_end(limit.period(), next) - next;
            let (all, last) = (1 << limit.place_bits(), last_place(&limit));
            for previous in
                [(0, last), (1, 0), (1, last), (7, 3), (31, last - 1), (31, last), (32, last), (256, last)]
            {
                let previous = Count { units: previous.0, place: previous.1 };
                let mut before = write(&limit, end, next, Count::NONE, previous);
                for (units, place) in (1..=40).flat_map(|units| (0..all).map(move |place| (units, place))) {
                    let current = Count { units, place };
                    let state = write(&limit, end, next, current, previous);
                    let read = read(&limit, state);
                    assert_eq!((read.next, read.current.units), (next, units));
                    assert_eq!((read.previous.units, read.previous.place), (previous.units, previous.place));
                    let is_known = units <= PLACED_UNITS && previous.units <= PLACED_UNITS;
                    assert_eq!(read.current.place, if is_known { place } else { last });
                    // The unit in this place is forgotten then.
                    let forgotten = next - length + (((place + 1) * length) >> limit.place_bits());
                    assert!(state >= forgotten.min(next), "{units} in {place}");
                    // From the last place on nothing is small any more.
                    if place < last {
                        assert!(state > before || !is_known && state >= before, "{units} in {place}");
                        before = state;
                    }
                }
                let most = Count::placeless(&limit, limit.grains());
                assert!(read(&limit, write(&limit, end, next, most, previous)).current == most);
            }
        }
    }

    #[test]
    fn every_number_is_read_and_none_is_written_as_less_than_it_was_read() {
        for limit in periods().map(limit) {
            for state in [0, 1, u64::MAX, u64::MAX - 1, u64::MAX - (1 << 60)]
                .into_iter()
                .chain((0..100_000).map(|step| 7_200_000_000_000_000_000_u64 + step * 4_099_999_999))
            {
                let Counts { next, current, previous, .. } = read(&limit, state);
                let end = calendar::window_start(limit.period(), next.max(1) - 1);
                let again = read(&limit, write(&limit, end, next, current, previous));
                if current.units + previous.units > 0 && (1..u64::MAX - (1 << 61)).contains(&next) {
                    assert_eq!(again.next, next);
                    for (again, first) in [(again.current, current), (again.previous, previous)] {
                        assert!(again.units == first.units && again.place >= first.place);
                    }
                }
            }
        }
    }

    /// As the program wrote it before there were places.
    #[test]
    fn a_state_without_places_means_what_it_meant() {
        for limit in periods().map(limit) {
            let next = calendar::window_end(limit.period(), 7_200_000_000_000_000_000);
            for (current, previous) in [(0, 1), (1, 0), (9, 255), (10, 10), (40_000, 256)] {
                let read = read(&limit, next + current * 8192 + previous);
                assert_eq!(read.next, next);
                assert_eq!(read.current, Count::placeless(&limit, current));
                assert_eq!(read.previous, Count::placeless(&limit, previous));
            }
        }
    }
}
