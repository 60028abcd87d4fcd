//! A limit: so many units in a period, by which algorithm.

use std::{fmt, str::FromStr, time::Duration};

use crate::{Cost, Error, algorithm::opened, calendar, key::KeyBytes, time::TICKS_PER_NANO};

/// Shortest period.
pub const MIN_PERIOD: Duration = Duration::from_millis(100);
/// Longest period.
pub const MAX_PERIOD: Duration = Duration::from_secs(31 * 24 * 3600);
/// Longest time that an empty bucket may take to fill.
pub const MAX_REFILL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Algorithm {
    /// A bucket that holds `burst` units and refills steadily.
    TokenBucket = 0,
    /// A queue with room for `burst` units, first in first out, that is served steadily: the decision says how long the
    /// request has to wait for its turn. A full queue denies.
    LeakyBucket = 1,
    /// `count` units in each window. Around the border of two windows up to twice as many pass in a period.
    FixedWindow = 2,
    /// `count` units in this window and, weighted by how much of it still lies within one period, the one before: an
    /// estimate that takes the requests of the window before as evenly spread.
    SlidingWindow = 3,
    /// `count` units in any period, exactly. It keeps each admitted request, so it is the one that costs memory.
    SlidingLog = 4,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::TokenBucket, Self::LeakyBucket, Self::FixedWindow, Self::SlidingWindow, Self::SlidingLog];

    /// Its name in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenBucket => "token_bucket",
            Self::LeakyBucket => "leaky_bucket",
            Self::FixedWindow => "fixed_window",
            Self::SlidingWindow => "sliding_window",
            Self::SlidingLog => "sliding_log",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Whether its limits have a burst that differs from their count.
    pub const fn has_burst(self) -> bool {
        matches!(self, Self::TokenBucket | Self::LeakyBucket)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = UnknownAlgorithm;

    fn try_from(number: u8) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| *algorithm as u8 == number).ok_or(UnknownAlgorithm(number))
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
    /// A calendar day, UTC. Buckets, which refill steadily, and the log, which slides, take 24 hours.
    Day,
    /// A calendar month, UTC. Buckets, which refill steadily, and the log, which slides, take the mean month of
    /// 30.436875 days.
    Month,
    /// Always as long, and begun by the first charge after the one before has ended: only for fixed windows. It can be
    /// longer by up to a 1024th.
    FromFirst {
        /// So that a period has no more bytes for it.
        nanos: u64,
    },
}

impl Period {
    /// A window of this length that begins with its first charge.
    pub fn from_first(length: Duration) -> Self {
        Self::FromFirst { nanos: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Its length; the mean one of a month.
    pub const fn length(self) -> Duration {
        match self {
            Self::Fixed(length) => length,
            Self::FromFirst { nanos } => Duration::from_nanos(nanos),
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
            Self::FromFirst { .. } => write!(f, "{} from the first", Self::Fixed(self.length())),
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

/// Steps that a sliding window tells apart of the count of the window before.
pub(crate) const PREVIOUS_CODES: u64 = 1 << 13;
/// Ticks of the shortest month: no window of a month may count further.
const SHORTEST_MONTH: u64 = 28 * calendar::DAY;
/// With intervals of so many ticks (256 ns) or more, rounding the interval up costs less than 0.1 % of the rate.
const MIN_EXACT_INTERVAL: u64 = 1024;

/// So many units in a period, by an [`Algorithm`]: with its arithmetic worked out, so that each check finds it done.
///
/// ```
/// use std::time::Duration;
/// use tidegate_limiter::{Algorithm, Limit, rules::Period};
///
/// const LOGINS: Limit = Limit::per_minute(100).burst(20);
/// assert_eq!((LOGINS.count(), LOGINS.burst_size()), (100, 20));
///
/// // As rule files write it, e.g. from settings.
/// assert_eq!("100/1m burst 20".parse::<Limit>()?, LOGINS);
/// assert_eq!("100/1m sliding_log".parse::<Limit>()?, Limit::per_minute(100).with_algorithm(Algorithm::SlidingLog));
///
/// // With all that can be said.
/// let month = Limit::new(Algorithm::FixedWindow, 10_000, Period::Month, None)?;
/// assert_eq!(month.to_string(), "10000/month");
/// # Ok::<(), tidegate_limiter::Error>(())
/// ```
///
/// # Numbers that make no limit
///
/// A text that is no limit is an error at once. [`Limit::per_second`] and its like never panic, and can stand in constants:
/// what is wrong with their numbers, a count of 0 for instance, is told when a limiter is made
/// ([`Keyed::new`](crate::Keyed::new), [`LimiterBuilder::build`](crate::LimiterBuilder::build)), or by [`Limit::validate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    count: u64,
    burst: u64,
    period: Period,
    /// Buckets: `numerator / denominator` ticks in which one unit refills. Windows: units that are counted as one, / 1.
    numerator: u64,
    denominator: u64,
    /// Buckets: ticks in which an empty one fills. Windows: units of `numerator` that fit. Log: ticks of the period.
    span: u64,
    algorithm: Algorithm,
}

const _: () = assert!(size_of::<Limit>() <= 64, "a limit fits a cache line");

/// Why numbers or a text are no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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
    /// A window with a burst.
    #[error("a burst belongs to token_bucket and leaky_bucket; leave it out: a {0} admits its count")]
    BurstOfWindow(Algorithm),
    /// A window from the first charge that is none.
    #[error("only a fixed_window can begin with its first charge, a {0} cannot")]
    FromFirst(Algorithm),
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
    /// What stands behind `COUNT/PERIOD` is neither a burst nor an algorithm.
    #[error(
        "{0:?} cannot follow a limit: write e.g. `100/1m burst 20`, or the algorithm (token_bucket, leaky_bucket, \
         fixed_window, sliding_window, sliding_log), as in `100/1m sliding_window`"
    )]
    Addition(String),
}

/// Why numbers are no limit, so that a constant can be made of what is right.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    ZeroCount,
    ZeroBurst,
    TooLarge(u64),
    Period(Duration),
    BurstOfWindow(Algorithm),
    FromFirst(Algorithm),
    Refill { burst: u64 },
}

impl From<Wrong> for LimitError {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::ZeroCount => Self::ZeroCount,
            Wrong::ZeroBurst => Self::ZeroBurst,
            Wrong::TooLarge(number) => Self::TooLarge(number),
            Wrong::Period(length) => Self::Period(length),
            Wrong::BurstOfWindow(algorithm) => Self::BurstOfWindow(algorithm),
            Wrong::FromFirst(algorithm) => Self::FromFirst(algorithm),
            Wrong::Refill { burst } => Self::Refill { burst },
        }
    }
}

impl Limit {
    /// `count` units in each second: a token bucket that holds as many, unless a [burst](Self::burst) is said.
    pub const fn per_second(count: u64) -> Self {
        Self::per(Duration::from_secs(1), count)
    }

    /// As [`Limit::per_second`], in each minute.
    pub const fn per_minute(count: u64) -> Self {
        Self::per(Duration::from_secs(60), count)
    }

    /// As [`Limit::per_second`], in each hour.
    pub const fn per_hour(count: u64) -> Self {
        Self::per(Duration::from_secs(3_600), count)
    }

    /// As [`Limit::per_second`], in each 24 hours.
    pub const fn per_day(count: u64) -> Self {
        Self::per(Duration::from_secs(86_400), count)
    }

    /// As [`Limit::per_second`], in each `period` (100 ms to 31 days).
    pub const fn per(period: Duration, count: u64) -> Self {
        Self::asked(Algorithm::TokenBucket, count, Period::Fixed(period), count)
    }

    /// With another capacity of the bucket: so many units can be taken at once, when it is full. It replaces what was said
    /// before. The windows and the log have none.
    #[must_use = "it is another limit"]
    pub const fn burst(self, units: u64) -> Self {
        Self::asked(self.algorithm, self.count, self.period, units)
    }

    /// Counted otherwise than by a token bucket.
    #[must_use = "it is another limit"]
    pub const fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Self::asked(algorithm, self.count, self.period, self.burst)
    }

    /// Whether something can be limited by it. No other limit needs this than one of [`Limit::per_second`] and its like.
    ///
    /// # Errors
    /// As [`Limit::new`].
    pub fn validate(&self) -> Result<(), LimitError> {
        match self.span {
            0 => Self::worked_out(self.algorithm, self.count, self.period, self.burst)?.validate(),
            _ => Ok(()),
        }
    }

    /// `count` units in each `period`. `burst` is the capacity of a token bucket or the length of a leaky bucket's queue,
    /// by default `count`; the other algorithms have none.
    ///
    /// # Errors
    /// When nothing could ever pass, or a number is out of range.
    pub fn new(
        algorithm: Algorithm,
        count: u64,
        period: Period,
        burst: Option<u64>,
    ) -> Result<Self, LimitError> {
        Ok(Self::worked_out(algorithm, count, period, burst.unwrap_or(count))?)
    }

    /// What was asked for. Where that is no limit it has a `span` of 0, which none that is one has, and no limiter takes it.
    const fn asked(algorithm: Algorithm, count: u64, period: Period, burst: u64) -> Self {
        match Self::worked_out(algorithm, count, period, burst) {
            Ok(limit) => limit,
            Err(_) => Self { count, burst, period, numerator: 1, denominator: 1, span: 0, algorithm },
        }
    }

    const fn worked_out(algorithm: Algorithm, count: u64, period: Period, burst: u64) -> Result<Self, Wrong> {
        if count == 0 {
            return Err(Wrong::ZeroCount);
        }
        if burst == 0 {
            return Err(Wrong::ZeroBurst);
        }
        if count > Cost::MAX.get() {
            return Err(Wrong::TooLarge(count));
        }
        if burst > Cost::MAX.get() {
            return Err(Wrong::TooLarge(burst));
        }
        if burst != count && !algorithm.has_burst() {
            return Err(Wrong::BurstOfWindow(algorithm));
        }
        let from_first = matches!(period, Period::FromFirst { .. });
        if from_first && !matches!(algorithm, Algorithm::FixedWindow) {
            return Err(Wrong::FromFirst(algorithm));
        }
        let nanos = period.length().as_nanos();
        if nanos < MIN_PERIOD.as_nanos() || nanos > MAX_PERIOD.as_nanos() {
            return Err(Wrong::Period(period.length()));
        }
        // At most 31 days: 2^54 ticks.
        let ticks = nanos as u64 * TICKS_PER_NANO;
        let (numerator, denominator, span) = match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => match pace(count, ticks, burst) {
                Some(pace) => pace,
                None => return Err(Wrong::Refill { burst }),
            },
            Algorithm::FixedWindow if from_first => window(count, opened::quantum(ticks) - 1),
            Algorithm::FixedWindow => window(count, shortest(period, ticks) - 1),
            // Two codes of room, so that the count with all of its codes stays below the window's ticks.
            Algorithm::SlidingWindow => window(count, shortest(period, ticks) / PREVIOUS_CODES - 2),
            Algorithm::SlidingLog => (1, 1, ticks),
        };
        Ok(Self { count, burst, period, numerator, denominator, span, algorithm })
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
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Units in a period.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The period.
    pub const fn period(&self) -> Period {
        self.period
    }

    /// Capacity of a token bucket, or length of a leaky bucket's queue, in units; otherwise the count.
    pub const fn burst_size(&self) -> u64 {
        self.burst
    }

    /// The length of the period; the mean one of a month.
    pub const fn window(&self) -> Duration {
        self.period.length()
    }

    /// One of `parts` equal parts of this limit, in rate and in burst, rounded down; `None` when nothing is left of it.
    pub fn share(&self, parts: u32) -> Option<Self> {
        let parts = u64::from(parts.max(1));
        let burst = self.burst / parts;
        if burst == 0 {
            return None;
        }
        if !self.algorithm.has_burst() {
            return Self::new(self.algorithm, burst, self.period, None).ok();
        }
        // The rate is cut exactly, by stretching the interval: a rate below one unit in a period is one too.
        let numerator = self.numerator.checked_mul(parts)?;
        let span = fill_time(numerator, self.denominator, burst)?;
        Some(Self { burst, numerator, span, count: (self.count / parts).max(1), ..*self })
    }

    /// The three quarters of this limit that an owner gives when the rest is carved out for shares; `None` when nothing is left
    /// of it. What is carved out of the whole is a third of this: [`CARVED_PARTS`](Self::CARVED_PARTS) of it make this.
    pub fn carve(&self) -> Option<Self> {
        if !self.algorithm.has_burst() {
            return Self::new(self.algorithm, self.count / 4 * 3, self.period, None).ok();
        }
        // The rate is cut by a longer period, because it may not be a whole number of units.
        let nanos = self.period.length().as_nanos().checked_mul(4)?.div_ceil(3);
        let longer = Duration::from_nanos(u64::try_from(nanos).ok()?);
        Self::new(self.algorithm, self.count, Period::Fixed(longer), Some(self.burst / 4 * 3)).ok()
    }

    /// Of a [carved](Self::carve) limit: so many times what was carved out make it.
    pub const CARVED_PARTS: u32 = 3;

    /// Buckets: ticks in which one unit refills, rounded up, is `numerator / denominator`.
    pub(crate) fn interval(&self) -> (u64, u64) {
        (self.numerator, self.denominator)
    }

    /// Buckets: ticks in which an empty one fills.
    pub(crate) fn refill(&self) -> u64 {
        self.span
    }

    /// Windows: units that are counted as one.
    pub(crate) fn grain(&self) -> u64 {
        self.numerator
    }

    /// Windows: grains that fit.
    pub(crate) fn grains(&self) -> u64 {
        self.span
    }

    /// Log: ticks that an entry counts.
    pub(crate) fn memory(&self) -> u64 {
        self.span
    }

    /// What tells buckets of the same limit of a rule apart after a change of that limit, because their states mean different
    /// things: the algorithm and, where windows do not line up, the period. A change of anything else keeps what was consumed.
    pub(crate) fn class(&self) -> u64 {
        let windows = matches!(self.algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow);
        let period = if windows { self.period_number() } else { 0 };
        period << 8 | self.algorithm as u64
    }

    /// Below 2^53. The same for the same windows, or lengths, however they are written.
    fn period_number(&self) -> u64 {
        match (self.algorithm, self.period) {
            (Algorithm::FixedWindow | Algorithm::SlidingWindow, Period::Day) => 1,
            (Algorithm::FixedWindow | Algorithm::SlidingWindow, Period::Month) => 2,
            // No period has so many nanoseconds.
            (_, Period::FromFirst { nanos }) => nanos | 1 << 52,
            (_, period) => period.length().as_nanos() as u64,
        }
    }

    /// Whether it is the same limit, maybe written otherwise.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let all = |limit: &Self| (limit.algorithm, limit.period_number(), limit.count, limit.burst);
        all(self) == all(other)
    }

    /// Puts all by which it is the [same](Self::is_same) into a fingerprint.
    #[inline]
    pub(crate) fn feed(&self, bytes: &mut KeyBytes) {
        let has_burst = self.burst != self.count;
        bytes.number(self.period_number() << 8 | u64::from(has_burst) << 7 | self.algorithm as u64);
        bytes.number(self.count);
        if has_burst {
            bytes.number(self.burst);
        }
    }
}

/// The interval of one unit as a fraction of ticks, and the ticks in which `burst` units refill.
///
/// The interval is rounded up to a whole number of ticks: then each charge is an exact multiple, the burst is exact and
/// the rate at most the one asked for, by less than 0.1 % lower. Only for rates above 3.9 million units a second that
/// would be coarse: there each charge is rounded up by itself instead (by less than a quarter of a nanosecond).
///
/// `None`: an empty bucket would take too long to fill.
const fn pace(count: u64, ticks: u64, burst: u64) -> Option<(u64, u64, u64)> {
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

const fn fill_time(numerator: u64, denominator: u64, burst: u64) -> Option<u64> {
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
const fn window(count: u64, room: u64) -> (u64, u64, u64) {
    let grain = count.div_ceil(room);
    (grain, 1, count / grain)
}

const fn shortest(period: Period, ticks: u64) -> u64 {
    if matches!(period, Period::Month) { SHORTEST_MONTH } else { ticks }
}

/// As rule files write it: `100/1m`, `100/1m burst 20`, `100/1m sliding_window`. Without the name of an algorithm it is a
/// token bucket.
impl FromStr for Limit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.split_whitespace();
        let limit = words.next().unwrap_or_default();
        let (mut burst, mut algorithm) = (None, None);
        while let Some(word) = words.next() {
            let addition = |wrong: &str| LimitError::Addition(wrong.chars().take(64).collect());
            let known = Algorithm::from_name(word).filter(|_| algorithm.is_none());
            match (known, word) {
                (Some(_), _) => algorithm = known,
                (None, "burst") if burst.is_none() => {
                    let units = words.next().unwrap_or_default();
                    burst = Some(units.parse().map_err(|_| addition(&format!("burst {units}")))?);
                }
                _ => return Err(addition(word).into()),
            }
        }
        Ok(Self::parse(limit, burst, algorithm.unwrap_or(Algorithm::TokenBucket))?)
    }
}

/// `COUNT/PERIOD`; with `{:#}` all that [`Limit::from_str`] reads.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.period)?;
        if f.alternate() {
            if self.burst != self.count {
                write!(f, " burst {}", self.burst)?;
            }
            if self.algorithm != Algorithm::TokenBucket {
                write!(f, " {}", self.algorithm)?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_rust_is_what_is_written_as_text() {
        for (limit, text) in [
            (Limit::per_second(100), "100/1s"),
            (Limit::per_minute(2).burst(5), "2/1m burst 5"),
            (Limit::per_hour(7).with_algorithm(Algorithm::SlidingWindow), "7/1h sliding_window"),
            (Limit::per_day(7).burst(1).with_algorithm(Algorithm::LeakyBucket), "7/1d burst 1 leaky_bucket"),
            (Limit::per(Duration::from_millis(250), 3), "3/250ms"),
        ] {
            assert_eq!(text.parse(), Ok(limit));
            assert_eq!(format!("{limit:#}"), text);
            assert_eq!(limit.validate(), Ok(()));
        }
        assert_eq!("5/1m token_bucket burst 9".parse(), Ok(Limit::per_minute(5).burst(9)));
    }

    #[test]
    fn what_is_no_limit_says_so_and_panics_nowhere() {
        const NOTHING: Limit = Limit::per_minute(0);
        assert_eq!(NOTHING.validate(), Err(LimitError::ZeroCount));
        // What was wrong can be put right.
        assert_eq!(Limit::per_minute(1).burst(0).validate(), Err(LimitError::ZeroBurst));
        assert_eq!(Limit::per_minute(1).burst(0).burst(2), Limit::per_minute(1).burst(2));
        let window = Limit::per_minute(1).burst(2).with_algorithm(Algorithm::FixedWindow);
        assert_eq!(window.validate(), Err(LimitError::BurstOfWindow(Algorithm::FixedWindow)));
        let brief = Duration::from_millis(1);
        assert_eq!(Limit::per(brief, 1).validate(), Err(LimitError::Period(brief)));
        assert_eq!(Limit::per_second(u64::MAX).validate(), Err(LimitError::TooLarge(u64::MAX)));
        assert!(matches!(Limit::per_day(1).burst(1 << 53).validate(), Err(LimitError::Refill { .. })));
    }

    #[test]
    fn a_text_that_is_no_limit_says_what_to_write() {
        for (text, says) in [
            ("", "COUNT/PERIOD"),
            ("100", "COUNT/PERIOD"),
            ("-1/1m", "COUNT/PERIOD"),
            ("5/1w", "write 500ms, 1s"),
            ("0/1m", "a count of 0"),
            ("5/1m 20", "burst 20"),
            ("5/1m burst", "burst 20"),
            ("5/1m burst many", "burst 20"),
            ("5/1m burst 0", "a burst of 0"),
            ("5/1m gcra", "sliding_window"),
            ("5/1m burst 7 sliding_log", "belongs to token_bucket"),
            ("5/1m sliding_log token_bucket", "cannot follow"),
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
