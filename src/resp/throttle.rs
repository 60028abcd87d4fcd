//! The commands that decide: `CL.THROTTLE` of redis-cell and `THROTTLE` of throttlecrab, both with a limit that comes with the
//! check, and the same for a reset.

use std::borrow::Cow;

use tidegate_limiter::{Cost, Limit, rules::LimitError};

use super::reply::Replies;
use crate::{
    check::{CheckAnswer, CheckRequest},
    throttle::{Dialect, MAX_KEY_BYTES, check_of, limit_of},
};

/// The commands, by name.
const COMMANDS: [(&str, Dialect, Deed); 4] = [
    ("cl.throttle", Dialect::Cell, Deed::Check),
    ("throttle", Dialect::Crab, Deed::Check),
    ("cl.reset", Dialect::Cell, Deed::Reset),
    ("throttle.reset", Dialect::Crab, Deed::Reset),
];

/// What is done with the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Check,
    /// It is full again. The answer is that of a look after it.
    Reset,
}

/// What one command asks.
#[derive(Debug)]
pub(super) struct Throttle<'a> {
    key: Cow<'a, str>,
    limit: Limit,
    cost: Cost,
    dialect: Dialect,
    pub(super) deed: Deed,
}

/// The five numbers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Five([i64; 5]);

/// The limit that a connection asked for last, and by which numbers: most ask for the same one again, and working it out
/// takes as long as deciding.
#[derive(Debug, Default)]
pub(super) struct LastLimit(Option<([u64; 3], Limit)>);

impl LastLimit {
    /// Units in a full bucket, units that come back in a period, seconds of the period.
    fn of(&mut self, numbers: [u64; 3]) -> Result<Limit, LimitError> {
        if let Some((known, limit)) = &self.0
            && *known == numbers
        {
            return Ok(*limit);
        }
        let [size, count, period] = numbers;
        let limit = limit_of(size, count, period)?;
        self.0 = Some((numbers, limit));
        Ok(limit)
    }
}

impl<'a> Throttle<'a> {
    /// Reads a command; `None`: it is none of these.
    pub(super) fn read(words: &[&'a [u8]], limit: &mut LastLimit) -> Option<Result<Self, String>> {
        let (name, arguments) = words.split_first()?;
        let (name, dialect, deed) =
            COMMANDS.into_iter().find(|(known, ..)| name.eq_ignore_ascii_case(known.as_bytes()))?;
        Some(Self::read_arguments(name, dialect, deed, arguments, limit))
    }

    /// Reads `key max_burst count period [quantity]`.
    fn read_arguments(
        name: &str,
        dialect: Dialect,
        deed: Deed,
        arguments: &[&'a [u8]],
        limit: &mut LastLimit,
    ) -> Result<Self, String> {
        let (most, quantity) = match deed {
            Deed::Check => (4, " [quantity]"),
            Deed::Reset => (3, ""),
        };
        let (key, numbers) = match arguments {
            [key, numbers @ ..] if (3..=most).contains(&numbers.len()) => (*key, numbers),
            _ => {
                return Err(format!(
                    "ERR wrong number of arguments for '{name}': it takes key max_burst count period{quantity}"
                ));
            }
        };
        if key.len() > MAX_KEY_BYTES {
            return Err(format!("ERR the key has {} bytes, at most {MAX_KEY_BYTES} are allowed", key.len()));
        }
        let number = |place: usize, what: &str, least: u64| -> Result<u64, String> {
            if let Some(number) = short(numbers[place])
                && number >= least
            {
                return Ok(number);
            }
            let text = String::from_utf8_lossy(numbers[place]);
            match text.parse::<i64>() {
                Ok(number) => u64::try_from(number)
                    .ok()
                    .filter(|number| *number >= least)
                    .ok_or_else(|| format!("ERR {what} is {number}, and must be at least {least}")),
                Err(_) => {
                    let text: String = text.chars().take(40).collect();
                    Err(format!("ERR {what} {text:?} is not an integer or out of range"))
                }
            }
        };
        let size = dialect.size_of(number(0, "max_burst", dialect.least_burst())?);
        let (count, period) = (number(1, "count", 1)?, number(2, "period", 1)?);
        let quantity = match (deed, numbers.len()) {
            (Deed::Check, 4) => number(3, "quantity", 0)?,
            (Deed::Check, _) => 1,
            (Deed::Reset, _) => 0,
        };
        let refused = |error: &dyn std::fmt::Display| format!("ERR {error}");
        let limit = limit.of([size, count, period]).map_err(|error| refused(&error))?;
        let cost = Cost::new(quantity).map_err(|error| refused(&error))?;
        Ok(Self { key: text_of(key), limit, cost, dialect, deed })
    }

    /// The check. It is large, so it is made where it is decided.
    pub(super) fn check(&self) -> CheckRequest<'_> {
        check_of(&self.key, self.limit, self.cost)
    }

    /// What is answered.
    pub(super) fn five(&self, answer: &CheckAnswer<'_>) -> Five {
        Five(self.dialect.five(&self.limit, self.cost, answer))
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

#[cfg(test)]
mod tests {
    use tidegate_limiter::Algorithm;

    use super::*;

    fn read<'a>(words: &[&'a str]) -> Result<Throttle<'a>, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        Throttle::read(&words, &mut LastLimit::default()).unwrap()
    }

    #[test]
    fn the_limit_is_what_the_words_say() {
        let throttle = read(&["CL.THROTTLE", "user123", "15", "30", "60"]).unwrap();
        assert_eq!(throttle.key, "user123");
        assert_eq!(throttle.limit, Limit::parse("30/60s", Some(16), Algorithm::TokenBucket).unwrap());
        assert_eq!((throttle.cost, throttle.deed), (Cost::ONE, Deed::Check));
        assert_eq!(read(&["cl.throttle", "k", "0", "1", "1", "7"]).unwrap().cost.get(), 7);
        let crab = read(&["Throttle", "user123", "15", "30", "60"]).unwrap();
        assert_eq!(crab.limit, Limit::parse("30/60s", Some(15), Algorithm::TokenBucket).unwrap());
        let reset = read(&["cl.reset", "user123", "15", "30", "60"]).unwrap();
        assert_eq!((reset.limit, reset.cost, reset.deed), (throttle.limit, Cost::PEEK, Deed::Reset));
        assert_eq!(read(&["throttle.reset", "k", "15", "30", "60"]).unwrap().limit, crab.limit);
        assert!(Throttle::read(&[b"CL.THROTTLES"], &mut LastLimit::default()).is_none());
    }

    #[test]
    fn a_period_of_a_year_is_kept_exactly() {
        let year = read(&["CL.THROTTLE", "k", "0", "1", "31536000"]).unwrap();
        assert_eq!(year.limit.window().as_secs(), 31_536_000);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (words, wrong) in [
            (&["cl.throttle", "k", "1", "2"][..], "number of arguments"),
            (&["cl.throttle", "k", "1", "2", "3", "4", "5"], "number of arguments"),
            (&["cl.reset", "k", "1", "2", "3", "4"], "number of arguments"),
            (&["cl.throttle", "k", "one", "2", "3"], "max_burst"),
            (&["cl.throttle", "k", "1", "0", "3"], "count"),
            (&["cl.throttle", "k", "1", "2", "0"], "period"),
            (&["cl.throttle", "k", "1", "2", "99999999999"], "3650d"),
            (&["cl.throttle", "k", "99", "1", "31536000"], "ten years"),
            (&["cl.throttle", "k", "-1", "2", "3"], "at least 0"),
            (&["throttle", "k", "0", "2", "3"], "at least 1"),
            (&["cl.throttle", "k", "1", "2", "3", "-4"], "quantity"),
            (&["cl.throttle", "k", "1", "2", "3", "9007199254740993"], "2^53"),
            (&["cl.throttle", "k", "9223372036854775808", "2", "3"], "out of range"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.starts_with("ERR ") && error.contains(wrong), "{words:?}: {error}");
        }
    }
}
