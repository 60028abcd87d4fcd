//! Whether a log that has failed works again.
//!
//! A disk that stays full lets a log start again and fail once more a moment later, for as long as it is full. A node that
//! asked for a session each time would own slots that it cannot follow. So it asks again only when its log has worked for a
//! while, and each failure that comes soon after another one makes that longer.

use std::time::Duration;

use tokio::time::Instant;

/// How long a log must work after its first failure: much longer than a disk takes to be full again.
const FIRST: Duration = Duration::from_secs(1);
/// How long at most, however often it has failed: so long a node without a fault is not used.
const LONGEST: Duration = Duration::from_secs(8);
/// A log that has worked for so long has never failed.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// What a node knows of the failures of its log.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    /// Failures without a long time between them.
    failures: u32,
    /// Since when it works again.
    works_since: Option<Instant>,
}

impl Trial {
    /// The log has failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.works_since.is_some_and(|since| now.duration_since(since) >= FORGIVEN_AFTER) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.works_since = None;
    }

    /// It has started again.
    pub(crate) fn started(&mut self, now: Instant) {
        self.works_since = Some(now);
    }

    /// Whether the node may ask for a session.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let Some(earlier) = self.failures.checked_sub(1) else { return true };
        let needed = FIRST.saturating_mul(1 << earlier.min(16)).min(LONGEST);
        self.works_since.is_some_and(|since| now.duration_since(since) >= needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes from a start until the node may ask.
    fn waits(trial: &Trial, started: Instant) -> Duration {
        (0..).map(Duration::from_millis).find(|wait| trial.is_over(started + *wait)).unwrap()
    }

    #[test]
    fn a_log_that_never_failed_is_trusted_at_once() {
        let mut trial = Trial::default();
        let now = Instant::now();
        assert!(trial.is_over(now));
        trial.started(now);
        assert!(trial.is_over(now));
    }

    #[test]
    fn a_disk_that_stays_full_has_the_node_ask_ever_later_and_not_once_too_early() {
        let (mut trial, mut now) = (Trial::default(), Instant::now());
        let mut waited = Vec::new();
        for _ in 0..40 {
            trial.failed(now);
            assert!(
                !trial.is_over(now) && !trial.is_over(now + Duration::from_secs(3600)),
                "it does not run"
            );
            now += Duration::from_secs(2);
            trial.started(now);
            waited.push(waits(&trial, now).as_secs());
            // It works for a moment, as full disks do.
            now += Duration::from_millis(50);
            assert!(!trial.is_over(now));
        }
        assert_eq!(waited[..6], [1, 2, 4, 8, 8, 8]);
        assert_eq!(waited[39], 8);
    }

    #[test]
    fn what_has_worked_for_long_is_forgiven_and_what_fails_each_minute_is_not() {
        let (mut trial, mut now) = (Trial::default(), Instant::now());
        for (worked, expected) in [(59, 1), (59, 2), (60, 4), (60, 1), (1, 1), (1, 2)] {
            trial.failed(now);
            trial.started(now);
            assert_eq!(waits(&trial, now).as_secs(), expected);
            now += Duration::from_secs(worked);
        }
    }
}
