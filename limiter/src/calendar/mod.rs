//! Windows: the parts into which a period divides time. Those of a length are aligned to the Unix epoch, days and months are
//! those of UTC, and all others are a [`Calendar`](placed::Calendar)'s.
//!
//! - `civil`: which day is which.
//! - `zone`: what clocks in a time zone show.
//! - `starts`: the date on which windows begin, as rules write it.
//! - `grid`: the windows of a time zone, or from a date on.
//! - `placed`: these, known by what they are, so that a period is a number that can be copied.

pub(crate) mod civil;
mod grid;
pub(crate) mod placed;
mod seen;
pub(crate) mod starts;
pub(crate) mod zone;

use self::civil::{DAY, civil, days_before};
use crate::{period::Period, time::TICKS_PER_NANO};

/// The start of the window that contains `instant`.
pub(crate) fn window_start(period: Period, instant: u64) -> u64 {
    match layout(period) {
        Layout::Even(length) => instant - instant % length,
        Layout::Months => month_start(month_of(instant)),
        Layout::Placed(calendar) => calendar.windows(instant).0,
    }
}

/// The end of the window that contains `instant`, which is the start of the next. At the end of time (the year 2116)
/// there is no next one.
pub(crate) fn window_end(period: Period, instant: u64) -> u64 {
    match layout(period) {
        Layout::Even(length) => (instant - instant % length).saturating_add(length),
        Layout::Months => month_start(month_of(instant) + 1),
        Layout::Placed(calendar) => calendar.windows(instant).1,
    }
}

/// Both.
#[inline]
pub(crate) fn window(period: Period, instant: u64) -> (u64, u64) {
    match layout(period) {
        Layout::Even(length) => {
            let start = instant - instant % length;
            (start, start.saturating_add(length))
        }
        Layout::Months => {
            let month = month_of(instant);
            (month_start(month), month_start(month + 1))
        }
        Layout::Placed(calendar) => {
            let (start, end, _) = calendar.windows(instant);
            (start, end)
        }
    }
}

/// The start and the end of the window that contains `instant`, and the end of the next one.
#[inline]
pub(crate) fn two_windows(period: Period, instant: u64) -> (u64, u64, u64) {
    match layout(period) {
        Layout::Even(length) => {
            let start = instant - instant % length;
            let end = start.saturating_add(length);
            (start, end, end.saturating_add(length))
        }
        Layout::Months => {
            let month = month_of(instant);
            (month_start(month), month_start(month + 1), month_start(month + 2))
        }
        Layout::Placed(calendar) => calendar.windows(instant),
    }
}

/// No window is longer than so many ticks.
pub(crate) fn longest(period: Period) -> u64 {
    match layout(period) {
        Layout::Even(length) => length,
        Layout::Months => 31 * DAY,
        Layout::Placed(calendar) => calendar.longest(),
    }
}

/// How windows lie.
enum Layout {
    /// All of this length, one of them at the Unix epoch.
    Even(u64),
    /// Of UTC.
    Months,
    Placed(placed::Calendar),
}

#[inline]
fn layout(period: Period) -> Layout {
    match period {
        // Periods are at most ten years.
        Period::FromFirst { nanos } => Layout::Even(nanos.saturating_mul(TICKS_PER_NANO)),
        Period::Fixed(length) => Layout::Even(length.as_nanos() as u64 * TICKS_PER_NANO),
        Period::Day => Layout::Even(DAY),
        Period::Month => Layout::Months,
        Period::Calendar(calendar) => Layout::Placed(calendar),
    }
}

/// Months since January 1970.
fn month_of(instant: u64) -> u64 {
    let (year, month) = civil(instant / DAY);
    (year - 1970) * 12 + month - 1
}

fn month_start(month: u64) -> u64 {
    days_before(1970 + month / 12, month % 12 + 1).saturating_mul(DAY)
}

#[cfg(test)]
mod tests {
    use super::{civil::SECOND, *};

    fn is_leap(year: u64) -> bool {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let mut day = 0;
        for year in 1970..2116 {
            let february = if is_leap(year) { 29 } else { 28 };
            for (index, length) in
                [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate()
            {
                assert_eq!(civil(day), (year, index as u64 + 1));
                assert_eq!(civil(day + length - 1), (year, index as u64 + 1));
                let (first, next) = (day * DAY, (day + length) * DAY);
                for instant in [first, first + 1, next - 1] {
                    assert_eq!(window_start(Period::Month, instant), first);
                    assert_eq!(window_end(Period::Month, instant), next);
                }
                day += length;
            }
        }
    }

    #[test]
    fn windows_touch_each_other_and_time_ends_without_an_overflow() {
        for period in [Period::Day, Period::Fixed(std::time::Duration::from_millis(100)), Period::Month] {
            let instant = 1_800_000_000 * SECOND + 17;
            let end = window_end(period, instant);
            assert_eq!(window_start(period, end), end);
            assert_eq!(window_end(period, end - 1), end);
            assert!(window_start(period, u64::MAX) < u64::MAX);
            assert!(window_end(period, u64::MAX) > window_start(period, u64::MAX));
        }
    }
}
