//! How often something may be done that is worth less than what it gets in the way of.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tidegate_limiter::Nanos;

/// Denied checks for which a worker asks other owners what they would say, a second, and at once. A flood of denied checks would
/// otherwise fill the links that other checks need. Answers beyond this rate name only the rules whose owners were asked anyway.
const BETWEEN: Duration = Duration::from_micros(250);
const AT_ONCE: u32 = 1_000;

/// One worker's.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// Whether it may be done now.
    pub(super) fn allows(&self, now: Nanos) -> bool {
        let next = |due: u64| {
            let due = due.max(now.get()) + BETWEEN.as_nanos() as u64;
            (due <= now.saturating_add(BETWEEN * AT_ONCE).get()).then_some(due)
        };
        // Only this worker changes it.
        self.0.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_to_the_pace_and_a_pause_gives_all_at_once_again() {
        let (pace, start) = (Pace::default(), Nanos::new(1_800_000_000_000_000_000));
        let allowed = |from: Nanos| {
            let instants = (0..10_000).map(|number| from.saturating_add(Duration::from_micros(100) * number));
            instants.filter(|now| pace.allows(*now)).count()
        };
        assert!((4_990..=5_010).contains(&allowed(start)));
        assert!((4_990..=5_010).contains(&allowed(start.saturating_add(Duration::from_secs(60)))));
    }
}
