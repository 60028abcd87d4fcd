//! `CL.THROTTLE` of redis-cell, and `THROTTLE` of throttlecrab, which is the same: a limit that comes with the check.

use std::{borrow::Cow, time::Duration};

use tidegate_limiter::{
    Algorithm, Cost, Limit,
    cluster::DEFAULT_DOMAIN,
    rules::{LimitError, Period},
};

use super::reply::Replies;
use crate::check::{CheckAnswer, CheckRequest, Costs, Numbers, Subject};

/// Bytes of a key.
const MAX_KEY_BYTES: usize = 4 << 10;

/// What one command asks.
#[derive(Debug)]
pub(super) struct Throttle<'a> {
    key: Cow<'a, str>,
    limit: Limit,
    cost: Cost,
}

/// The five numbers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Five([i64; 5]);

/// The limit that a connection asked for last, and by which numbers: most ask for the same one again, and working it out
/// takes as long as deciding.
#[derive(Debug, Default)]
pub(super) struct LastLimit(Option<([u64; 3], Limit)>);

impl LastLimit {
    fn of(&mut self, numbers: [u64; 3]) -> Result<Limit, LimitError> {
        if let Some((known, limit)) = &self.0
            && *known == numbers
        {
            return Ok(*limit);
        }
        let [burst, count, period] = numbers;
        let period = Period::Fixed(Duration::from_secs(period));
        // It admits one, and so many more at once.
        let limit = Limit::new(Algorithm::TokenBucket, count, period, Some(burst.saturating_add(1)))?;
        self.0 = Some((numbers, limit));
        Ok(limit)
    }
}

impl<'a> Throttle<'a> {
    /// Reads `key max_burst count period [quantity]`.
    pub(super) fn read(name: &str, arguments: &[&'a [u8]], limit: &mut LastLimit) -> Result<Self, String> {
        let (key, numbers) = match arguments {
            [key, numbers @ ..] if (3..=4).contains(&numbers.len()) => (*key, numbers),
            _ => {
                return Err(format!(
                    "ERR wrong number of arguments for '{name}': it takes key max_burst count period [quantity]"
                ));
            }
        };
        if key.len() > MAX_KEY_BYTES {
            return Err(format!("ERR the key has {} bytes, at most {MAX_KEY_BYTES} are allowed", key.len()));
        }
        let number = |place: usize, what: &str, least: i64| -> Result<u64, String> {
            if let Some(number) = short(numbers[place])
                && number >= least as u64
            {
                return Ok(number);
            }
            let text = String::from_utf8_lossy(numbers[place]);
            match text.parse::<i64>() {
                Ok(number) if number >= least => Ok(number as u64),
                Ok(number) => Err(format!("ERR {what} is {number}, and must be at least {least}")),
                Err(_) => {
                    let text: String = text.chars().take(40).collect();
                    Err(format!("ERR {what} {text:?} is not an integer or out of range"))
                }
            }
        };
        let burst = number(0, "max_burst", 0)?;
        let (count, period) = (number(1, "count", 1)?, number(2, "period", 1)?);
        let quantity = if numbers.len() == 4 { number(3, "quantity", 0)? } else { 1 };
        let refused = |error: &dyn std::fmt::Display| format!("ERR {error}");
        let limit = limit.of([burst, count, period]).map_err(|error| refused(&error))?;
        let cost = Cost::new(quantity).map_err(|error| refused(&error))?;
        Ok(Self { key: text_of(key), limit, cost })
    }

    /// The check. It is large, so it is made where it is decided.
    pub(super) fn check(&self) -> CheckRequest<'_> {
        CheckRequest {
            domain: Cow::Borrowed(DEFAULT_DOMAIN),
            subject: Subject::Inline { key: Cow::Borrowed(&self.key), limit: self.limit },
            cost: self.cost,
            costs: Costs::default(),
            id: None,
        }
    }

    /// What is answered.
    pub(super) fn five(&self, answer: &CheckAnswer<'_>) -> Five {
        // A look is never limited.
        let limited = !answer.allowed && self.cost != Cost::PEEK;
        let Some(Numbers { limit, remaining, reset_after, retry_after, .. }) = answer.numbers else {
            return Five([i64::from(limited), 0, 0, -1, 0]);
        };
        let retry = match retry_after {
            Some(after) if limited => seconds(after),
            _ => -1,
        };
        Five([i64::from(limited), integer(limit), integer(remaining), retry, seconds(reset_after)])
    }
}

impl Five {
    pub(super) fn write(self, to: &mut Replies<'_>) {
        to.integers(self.0);
    }
}

/// A number as nearly all are written: up to 18 digits, which cannot overflow.
#[inline]
fn short(text: &[u8]) -> Option<u64> {
    let digit = |number: u64, byte: &u8| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    };
    if (1..=18).contains(&text.len()) { text.iter().try_fold(0, digit) } else { None }
}

/// Any bytes can be a key. What is no text is written so that it is, behind a byte that no text of ours begins with.
fn text_of(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(format!("\0{}", key.escape_ascii())),
    }
}

/// Rounded up: who comes back after these is not too early.
fn seconds(span: Duration) -> i64 {
    integer(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Decider;

    fn read<'a>(words: &[&'a str]) -> Result<Throttle<'a>, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        Throttle::read("cl.throttle", &words, &mut LastLimit::default())
    }

    #[test]
    fn the_limit_is_what_the_words_say() {
        let throttle = read(&["user123", "15", "30", "60"]).unwrap();
        assert_eq!(throttle.key, "user123");
        assert_eq!(throttle.limit, Limit::parse("30/60s", Some(16), Algorithm::TokenBucket).unwrap());
        assert_eq!(throttle.cost, Cost::ONE);
        assert_eq!(read(&["k", "0", "1", "1", "7"]).unwrap().cost.get(), 7);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (words, wrong) in [
            (&["k", "1", "2"][..], "number of arguments"),
            (&["k", "1", "2", "3", "4", "5"], "number of arguments"),
            (&["k", "one", "2", "3"], "max_burst"),
            (&["k", "1", "0", "3"], "count"),
            (&["k", "1", "2", "0"], "period"),
            (&["k", "1", "2", "99999999999"], "31d"),
            (&["k", "-1", "2", "3"], "at least 0"),
            (&["k", "1", "2", "3", "-4"], "quantity"),
            (&["k", "1", "2", "3", "9007199254740993"], "2^53"),
            (&["k", "9223372036854775808", "2", "3"], "out of range"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.starts_with("ERR ") && error.contains(wrong), "{words:?}: {error}");
        }
    }

    #[test]
    fn seconds_are_rounded_up_and_what_will_never_be_is_less_than_none() {
        let numbers = |retry_after, reset_millis| Numbers {
            limit: 16,
            remaining: 0,
            reset_after: Duration::from_millis(reset_millis),
            retry_after,
            delay: Duration::ZERO,
        };
        let five = |allowed, numbers, quantity| {
            let answer = CheckAnswer {
                allowed,
                rule: None,
                numbers: Some(numbers),
                decided_by: Decider::Owner,
                node: "n1",
                policies: &[],
            };
            read(&["k", "15", "30", "60", quantity]).unwrap().five(&answer).0
        };
        assert_eq!(five(true, numbers(None, 2_000), "1"), [0, 16, 0, -1, 2]);
        assert_eq!(five(false, numbers(Some(Duration::from_millis(1_001)), 31_999), "1"), [1, 16, 0, 2, 32]);
        assert_eq!(five(false, numbers(None, 2_000), "99"), [1, 16, 0, -1, 2]);
        assert_eq!(
            five(false, numbers(Some(Duration::from_millis(1)), 1), "0"),
            [0, 16, 0, -1, 1],
            "it looks"
        );
    }
}
