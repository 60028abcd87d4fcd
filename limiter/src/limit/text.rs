//! Limits as texts: as rule files write them.

use std::{fmt, str::FromStr, time::Duration};

use super::{Algorithm, Limit, LimitError, Placing};
use crate::{
    Error,
    calendar::{placed::Unit, zone::Zone},
    period::Period,
};

/// The limit that denies.
const DENY: &str = "deny";

impl Limit {
    /// Reads `COUNT/PERIOD`, e.g. `5/1m`, or `deny`, which is short for `0/1s`. Where no algorithm is given it is `fixed_window`
    /// of a period of the calendar (`day`, `week`, `month`, `year`), and `token_bucket` of all others.
    ///
    /// # Errors
    /// When the text is none, the numbers are out of range, or the period is one of the calendar and the algorithm has none.
    pub fn parse(
        text: &str,
        burst: Option<u64>,
        algorithm: impl Into<Option<Algorithm>>,
    ) -> Result<Self, LimitError> {
        let limit = Self::parse_stored(text, burst, algorithm.into())?;
        let Self { algorithm, period, .. } = limit;
        if period.is_of_calendar() && !algorithm.has_calendar() {
            return Err(LimitError::of_calendar(period, algorithm));
        }
        Ok(limit)
    }

    /// As [`Limit::parse`], of texts that an earlier version took: a bucket or a log with a period of the calendar takes its mean
    /// length.
    pub(crate) fn parse_stored(
        text: &str,
        burst: Option<u64>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, LimitError> {
        let syntax = || LimitError::Syntax(text.chars().take(64).collect());
        if text == DENY {
            let algorithm = algorithm.unwrap_or(Self::DENY.algorithm());
            return Self::new(algorithm, 0, Self::DENY.period(), burst);
        }
        let (count, period) = text.split_once('/').ok_or_else(syntax)?;
        let count: u64 = count.trim().parse().map_err(|_| syntax())?;
        let period = parse_period(period.trim())?;
        Self::new(algorithm.unwrap_or(Algorithm::default_of(period)), count, period, burst)
    }

    /// Whether a text is one of a limit with a period of the calendar.
    pub(crate) fn has_calendar(text: &str) -> bool {
        let period = text.split_once('/').and_then(|(_, period)| parse_period(period.trim()).ok());
        period.is_some_and(Period::is_of_calendar)
    }
}

/// As rule files write it: `100/1m`, `100/1m burst 20`, `100/1m sliding_window`, `deny`, `1000/month timezone Europe/Paris starts
/// 2026-03-17`. Without the name of an algorithm it is one of a token bucket, or with a period of the calendar, as in `1000/month`, of
/// a fixed window.
impl FromStr for Limit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.split_whitespace();
        let limit = words.next().unwrap_or_default();
        let (mut burst, mut algorithm, mut placing) = (None, None, Placing::default());
        while let Some(word) = words.next() {
            let addition = |wrong: &str| LimitError::Addition(wrong.chars().take(64).collect());
            let known = Algorithm::from_name(word).filter(|_| algorithm.is_none());
            match (known, word) {
                (Some(_), _) => algorithm = known,
                (None, "burst") if burst.is_none() => {
                    let units = words.next().unwrap_or_default();
                    burst = Some(units.parse().map_err(|_| addition(&format!("burst {units}")))?);
                }
                (None, "timezone") if placing.zone.is_none() => {
                    let name = words.next().unwrap_or_default();
                    placing.zone = Some(Zone::named(name).map_err(LimitError::from)?);
                }
                (None, "starts") if placing.starts.is_none() => {
                    let date = words.next().unwrap_or_default();
                    placing.starts = Some(date.parse().map_err(LimitError::from)?);
                }
                _ => return Err(addition(word).into()),
            }
        }
        Ok(Self::parse(limit, burst, algorithm)?.placed(placing.zone, placing.starts)?)
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
            if self.algorithm != Algorithm::default_of(self.period) {
                write!(f, " {}", self.algorithm)?;
            }
            if let Period::Calendar(calendar) = self.period {
                let (zone, starts) = calendar.place();
                if zone != Zone::UTC {
                    write!(f, " timezone {}", zone.name())?;
                }
                if let Some(starts) = starts {
                    write!(f, " starts {starts}")?;
                }
            }
        }
        Ok(())
    }
}

fn parse_period(text: &str) -> Result<Period, LimitError> {
    if let Some(unit) =
        [Unit::Day, Unit::Week, Unit::Month, Unit::Year].into_iter().find(|unit| unit.as_str() == text)
    {
        return Period::calendar(unit, Zone::UTC, None).ok_or(LimitError::TooManyPlaces);
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
        "w" => 7 * 86_400_000,
        _ => return Err(syntax()),
    };
    Ok(Period::Fixed(Duration::from_millis(number.checked_mul(millis).ok_or_else(syntax)?)))
}
