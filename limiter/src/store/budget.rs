//! How the memory of a store is laid out.

use super::table::LINE_SLOTS;

/// Bytes of one bucket in a table: fingerprint and state.
const SLOT_BYTES: usize = size_of::<(u64, u64)>();
/// Tables and what belongs to a shard, about.
const SHARD_BYTES: usize = 512;

/// Of the budget, tables get five eighths, logs one, and the sketch what is left.
const TABLES: (usize, usize) = (5, 8);
const LOGS: (usize, usize) = (1, 8);

/// Memory of one shard, and of all, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) shards: usize,
    /// Slots of a shard's table when it may grow no further; whole lines.
    pub(super) max_slots: usize,
    /// Cells of a row of a shard's sketch; a power of two.
    pub(super) sketch_cells: usize,
    /// Bytes of the logs of all shards.
    pub(super) log_bytes: usize,
}

impl Budget {
    /// Rows of the sketch have sizes of powers of two, so up to half of its part can be left: that is not used.
    pub(super) fn new(max_memory: usize, shards: usize) -> Self {
        let shards = shards.next_power_of_two().max(2);
        let memory = max_memory.saturating_sub(shards * SHARD_BYTES);
        let slots = memory / TABLES.1 * TABLES.0 / shards / SLOT_BYTES;
        let max_slots = (slots / LINE_SLOTS * LINE_SLOTS).max(MIN_SLOTS);
        let log_bytes = memory / LOGS.1 * LOGS.0;
        let rest = memory.saturating_sub(log_bytes).saturating_sub(shards * table_bytes(max_slots));
        let cells = rest / shards / (super::sketch::ROWS * size_of::<u64>());
        let sketch_cells = 1 << cells.max(MIN_CELLS).ilog2();
        Self { shards, max_slots, sketch_cells, log_bytes }
    }
}

const MIN_SLOTS: usize = 16;
const MIN_CELLS: usize = 16;

/// Buckets that a table of `slots` slots takes: four fifths of them. Then nearly all are found in the line to which they
/// belong, or the next.
pub(super) fn capacity(slots: usize) -> usize {
    slots / 5 * 4
}

pub(super) fn table_bytes(slots: usize) -> usize {
    slots * SLOT_BYTES
}

/// Slots of a table that `buckets` buckets fill by three fifths: the next step of growth is a third away.
pub(super) fn slots_for(buckets: usize) -> usize {
    (buckets * 5 / 3).next_multiple_of(LINE_SLOTS).max(MIN_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_stay_in_the_budget() {
        for max_memory in [1 << 20, 10_000_000, 256 << 20, 300_000_000, 1 << 30, 16 << 30] {
            for shards in [2, 16, 64, 1024] {
                let budget = Budget::new(max_memory, shards);
                let sketch = budget.sketch_cells * super::super::sketch::ROWS * 8;
                let all = shards * (table_bytes(budget.max_slots) + sketch + SHARD_BYTES) + budget.log_bytes;
                assert!(all <= max_memory || budget.sketch_cells == MIN_CELLS, "{all} of {max_memory}");
                assert!(all * 2 > max_memory, "{all} of {max_memory}");
            }
        }
    }
}
