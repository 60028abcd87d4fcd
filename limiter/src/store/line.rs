//! A cache line of a table: four buckets, each a key and a state. `table.rs` says what may change them.

use std::sync::atomic::AtomicU64;
#[cfg(test)]
use std::sync::atomic::Ordering::Relaxed;

/// No state: it is elsewhere. A bucket that knows of nothing has [`LONG_AGO`].
pub(super) const TAKEN: u64 = 0;
/// No state either: the bucket is that of a limit that is not in force any more (`former.rs`).
pub(super) const MOVED: u64 = 1;
/// The earliest state.
pub(super) const LONG_AGO: u64 = 2;
/// No key.
pub(super) const FREE: u64 = 0;

/// Slots of a cache line.
pub(super) const LINE_SLOTS: usize = 4;

/// Four slots that a processor fetches at once.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [Slot; LINE_SLOTS]);

#[cfg(test)]
impl Line {
    pub(super) fn is_free(&self) -> bool {
        self.0.iter().all(|slot| slot.key.load(Relaxed) == FREE && slot.state.load(Relaxed) == TAKEN)
    }
}

const _: () = assert!(size_of::<Line>() == 64);

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) key: AtomicU64,
    pub(super) state: AtomicU64,
}
