//! What is worked out of a limit's numbers once, so that no check has to.

use std::time::Duration;

use crate::{calendar, period::Period, time::TICKS_PER_NANO};

/// Longest time that an empty bucket may take to fill.
pub const MAX_REFILL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Steps that a sliding window tells apart of the count of the window before.
pub(crate) const PREVIOUS_CODES: u64 = 1 << 13;
/// Ticks of the shortest month: no window of a month may count further.
const SHORTEST_MONTH: u64 = 28 * calendar::DAY;
/// With intervals of so many ticks (256 ns) or more, rounding the interval up costs less than 0.1 % of the rate.
const MIN_EXACT_INTERVAL: u64 = 1024;

/// The interval of one unit as a fraction of ticks, and the ticks in which `burst` units refill.
///
/// The interval is rounded up to a whole number of ticks: then each charge is an exact multiple, the burst is exact and
/// the rate at most the one asked for, by less than 0.1 % lower. Only for rates above 3.9 million units a second that
/// would be coarse: there each charge is rounded up by itself instead (by less than a quarter of a nanosecond).
///
/// `None`: an empty bucket would take too long to fill.
pub(super) const fn pace(count: u64, ticks: u64, burst: u64) -> Option<(u64, u64, u64)> {
    let interval = ticks.div_ceil(count);
    let (numerator, denominator) = if interval >= MIN_EXACT_INTERVAL || ticks.is_multiple_of(count) {
        (interval, 1)
    } else {
        (ticks, count)
    };
    match fill_time(numerator, denominator, burst) {
        Some(span) if span <= MAX_REFILL.as_nanos() as u64 * TICKS_PER_NANO => {
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

/// Ticks of the shortest window of a period.
pub(super) const fn shortest(period: Period, ticks: u64) -> u64 {
    if matches!(period, Period::Month) { SHORTEST_MONTH } else { ticks }
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
