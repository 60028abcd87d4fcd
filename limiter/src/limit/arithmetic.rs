//! What is worked out of a limit's numbers once, so that no check has to.

use std::time::Duration;

use crate::{
    calendar::civil::DAY,
    period::{MAX_PERIOD, Period},
    time::TICKS_PER_NANO,
};

/// Longest time that an empty bucket may take to fill.
pub const MAX_REFILL: Duration = MAX_PERIOD;
/// Steps that a sliding window tells apart of the count of the window before.
pub(crate) const PREVIOUS_CODES: u64 = 1 << 13;
/// So many units of a window, as these bits can hold, are kept with the place of the last one.
pub(crate) const UNIT_BITS: u32 = 5;
pub(crate) const PLACED_UNITS: u64 = (1 << UNIT_BITS) - 1;
/// With 64 places a client that takes each unit a moment after it has come back loses less than 1/64 of the count.
const MOST_PLACE_BITS: u32 = 6;
/// Ticks of the shortest month: no window of a month may count further.
const SHORTEST_MONTH: u64 = 28 * DAY;
/// An interval is rounded up to whole ticks where that costs at most this part of the rate.
const ROUNDING: u64 = 1000;

/// The interval of one unit as a fraction of ticks, and the ticks in which `burst` units refill.
///
/// The interval is rounded up to a whole number of ticks: then each charge is an exact multiple, the burst is exact and
/// the rate at most the one asked for, by at most 0.1 % lower. Only for some rates above 3.9 million units a second that
/// would be coarse: there each charge is rounded up by itself instead (by less than a quarter of a nanosecond), and the
/// refill rounded down, so that what passes at once is never more than the burst.
///
/// `None`: an empty bucket would take too long to fill.
pub(super) const fn pace(count: u64, ticks: u64, burst: u64) -> Option<(u64, u64, u64)> {
    let interval = ticks.div_ceil(count);
    // Below the count, which is at most 2^53.
    let excess = interval * count - ticks;
    let (numerator, denominator) = if excess * ROUNDING <= ticks { (interval, 1) } else { (ticks, count) };
    // Of the interval as it was asked for: ten years are ten years, also where rounding it up makes them some ticks longer.
    let asked = ticks as u128 * burst as u128 / count as u128;
    match fill_time(numerator, denominator, burst) {
        Some(span) if asked <= MAX_REFILL.as_nanos() * TICKS_PER_NANO as u128 => {
            Some((numerator, denominator, span))
        }
        _ => None,
    }
}

/// Ticks in which `burst` units refill; `None`: more than can be counted.
pub(super) const fn fill_time(numerator: u64, denominator: u64, burst: u64) -> Option<u64> {
    let ticks = numerator as u128 * burst as u128 / denominator as u128;
    match ticks {
        // Nothing could be charged to a bucket that fills in no time.
        0 => Some(1),
        1..=MOST_TICKS => Some(ticks as u64),
        _ => None,
    }
}

const MOST_TICKS: u128 = u64::MAX as u128;

/// How many units are counted as one, so that the count stays within `room`, and how many of these fit.
pub(super) const fn window(count: u64, room: u64) -> (u64, u64, u64) {
    let grain = count.div_ceil(room);
    (grain, 1, count / grain)
}

/// How many places a sliding window with so many ticks tells apart, as a power of two: so many that states with places take less
/// than the last place does, and that a good part of its ticks is left for counts without a place.
pub(super) const fn place_bits(ticks: u64) -> u32 {
    let mut bits = MOST_PLACE_BITS;
    while bits > 1 && small_states(bits) > ticks >> bits {
        bits -= 1;
    }
    bits
}

/// States with the place of the last unit of the current window.
pub(crate) const fn small_states(place_bits: u32) -> u64 {
    PLACED_UNITS << (UNIT_BITS + 2 * place_bits)
}

/// What a sliding window with so many ticks has room for: its places, and its grains.
pub(super) const fn sliding_window(count: u64, ticks: u64) -> (u64, u64, u64) {
    let bits = place_bits(ticks);
    // Two codes of room, so that the count with all of its codes stays below what is left of the window's ticks.
    let (grain, _, grains) = window(count, (ticks - small_states(bits)) / PREVIOUS_CODES - 2);
    (grain, bits as u64, grains)
}

/// Ticks of the shortest window of a period.
pub(super) const fn shortest(period: Period, ticks: u64) -> u64 {
    match period {
        Period::Month => SHORTEST_MONTH,
        Period::Calendar(calendar) => calendar.shortest(),
        _ => ticks,
    }
}

/// What the ends of windows that begin with their first charge are multiples of, for a window of so many ticks: a power of two
/// of at most a 1024th of it.
#[inline]
pub(crate) const fn end_step(length: u64) -> u64 {
    match length / 1024 {
        0 => 1,
        part => 1 << part.ilog2(),
    }
}
