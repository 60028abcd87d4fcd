//! One shard's table: fingerprint and state, 16 bytes each, four to a cache line. It is read and charged without a lock.
//!
//! ```text
//!     line (64 bytes)   key 0 │ state 0 │ key 1 │ state 1 │ key 2 │ state 2 │ key 3 │ state 3
//! ```
//!
//! The upper bits of all fingerprints of a shard are the same; in their place stands whose bucket it is (`classes.rs`):
//!
//! ```text
//!     key (64 bits)     the lower bits of the fingerprint │ class
//! ```
//!
//! A fingerprint belongs to one line, and where that is full, to the next one that is not. What makes this right:
//!
//! 1. Only the thread with the shard's lock adds a key. A slot gets its key once in the life of its table, and keeps it.
//! 2. A state of 0 ([`TAKEN`]) is none: the thread with the lock has taken it out for the moment, or the bucket's journal
//!    keeps it (`shard.rs`), or it has moved to another table. A thread that finds it without the lock has to take the lock.
//!    A state of 1 ([`MOVED`](super::line::MOVED)) is none either: for the thread with the lock the bucket is not there.
//! 3. Any thread that finds another state may swap it for a later one, with a compare-and-swap, lock or not. Only the thread
//!    with the lock takes a state out or puts one back.
//! 4. A table is given up only after all of its states were taken out, so a swap that comes too late fails: no charge is
//!    made to a bucket that is no more.
//!
//! A table never grows: the shard moves what is needed to another one. That is also how buckets are removed.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{
    class::{Class, MAX_CLASS_BITS},
    line::{FREE, LINE_SLOTS, LONG_AGO, Line, Slot, TAKEN},
    pages::Lines,
};
use crate::KeyHash;

#[derive(Debug)]
pub(super) struct Table {
    lines: Lines,
    /// The bits of a slot's key that are the fingerprint's; the others, so many, are the class.
    mask: u64,
    class_bits: u32,
    /// Of all tables.
    bytes: Arc<AtomicUsize>,
}

impl Drop for Table {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.lines.bytes(), Relaxed);
    }
}

/// A bucket of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) class: Class,
    pub(super) state: u64,
}

impl Table {
    pub(super) const LINE_BYTES: usize = size_of::<Line>();

    /// An empty one, with at least so many slots, for fingerprints whose upper bits are known. Its bytes are counted until it is
    /// freed, which may be later than it is given up: somebody may be reading it.
    pub(super) fn with_slots(slots: usize, class_bits: u32, bytes: &Arc<AtomicUsize>) -> Self {
        let lines = Lines::new(slots.div_ceil(LINE_SLOTS));
        bytes.fetch_add(lines.bytes(), Relaxed);
        Self { lines, mask: u64::MAX << class_bits, class_bits, bytes: Arc::clone(bytes) }
    }

    pub(super) fn slots(&self) -> usize {
        self.lines.len() * LINE_SLOTS
    }

    /// The state of a bucket, which can be [`TAKEN`].
    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<&AtomicU64> {
        let (home, wanted) = (self.home(key), self.fingerprint(key));
        for slot in &self.lines.get(home)?.0 {
            // With the key comes the state that was stored before it.
            match slot.key.load(Acquire) {
                known if known & self.mask == wanted => return Some(&slot.state),
                FREE => return None,
                _ => {}
            }
        }
        self.get_further(home, wanted)
    }

    #[cold]
    fn get_further(&self, home: usize, wanted: u64) -> Option<&AtomicU64> {
        self.slots_from(home)
            .skip(LINE_SLOTS)
            .map(|slot| (slot.key.load(Acquire), slot))
            .take_while(|(known, _)| *known != FREE)
            .find_map(|(known, slot)| (known & self.mask == wanted).then_some(&slot.state))
    }

    /// Adds a bucket that is not there, with its state or with [`TAKEN`]. Only with the shard's lock held. There must
    /// be a slot that is free, and should be more of them.
    pub(super) fn add(&self, Entry { key, class, state }: Entry) {
        debug_assert_eq!(u64::from(class) & self.mask, 0, "a class fits the bits that are left for it");
        let mut slots = self.slots_from(self.home(key));
        let slot = slots.find(|slot| slot.key.load(Relaxed) == FREE).expect("room is made before");
        slot.state.store(state, Relaxed);
        slot.key.store(self.fingerprint(key) | u64::from(class), Release);
    }

    /// All buckets, with the states that were there and are now taken; `upper` are the bits that all of them begin with. Only
    /// with the shard's lock held.
    pub(super) fn drain(&self, upper: u64) -> impl Iterator<Item = Entry> {
        self.used().map(move |slot| self.entry(slot, upper, slot.state.swap(TAKEN, Relaxed)))
    }

    /// All states.
    pub(super) fn states(&self) -> impl Iterator<Item = u64> {
        self.used().map(|slot| slot.state.load(Relaxed))
    }

    /// All buckets.
    pub(super) fn entries(&self, upper: u64) -> impl Iterator<Item = Entry> {
        self.used().map(move |slot| self.entry(slot, upper, slot.state.load(Relaxed)))
    }

    /// The class of a bucket, if it is here.
    pub(super) fn class_of(&self, key: u64) -> Option<Class> {
        let wanted = self.fingerprint(key);
        self.slots_from(self.home(key))
            .map(|slot| slot.key.load(Relaxed))
            .take_while(|known| *known != FREE)
            .find_map(|known| (known & self.mask == wanted).then_some((known & !self.mask) as Class))
    }

    fn entry(&self, slot: &Slot, upper: u64, state: u64) -> Entry {
        let known = slot.key.load(Relaxed);
        let lower = known >> self.class_bits;
        Entry { key: lower | upper, class: (known & !self.mask) as Class, state }
    }

    /// Where it stands in a slot's key. Never [`FREE`]: see [`table_key`].
    #[inline]
    fn fingerprint(&self, key: u64) -> u64 {
        key << self.class_bits
    }

    fn used(&self) -> impl Iterator<Item = &Slot> {
        self.lines.iter().flat_map(|line| &line.0).filter(|slot| slot.key.load(Relaxed) != FREE)
    }

    fn slots_from(&self, home: usize) -> impl Iterator<Item = &Slot> {
        let (before, from) = self.lines.split_at(home);
        from.iter().chain(before).flat_map(|line| &line.0)
    }

    #[inline]
    fn home(&self, key: u64) -> usize {
        Self::home_of(key, self.lines.len())
    }

    /// The line of a key, by the lower half of its bits: the upper ones have chosen the shard.
    #[inline]
    pub(super) fn home_of(key: u64, lines: usize) -> usize {
        ((u128::from(key.rotate_left(32)) * lines as u128) >> 64) as usize
    }

    /// The address of the first line, and how many there are.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.lines.as_ptr().addr(), self.lines.len())
    }
}

/// The fingerprint of a bucket as tables have it: not 0 in its lower bits, where that would be no key. (The two that are made
/// one by it differ in the bit that says whether they are windows; chance does so as often to any two.)
#[inline]
pub(super) fn table_key(key: KeyHash) -> u64 {
    let key = key.get();
    if key << MAX_CLASS_BITS == 0 { key | 1 } else { key }
}

/// What is stored for a state: never one that is none.
pub(super) fn present(state: u64) -> u64 {
    state.max(LONG_AGO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_full_table_are_found_wherever_they_had_to_go() {
        for (slots, class_bits) in [(4, 4), (20, 10), (64, 6), (1_000, 10)] {
            let upper = 5 << (u64::BITS - class_bits);
            let table = Table::with_slots(slots, class_bits, &Arc::default());
            let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> class_bits | upper;
            let class = |n: u64| n as Class % (1 << class_bits);
            let keys = LONG_AGO..=slots as u64 + 1;
            for n in keys.clone() {
                assert!(table.get(key(n)).is_none());
                table.add(Entry { key: key(n), class: class(n), state: present(n) });
                assert_eq!(table.get(key(n)).map(|state| state.load(Relaxed)), Some(n));
                assert_eq!(table.class_of(key(n)), Some(class(n)));
            }
            assert!(table.get(key(slots as u64 + 2)).is_none(), "the search of a full table ends");
            let is_as_it_was =
                |entry: &Entry| entry.key == key(entry.state) && entry.class == class(entry.state);
            assert!(table.entries(upper).all(|entry| is_as_it_was(&entry)));
            assert_eq!(table.drain(upper).map(|entry| entry.state).sum::<u64>(), keys.sum::<u64>());
            assert!(table.states().all(|state| state == TAKEN));
        }
        assert!(Table::with_slots(0, 10, &Arc::default()).get(7).is_none());
    }

    #[test]
    fn a_fingerprint_that_would_be_no_key_is_one_all_the_same() {
        for class_bits in 4..=10 {
            let upper = 3 << (u64::BITS - class_bits);
            let key = table_key(KeyHash::from_raw(upper));
            let table = Table::with_slots(4, class_bits, &Arc::default());
            table.add(Entry { key, class: 0, state: present(9) });
            assert_eq!(table.entries(upper).next(), Some(Entry { key, class: 0, state: 9 }));
        }
    }
}
