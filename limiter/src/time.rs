//! Instants, as an argument.

use std::time::Duration;

/// The resolution of bucket states: a quarter of a nanosecond. 64 bits of it reach from 1970 to 2116.
pub(crate) const TICKS_PER_NANO: u64 = 4;

/// An instant on the caller's clock, in nanoseconds since the Unix epoch.
///
/// The clock must not step, as [`SystemClock`](crate::SystemClock) does not: it reads the wall clock once, then adds what a monotonic
/// clock has counted since. Where windows
/// and calendars matter, the error of that first reading matters too; everywhere else only differences do.
///
/// - Time that stands still or jumps ahead is fine.
/// - Time that goes back a little makes a bucket look fuller of debt, never emptier: no more is admitted than if time
///   had stood still.
/// - From the year 2116 on time stands still.
///
/// ```
/// use std::time::Duration;
/// use tidegate_limiter::Nanos;
///
/// let start = Nanos::new(1_800_000_000_000_000_000);
/// assert_eq!(start.saturating_add(Duration::from_micros(1)).get(), 1_800_000_000_000_001_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(u64);

impl Nanos {
    /// So many nanoseconds after the Unix epoch.
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Later by `duration`; at the end of time (the year 2554) it stays there.
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        Self(if nanos > u64::MAX as u128 { u64::MAX } else { self.0.saturating_add(nanos as u64) })
    }

    /// How long after `earlier` this is; nothing if it is not.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) const fn ticks(self) -> u64 {
        self.0.saturating_mul(TICKS_PER_NANO)
    }
}

/// Ticks as a duration, rounded up: whoever waits for it has waited long enough.
pub(crate) const fn duration(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO))
}
