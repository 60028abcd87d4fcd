//! How far each slot's successor, and this node's disk, have acknowledged its buckets, where checks read it: without a lock.
//!
//! A table for each slot: 24 bytes a bucket, about half of the places used. One task at a time writes, with a lock; marks only
//! grow. Who reads a table that has just been replaced finds an earlier mark, or none, and is stricter for it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use arc_swap::ArcSwapOption;
use tidegate_limiter::{
    Nanos,
    cluster::{KeyHash, Mark},
};

use crate::slots::SLOTS;

/// Who keeps floors, so that a slot can begin from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The node that the log names.
    Successor,
    /// The disk of the owner itself.
    Disk,
}

impl Side {
    pub(crate) const ALL: [Self; 2] = [Self::Successor, Self::Disk];
}

/// Buckets of which marks are kept, of all slots: 48 MiB when all places are taken.
pub(crate) const MAX_MARKS: usize = 1 << 20;

const FIRST_PLACES: usize = 8;

#[derive(Debug)]
pub(crate) struct Acknowledged {
    slots: Box<[ArcSwapOption<Marks>]>,
    count: AtomicUsize,
    writer: Mutex<()>,
}

/// The marks of one slot.
#[derive(Debug)]
struct Marks {
    /// A power of two of them.
    places: Box<[Place]>,
    used: AtomicUsize,
}

/// A fingerprint (0: none yet), and how far each side has acknowledged it (0: not at all).
#[derive(Debug, Default)]
struct Place {
    key: AtomicU64,
    marks: [AtomicU64; 2],
}

impl Place {
    fn marks(&self) -> [u64; 2] {
        [self.marks[0].load(Relaxed), self.marks[1].load(Relaxed)]
    }
}

impl Default for Acknowledged {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| ArcSwapOption::empty()).collect(),
            count: AtomicUsize::new(0),
            writer: Mutex::default(),
        }
    }
}

impl Acknowledged {
    /// How far a bucket of the slot is acknowledged by all of these sides.
    pub(crate) fn get(&self, slot: usize, key: KeyHash, sides: &[Side]) -> Option<Mark> {
        let marks = self.slots[slot].load();
        let place = marks.as_ref()?.find(key.get().max(1))?;
        sides.iter().map(|side| Mark::new(place.marks[*side as usize].load(Relaxed))).min()
    }

    /// Notes that a bucket is acknowledged that far. False: there is no room.
    pub(crate) fn note(&self, slot: usize, key: KeyHash, side: Side, mark: Mark, now: Nanos) -> bool {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key.get().max(1);
        let known = self.slots[slot].load_full();
        if let Some(place) = known.as_ref().and_then(|marks| marks.find(key)) {
            place.marks[side as usize].fetch_max(mark.get(), Relaxed);
            return true;
        }
        if self.count.load(Relaxed) >= MAX_MARKS {
            return false;
        }
        let marks = match known {
            Some(marks) if marks.has_room() => marks,
            known => self.replace(slot, known.as_deref(), now),
        };
        let mut both = [0; 2];
        both[side as usize] = mark.get();
        marks.add(key, both);
        self.count.fetch_add(1, Relaxed);
        true
    }

    /// Forgets what a side has acknowledged of a slot.
    pub(crate) fn clear(&self, slot: usize, side: Side) {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(marks) = self.slots[slot].load_full() else { return };
        let mut is_empty = true;
        for place in &marks.places {
            place.marks[side as usize].store(0, Relaxed);
            is_empty &= place.marks() == [0; 2];
        }
        if is_empty {
            self.slots[slot].store(None);
            self.count.fetch_sub(marks.used.load(Relaxed), Relaxed);
        }
    }

    /// How many buckets there are marks of.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// A larger table, or as large a one without those that are over.
    fn replace(&self, slot: usize, known: Option<&Marks>, now: Nanos) -> Arc<Marks> {
        let places = known.map_or(&[][..], |marks| &marks.places);
        let all = places.iter().map(|place| (place.key.load(Relaxed), place.marks()));
        let is_live = |marks: &[u64; 2]| marks.iter().any(|mark| !Mark::new(*mark).is_over(now));
        let live: Vec<(u64, [u64; 2])> = all.filter(|(key, marks)| *key != 0 && is_live(marks)).collect();
        let marks = Arc::new(Marks::with_places(((live.len() + 1) * 2).next_power_of_two()));
        live.iter().for_each(|(key, known)| marks.add(*key, *known));
        self.count.fetch_add(live.len(), Relaxed);
        self.count.fetch_sub(known.map_or(0, |marks| marks.used.load(Relaxed)), Relaxed);
        self.slots[slot].store(Some(Arc::clone(&marks)));
        marks
    }
}

impl Marks {
    fn with_places(places: usize) -> Self {
        let places = places.max(FIRST_PLACES);
        Self { places: (0..places).map(|_| Place::default()).collect(), used: AtomicUsize::new(0) }
    }

    /// One in four places stays free, so that each search ends.
    fn has_room(&self) -> bool {
        self.used.load(Relaxed) < self.places.len() / 4 * 3
    }

    fn find(&self, key: u64) -> Option<&Place> {
        for place in self.along_from(key) {
            // With the key comes the mark that was stored before it.
            match place.key.load(Acquire) {
                known if known == key => return Some(place),
                0 => return None,
                _ => {}
            }
        }
        None
    }

    fn add(&self, key: u64, marks: [u64; 2]) {
        let free = self.along_from(key).find(|place| place.key.load(Relaxed) == 0);
        let place = free.expect("room is made before");
        place.marks.iter().zip(marks).for_each(|(place, mark)| place.store(mark, Relaxed));
        place.key.store(key, Release);
        self.used.fetch_add(1, Relaxed);
    }

    fn along_from(&self, key: u64) -> impl Iterator<Item = &Place> {
        // All bits of a fingerprint are equally random; its slot is made of all of them.
        let home = (key >> 16) as usize & (self.places.len() - 1);
        self.places[home..].iter().chain(&self.places[..home])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> KeyHash {
        KeyHash::from_raw(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    const ONE: [Side; 1] = [Side::Successor];

    #[test]
    fn marks_grow_are_found_and_go_when_they_are_over() {
        let known = Acknowledged::default();
        let now = Nanos::new(1_000_000);
        let mark = |n: u64| Mark::new(5_000_000 + n);
        for n in 1..=1_000 {
            assert!(known.note(7, key(n), Side::Successor, mark(n), now));
            assert!(known.note(7, key(n), Side::Successor, mark(n - 1), now), "never back");
        }
        assert_eq!(known.count(), 1_000);
        assert!((1..=1_000).all(|n| known.get(7, key(n), &ONE) == Some(mark(n))));
        assert_eq!((known.get(7, key(1_001), &ONE), known.get(8, key(1), &ONE)), (None, None));
        // Enough of others, when all of the first are over: their places are used again.
        let later = Nanos::new(10_000_000);
        (2_000..4_000)
            .for_each(|n| assert!(known.note(7, key(n), Side::Successor, Mark::new(90_000_000), later)));
        assert_eq!(known.get(7, key(1), &ONE), None);
        assert!(known.count() < 3_000);
        known.clear(7, Side::Successor);
        assert_eq!((known.count(), known.get(7, key(2_000), &ONE)), (0, None));
    }

    #[test]
    fn what_one_side_alone_has_acknowledged_does_not_count_for_both() {
        let known = Acknowledged::default();
        let now = Nanos::new(1_000_000);
        let [low, high] = [5_000_000, 6_000_000].map(Mark::new);
        known.note(3, key(1), Side::Disk, high, now);
        assert_eq!(known.get(3, key(1), &[Side::Disk]), Some(high));
        assert_eq!(known.get(3, key(1), &Side::ALL), Some(Mark::default()));
        known.note(3, key(1), Side::Successor, low, now);
        assert_eq!(known.get(3, key(1), &Side::ALL), Some(low));
        // One that is over at one side stays for the other.
        known.clear(3, Side::Disk);
        assert_eq!(known.get(3, key(1), &Side::ALL), Some(Mark::default()));
        assert_eq!((known.get(3, key(1), &ONE), known.count()), (Some(low), 1));
        known.clear(3, Side::Successor);
        assert_eq!((known.get(3, key(1), &ONE), known.count()), (None, 0));
    }
}
