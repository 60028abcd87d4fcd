//! The clock of the system, for applications that have none of their own.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::Nanos;

/// The clock of the system, as limiters want it: Unix time, read once in a process, plus what the monotonic clock has counted
/// since. It never steps, and all clocks of a process agree. Reading it costs one reading of the monotonic clock.
///
/// ```
/// use tidegate_limiter::SystemClock;
///
/// let clock = SystemClock::new();
/// let before = clock.now();
/// assert!(SystemClock::new().now() >= before);
/// ```
///
/// Where the wall clock is set after that first reading, only windows of the calendar notice it: they end as much too early or
/// too late. While the machine sleeps, most systems' monotonic clocks stand still, and so does this one.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
    unix: Duration,
}

/// Of the first clock.
static START: OnceLock<SystemClock> = OnceLock::new();

impl SystemClock {
    /// The clock; the first one in a process reads the wall clock.
    #[expect(clippy::disallowed_methods, reason = "the one place where time enters this crate")]
    pub fn new() -> Self {
        *START.get_or_init(|| {
            // A clock before 1970 is set wrongly; then only windows of the calendar are off.
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Self { start: Instant::now(), unix }
        })
    }

    /// The time.
    #[inline]
    pub fn now(&self) -> Nanos {
        Nanos::new(0).saturating_add(self.unix + self.start.elapsed())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}
