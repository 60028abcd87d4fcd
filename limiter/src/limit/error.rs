//! Why numbers or a text are no limit.

use std::time::Duration;

use super::algorithm::Algorithm;
use crate::{
    calendar::{starts::NoDate, zone::UnknownZone},
    period::Period,
};

/// Why numbers or a text are no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// A limit that denies, with a burst.
    #[error("a count of 0 denies, so it has no burst; leave the burst out")]
    BurstOfNothing,
    /// Nothing would ever pass.
    #[error(
        "a burst of 0 would never let anything pass; leave it out to get the count, or write the limit `deny`"
    )]
    ZeroBurst,
    /// More than numbers in JSON can carry exactly.
    #[error("{0} is above 2^53 (9007199254740992), the largest count that JSON carries exactly")]
    TooLarge(u64),
    /// Too short or too long.
    #[error("a period of {0:?} is outside of 100ms to 3650d (ten years)")]
    Period(Duration),
    /// The same of a bucket, or of a window that begins with its first charge: their state is an instant, which may be nearer.
    #[error("a period of {0:?} is outside of 1ms to 3650d (ten years)")]
    BucketPeriod(Duration),
    /// A window with a burst.
    #[error("a burst belongs to token_bucket and leaky_bucket; leave it out: a {0} admits its count")]
    BurstOfWindow(Algorithm),
    /// A window from the first charge that is none.
    #[error("only a fixed_window can begin with its first charge, a {0} cannot")]
    FromFirst(Algorithm),
    /// A period of the calendar, for an algorithm that has none.
    #[error(
        "{period} resets with the calendar, which a {algorithm} does not: write fixed_window (or sliding_window) as the \
         algorithm, or a period that has a length, e.g. {length}"
    )]
    Calendar {
        /// As it was written.
        period: Period,
        /// What was to count by it.
        algorithm: Algorithm,
        /// About as long.
        length: Period,
    },
    /// A time zone or a date, for an algorithm whose limits have no windows.
    #[error(
        "{field} says where windows lie, which a {algorithm} does not have: leave it out, or write a period of the calendar \
         (day, week, month or year), or fixed_window (or sliding_window) as the algorithm"
    )]
    Windowless {
        /// `timezone` or `starts`.
        field: &'static str,
        /// What was to count by it.
        algorithm: Algorithm,
    },
    /// A time zone, for windows that have a length and no date.
    #[error(
        "{0} has a length, which no time zone changes: write day, week, month or year, say by `starts` on which date one of \
         its windows begins, or leave timezone out"
    )]
    ZoneOfLength(Period),
    /// A date, for windows of parts of seconds.
    #[error("windows of {0} cannot begin on a date: leave starts out, or write a period of whole seconds")]
    StartsOfPart(Period),
    /// No such time zone.
    #[error(transparent)]
    Zone(#[from] UnknownZone),
    /// No such date.
    #[error(transparent)]
    Starts(#[from] NoDate),
    /// More different windows than are kept.
    #[error(
        "there are too many different time zones and dates on which windows begin in this process, of all rules that it had: \
         take dates that others have, or start it again"
    )]
    TooManyPlaces,
    /// The bucket would take too long to fill.
    #[error("a burst of {burst} at that rate takes longer than ten years to fill")]
    Refill {
        /// The burst.
        burst: u64,
    },
    /// Not `COUNT/PERIOD`.
    #[error("{0:?} is no limit: write COUNT/PERIOD, e.g. 5/1m, 100/1s, 1000/day, or `deny`")]
    Syntax(String),
    /// A unit that periods do not have.
    #[error("{0:?} is no period: write {word}500ms, 1s, 10m, 1h, 1d, 2w, day, week, month or year", word = meant(.0))]
    PeriodSyntax(String),
    /// What stands behind `COUNT/PERIOD` is neither a burst nor an algorithm.
    #[error(
        "{0:?} cannot follow a limit: write e.g. `100/1m burst 20`, or the algorithm (token_bucket, leaky_bucket, \
         fixed_window, sliding_window, sliding_log), as in `100/1m sliding_window`, or where windows lie, as in `1000/month \
         timezone Europe/Paris starts 2026-03-17`"
    )]
    Addition(String),
}

/// Why numbers are no limit, so that a constant can be made of what is right.
#[derive(Debug, Clone, Copy)]
pub(super) enum NumbersError {
    BurstOfNothing,
    ZeroBurst,
    TooLarge(u64),
    Period(Duration),
    BucketPeriod(Duration),
    BurstOfWindow(Algorithm),
    FromFirst(Algorithm),
    Refill { burst: u64 },
    Calendar(Period, Algorithm),
}

/// What was meant by a word that is nearly a period, with what stands between it and the other ones.
fn meant(word: &str) -> String {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).trim().to_ascii_lowercase();
    let meant = match &*word {
        "sec" | "secs" | "second" | "seconds" => "1s",
        "min" | "mins" | "minute" | "minutes" => "1m",
        "hr" | "hrs" | "hour" | "hours" => "1h",
        "day" | "days" => "1d (or day, the one of the calendar)",
        "week" | "weeks" => "1w (or week, the one of the calendar)",
        "mo" | "month" | "months" => "month (or a length, e.g. 30d)",
        "y" | "yr" | "year" | "years" => "year (or a length, e.g. 365d)",
        _ => return String::new(),
    };
    format!("e.g. {meant}; there are ")
}

impl LimitError {
    /// A part of the calendar, for an algorithm that has none.
    pub(super) fn of_calendar(period: Period, algorithm: Algorithm) -> Self {
        const DAY: u64 = 86_400;
        let length = Period::Fixed(Duration::from_secs(period.length().as_secs() / DAY * DAY));
        match period.is_of_calendar() {
            true => Self::Calendar { period, algorithm, length },
            false => Self::Windowless { field: "starts", algorithm },
        }
    }
}

impl From<NumbersError> for LimitError {
    fn from(error: NumbersError) -> Self {
        match error {
            NumbersError::BurstOfNothing => Self::BurstOfNothing,
            NumbersError::ZeroBurst => Self::ZeroBurst,
            NumbersError::TooLarge(number) => Self::TooLarge(number),
            NumbersError::Period(length) => Self::Period(length),
            NumbersError::BucketPeriod(length) => Self::BucketPeriod(length),
            NumbersError::BurstOfWindow(algorithm) => Self::BurstOfWindow(algorithm),
            NumbersError::FromFirst(algorithm) => Self::FromFirst(algorithm),
            NumbersError::Refill { burst } => Self::Refill { burst },
            NumbersError::Calendar(period, algorithm) => Self::of_calendar(period, algorithm),
        }
    }
}
