//! What is remembered, in the order in which it is forgotten, so that no bucket and no rule pushes out what the others have.
//!
//! Each entry has a [`Share`]: that of its rule, and within it that of its bucket. When there is no room left, the oldest entry of
//! the largest bucket's share goes, of the largest rule. So a flood of ids under one key, or of many keys under one rule, pushes
//! out its own entries. Without a flood any bucket may have all of the room. A few bits of a hash that clients cannot choose
//! distinguish rules and buckets: one rule in [`RULES`] shares the fate of a rule that is flooded, and there one
//! bucket in [`BUCKETS`] that of a bucket.

use std::collections::VecDeque;

use tidegate_limiter::cluster::{Charge, KeyHash};

use crate::slots::SlotId;

/// Shares of rules.
const RULES: usize = 16;
/// Shares of buckets, of each of them.
const BUCKETS: usize = 32;
/// Entries for which a share keeps memory though it has less.
const KEPT: usize = 8;

/// Whose part of the room an entry takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share(u16);

impl Share {
    /// Of a request that was charged this.
    pub(crate) fn of(charges: &[Charge]) -> Self {
        charges.first().map_or(Self(0), |first| Self::new(first.rule.get(), first.key.place()))
    }

    /// Of a request of which no more is known: another node has charged it.
    pub(super) fn of_slot(slot: SlotId) -> Self {
        Self::new(slot.get().into(), slot.get().into())
    }

    /// The same of a bucket.
    pub(super) fn of_bucket(key: KeyHash) -> Self {
        Self::new(key.place(), key.place())
    }

    fn new(rule: u64, bucket: u64) -> Self {
        let part = |bits: u64, parts: usize| {
            let spread = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            (spread as usize * parts) >> 32
        };
        Self((part(rule, RULES) * BUCKETS + part(bucket, BUCKETS)) as u16)
    }

    fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// The entries of all shares, of each in the order in which they came.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// None before the first entry.
    shares: Vec<VecDeque<T>>,
    of_rules: [usize; RULES],
    length: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { shares: Vec::new(), of_rules: [0; RULES], length: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Entries for which there is room.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.shares.iter().map(VecDeque::capacity).sum()
    }

    pub(super) fn push(&mut self, share: Share, entry: T) {
        if self.shares.is_empty() {
            self.shares.resize_with(RULES * BUCKETS, VecDeque::new);
        }
        self.shares[share.place()].push_back(entry);
        self.of_rules[share.place() / BUCKETS] += 1;
        self.length += 1;
    }

    /// Takes the oldest entry of a share, if it is over.
    pub(super) fn pop_if(&mut self, share: Share, is_over: impl Fn(&T) -> bool) -> Option<T> {
        self.shares.get(share.place())?.front().filter(|entry| is_over(entry))?;
        self.pop(share.place())
    }

    /// Takes the oldest entry of whoever has the most.
    pub(super) fn pop_of_largest(&mut self) -> Option<T> {
        let rule = (0..RULES).max_by_key(|rule| self.of_rules[*rule])?;
        let buckets = rule * BUCKETS..(rule + 1) * BUCKETS;
        let largest = buckets.max_by_key(|place| self.shares.get(*place).map_or(0, VecDeque::len))?;
        self.pop(largest)
    }

    /// Takes all that are over: of each share from the oldest on.
    pub(super) fn pop_all(&mut self, is_over: impl Fn(&T) -> bool, mut each: impl FnMut(T)) {
        if self.is_empty() {
            return;
        }
        for place in 0..self.shares.len() {
            while self.shares[place].front().is_some_and(&is_over) {
                self.pop(place).into_iter().for_each(&mut each);
            }
        }
    }

    fn pop(&mut self, place: usize) -> Option<T> {
        let share = self.shares.get_mut(place)?;
        let entry = share.pop_front()?;
        // A share that was large keeps no memory that another one needs now.
        if share.capacity() > KEPT && share.len() < share.capacity() / 4 {
            share.shrink_to((share.len() * 2).max(KEPT));
        }
        self.of_rules[place / BUCKETS] -= 1;
        self.length -= 1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue that has room for so many.
    fn push(queue: &mut FairQueue<(u64, u64)>, most: usize, rule: u64, bucket: u64, number: u64) {
        while queue.len() >= most {
            queue.pop_of_largest();
        }
        queue.push(Share::new(rule, bucket), (bucket, number));
    }

    fn left(queue: &mut FairQueue<(u64, u64)>, wanted: impl Fn(u64) -> bool) -> usize {
        let mut count = 0;
        queue.pop_all(|_| true, |(bucket, _)| count += usize::from(wanted(bucket)));
        assert!(queue.is_empty() && queue.of_rules == [0; RULES]);
        count
    }

    #[test]
    fn a_flood_under_one_key_pushes_out_its_own_entries() {
        let mut queue = FairQueue::default();
        (1..=100).for_each(|bucket| push(&mut queue, 1000, 7, bucket << 20, 0));
        (0..50_000).for_each(|number| push(&mut queue, 1000, 7, 0xffff_0000, number));
        assert_eq!(queue.len(), 1000);
        let honest = left(&mut queue, |bucket| bucket != 0xffff_0000);
        assert!((85..100).contains(&honest), "all but those whose share is the flooded one: {honest}");
    }

    #[test]
    fn a_flood_of_keys_under_one_rule_pushes_out_nothing_of_another() {
        let mut queue = FairQueue::default();
        (0..200).for_each(|bucket| push(&mut queue, 1000, 1, bucket, 0));
        (1000..100_000).for_each(|bucket| push(&mut queue, 1000, 2, bucket << 8, 0));
        assert_ne!(Share::new(1, 0).place() / BUCKETS, Share::new(2, 0).place() / BUCKETS);
        assert_eq!(left(&mut queue, |bucket| bucket < 200), 200);
    }

    #[test]
    fn whoever_is_alone_has_all_of_the_room_and_the_oldest_go_first() {
        let mut queue = FairQueue::default();
        (0..3000).for_each(|number| push(&mut queue, 1000, 1, 1, number));
        let mut numbers = Vec::new();
        queue.pop_all(|_| true, |(_, number)| numbers.push(number));
        assert_eq!(numbers, (2000..3000).collect::<Vec<_>>());
    }

    #[test]
    fn no_memory_is_kept_of_shares_that_were_large_one_after_another() {
        let mut queue = FairQueue::default();
        for bucket in 0..200 {
            (0..2000).for_each(|number| push(&mut queue, 1000, bucket << 16, bucket, number));
        }
        let kept: usize = queue.shares.iter().map(VecDeque::capacity).sum();
        assert!(kept <= 4 * 1000 + 2 * KEPT * RULES * BUCKETS, "{kept}");
    }

    #[test]
    fn only_what_is_over_goes_in_time() {
        let mut queue = FairQueue::default();
        let share = Share::new(1, 1);
        (1..=3).for_each(|number| queue.push(share, number));
        assert_eq!(queue.pop_if(share, |number| *number < 2), Some(1));
        assert_eq!(queue.pop_if(share, |number| *number < 2), None);
        assert_eq!(queue.pop_if(Share::new(9, 9), |_| true), None);
        queue.pop_all(|number| *number < 3, |number| assert_eq!(number, 2));
        assert_eq!((queue.len(), queue.pop_of_largest(), queue.pop_of_largest()), (1, Some(3), None));
    }
}
