//! What a shard has beside its table: the rare things.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{journal::Journal, sketch::Sketch, table::Unhashed};
use crate::algorithm::log::Log;

/// What is beside the table of a shard, in so few bytes that those of all shards are always at hand.
#[derive(Debug, Default)]
pub(super) struct Marks(AtomicU8);

const FOLDS: u8 = 1;
const JOURNALS: u8 = 2;

impl Marks {
    /// There is a sketch.
    pub(super) fn folds(&self) -> bool {
        self.0.load(Relaxed) & FOLDS != 0
    }

    pub(super) fn set_folds(&self) {
        self.0.fetch_or(FOLDS, Relaxed);
    }

    /// There are journals.
    pub(super) fn journals(&self) -> bool {
        self.0.load(Relaxed) & JOURNALS != 0
    }

    pub(super) fn set_journals(&self, any: bool) {
        if any {
            self.0.fetch_or(JOURNALS, Relaxed);
        } else {
            self.0.fetch_and(!JOURNALS, Relaxed);
        }
    }
}

/// Beside the table of a shard. All of it is only touched by who holds the table's lock, so the mutex is never waited
/// for, and the marks that spare it need no order of their own.
#[derive(Debug)]
pub(super) struct Beside {
    rare: Mutex<Rare>,
    /// When the table was last rebuilt: the soonest that a bucket knew of nothing, and how many there were.
    soonest: AtomicU64,
    settled: AtomicUsize,
}

/// What few shards have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) sketch: Option<Sketch>,
    pub(super) logs: HashMap<u64, Log, Unhashed>,
    pub(super) journals: HashMap<u64, Journal, Unhashed>,
}

impl Default for Beside {
    fn default() -> Self {
        Self { rare: Mutex::default(), soonest: AtomicU64::new(u64::MAX), settled: AtomicUsize::new(0) }
    }
}

impl Beside {
    pub(super) fn rare(&self) -> MutexGuard<'_, Rare> {
        // Nothing in here is left half done by a panic.
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settle(&self, soonest: u64, buckets: usize) {
        self.soonest.store(soonest, Relaxed);
        self.settled.store(buckets, Relaxed);
    }

    /// Whether looking at all buckets of the table could find one that knows of nothing.
    pub(super) fn is_worth_a_look(&self, buckets: usize, now: u64) -> bool {
        self.soonest.load(Relaxed) <= now || self.settled.load(Relaxed) != buckets
    }
}
