//! One shard's table: fingerprint and state, 16 bytes each, four to a cache line. It is read and charged without a lock.
//!
//! ```text
//!     line (64 bytes)   key 0 │ state 0 │ key 1 │ state 1 │ key 2 │ state 2 │ key 3 │ state 3
//! ```
//!
//! A fingerprint belongs to one line, and where that is full, to the next one that is not. What makes this right:
//!
//! 1. Only who holds the shard's lock adds a key. A slot gets its key once in the life of its table, and keeps it.
//! 2. A state of 0 ([`TAKEN`]) is none: whoever holds the lock has taken it out for the moment, or the bucket's journal
//!    keeps it (`shard.rs`), or it has moved to another table. Who finds it without the lock has to take the lock.
//! 3. Whoever finds another state may swap it for a later one, with a compare-and-swap, lock or not. Only who holds the
//!    lock takes a state out or puts one back.
//! 4. A table is given up only after all of its states were taken out, so a swap that comes too late fails: no charge is
//!    made to a bucket that is no more.
//!
//! A table never grows: the shard moves what is needed to another one. That is also how buckets are removed.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// No state: it is elsewhere. A bucket that knows of nothing has [`LONG_AGO`].
pub(super) const TAKEN: u64 = 0;
/// The earliest state.
const LONG_AGO: u64 = 1;
/// No key.
const FREE: u64 = 0;

/// Slots of a cache line.
pub(super) const LINE_SLOTS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Table {
    lines: Box<[Line]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([Slot; LINE_SLOTS]);

const _: () = assert!(size_of::<Line>() == 64);

#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    state: AtomicU64,
}

impl Table {
    pub(super) const LINE_BYTES: usize = size_of::<Line>();

    /// An empty one, with at least so many slots.
    pub(super) fn with_slots(slots: usize) -> Self {
        Self { lines: (0..slots.div_ceil(LINE_SLOTS)).map(|_| Line::default()).collect() }
    }

    pub(super) fn slots(&self) -> usize {
        self.lines.len() * LINE_SLOTS
    }

    /// The state of a bucket, which can be [`TAKEN`].
    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<&AtomicU64> {
        let home = self.home(key);
        for slot in &self.lines.get(home)?.0 {
            // With the key comes the state that was stored before it.
            match slot.key.load(Acquire) {
                known if known == key => return Some(&slot.state),
                FREE => return None,
                _ => {}
            }
        }
        self.get_further(home, key)
    }

    #[cold]
    fn get_further(&self, home: usize, key: u64) -> Option<&AtomicU64> {
        self.slots_from(home)
            .skip(LINE_SLOTS)
            .map(|slot| (slot.key.load(Acquire), slot))
            .take_while(|(known, _)| *known != FREE)
            .find_map(|(known, slot)| (known == key).then_some(&slot.state))
    }

    /// Adds a bucket that is not there, with its state or with [`TAKEN`]. Only for who holds the shard's lock. There must
    /// be a slot that is free, and should be more of them.
    pub(super) fn add(&self, key: u64, state: u64) {
        let mut slots = self.slots_from(self.home(key));
        let slot = slots.find(|slot| slot.key.load(Relaxed) == FREE).expect("room is made before");
        slot.state.store(state, Relaxed);
        slot.key.store(key, Release);
    }

    /// All keys, with the states that were there and are now taken. Only for who holds the shard's lock.
    pub(super) fn drain(&self) -> impl Iterator<Item = (u64, u64)> {
        self.used().map(|slot| (slot.key.load(Relaxed), slot.state.swap(TAKEN, Relaxed)))
    }

    /// All states.
    pub(super) fn states(&self) -> impl Iterator<Item = u64> {
        self.used().map(|slot| slot.state.load(Relaxed))
    }

    /// All keys with their states.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        self.used().map(|slot| (slot.key.load(Relaxed), slot.state.load(Relaxed)))
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

/// What is stored for a state: never [`TAKEN`].
pub(super) fn present(state: u64) -> u64 {
    state.max(LONG_AGO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_full_table_are_found_wherever_they_had_to_go() {
        for slots in [4, 20, 64, 1_000] {
            let table = Table::with_slots(slots);
            let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let keys = 1..=slots as u64;
            for n in keys.clone() {
                assert!(table.get(key(n)).is_none());
                table.add(key(n), present(n));
                assert_eq!(table.get(key(n)).map(|state| state.load(Relaxed)), Some(n));
            }
            assert!(table.get(key(slots as u64 + 1)).is_none(), "the search of a full table ends");
            assert_eq!(table.drain().map(|(_, state)| state).sum::<u64>(), keys.sum::<u64>());
            assert!(table.states().all(|state| state == TAKEN));
        }
        assert!(Table::default().get(7).is_none());
    }
}
