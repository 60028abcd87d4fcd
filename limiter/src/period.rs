//! The period of a limit.

use std::{fmt, time::Duration};

/// Shortest period of windows and logs.
pub const MIN_PERIOD: Duration = Duration::from_millis(100);
/// The same of buckets, and of windows that begin with their first charge.
pub(crate) const MIN_BUCKET_PERIOD: Duration = Duration::from_millis(1);
/// Longest period of windows and logs. Of buckets, and of windows that begin with their first charge, it is
/// [`MAX_REFILL`](crate::rules::MAX_REFILL).
pub const MAX_PERIOD: Duration = Duration::from_secs(31 * 24 * 3600);

/// The period of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// Always as long.
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
}

impl Period {
    /// A window of this length that begins with its first charge.
    pub fn from_first(length: Duration) -> Self {
        Self::FromFirst { nanos: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Whether its windows are those of the calendar, which have names, not lengths.
    pub(crate) const fn is_of_calendar(self) -> bool {
        !matches!(self, Self::Fixed(_) | Self::FromFirst { .. })
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
