//! Limits as texts: as rule files write them.

use std::{fmt, str::FromStr, time::Duration};

use super::{Algorithm, Limit, LimitError};
use crate::{Error, period::Period};

/// The limit that denies.
const DENY: &str = "deny";

impl Limit {
    /// Reads `COUNT/PERIOD`, e.g. `5/1m`, or `deny`, which is short for `0/1s`.
    ///
    /// # Errors
    /// When the text is none, or the numbers are out of range.
    pub fn parse(text: &str, burst: Option<u64>, algorithm: Algorithm) -> Result<Self, LimitError> {
        let syntax = || LimitError::Syntax(text.chars().take(64).collect());
        if text == DENY {
            return Self::new(algorithm, 0, Self::DENY.period(), burst);
        }
        let (count, period) = text.split_once('/').ok_or_else(syntax)?;
        let count: u64 = count.trim().parse().map_err(|_| syntax())?;
        Self::new(algorithm, count, parse_period(period.trim())?, burst)
    }
}

/// As rule files write it: `100/1m`, `100/1m burst 20`, `100/1m sliding_window`, `deny`. Without the name of an algorithm it is a
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
        if self.denies() && self.period == Self::DENY.period() {
            f.write_str(DENY)?;
        } else {
            write!(f, "{}/{}", self.count, self.period)?;
        }
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
