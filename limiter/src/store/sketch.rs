//! States of more buckets than there is memory for: a count-min sketch of maxima.
//!
//! Four rows of cells; a state raises one cell in each row to itself, an estimate is the least of the four. It is never
//! below the true state, so a bucket in the sketch is at most stricter than it should be. Cells need no clearing: a state
//! in the past means a bucket that knows of nothing.
//! (Cormode, Muthukrishnan: "An improved data stream summary", 2005, with max for sum.)

pub(super) const ROWS: usize = 4;
/// Odd multipliers, one for each row.
const MIXERS: [u64; ROWS] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xd6e8_feb8_6659_fd93];

/// The sketch of one shard; what locks the shard locks it.
#[derive(Debug)]
pub(super) struct Sketch {
    cells: Box<[u64]>,
    /// Cells in a row: 2 to this power.
    width_log2: u32,
    latest: u64,
}

impl Sketch {
    /// `cells` in a row, a power of two above 1. Zeroed memory: it takes RAM only where it is used.
    pub(super) fn new(cells: usize) -> Self {
        Self { cells: vec![0; ROWS * cells].into(), width_log2: cells.ilog2(), latest: 0 }
    }

    /// The latest state that went in.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    pub(super) fn raise(&mut self, key: u64, state: u64) {
        self.latest = self.latest.max(state);
        for row in 0..ROWS {
            let place = self.place(row, key);
            self.cells[place] = self.cells[place].max(state);
        }
    }

    pub(super) fn estimate(&self, key: u64) -> u64 {
        (0..ROWS).map(|row| self.cells[self.place(row, key)]).min().unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
    }

    fn place(&self, row: usize, key: u64) -> usize {
        let mixed = (key ^ (key >> 32)).wrapping_mul(MIXERS[row]);
        (row << self.width_log2) + (mixed >> (64 - self.width_log2)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_never_below_the_state() {
        let mut sketch = Sketch::new(512);
        let key = |n: u64| n.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (1..2_000).for_each(|n| sketch.raise(key(n), n));
        assert!((1..2_000).all(|n| sketch.estimate(key(n)) >= n));
        let exact = (1..2_000).filter(|n| sketch.estimate(key(*n)) == *n).count();
        assert!(exact > 200, "{exact} of 2,000 exact in 4 x 512 cells");
        assert_eq!(sketch.bytes(), 1 << 14);
    }
}
