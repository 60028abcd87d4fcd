//! States of more buckets than there is memory for: a count-min sketch of maxima.
//!
//! Four rows of cells; a state raises one cell in each row to itself, an estimate is the least of the four. It is never
//! below the true state, so that a bucket in the sketch is at most stricter than it should be. Cells need no clearing:
//! a state in the past means a full bucket.
//! (Cormode, Muthukrishnan: "An improved data stream summary", 2005, with max for sum.)

use std::sync::atomic::{AtomicU64, Ordering};

use crate::KeyHash;

const ROWS: usize = 4;
/// Odd multipliers, one for each row.
const MIXERS: [u64; ROWS] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xd6e8_feb8_6659_fd93];

#[derive(Debug)]
pub(super) struct Sketch {
    cells: Box<[AtomicU64]>,
    /// Cells in a row: 2 to this power.
    width_log2: u32,
    folded: AtomicU64,
}

impl Sketch {
    /// As large as fits `bytes`, at least 64 cells a row.
    pub(super) fn new(bytes: usize) -> Self {
        let width_log2 = (bytes / (ROWS * size_of::<AtomicU64>())).max(64).ilog2();
        let cells = (0..ROWS << width_log2).map(|_| AtomicU64::new(0)).collect();
        Self { cells, width_log2, folded: AtomicU64::new(0) }
    }

    pub(super) fn raise(&self, key: KeyHash, state: u64) {
        self.folded.fetch_add(1, Ordering::Relaxed);
        for cell in self.cells_of(key) {
            cell.fetch_max(state, Ordering::Relaxed);
        }
    }

    pub(super) fn estimate(&self, key: KeyHash) -> u64 {
        self.cells_of(key).map(|cell| cell.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }

    pub(super) fn folded(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    fn cells_of(&self, key: KeyHash) -> impl Iterator<Item = &AtomicU64> {
        MIXERS.iter().enumerate().map(move |(row, mixer)| {
            let place = key.get().wrapping_mul(*mixer) >> (64 - self.width_log2);
            &self.cells[(row << self.width_log2) + place as usize]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_never_below_the_state() {
        let sketch = Sketch::new(1 << 14);
        let key = |n: u64| KeyHash::from_raw(n.wrapping_mul(0x2545_f491_4f6c_dd1d));
        (1..2_000).for_each(|n| sketch.raise(key(n), n));
        assert!((1..2_000).all(|n| sketch.estimate(key(n)) >= n));
        let exact = (1..2_000).filter(|n| sketch.estimate(key(*n)) == *n).count();
        assert!(exact > 200, "{exact} of 2,000 exact in 4 x 512 cells");
        assert_eq!((sketch.bytes(), sketch.folded()), (1 << 14, 1_999));
    }
}
