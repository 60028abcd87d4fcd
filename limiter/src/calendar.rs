//! Windows: the parts into which a period divides time. All are aligned to the Unix epoch; months are those of UTC.

use crate::{period::Period, time::TICKS_PER_NANO};

const SECOND: u64 = 1_000_000_000 * TICKS_PER_NANO;
pub(crate) const DAY: u64 = 86_400 * SECOND;

/// The start of the window that contains `instant`.
pub(crate) fn window_start(period: Period, instant: u64) -> u64 {
    match ticks_of(period) {
        Some(length) => instant - instant % length,
        None => month_start(month_of(instant)),
    }
}

/// The end of the window that contains `instant`, which is the start of the next. At the end of time (the year 2116)
/// there is no next one.
pub(crate) fn window_end(period: Period, instant: u64) -> u64 {
    match ticks_of(period) {
        Some(length) => (instant - instant % length).saturating_add(length),
        None => month_start(month_of(instant) + 1),
    }
}

/// Both.
#[inline]
pub(crate) fn window(period: Period, instant: u64) -> (u64, u64) {
    match ticks_of(period) {
        Some(length) => {
            let start = instant - instant % length;
            (start, start.saturating_add(length))
        }
        None => {
            let month = month_of(instant);
            (month_start(month), month_start(month + 1))
        }
    }
}

/// The start and the end of the window that contains `instant`, and the end of the next one.
#[inline]
pub(crate) fn two_windows(period: Period, instant: u64) -> (u64, u64, u64) {
    match ticks_of(period) {
        Some(length) => {
            let start = instant - instant % length;
            let end = start.saturating_add(length);
            (start, end, end.saturating_add(length))
        }
        None => {
            let month = month_of(instant);
            (month_start(month), month_start(month + 1), month_start(month + 2))
        }
    }
}

/// No window is longer than so many ticks.
pub(crate) fn longest(period: Period) -> u64 {
    ticks_of(period).unwrap_or(31 * DAY)
}

/// The length of all windows but those of months.
fn ticks_of(period: Period) -> Option<u64> {
    match period {
        // Periods are at most ten years.
        Period::FromFirst { nanos } => Some(nanos.saturating_mul(TICKS_PER_NANO)),
        Period::Fixed(length) => Some(length.as_nanos() as u64 * TICKS_PER_NANO),
        Period::Day => Some(DAY),
        Period::Month => None,
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

/// Year and month (1 to 12) of a day since 1970. Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`, for days that are not negative.
pub(crate) fn civil(day: u64) -> (u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month)
}

/// Days from 1970 to the first of a month. The same source, `days_from_civil`.
pub(crate) fn days_before(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

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
