//! How far the successor of each slot has acknowledged its buckets, where checks read it: without a lock.
//!
//! A table for each slot: 16 bytes a bucket, about half of the places used. One task at a time writes, with a lock; marks only
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

/// Buckets of which marks are kept, of all slots: 32 MiB when all places are taken.
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

/// A fingerprint (0: none yet) and a mark.
#[derive(Debug, Default)]
struct Place {
    key: AtomicU64,
    mark: AtomicU64,
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
    /// How far a bucket of the slot is acknowledged.
    pub(crate) fn get(&self, slot: usize, key: KeyHash) -> Option<Mark> {
        let marks = self.slots[slot].load();
        let place = marks.as_ref()?.find(key.get().max(1))?;
        Some(Mark::new(place.mark.load(Relaxed)))
    }

    /// Notes that a bucket is acknowledged that far. False: there is no room.
    pub(crate) fn note(&self, slot: usize, key: KeyHash, mark: Mark, now: Nanos) -> bool {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key.get().max(1);
        let known = self.slots[slot].load_full();
        if let Some(place) = known.as_ref().and_then(|marks| marks.find(key)) {
            place.mark.fetch_max(mark.get(), Relaxed);
            return true;
        }
        if self.count.load(Relaxed) >= MAX_MARKS {
            return false;
        }
        let marks = match known {
            Some(marks) if marks.has_room() => marks,
            known => self.replace(slot, known.as_deref(), now),
        };
        marks.add(key, mark.get());
        self.count.fetch_add(1, Relaxed);
        true
    }

    /// Forgets all marks of a slot.
    pub(crate) fn clear(&self, slot: usize) {
        let _one = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = self.slots[slot].swap(None);
        self.count.fetch_sub(marks.map_or(0, |marks| marks.used.load(Relaxed)), Relaxed);
    }

    /// How many marks there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// A larger table, or as large a one without those that are over.
    fn replace(&self, slot: usize, known: Option<&Marks>, now: Nanos) -> Arc<Marks> {
        let places = known.map_or(&[][..], |marks| &marks.places);
        let all = places.iter().map(|place| (place.key.load(Relaxed), place.mark.load(Relaxed)));
        let live: Vec<(u64, u64)> =
            all.filter(|(key, mark)| *key != 0 && !Mark::new(*mark).is_over(now)).collect();
        let marks = Arc::new(Marks::with_places(((live.len() + 1) * 2).next_power_of_two()));
        live.iter().for_each(|(key, mark)| marks.add(*key, *mark));
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

    fn add(&self, key: u64, mark: u64) {
        let free = self.along_from(key).find(|place| place.key.load(Relaxed) == 0);
        let place = free.expect("room is made before");
        place.mark.store(mark, Relaxed);
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

    #[test]
    fn marks_grow_are_found_and_go_when_they_are_over() {
        let known = Acknowledged::default();
        let now = Nanos::new(1_000_000);
        let mark = |n: u64| Mark::new(5_000_000 + n);
        for n in 1..=1_000 {
            assert!(known.note(7, key(n), mark(n), now));
            assert!(known.note(7, key(n), mark(n - 1), now), "never back");
        }
        assert_eq!(known.count(), 1_000);
        assert!((1..=1_000).all(|n| known.get(7, key(n)) == Some(mark(n))));
        assert_eq!((known.get(7, key(1_001)), known.get(8, key(1))), (None, None));
        // Enough of others, when all of the first are over: their places are used again.
        let later = Nanos::new(10_000_000);
        (2_000..4_000).for_each(|n| assert!(known.note(7, key(n), Mark::new(90_000_000), later)));
        assert_eq!(known.get(7, key(1)), None);
        assert!(known.count() < 3_000);
        known.clear(7);
        assert_eq!((known.count(), known.get(7, key(2_000))), (0, None));
    }
}
