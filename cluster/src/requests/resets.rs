//! Which buckets were reset, and when: what requests were charged before that is forgotten, and nothing of it is given back.

use std::collections::{HashMap, VecDeque};

use tidegate_limiter::{Nanos, cluster::KeyHash};

use super::charged::is_over;

/// Resets that are known at one time. Beyond that the oldest counts for every bucket: what was charged before it is not known any more.
const MAX_RESETS: usize = 1 << 16;

/// Resets of as long ago as charges are known.
#[derive(Debug)]
pub(super) struct Resets {
    last: HashMap<KeyHash, Nanos>,
    /// In the order in which they were made; those too that a later one of the same bucket has replaced.
    order: VecDeque<(Nanos, KeyHash)>,
    /// Of all buckets.
    before: Nanos,
}

impl Default for Resets {
    fn default() -> Self {
        Self { last: HashMap::new(), order: VecDeque::new(), before: Nanos::new(0) }
    }
}

impl Resets {
    pub(super) fn note(&mut self, key: KeyHash, now: Nanos) {
        self.forget_old(now);
        if self.order.len() >= MAX_RESETS
            && let Some((at, key)) = self.order.pop_front()
        {
            self.forget(at, key);
            self.before = self.before.max(at);
        }
        self.last.insert(key, now);
        self.order.push_back((now, key));
    }

    /// What was charged at this instant, or before, does not count.
    pub(super) fn before(&self, key: KeyHash) -> Nanos {
        self.last.get(&key).map_or(self.before, |at| self.before.max(*at))
    }

    pub(super) fn forget_old(&mut self, now: Nanos) {
        while let Some((at, key)) = self.order.front().copied().filter(|(at, _)| is_over(*at, now)) {
            self.order.pop_front();
            self.forget(at, key);
        }
        if self.order.is_empty() && self.last.capacity() > 0 {
            *self = Self { before: self.before, ..Self::default() };
        }
    }

    fn forget(&mut self, at: Nanos, key: KeyHash) {
        if self.last.get(&key).is_some_and(|last| *last == at) {
            self.last.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::charged::REFUNDABLE, *};

    #[test]
    fn the_last_reset_of_a_bucket_counts_for_as_long_as_charges_are_known() {
        let (first, second, never) = (KeyHash::from_raw(2), KeyHash::from_raw(4), KeyHash::from_raw(6));
        let at = |seconds: u64| Nanos::new(1_800_000_000_000_000_000 + seconds * 1_000_000_000);
        let mut resets = Resets::default();
        resets.note(first, at(0));
        resets.note(second, at(1));
        resets.note(first, at(2));
        let before = |resets: &Resets| [first, second, never].map(|key| resets.before(key));
        assert_eq!(before(&resets), [at(2), at(1), Nanos::new(0)]);
        resets.forget_old(at(1).saturating_add(REFUNDABLE));
        assert_eq!(before(&resets), [at(2), Nanos::new(0), Nanos::new(0)]);
        resets.forget_old(at(2).saturating_add(REFUNDABLE));
        assert_eq!((resets.last.capacity(), resets.order.capacity()), (0, 0));
    }

    #[test]
    fn beyond_a_bound_the_oldest_reset_counts_for_all_buckets() {
        let mut resets = Resets::default();
        (0..MAX_RESETS as u64 + 2)
            .for_each(|number| resets.note(KeyHash::from_raw(number), Nanos::new(1000 + number)));
        assert_eq!(resets.before(KeyHash::from_raw(0)), Nanos::new(1001));
        assert_eq!(resets.before(KeyHash::from_raw(u64::MAX)), Nanos::new(1001));
        assert_eq!(resets.before(KeyHash::from_raw(2)), Nanos::new(1002));
        assert_eq!((resets.last.len(), resets.order.len()), (MAX_RESETS, MAX_RESETS));
    }
}
