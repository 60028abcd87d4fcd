//! Where the windows of a limit lie: in the calendar of which time zone, and from which date on.

use super::{Algorithm, Limit, LimitError};
use crate::{
    calendar::{starts::Starts, zone::Zone},
    period::Period,
};

/// What is said of where windows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Placing {
    pub(crate) zone: Option<Zone>,
    pub(crate) starts: Option<Starts>,
}

impl Limit {
    /// The same limit, with its windows in the calendar of a time zone, and from a date on; what is not said is UTC, and as the
    /// calendar has it. A limit that denies stays as it is.
    ///
    /// ```
    /// use tidegate_limiter::{Limit, rules::Zone};
    ///
    /// let month: Limit = "1000/month".parse()?;
    /// let contract = month.placed(Some(Zone::named("Europe/Paris")?), Some("2026-03-17".parse()?))?;
    /// assert_eq!(format!("{contract:#}"), "1000/month timezone Europe/Paris starts 1970-01-17");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When it has no windows, or a time zone would change nothing.
    pub fn placed(self, zone: Option<Zone>, starts: Option<Starts>) -> Result<Self, LimitError> {
        if (zone.is_none() && starts.is_none()) || self.denies() {
            return Ok(self);
        }
        if !self.has_aligned_windows() {
            let field = if starts.is_some() { "starts" } else { "timezone" };
            return Err(LimitError::Windowless { field, algorithm: self.algorithm });
        }
        let zone = zone.unwrap_or(Zone::UTC);
        let period = match (self.period.unit(), starts) {
            (Some(unit), starts) => Period::calendar(unit, zone, starts),
            (None, None) => return Err(LimitError::ZoneOfLength(self.period)),
            (None, Some(starts)) => {
                let length = self.period.length();
                if length.subsec_nanos() > 0 {
                    return Err(LimitError::StartsOfPart(self.period));
                }
                Period::of_length(length, zone, starts)
            }
        };
        Self::new(self.algorithm, self.count, period.ok_or(LimitError::TooManyPlaces)?, None)
    }

    /// Whether a date changes its windows.
    pub(crate) fn takes_starts(&self) -> bool {
        !self.denies() && self.has_aligned_windows()
    }

    /// Whether a time zone changes its windows, where it has a date or not.
    pub(crate) fn takes_zone(&self, starts: Option<Starts>) -> bool {
        self.takes_starts() && (starts.is_some() || self.period.is_of_calendar())
    }

    fn has_aligned_windows(&self) -> bool {
        matches!(self.algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow)
            && !matches!(self.period, Period::FromFirst { .. })
    }
}
