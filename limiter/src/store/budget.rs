//! How the memory of a store is laid out.

/// Bytes of one bucket in a table: fingerprint, state and a control byte.
const SLOT_BYTES: usize = size_of::<(u64, u64)>() + 1;
/// A table ends with a copy of its first control bytes.
const TAIL_BYTES: usize = 16;
/// Tables and what belongs to a shard, about.
const SHARD_BYTES: usize = 512;

/// Of the budget, tables get at most three quarters, logs an eighth, and the sketch what is left.
const TABLES: (usize, usize) = (3, 4);
const LOGS: (usize, usize) = (1, 8);

/// Memory of one shard, and of all, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) shards: usize,
    /// Slots of a shard's table when it may grow no further; a power of two.
    pub(super) max_slots: usize,
    /// Cells of a row of a shard's sketch; a power of two.
    pub(super) sketch_cells: usize,
    /// Bytes of the logs of all shards.
    pub(super) log_bytes: usize,
}

impl Budget {
    /// Tables have sizes of powers of two, so up to half of their part can be left: the sketch gets that.
    pub(super) fn new(max_memory: usize, shards: usize) -> Self {
        let shards = shards.next_power_of_two().max(2);
        let memory = max_memory.saturating_sub(shards * SHARD_BYTES);
        let slots = memory / TABLES.1 * TABLES.0 / shards / SLOT_BYTES;
        let max_slots = (1 << slots.max(1).ilog2()).max(MIN_SLOTS);
        let log_bytes = memory / LOGS.1 * LOGS.0;
        let rest = memory.saturating_sub(log_bytes).saturating_sub(shards * table_bytes(max_slots));
        let cells = rest / shards / (super::sketch::ROWS * size_of::<u64>());
        let sketch_cells = 1 << cells.max(MIN_CELLS).ilog2();
        Self { shards, max_slots, sketch_cells, log_bytes }
    }
}

const MIN_SLOTS: usize = 16;
const MIN_CELLS: usize = 16;

/// Buckets that a table of `slots` slots takes: seven eighths of them, as hashbrown has it.
pub(super) fn capacity(slots: usize) -> usize {
    slots / 8 * 7
}

pub(super) fn table_bytes(slots: usize) -> usize {
    if slots <= 1 { 0 } else { slots * SLOT_BYTES + TAIL_BYTES }
}

/// Slots of a table that `buckets` buckets fill by at most three quarters, so that a next step of growth is far enough.
pub(super) fn slots_for(buckets: usize) -> usize {
    (buckets + buckets / 3).next_power_of_two().max(MIN_SLOTS)
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
                assert!(all <= max_memory || budget.max_slots == MIN_SLOTS, "{all} of {max_memory}");
                assert!(all * 2 > max_memory, "{all} of {max_memory}");
            }
        }
    }
}
