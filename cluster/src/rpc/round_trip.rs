//! How long a peer takes to answer, as TCP measures it (RFC 6298), and how long it is waited for.

use std::time::Duration;

/// Whatever was measured, an answer is waited for so long: a busy peer is not a slow network.
const LEAST: Duration = Duration::from_millis(112);
/// And no longer than that: of what Raft's own timeout leaves, a call must have ended by then.
pub(crate) const MOST: Duration = Duration::from_millis(600);
/// An answer may have been late by chance so many times in a row before it no longer makes the patience longer.
const MAX_DOUBLED: u32 = 3;

/// What was measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RoundTrip {
    /// The mean of late, and by how much it varies; none: nothing was measured.
    measured: Option<(Duration, Duration)>,
    /// So many answers in a row did not come in time.
    missed: u32,
}

impl RoundTrip {
    /// An answer came after this time.
    pub(crate) fn answered(&mut self, after: Duration) {
        self.missed = 0;
        self.measured = Some(match self.measured {
            None => (after, after / 2),
            Some((mean, varies)) => ((mean * 7 + after) / 8, (varies * 3 + mean.abs_diff(after)) / 4),
        });
    }

    /// An answer did not come in time: it may be the network that has become slower, and then no answer could ever say so.
    pub(crate) fn missed(&mut self) {
        self.missed = (self.missed + 1).min(MAX_DOUBLED);
    }

    /// The mean.
    pub(crate) fn measured(&self) -> Duration {
        self.measured.map_or(Duration::ZERO, |(mean, _)| mean)
    }

    /// How long the next answer is waited for.
    pub(crate) fn patience(&self) -> Duration {
        (self.usual_patience() * (1 << self.missed)).min(MOST)
    }

    /// How long an answer usually takes at most.
    pub(crate) fn usual_patience(&self) -> Duration {
        // At least an eighth more than the mean: where answers hardly vary, the slowest of them must not come too late.
        self.measured.map_or(LEAST, |(mean, varies)| (mean + (4 * varies).max(mean / 8)).clamp(LEAST, MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_fast_network_is_waited_for_as_before_and_a_slow_one_longer() {
        let mut fast = RoundTrip::default();
        (0..50).for_each(|_| fast.answered(ms(1)));
        assert_eq!(fast.patience(), LEAST);
        let mut slow = RoundTrip::default();
        (0..50).for_each(|count| slow.answered(ms(190 + count % 20)));
        assert!(slow.patience() > ms(215) && slow.patience() < ms(400), "{:?}", slow.patience());
        assert!(slow.measured().abs_diff(ms(200)) < ms(15));
    }

    #[test]
    fn a_network_that_becomes_slow_is_found_out_by_waiting_longer_each_time() {
        let mut one = RoundTrip::default();
        (0..50).for_each(|_| one.answered(ms(1)));
        let mut tries = 0;
        while one.patience() < ms(200) {
            one.missed();
            tries += 1;
            assert!(tries <= 3);
        }
        (0..4).for_each(|_| one.answered(ms(200)));
        assert!(one.patience() > ms(250), "{:?}", one.patience());
        // One that does not answer at all is not waited for without end.
        (0..100).for_each(|_| one.missed());
        assert_eq!(one.patience(), MOST);
    }
}
