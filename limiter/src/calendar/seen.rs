//! The windows around the present one, so that a check finds them without working them out.
//!
//! A check asks for the window of now, and for those in which states of buckets lie, at most three later. So the ones around what was
//! asked last are kept, side by side in a cache line. Whoever finds another instant than these works it out, and replaces them.
//!
//! It is a sequence lock: readers wait for nobody. Who reads while somebody writes finds that the turn has changed, and works it out,
//! too.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};

/// Starts of windows that are kept: of two before, of the one that was asked for, and of those that follow.
pub(super) const STARTS: usize = 7;
/// How many of them lie before the one that was asked for.
pub(super) const BEFORE: usize = 2;

#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Seen {
    /// Odd while somebody writes.
    turn: AtomicU64,
    starts: [AtomicU64; STARTS],
}

impl Seen {
    /// None yet: no instant lies between two starts that are the same.
    pub(super) const fn new() -> Self {
        Self { turn: AtomicU64::new(0), starts: [const { AtomicU64::new(0) }; STARTS] }
    }

    /// The start and the end of the window at an instant, and the end of the next one, if they are here.
    #[inline]
    pub(super) fn find(&self, instant: u64) -> Option<(u64, u64, u64)> {
        let turn = self.turn.load(Acquire);
        let starts: [u64; STARTS] = std::array::from_fn(|place| self.starts[place].load(Relaxed));
        fence(Acquire);
        if turn % 2 == 1 || self.turn.load(Relaxed) != turn {
            return None;
        }
        among(&starts, instant)
    }

    pub(super) fn keep(&self, starts: &[u64; STARTS]) {
        let turn = self.turn.load(Relaxed);
        if turn % 2 == 1 || self.turn.compare_exchange(turn, turn + 1, AcqRel, Relaxed).is_err() {
            // Somebody else keeps what they have found.
            return;
        }
        fence(Release);
        for (place, start) in self.starts.iter().zip(starts) {
            place.store(*start, Relaxed);
        }
        self.turn.store(turn + 2, Release);
    }
}

/// The same, of any starts in a row.
#[inline]
pub(super) fn among(starts: &[u64; STARTS], instant: u64) -> Option<(u64, u64, u64)> {
    // The last window of time ends with it, and has no next one.
    let is_in = |one: &&[u64]| one[0] <= instant && (instant < one[1] || one[1] == u64::MAX);
    starts.windows(3).find(is_in).map(|one| (one[0], one[1], one[2]))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn readers_find_windows_that_belong_together_whoever_writes() {
        let seen = Seen::new();
        assert_eq!(seen.find(0), None);
        let starts = |first: u64| std::array::from_fn(|place| first + 10 * place as u64);
        thread::scope(|scope| {
            for offset in 0..2_u64 {
                let seen = &seen;
                scope.spawn(move || {
                    for round in 0..20_000 {
                        seen.keep(&starts(10 * (2 * round + offset) % 70));
                    }
                });
            }
            for _ in 0..40_000 {
                if let Some((start, end, next)) = seen.find(75) {
                    assert_eq!((start, end, next), (70, 80, 90));
                }
            }
        });
        seen.keep(&starts(50));
        assert_eq!(seen.find(75), Some((70, 80, 90)));
        assert_eq!(seen.find(49), None);
        assert_eq!(seen.find(101), None, "its next one is not known");
    }

    #[test]
    fn the_last_window_ends_with_time() {
        let starts = [1, 2, 3, u64::MAX, u64::MAX, u64::MAX, u64::MAX];
        assert_eq!(among(&starts, 2), Some((2, 3, u64::MAX)));
        assert_eq!(among(&starts, u64::MAX), Some((3, u64::MAX, u64::MAX)));
    }
}
