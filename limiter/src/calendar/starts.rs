//! The date on which windows begin, as rules write it.

use std::{fmt, str::FromStr};

use crate::{Nanos, rfc3339};

const NANOS: u64 = 1_000_000_000;
const DAY_SECONDS: u64 = 86_400;

/// A date, and maybe a time, on the clocks of some time zone: 1970 to 2115.
///
/// ```
/// use tidegate_limiter::rules::Starts;
///
/// let starts: Starts = "2026-03-17".parse()?;
/// assert_eq!(starts, "2026-03-17T00:00".parse()?);
/// assert_eq!("2026-03-17 09:30".parse::<Starts>()?.to_string(), "2026-03-17T09:30:00");
/// # Ok::<(), tidegate_limiter::rules::NoDate>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Starts {
    /// Since 1970.
    days: u32,
    /// Of the day.
    seconds: u32,
}

/// A text that is no date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDate {
    /// Not a date from 1970 to 2115.
    #[error("{0:?} is no date from 1970 to 2115: write e.g. 2026-03-17, or 2026-03-17T09:00")]
    Syntax(String),
    /// A date that says where it is one.
    #[error(
        "{0:?} names an offset: leave it out, the time is one of the time zone of the limit (`timezone`)"
    )]
    Offset(String),
}

impl Starts {
    pub(crate) const fn new(days: u32, seconds: u32) -> Self {
        Self { days, seconds }
    }

    /// Since 1970.
    pub(crate) const fn days(self) -> u32 {
        self.days
    }

    /// Of the day.
    pub(crate) const fn seconds(self) -> u32 {
        self.seconds
    }
}

impl FromStr for Starts {
    type Err = NoDate;

    fn from_str(text: &str) -> Result<Self, NoDate> {
        let shown = || text.chars().take(64).collect::<String>();
        let instant = match text.len() {
            10 => rfc3339::parse(&format!("{text}T00:00:00Z")),
            16 => rfc3339::parse(&format!("{text}:00Z")),
            19 => rfc3339::parse(&format!("{text}Z")),
            _ => None,
        };
        let Some(instant) = instant else {
            let is_date = |text: &str| text.parse::<Self>().is_ok();
            let has_offset = [16, 19].into_iter().any(|length| {
                text.get(length..).is_some_and(|rest| rest.starts_with(['Z', 'z', '+', '-']))
                    && text.get(..length).is_some_and(is_date)
            });
            return Err(if has_offset { NoDate::Offset(shown()) } else { NoDate::Syntax(shown()) });
        };
        // A fraction fits no length above, so these are whole seconds, and less than 2^32 days.
        let seconds = instant.get() / NANOS;
        Ok(Self::new((seconds / DAY_SECONDS) as u32, (seconds % DAY_SECONDS) as u32))
    }
}

/// As it is read again.
impl fmt::Display for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = u64::from(self.days) * DAY_SECONDS + u64::from(self.seconds);
        let text = rfc3339::text_of(Nanos::new(seconds.saturating_mul(NANOS)));
        let text = text.trim_end_matches('Z');
        f.write_str(text.strip_suffix("T00:00:00").unwrap_or(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written() {
        for (text, days, seconds, written) in [
            ("1970-01-01", 0, 0, "1970-01-01"),
            ("2026-03-17", 20_529, 0, "2026-03-17"),
            ("2024-02-29T09:00", 19_782, 32_400, "2024-02-29T09:00:00"),
            ("2024-02-29 23:59:59", 19_782, 86_399, "2024-02-29T23:59:59"),
            ("2115-12-31T00:00:00", 53_324, 0, "2115-12-31"),
        ] {
            let starts: Starts = text.parse().unwrap();
            assert_eq!((starts, &*starts.to_string()), (Starts::new(days, seconds), written));
            assert_eq!(written.parse(), Ok(starts));
        }
    }

    #[test]
    fn what_is_no_date_says_what_to_write() {
        for text in [
            "",
            "17",
            "March 17",
            "2026-02-29",
            "2026-13-01",
            "1969-12-31",
            "2116-01-01",
            "2026-03-17T24:00",
            "2026-3-17",
            "2026-03-17T09:00:00.5",
            "2026-03-17T9:00",
            "éééééééé",
        ] {
            let error = text.parse::<Starts>().unwrap_err();
            assert!(matches!(error, NoDate::Syntax(_)), "{text}: {error}");
            assert!(error.to_string().contains("2026-03-17T09:00"));
        }
        for text in [
            "2026-03-17T09:00:00Z",
            "2026-03-17T09:00:00+01:00",
            "2026-03-17T09:00+01:00",
            "2026-03-17T09:00Z",
            "2026-03-17 09:00-05:00",
        ] {
            let error = text.parse::<Starts>().unwrap_err();
            assert!(matches!(error, NoDate::Offset(_)), "{text}: {error}");
        }
    }
}
