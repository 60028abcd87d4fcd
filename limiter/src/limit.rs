//! A limit: so many units in a period, by which algorithm.

use std::{fmt, time::Duration};

use crate::Cost;

/// Shortest period.
pub const MIN_PERIOD: Duration = Duration::from_millis(100);
/// Longest period.
pub const MAX_PERIOD: Duration = Duration::from_secs(31 * 24 * 3600);
/// Longest time that an empty bucket may take to fill.
pub const MAX_REFILL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The resolution of bucket states: a sixteenth of a nanosecond. A 64-bit state reaches 36 years from the start of its
/// store with it.
pub(crate) const TICKS_PER_NANO: u64 = 16;

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Algorithm {
    /// A bucket that holds `burst` units and refills steadily.
    TokenBucket = 0,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::TokenBucket];

    /// Its name in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenBucket => "token_bucket",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = UnknownAlgorithm;

    fn try_from(number: u8) -> Result<Self, UnknownAlgorithm> {
        match number {
            0 => Ok(Self::TokenBucket),
            _ => Err(UnknownAlgorithm(number)),
        }
    }
}

/// A number that no algorithm has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no algorithm has the number {0}")]
pub struct UnknownAlgorithm(pub u8);

/// The period of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// Always as long.
    Fixed(Duration),
    /// A calendar day, UTC. A bucket, which refills steadily, takes 24 hours.
    Day,
    /// A calendar month, UTC. A bucket, which refills steadily, takes the mean month of 30.436875 days.
    Month,
}

impl Period {
    /// Its length; the mean one of a month.
    pub const fn length(self) -> Duration {
        match self {
            Self::Fixed(length) => length,
            Self::Day => Duration::from_secs(86_400),
            Self::Month => Duration::from_secs(2_629_746),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day => f.write_str("day"),
            Self::Month => f.write_str("month"),
            Self::Fixed(length) => {
                let millis = length.as_millis();
                match [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
                    .into_iter()
                    .find(|(unit, _)| millis % unit == 0)
                {
                    Some((unit, name)) => write!(f, "{}{name}", millis / unit),
                    None => write!(f, "{millis}ms"),
                }
            }
        }
    }
}

/// A limit that can be decided: validated, with its arithmetic worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    algorithm: Algorithm,
    count: u64,
    period: Period,
    burst: u64,
    /// Ticks in which one unit refills.
    interval: u64,
}

/// Why numbers or a text are no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Nothing would ever pass.
    #[error("a count of 0 would never let anything pass; to deny, say so in a rule, e.g. 1/1d")]
    ZeroCount,
    /// Nothing would ever pass.
    #[error("a burst of 0 would never let anything pass; leave it out to get the count")]
    ZeroBurst,
    /// More than numbers in JSON can carry exactly.
    #[error("{0} is above 2^53 (9007199254740992), the largest count that JSON carries exactly")]
    TooLarge(u64),
    /// Too short or too long.
    #[error("a period of {0:?} is outside of 100ms to 31d")]
    Period(Duration),
    /// The bucket would take too long to fill.
    #[error("a burst of {burst} at that rate takes longer than ten years to fill")]
    Refill {
        /// The burst.
        burst: u64,
    },
    /// Not `COUNT/PERIOD`.
    #[error("{0:?} is no limit: write COUNT/PERIOD, e.g. 5/1m, 100/1s, 1000/day")]
    Syntax(String),
    /// A unit that periods do not have.
    #[error("{0:?} is no period: write 500ms, 1s, 10m, 1h, 1d, day or month")]
    PeriodSyntax(String),
}

impl Limit {
    /// `count` units in each `period`; `burst` is the capacity of the bucket, by default `count`.
    ///
    /// # Errors
    /// When nothing could ever pass, or a number is out of range.
    pub fn new(
        algorithm: Algorithm,
        count: u64,
        period: Period,
        burst: Option<u64>,
    ) -> Result<Self, LimitError> {
        let burst = burst.unwrap_or(count);
        if count == 0 {
            return Err(LimitError::ZeroCount);
        }
        if burst == 0 {
            return Err(LimitError::ZeroBurst);
        }
        if let Some(large) = [count, burst].into_iter().find(|number| *number > Cost::MAX.get()) {
            return Err(LimitError::TooLarge(large));
        }
        let length = period.length();
        if !(MIN_PERIOD..=MAX_PERIOD).contains(&length) {
            return Err(LimitError::Period(length));
        }
        // Rounded up, so that the rate is never above the one asked for: by less than one tick in the interval, that is
        // 1/16,000 of a rate of 1,000,000 a second.
        let ticks = length.as_nanos() * u128::from(TICKS_PER_NANO);
        let interval = ticks.div_ceil(u128::from(count));
        let refill = interval * u128::from(burst);
        if refill > MAX_REFILL.as_nanos() * u128::from(TICKS_PER_NANO) {
            return Err(LimitError::Refill { burst });
        }
        // It is at most `refill`, which fits.
        Ok(Self { algorithm, count, period, burst, interval: interval as u64 })
    }

    /// Reads `COUNT/PERIOD`, e.g. `5/1m`.
    ///
    /// # Errors
    /// When the text is none, or the numbers are out of range.
    pub fn parse(text: &str, burst: Option<u64>, algorithm: Algorithm) -> Result<Self, LimitError> {
        let syntax = || LimitError::Syntax(text.chars().take(64).collect());
        let (count, period) = text.split_once('/').ok_or_else(syntax)?;
        let count: u64 = count.trim().parse().map_err(|_| syntax())?;
        Self::new(algorithm, count, parse_period(period.trim())?, burst)
    }

    /// How it counts.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Units in a period.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The period.
    pub fn period(&self) -> Period {
        self.period
    }

    /// Capacity of the bucket in units.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// The length of the period.
    pub fn window(&self) -> Duration {
        self.period.length()
    }

    /// One of `parts` equal parts of this limit, in rate and in burst, rounded down; `None` when nothing is left of it.
    pub fn share(&self, parts: u32) -> Option<Self> {
        let parts = u64::from(parts.max(1));
        let burst = self.burst / parts;
        if burst == 0 {
            return None;
        }
        // The rate is cut exactly, by stretching the interval.
        let interval = self.interval.checked_mul(parts)?;
        interval.checked_mul(burst)?;
        Some(Self { burst, interval, count: (self.count / parts).max(1), ..*self })
    }

    /// Ticks in which one unit refills.
    pub(crate) fn interval(&self) -> u64 {
        self.interval
    }

    /// Ticks in which an empty bucket fills.
    pub(crate) fn refill(&self) -> u64 {
        // Checked when the limit was made.
        self.interval * self.burst
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.period)
    }
}

fn parse_period(text: &str) -> Result<Period, LimitError> {
    match text {
        "day" => return Ok(Period::Day),
        "month" => return Ok(Period::Month),
        _ => {}
    }
    let syntax = || LimitError::PeriodSyntax(text.chars().take(64).collect());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        if digits == 0 && !unit.is_empty() { 1 } else { number.parse().map_err(|_| syntax())? };
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(syntax()),
    };
    Ok(Period::Fixed(Duration::from_millis(number.checked_mul(millis).ok_or_else(syntax)?)))
}
