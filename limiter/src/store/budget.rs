//! How the memory of a store is laid out.

use super::{class::MAX_CLASS_BITS, holds::Most, line::LINE_SLOTS};

/// Bytes of one bucket in a table: fingerprint and state.
const SLOT_BYTES: usize = size_of::<(u64, u64)>();
/// Tables and what belongs to a shard, about.
const SHARD_BYTES: usize = 512;

/// Of the budget, tables get eleven sixteenths and logs two. Two more are for logs as well: those of one class go beyond, until
/// what others have too many of is let go. The rest is for what is there twice for a moment: a table that is made anew, and one
/// that was given up but may still be read.
const TABLES: (usize, usize) = (11, 16);
const LOGS: (usize, usize) = (2, 16);

/// What can be undone has this part of the budget, before all else, and no more than that.
const UNDO: usize = 32;
const MAX_UNDO_BYTES: usize = 32 << 20;
/// A charge that can be undone: its bucket's journal, for the most part (`journal.rs`), where it is the only one of its bucket.
const CHARGE_BYTES: usize = 512;
/// A hold in the order of their making, closed or not.
const HOLD_BYTES: usize = 16;
const MAX_HOLDS: usize = 1 << 16;

/// Memory of one shard, and of all, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) shards: usize,
    /// The upper bits of a fingerprint that its place in a shard's table says already: there the class stands.
    pub(super) class_bits: u32,
    /// Slots of a shard's table when it may grow no further; whole lines.
    pub(super) max_slots: usize,
    /// Bytes of the logs of all shards.
    pub(super) log_bytes: usize,
    pub(super) holds: Most,
}

impl Budget {
    pub(super) fn new(max_memory: usize, shards: usize) -> Self {
        let shards = shards.next_power_of_two().max(MIN_SHARDS);
        let undo = (max_memory / UNDO).min(MAX_UNDO_BYTES);
        let holds = (undo / CHARGE_BYTES).clamp(MIN_HOLDS, MAX_HOLDS);
        // Most are closed long before their deadline.
        let holds = Most { holds: (holds * 4).min(MAX_HOLDS), charges: holds };
        let memory = max_memory.saturating_sub(shards * SHARD_BYTES + undo + holds.holds * HOLD_BYTES);
        let slots = memory / TABLES.1 * TABLES.0 / shards / SLOT_BYTES;
        let max_slots = (slots / LINE_SLOTS * LINE_SLOTS).max(MIN_SLOTS);
        let log_bytes = memory / LOGS.1 * LOGS.0;
        Self { shards, class_bits: shards.ilog2().min(MAX_CLASS_BITS), max_slots, log_bytes, holds }
    }
}

const MIN_HOLDS: usize = 64;
const MIN_SLOTS: usize = 16;
/// So that there are some classes.
const MIN_SHARDS: usize = 16;

/// Buckets that a table of `slots` slots takes: four fifths of them. Then nearly all are found in the line to which they
/// belong, or the next.
pub(super) fn capacity(slots: usize) -> usize {
    slots / 5 * 4
}

/// Slots of a table that `buckets` buckets fill by three fifths: the next step of growth is a third away.
pub(super) fn slots_for(buckets: usize) -> usize {
    (buckets * 5 / 3).next_multiple_of(LINE_SLOTS).max(MIN_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_charges_can_be_undone_as_the_documentation_says() {
        // What a node has for the buckets that it owns, of 256 MiB: an eighth is for shares.
        assert_eq!(Budget::new((256 << 20) / 8 * 7, 1024).holds.charges, 14_336);
        let most = Budget::new(16 << 30, 1024).holds;
        assert_eq!(most.charges * CHARGE_BYTES, 32 << 20);
    }

    #[test]
    fn all_parts_together_stay_in_the_budget() {
        for max_memory in [1 << 20, 10_000_000, 256 << 20, 300_000_000, 1 << 30, 16 << 30] {
            for shards in [2, 16, 64, 1024] {
                let budget = Budget::new(max_memory, shards);
                let undo = budget.holds.charges * CHARGE_BYTES + budget.holds.holds * HOLD_BYTES;
                let all = budget.shards * (budget.max_slots * SLOT_BYTES + SHARD_BYTES)
                    + 2 * budget.log_bytes
                    + undo;
                assert!(all <= max_memory, "{all} of {max_memory}");
                assert!(all * 8 > max_memory * 7 || max_memory <= 1 << 20, "{all} of {max_memory}");
            }
        }
    }
}
