//! One shard's table: fingerprint and state, 16 bytes each.
//!
//! It never grows by itself: what must be moved to a larger table is looked at on the way, and what knows of nothing
//! stays behind. The same way removes idle buckets and frees their memory.

use std::{mem, sync::atomic::AtomicU64};

use dashmap::SharedValue;
use hashbrown::raw::RawTable;

use super::budget;

/// The states are atomic, so that the usual charge needs the shard's lock only for reading; whoever adds, removes or needs
/// several states at once has it for writing.
pub(super) type Table = RawTable<(u64, SharedValue<AtomicU64>)>;

/// What [`rebuild`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// The soonest that any of the remaining buckets knows of nothing.
    pub(super) soonest: u64,
    pub(super) removed: usize,
}

pub(super) fn get(table: &Table, key: u64) -> Option<&AtomicU64> {
    table.get(key, |(known, _)| *known == key).map(|(_, state)| state.get())
}

pub(super) fn get_mut(table: &mut Table, key: u64) -> Option<&mut u64> {
    table.get_mut(key, |(known, _)| *known == key).map(|(_, state)| state.get_mut().get_mut())
}

pub(super) fn is_full(table: &Table) -> bool {
    table.len() == table.capacity()
}

/// Adds a bucket that is not there, to a table that is not full.
pub(super) fn add(table: &mut Table, key: u64, state: u64) {
    debug_assert!(!is_full(table), "room is made before");
    table.insert(key, (key, SharedValue::new(AtomicU64::new(state))), |(key, _)| *key);
}

/// Moves all buckets that know of something to a new table with room for `more`, which has at most `max_slots` slots. If
/// there would be no room, the ones that need the table for the shortest time are given to `fold`.
pub(super) fn rebuild(
    table: &mut Table,
    more: usize,
    max_slots: usize,
    now: u64,
    mut fold: impl FnMut(u64, u64),
) -> Rebuilt {
    let before = table.len();
    let mut busy: Vec<(u64, u64)> = Vec::with_capacity(before);
    let mut soonest = u64::MAX;
    for (key, state) in mem::take(table) {
        let state = state.into_inner().into_inner();
        if state > now {
            soonest = soonest.min(state);
            busy.push((key, state));
        }
    }
    let most = budget::capacity(max_slots) / 8 * 7;
    if busy.len() > most {
        let leave = busy.len() - most;
        busy.select_nth_unstable_by_key(leave, |(_, state)| *state);
        for (key, state) in busy.drain(..leave) {
            fold(key, state);
        }
    }
    if busy.len() + more > 0 {
        let slots = budget::slots_for(busy.len() + more).min(max_slots);
        *table = Table::with_capacity(budget::capacity(slots));
        for (key, state) in &busy {
            add(table, *key, *state);
        }
    }
    Rebuilt { soonest, removed: before - busy.len() }
}

/// Fingerprints are hashes already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unhashed;

/// Hands the bits through.
#[derive(Debug, Default)]
pub(super) struct Bits(u64);

impl std::hash::BuildHasher for Unhashed {
    type Hasher = Bits;

    fn build_hasher(&self) -> Bits {
        Bits(0)
    }
}

impl std::hash::Hasher for Bits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for fingerprints; any function of the bytes is right.
        self.0 = bytes.iter().fold(self.0, |bits, byte| bits.rotate_left(8) ^ u64::from(*byte));
    }
}
