//! Instants, as an argument.

use std::time::Duration;

/// An instant on the caller's clock, in nanoseconds since the Unix epoch.
///
/// The clock must not step: read the wall clock once, then count what a monotonic clock has counted since. Where a
/// calendar matters (periods of a day or a month), the error of that first reading matters too; everywhere else only
/// differences do. An instant earlier than one seen before is harmless: it makes a bucket look fuller of debt, never
/// emptier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}
