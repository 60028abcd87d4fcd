//! Which buckets have denied lately, so that a check asks them before it charges others.
//!
//! A check of several owners is charged at each of them and taken back where another one denies. Until then the units are
//! missing for others: one client that is denied all the time, and asks often enough, would empty a bucket that many share.
//! So what has denied lately is asked first, alone, and nothing else is charged before it allows.
//!
//! **It is a hint and decides nothing.** A bucket that was reset, refunded, or given a larger limit allows at the next check.
//! What a wrong hint costs: one more round trip for a check of several owners, or, where a denial was forgotten, units that
//! are held for as long as one round trip takes.
//!
//! It is bounded: [`BYTES`] for a node, taken at the first denial of that kind. Where a line is full, the denial that ends
//! first is forgotten. Somebody who wants others to be forgotten needs more buckets that deny than fit at the same time
//! ([`REMEMBERED`]), and each of them must have been exhausted before, through all rules that match.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_limiter::{Decision, Nanos, cluster::KeyHash};

use crate::planted::PlantedBug;

/// Denials in one line: a cache line of memory.
const WAYS: usize = 8;
/// A power of two.
const LINES: usize = 1 << 14;
/// Denials that fit.
const REMEMBERED: usize = LINES * WAYS;
/// What they take.
const BYTES: usize = REMEMBERED * size_of::<AtomicU64>();
const _: () = assert!(BYTES == 1 << 20, "1 MiB, as the documentation says");

/// A denial is remembered for as long as the caller was told to wait, within these. The order of asking is all that depends
/// on it. It is not less than the first: a bucket that refills each 10 ms would be forgotten between two denials.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// How often a bucket denies, of 4095. One that has denied once, and was not known.
const FIRST: u64 = 3 << 10;
const ALWAYS: u64 = (1 << 12) - 1;
/// From here on it is asked first: it denies every other check.
const LIKELY: u64 = 1 << 11;
/// Each decision changes it by this part.
const WEIGHT: u64 = 8;

/// Buckets that have denied lately.
#[derive(Debug, Default)]
pub(super) struct Denials {
    lines: OnceLock<Box<[Line]>>,
}

/// Words of which each is a denial: 32 bits of the key, 20 of the time until which it is remembered, 12 of how often the
/// bucket denies. Two threads that change one word at once lose one of the changes, which is as if it had not been seen.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

/// The unit of times: 67 ms. 20 bits of it are 19 hours.
const TIME_SHIFT: u32 = 26;
const TIME_BITS: u32 = 20;
const SCORE_BITS: u32 = 12;
/// No denial is remembered for more units.
const LONGEST: u64 = (MOST.as_nanos() as u64 >> TIME_SHIFT) + 2;

#[derive(Debug, Clone, Copy)]
struct Word(u64);

impl Word {
    fn new(tag: u64, until: u64, score: u64) -> Self {
        debug_assert!(score <= ALWAYS);
        Self(tag << 32 | (until & ((1 << TIME_BITS) - 1)) << SCORE_BITS | score)
    }

    fn tag(self) -> u64 {
        self.0 >> 32
    }

    fn score(self) -> u64 {
        self.0 & ALWAYS
    }

    /// How many units of time are left; 0 when it is over. Times go round: what lies further ahead than anything is
    /// remembered lies in the past.
    fn left(self, now: u64) -> u64 {
        let until = self.0 >> SCORE_BITS;
        let ahead = until.wrapping_sub(now) & ((1 << TIME_BITS) - 1);
        if ahead <= LONGEST { ahead } else { 0 }
    }
}

fn units(at: Nanos) -> u64 {
    at.get() >> TIME_SHIFT
}

/// The last bit of a key is its kind, and the others are equally random.
fn tag(key: KeyHash) -> u64 {
    key.get() >> 32
}

impl Denials {
    fn line(lines: &[Line], key: KeyHash) -> &Line {
        &lines[(key.get() >> 1) as usize % LINES]
    }

    /// How likely the bucket is to deny, if that is likely enough to ask it first.
    pub(super) fn likelihood(&self, key: KeyHash, now: Nanos) -> Option<u64> {
        let line = Self::line(self.lines.get()?, key);
        let (tag, now) = (tag(key), units(now));
        let words = line.0.iter().map(|word| Word(word.load(Relaxed)));
        let known = words.filter(|word| word.tag() == tag && word.left(now) > 0);
        known.map(Word::score).max().filter(|score| *score >= LIKELY && !PlantedBug::DenialsForgotten.is_on())
    }

    /// A bucket has denied.
    pub(super) fn denied(&self, key: KeyHash, decision: &Decision, now: Nanos) {
        let lines = self.lines.get_or_init(|| (0..LINES).map(|_| Line::default()).collect());
        let line = Self::line(lines, key);
        let until = now.saturating_add(decision.retry_after.unwrap_or(MOST).clamp(LEAST, MOST));
        // Rounded up.
        let (tag, until, now) = (tag(key), units(until) + 1, units(now));
        let mut place = (&line.0[0], u64::MAX);
        for word in &line.0 {
            let known = Word(word.load(Relaxed));
            let left = known.left(now);
            if known.tag() == tag && left > 0 {
                let score = known.score() + (ALWAYS - known.score()).div_ceil(WEIGHT);
                word.store(Word::new(tag, until, score).0, Relaxed);
                return;
            }
            if left < place.1 {
                place = (word, left);
            }
        }
        place.0.store(Word::new(tag, until, FIRST).0, Relaxed);
    }

    /// A bucket has allowed. For how long its denial is remembered does not change.
    pub(super) fn allowed(&self, key: KeyHash, now: Nanos) {
        let Some(lines) = self.lines.get() else { return };
        let (tag, now) = (tag(key), units(now));
        for word in &Self::line(lines, key).0 {
            let known = Word(word.load(Relaxed));
            if known.tag() == tag && known.left(now) > 0 {
                let score = known.score() - known.score() / WEIGHT;
                word.store(known.0 & !ALWAYS | score, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Nanos {
        // Not far from where the times go round.
        Nanos::new((1 << (TIME_BITS + TIME_SHIFT)) - 30_000_000_000 + millis * 1_000_000)
    }

    fn denial(retry_after: Option<Duration>) -> Decision {
        Decision {
            allowed: false,
            limit: 1,
            remaining: 0,
            reset_after: Duration::ZERO,
            retry_after,
            delay: Duration::ZERO,
            assumed: false,
            banned: false,
        }
    }

    fn key(number: u64) -> KeyHash {
        KeyHash::from_raw(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn a_denial_is_remembered_for_as_long_as_it_was_said_to_last_within_bounds() {
        let millis = Duration::from_millis;
        for (told, least, most) in [
            (Some(millis(10)), 1000, 1200),
            (Some(millis(5000)), 5000, 5200),
            (Some(Duration::from_secs(86_400)), 60_000, 60_200),
            (None, 60_000, 60_200),
        ] {
            let denials = Denials::default();
            assert_eq!(denials.likelihood(key(1), at(0)), None);
            denials.denied(key(1), &denial(told), at(0));
            assert!(denials.likelihood(key(1), at(least - 1)).is_some(), "{told:?}");
            assert_eq!(denials.likelihood(key(1), at(most)), None, "{told:?}");
            assert_eq!(denials.likelihood(key(2), at(0)), None);
        }
    }

    #[test]
    fn a_bucket_that_allows_more_often_than_it_denies_is_not_asked_first() {
        let denials = Denials::default();
        let decide = |allowed: bool| match allowed {
            true => denials.allowed(key(1), at(0)),
            false => denials.denied(key(1), &denial(None), at(0)),
        };
        decide(true);
        assert_eq!(denials.likelihood(key(1), at(0)), None);
        // One in four is denied.
        for number in 0..200 {
            decide(number % 4 != 0);
        }
        assert_eq!(denials.likelihood(key(1), at(0)), None);
        // All but one in a hundred are.
        for number in 0..200 {
            decide(number % 100 == 50);
        }
        let always = denials.likelihood(key(1), at(0)).unwrap();
        denials.denied(key(2), &denial(None), at(0));
        assert!(always > denials.likelihood(key(2), at(0)).unwrap(), "what denies more often goes first");
        (0..8).for_each(|_| decide(true));
        assert_eq!(denials.likelihood(key(1), at(0)), None, "after a reset it is soon asked with the others");
    }

    #[test]
    fn memory_is_bounded_and_what_ends_first_is_forgotten_first() {
        let denials = Denials::default();
        let long = |number| denials.denied(key(number), &denial(None), at(0));
        (0..1000).for_each(long);
        // More than fit, and all of them end soon.
        let soon = denial(Some(Duration::from_millis(1)));
        (1000..4 * REMEMBERED as u64).for_each(|number| denials.denied(key(number), &soon, at(0)));
        let known = (0..1000).filter(|number| denials.likelihood(key(*number), at(0)).is_some()).count();
        assert!(known > 950, "{known} of 1000");
        assert_eq!(size_of_val(&**denials.lines.get().unwrap()), BYTES);
    }
}
