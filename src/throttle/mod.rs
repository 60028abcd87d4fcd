//! Limits that come with the check in the numbers of redis-cell and of throttlecrab: how large a bucket is, how fast it refills,
//! and the five numbers of an answer, which these two count differently. It knows neither the Redis protocol nor HTTP: those
//! two front ends hand it what they have read.
//!
//! - `json`: throttlecrab's call over HTTP.

pub(crate) mod json;

use std::{borrow::Cow, time::Duration};

use tidegate_limiter::{
    Algorithm, Cost, Limit,
    cluster::DEFAULT_DOMAIN,
    rules::{LimitError, Period},
};

use crate::check::{CheckAnswer, CheckRequest, Costs, Numbers, Subject};

/// Bytes of a key.
pub(crate) const MAX_KEY_BYTES: usize = 4 << 10;

/// Whose numbers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// redis-cell: the bucket holds one unit more than `max_burst`. An answer begins with whether the check is limited.
    Cell,
    /// throttlecrab: the bucket holds `max_burst` units. An answer begins with whether the check is allowed.
    Crab,
}

impl Dialect {
    /// The least `max_burst`.
    pub(crate) fn least_burst(self) -> u64 {
        match self {
            Self::Cell => 0,
            Self::Crab => 1,
        }
    }

    /// Units in a full bucket.
    pub(crate) fn size_of(self, max_burst: u64) -> u64 {
        match self {
            Self::Cell => max_burst.saturating_add(1),
            Self::Crab => max_burst,
        }
    }

    /// The numbers of an answer, in the order of the dialect's command.
    pub(crate) fn five(self, limit: &Limit, cost: Cost, answer: &CheckAnswer<'_>) -> [i64; 5] {
        // A look is never limited.
        let allowed = answer.allowed || cost == Cost::PEEK;
        let numbers = answer.numbers.unwrap_or(NOTHING_KNOWN);
        match self {
            Self::Cell => cell(allowed, numbers),
            Self::Crab => crab(allowed, limit, cost, numbers),
        }
    }
}

/// What is told where nobody could decide and the check is denied.
const NOTHING_KNOWN: Numbers = Numbers {
    limit: 0,
    remaining: 0,
    reset_after: Duration::ZERO,
    retry_after: None,
    delay: Duration::ZERO,
    banned: false,
};

/// A bucket of `size` units, of which `count` come back in `period` seconds.
pub(crate) fn limit_of(size: u64, count: u64, period: u64) -> Result<Limit, LimitError> {
    Limit::new(Algorithm::TokenBucket, count, Period::Fixed(Duration::from_secs(period)), Some(size))
}

/// The check that both ask for.
pub(crate) fn check_of(key: &str, limit: Limit, cost: Cost) -> CheckRequest<'_> {
    CheckRequest {
        domain: Cow::Borrowed(DEFAULT_DOMAIN),
        subject: Subject::Inline { key: Cow::Borrowed(key), limit },
        cost,
        costs: Costs::default(),
        id: None,
    }
}

/// Seconds rounded up: a client that comes back after them is not too early.
fn cell(allowed: bool, numbers: Numbers) -> [i64; 5] {
    let retry = match numbers.retry_after {
        Some(after) if !allowed => rounded_up(after),
        // Allowed, or it will never pass.
        _ => -1,
    };
    let limited = i64::from(!allowed);
    [limited, integer(numbers.limit), integer(numbers.remaining), retry, rounded_up(numbers.reset_after)]
}

/// throttlecrab counts `reset_after` until it forgets the key: until the bucket is full, and `max_burst` - 2 intervals more. It
/// rounds down. Of `retry_after` this would be too early, 0 for most limits, so that is rounded up here.
fn crab(allowed: bool, limit: &Limit, cost: Cost, numbers: Numbers) -> [i64; 5] {
    let (reset, size) = (numbers.reset_after.as_nanos(), u128::from(limit.burst_size()));
    // Not the interval itself, which may be less than a nanosecond.
    let refill = |units: u128| limit.window().as_nanos() * units / u128::from(limit.count());
    let reset_after = (reset + refill(size)).saturating_sub(refill(2)) / NANOS_PER_SECOND;
    let retry_after = match numbers.retry_after {
        _ if allowed => 0,
        Some(after) => rounded_up(after),
        // More than the bucket holds never passes. throttlecrab goes on counting.
        None => {
            let wait = reset + refill(u128::from(cost.get()).saturating_sub(size));
            integer(u64::try_from(wait.div_ceil(NANOS_PER_SECOND)).unwrap_or(u64::MAX))
        }
    };
    let reset_after = integer(u64::try_from(reset_after).unwrap_or(u64::MAX));
    [i64::from(allowed), integer(numbers.limit), integer(numbers.remaining), reset_after, retry_after]
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

fn rounded_up(span: Duration) -> i64 {
    integer(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Decider;

    fn numbers(remaining: u64, retry_after: Option<Duration>, reset_millis: u64) -> Numbers {
        let reset_after = Duration::from_millis(reset_millis);
        Numbers { limit: 16, remaining, reset_after, retry_after, delay: Duration::ZERO, banned: false }
    }

    fn five(dialect: Dialect, limit: &Limit, cost: u64, allowed: bool, numbers: Numbers) -> [i64; 5] {
        let answer = CheckAnswer {
            allowed,
            rule: None,
            numbers: Some(numbers),
            decided_by: Decider::Owner,
            node: "n1",
            policies: &[],
            shadow: None,
        };
        dialect.five(limit, Cost::new(cost).unwrap(), &answer)
    }

    #[test]
    fn seconds_of_redis_cell_are_rounded_up_and_what_will_never_be_is_less_than_none() {
        let limit = limit_of(16, 30, 60).unwrap();
        let five = |allowed, retry_after, reset, cost| {
            five(Dialect::Cell, &limit, cost, allowed, numbers(0, retry_after, reset))
        };
        assert_eq!(five(true, None, 2_000, 1), [0, 16, 0, -1, 2]);
        assert_eq!(five(false, Some(Duration::from_millis(1_001)), 31_999, 1), [1, 16, 0, 2, 32]);
        assert_eq!(five(false, None, 2_000, 99), [1, 16, 0, -1, 2]);
        assert_eq!(five(false, Some(Duration::from_millis(1)), 1, 0), [0, 16, 0, -1, 1], "it looks");
    }

    /// As throttlecrab's arithmetic has it, with `tat` its state and `tolerance` = (max_burst - 1) intervals: `reset_after` is
    /// `tat - now + tolerance`.
    #[test]
    fn throttlecrab_is_told_what_its_own_server_tells() {
        let limit = limit_of(10, 100, 60).unwrap();
        let five = |allowed, remaining, retry_after, reset, cost| {
            let numbers = Numbers { limit: 10, ..numbers(remaining, retry_after, reset) };
            five(Dialect::Crab, &limit, cost, allowed, numbers)
        };
        assert_eq!(five(true, 9, None, 600, 1), [1, 10, 9, 5, 0], "the first check of a key");
        assert_eq!(five(true, 0, None, 6_000, 1), [1, 10, 0, 10, 0], "the last one");
        assert_eq!(five(true, 10, None, 0, 0), [1, 10, 10, 4, 0], "a look at a full bucket");
        let wait = Some(Duration::from_millis(600));
        assert_eq!(five(false, 0, wait, 6_000, 1), [0, 10, 0, 10, 1], "a wait of 0 would be too early");
        assert_eq!(five(false, 0, wait, 6_000, 0), [1, 10, 0, 10, 0], "it looks");
        assert_eq!(five(false, 9, None, 600, 20), [0, 10, 9, 5, 7], "more than there ever is");
    }

    #[test]
    fn a_bucket_of_one_is_forgotten_when_it_is_full() {
        let limit = limit_of(1, 1, 60).unwrap();
        let taken = Numbers { limit: 1, ..numbers(0, None, 60_000) };
        assert_eq!(five(Dialect::Crab, &limit, 1, true, taken), [1, 1, 0, 0, 0]);
    }
}
