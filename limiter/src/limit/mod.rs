//! A limit: so many units in a period, by which algorithm.

mod algorithm;
mod arithmetic;
mod error;
mod placing;
mod text;

use std::time::Duration;

pub(crate) use self::arithmetic::{PLACED_UNITS, PREVIOUS_CODES, UNIT_BITS, end_step, small_states};
pub(crate) use self::placing::Placing;
pub use self::{
    algorithm::{Algorithm, UnknownAlgorithm},
    arithmetic::MAX_REFILL,
    error::LimitError,
};
use self::{
    arithmetic::{fill_time, pace, shortest, sliding_window, window},
    error::NumbersError,
};
use crate::{
    cost::Cost,
    limit_bits::limit_bits,
    period::{MAX_PERIOD, MIN_BUCKET_PERIOD, MIN_PERIOD, Period},
    time::TICKS_PER_NANO,
};

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
/// assert_eq!(month, "10000/month".parse()?);
/// # Ok::<(), tidegate_limiter::Error>(())
/// ```
///
/// # A count of 0
///
/// It denies every cost, for ever: `0/1m`, or `deny` for short ([`Limit::DENY`]).
///
/// # Numbers that make no limit
///
/// A text that is no limit is an error at once. [`Limit::per_second`] and its like never panic, and can stand in constants:
/// what is wrong with their numbers, a burst of 0 for instance, is an error when a limiter is made
/// ([`Keyed::new`](crate::Keyed::new), [`LimiterBuilder::build`](crate::LimiterBuilder::build)), or by [`Limit::validate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    count: u64,
    burst: u64,
    period: Period,
    /// Buckets: `numerator / denominator` ticks in which one unit refills. Windows: units that are counted as one, and of one that
    /// slides the bits of a place.
    numerator: u64,
    denominator: u64,
    /// Buckets: ticks in which an empty one fills. Windows: units of `numerator` that fit. Log: ticks of the period. 0 of a limit
    /// that denies.
    span: u64,
    algorithm: Algorithm,
}

const _: () = assert!(size_of::<Limit>() <= 64, "a limit fits a cache line");

impl Limit {
    /// Denies every cost. As a text it is `deny`.
    pub const DENY: Self = Self::per_second(0);

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

    /// As [`Limit::per_second`], in each `period` (1 ms to ten years; of windows and logs from 100 ms).
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
            0 => Ok(Self::worked_out(self.algorithm, self.count, self.period, self.burst).map(drop)?),
            _ => Ok(()),
        }
    }

    /// `count` units in each `period`. `burst` is the capacity of a token bucket or the length of a leaky bucket's queue,
    /// by default `count`; the other algorithms have none.
    ///
    /// # Errors
    /// When a number is out of range, or is one that the algorithm does not have.
    pub fn new(
        algorithm: Algorithm,
        count: u64,
        period: Period,
        burst: Option<u64>,
    ) -> Result<Self, LimitError> {
        Ok(Self::worked_out(algorithm, count, period, burst.unwrap_or(count))?)
    }

    /// What was asked for. Where that is no limit it has a `span` of 0, and no limiter takes it.
    const fn asked(algorithm: Algorithm, count: u64, period: Period, burst: u64) -> Self {
        match Self::worked_out(algorithm, count, period, burst) {
            Ok(limit) => limit,
            Err(_) => Self { count, burst, period, numerator: 1, denominator: 1, span: 0, algorithm },
        }
    }

    const fn worked_out(
        algorithm: Algorithm,
        count: u64,
        period: Period,
        burst: u64,
    ) -> Result<Self, NumbersError> {
        if count == 0 && burst != 0 {
            return Err(NumbersError::BurstOfNothing);
        }
        if count != 0 && burst == 0 {
            return Err(NumbersError::ZeroBurst);
        }
        if count > Cost::MAX.get() {
            return Err(NumbersError::TooLarge(count));
        }
        if burst > Cost::MAX.get() {
            return Err(NumbersError::TooLarge(burst));
        }
        if burst != count && !algorithm.has_burst() {
            return Err(NumbersError::BurstOfWindow(algorithm));
        }
        let from_first = matches!(period, Period::FromFirst { .. });
        if from_first && !matches!(algorithm, Algorithm::FixedWindow) {
            return Err(NumbersError::FromFirst(algorithm));
        }
        if matches!(period, Period::Calendar(_)) && !algorithm.has_calendar() {
            return Err(NumbersError::Calendar(period, algorithm));
        }
        let nanos = period.length().as_nanos();
        if algorithm.has_burst() || from_first {
            if nanos < MIN_BUCKET_PERIOD.as_nanos() || nanos > MAX_REFILL.as_nanos() {
                return Err(NumbersError::BucketPeriod(period.length()));
            }
        } else if nanos < MIN_PERIOD.as_nanos() || nanos > MAX_PERIOD.as_nanos() {
            return Err(NumbersError::Period(period.length()));
        }
        // At most ten years: 2^61 ticks, so that a state reaches three periods beyond the year 2080.
        let ticks = nanos as u64 * TICKS_PER_NANO;
        let (numerator, denominator, span) = match algorithm {
            // Not one unit fits, and none comes.
            _ if count == 0 => (ticks, 1, 0),
            Algorithm::TokenBucket | Algorithm::LeakyBucket => match pace(count, ticks, burst) {
                Some(pace) => pace,
                None => return Err(NumbersError::Refill { burst }),
            },
            Algorithm::FixedWindow if from_first => window(count, end_step(ticks) - 1),
            // The rest of the window's ticks is for floors, which run ahead of what is used, and stay within the window all the same.
            Algorithm::FixedWindow => window(count, (shortest(period, ticks) - 1) / 9 * 8),
            Algorithm::SlidingWindow => sliding_window(count, shortest(period, ticks)),
            Algorithm::SlidingLog => (1, 1, ticks),
        };
        Ok(Self { count, burst, period, numerator, denominator, span, algorithm })
    }

    /// Whether it denies every cost: its count is 0. It takes nothing from any bucket.
    #[inline]
    pub const fn denies(&self) -> bool {
        self.count == 0
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

    /// The length of the period; the mean one of a part of the calendar.
    pub const fn window(&self) -> Duration {
        self.period.length()
    }

    /// The time in which all of what `remaining` counts against comes: of a bucket its [burst](Self::burst_size) at the pace
    /// of the count, otherwise the count in its window.
    pub fn quota_window(&self) -> Duration {
        if !self.algorithm.has_burst() || self.count == self.burst {
            return self.window();
        }
        let nanos = self.window().as_nanos() * u128::from(self.burst) / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
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
        if self.denies() {
            return Some(*self);
        }
        if !self.algorithm.has_burst() {
            let count = Some(self.count / 4 * 3).filter(|count| *count > 0)?;
            return Self::new(self.algorithm, count, self.period, None).ok();
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

    /// Windows: what so many grains of one make. One of which nothing is used has room for all of the count.
    pub(crate) fn units_left(&self, grains: u64) -> u64 {
        if grains == self.span { self.count } else { grains.saturating_mul(self.numerator) }
    }

    /// Windows: grains that a cost takes, of one that it fits into. It may need all of them and a part of one more.
    pub(crate) fn grains_of(&self, cost: Cost) -> u64 {
        cost.get().div_ceil(self.numerator).min(self.span)
    }

    /// Sliding windows: how many bits say in which part of its window a unit was.
    pub(crate) fn place_bits(&self) -> u32 {
        self.denominator as u32
    }

    /// Log: ticks that an entry counts.
    pub(crate) fn memory(&self) -> u64 {
        self.span
    }

    /// What tells the buckets of a key apart before and after a change of its limit, where their states mean different things:
    /// how the limit counts, the pace and the burst of a bucket, the period of windows. A change of anything else (the count of
    /// windows, of a log) leaves the states as they are. These are bits of the bucket's fingerprint, within
    /// `limit_bits.rs`; see `store/former.rs`.
    pub(crate) fn bits(&self) -> u64 {
        let (is_window, meaning) = match self.algorithm {
            // A smaller burst has no room for what a larger one let through: the state would tell of waits that it never has.
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                (false, [self.numerator, self.denominator, self.burst << 2 | 1])
            }
            Algorithm::FixedWindow => (true, [self.period_number(), self.numerator, 2]),
            Algorithm::SlidingWindow => (true, [self.period_number(), self.numerator, 3]),
            // A log knows what came when, whatever the period.
            Algorithm::SlidingLog => (false, [0, 0, 0]),
        };
        limit_bits(meaning, is_window)
    }

    /// Below 2^54. The same for the same windows, or lengths, however they are written. Above 31 days, which are less than 2^52
    /// nanoseconds, lengths are told apart by the millisecond: these are less than 2^39, so that other numbers are left for windows
    /// of time zones, and from a date on.
    pub(crate) fn period_number(&self) -> u64 {
        const FROM_FIRST: u64 = 1 << 52;
        const IN_MILLIS: u64 = 1 << 53;
        const PLACED: u64 = IN_MILLIS | 1 << 51;
        const IN_NANOS_UP_TO: Duration = Duration::from_secs(31 * 86_400);
        let length = match (self.algorithm, self.period) {
            (Algorithm::FixedWindow | Algorithm::SlidingWindow, Period::Month) => return 2,
            (_, Period::Calendar(calendar)) => return calendar.number() | PLACED,
            (_, period) => period.length(),
        };
        let number = match length > IN_NANOS_UP_TO {
            true => length.as_millis() as u64 | IN_MILLIS,
            false => length.as_nanos() as u64,
        };
        if matches!(self.period, Period::FromFirst { .. }) { number | FROM_FIRST } else { number }
    }

    /// Whether it is the same limit, maybe written otherwise.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let all = |limit: &Self| (limit.algorithm, limit.period_number(), limit.count, limit.burst);
        all(self) == all(other)
    }
}

#[cfg(test)]
mod tests;
