//! The period of a limit.

use std::{fmt, time::Duration};

use crate::calendar::{
    placed::{Calendar, Unit},
    starts::Starts,
    zone::Zone,
};

/// Shortest period of windows and logs.
pub const MIN_PERIOD: Duration = Duration::from_millis(100);
/// The same of buckets, and of windows that begin with their first charge.
pub(crate) const MIN_BUCKET_PERIOD: Duration = Duration::from_millis(1);
/// Longest period: 3,650 days. Three of them, as far as a state lies ahead, are less than a third of the time from 1970 to 2116.
pub const MAX_PERIOD: Duration = Duration::from_secs(3_650 * 24 * 3600);

/// The period of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// Always as long. Windows of it are aligned to the Unix epoch.
    Fixed(Duration),
    /// A calendar day, UTC: for windows. Where a [`Limit`](crate::Limit) is made of it for another algorithm, 24 hours.
    Day,
    /// A calendar month, UTC: for windows. Where a [`Limit`](crate::Limit) is made of it for another algorithm, the mean month of
    /// 30.436875 days.
    Month,
    /// Always as long, and begun by the first charge after the one before has ended: only for fixed windows. It can be
    /// longer by up to a 1024th.
    FromFirst {
        /// So that a period has no more bytes for it.
        nanos: u64,
    },
    /// A part of the calendar, in a time zone or from a date on, or a length with windows from a date on: only for windows. See
    /// [`Period::calendar`] and [`Period::of_length`].
    Calendar(Calendar),
}

impl Period {
    /// A part of the calendar of a time zone. Where a date is said, windows begin as it did: a week on that day of the week, a
    /// month on that day of the month (the last one of a month that is shorter), a year on that day of the year, and all of
    /// them at that time of the day; before that date, too.
    ///
    /// ```
    /// use tidegate_limiter::{Algorithm, Limit, rules::{Period, Unit, Zone}};
    ///
    /// let zone = Zone::named("Europe/Paris")?;
    /// let contract = Period::calendar(Unit::Month, zone, Some("2026-03-17".parse()?)).expect("few in this process");
    /// let limit = Limit::new(Algorithm::FixedWindow, 1000, contract, None)?;
    /// assert_eq!(limit, "1000/month timezone Europe/Paris starts 2026-03-17".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// `None`: there are tens of thousands of different ones in this process already. They are never forgotten.
    pub fn calendar(unit: Unit, zone: Zone, starts: Option<Starts>) -> Option<Self> {
        let calendar = Calendar::of(unit, zone, starts)?;
        Some(match unit {
            Unit::Day if calendar.is_usual() => Self::Day,
            Unit::Month if calendar.is_usual() => Self::Month,
            _ => Self::Calendar(calendar),
        })
    }

    /// Windows of a length, of which one begins on that date in that time zone. `None`: as for the calendar; or it is no whole
    /// number of seconds, or longer than [`MAX_PERIOD`].
    pub fn of_length(length: Duration, zone: Zone, starts: Starts) -> Option<Self> {
        if length.subsec_nanos() > 0 || length.is_zero() || length > MAX_PERIOD {
            return None;
        }
        let calendar = Calendar::of_length(length.as_secs() as u32, zone, starts)?;
        let first = calendar.parts().seconds;
        Some(if first == 0 { Self::Fixed(length) } else { Self::Calendar(calendar) })
    }

    /// A window of this length that begins with its first charge.
    pub fn from_first(length: Duration) -> Self {
        Self::FromFirst { nanos: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Whether its windows are those of the calendar, which have names, not lengths.
    pub(crate) const fn is_of_calendar(self) -> bool {
        self.unit().is_some()
    }

    /// Which part of the calendar it is.
    pub(crate) const fn unit(self) -> Option<Unit> {
        match self {
            Self::Day => Some(Unit::Day),
            Self::Month => Some(Unit::Month),
            Self::Calendar(calendar) => calendar.unit(),
            Self::Fixed(_) | Self::FromFirst { .. } => None,
        }
    }

    /// Its length; the mean one of a part of the calendar.
    pub const fn length(self) -> Duration {
        match self {
            Self::Fixed(length) => length,
            Self::FromFirst { nanos } => Duration::from_nanos(nanos),
            Self::Day => Unit::Day.length(),
            Self::Month => Unit::Month.length(),
            Self::Calendar(calendar) => calendar.length(),
        }
    }
}

/// As limits write it, without its time zone and its date.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(unit) = self.unit() {
            return f.write_str(unit.as_str());
        }
        match self {
            Self::Day | Self::Month | Self::Calendar(_) => Self::Fixed(self.length()).fmt(f),
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
