//! Since when a peer is not heard.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use tidegate_limiter::Nanos;

/// Since when a peer has not decided what it should have: shares of its buckets count from there.
///
/// It ends with any sign of life, not only with a decision that came in time: a peer that lives may have given its whole burst
/// to others, so that a share from longer ago would come on top of that. **It is nothing while the link is up**: a link that
/// is idle hears no signs of life, and what was noted then would be taken for the beginning of a loss much later.
#[derive(Debug, Default)]
pub(crate) struct LostSince(AtomicU64);

impl LostSince {
    pub(crate) fn note(&self, now: Nanos, is_up: impl FnOnce() -> bool) -> Nanos {
        let since = match self.0.compare_exchange(0, now.get(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(since) => Nanos::new(since),
        };
        // Either this finds the link up, or who brings it up finds what was noted; see `is_up_again`.
        fence(Ordering::SeqCst);
        if is_up() {
            self.clear();
            return now;
        }
        since
    }

    /// The link is up, and says so from now on.
    pub(crate) fn is_up_again(&self) {
        fence(Ordering::SeqCst);
        self.clear();
    }

    /// The peer lives.
    pub(crate) fn clear(&self) {
        // Almost always it is 0 already; a write would cost the cache line of every worker.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_loss_counts_from_its_first_check_until_a_sign_of_life() {
        let lost = LostSince::default();
        let down = |at| lost.note(Nanos::new(at), || false);
        assert_eq!(down(5), Nanos::new(5));
        assert_eq!(down(9), Nanos::new(5));
        lost.clear();
        assert_eq!(down(70), Nanos::new(70));
    }

    #[test]
    fn what_a_peer_with_an_open_link_did_not_decide_is_no_beginning_of_a_later_loss() {
        let lost = LostSince::default();
        assert_eq!(lost.note(Nanos::new(5), || true), Nanos::new(5));
        assert_eq!(lost.note(Nanos::new(90), || false), Nanos::new(90));
        lost.is_up_again();
        assert_eq!(lost.note(Nanos::new(95), || false), Nanos::new(95));
    }

    /// Whichever comes first, the link that comes up or the loss that is noted late: nothing stays.
    #[test]
    fn a_loss_that_is_noted_while_the_link_comes_up_does_not_stay() {
        for _ in 0..20_000 {
            let (lost, up) = (LostSince::default(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| lost.note(Nanos::new(5), || up.load(Ordering::Relaxed)));
                up.store(true, Ordering::Relaxed);
                lost.is_up_again();
            });
            assert_eq!(lost.0.load(Ordering::Relaxed), 0);
        }
    }
}
