//! Time enters here: Unix time, read once, plus what the monotonic clock has counted since. It never steps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_limiter::Nanos;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    unix: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place where time enters this crate")]
    pub(crate) fn start() -> Self {
        // A clock before 1970 is set wrongly; then only calendar periods are off.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), unix }
    }

    pub(crate) fn now(&self) -> Nanos {
        Nanos::new(0).saturating_add(self.unix + self.start.elapsed())
    }
}
