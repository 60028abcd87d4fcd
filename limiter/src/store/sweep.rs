//! Making room: removing buckets that know of nothing, in small steps, and folding others into the sketch.

use std::sync::atomic::Ordering::Relaxed;

use super::{Shard, Store, budget, charging::bytes_of, shard::Rare, sketch::Sketch, table};
use crate::Nanos;

/// Buckets that one call of [`Store::sweep`] looks at, about.
const SWEEP_STEPS: usize = 8_192;

/// Holds past their deadline that one call of [`Store::sweep`] closes: some ten microseconds.
const SWEEP_HOLDS: usize = 256;

/// What one call of [`Store::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Buckets that were looked at.
    pub looked_at: usize,
    /// Buckets that were removed, because they knew of nothing any more.
    pub removed: usize,
}

impl Store {
    /// Removes some buckets that are full again and gives their memory back, and closes some holds whose deadline has
    /// passed; each call goes on where the last one ended.
    /// One shard is locked at a time. Call it often, e.g. each 10 ms, from a thread that serves nobody. Without it nothing
    /// is wrong: memory stays taken until a table is full, and that one is swept then.
    pub fn sweep(&self, now: Nanos) -> Swept {
        self.sweep_some(now, SWEEP_STEPS)
    }

    /// As [`Store::sweep`]. It ends after the shard in which `steps` buckets have been looked at, or after one round.
    pub fn sweep_some(&self, now: Nanos, steps: usize) -> Swept {
        self.close_expired(now, SWEEP_HOLDS);
        let mut swept = Swept::default();
        for _ in 0..self.budget.shards {
            let number = self.cursor.fetch_add(1, Relaxed) % self.budget.shards;
            let mut shard = self.lock_number(number);
            let now = self.not_before(now);
            let buckets = shard.len();
            if buckets > 0 && self.beside[number].is_worth_a_look(buckets, now) {
                swept.looked_at += buckets;
                swept.removed += self.make_room(number, &mut shard, 0, now);
            }
            let looked_at = self.sweep_logs(number, now);
            swept.looked_at += looked_at.looked_at + 1;
            swept.removed += looked_at.removed;
            if swept.looked_at >= steps {
                break;
            }
        }
        swept
    }

    /// Makes the table of a shard as large as its buckets and `more` need. Returns how many were removed.
    pub(super) fn make_room(&self, number: usize, shard: &mut Shard<'_>, more: usize, now: u64) -> usize {
        // Before any is removed: nobody may decide about those as if it were earlier.
        self.earliest.fetch_max(now, Relaxed);
        let beside = &self.beside[number];
        let bytes = budget::table_bytes(shard.buckets());
        let rebuilt = table::rebuild(shard, more, self.budget.max_slots, now, |key, state| {
            self.fold(&mut beside.rare(), number, key, state);
        });
        beside.settle(rebuilt.soonest, shard.len());
        self.table_bytes.fetch_add(budget::table_bytes(shard.buckets()), Relaxed);
        self.table_bytes.fetch_sub(bytes, Relaxed);
        rebuilt.removed
    }

    fn fold(&self, rare: &mut Rare, number: usize, key: u64, state: u64) {
        let sketch = rare.sketch.get_or_insert_with(|| {
            let sketch = Sketch::new(self.budget.sketch_cells);
            self.sketch_bytes.fetch_add(sketch.bytes(), Relaxed);
            self.marks[number].set_folds();
            sketch
        });
        sketch.raise(key, state);
        self.folded.fetch_add(1, Relaxed);
        // What is in the sketch can not be lowered.
        if rare.journals.remove(&key).is_some() {
            self.marks[number].set_journals(!rare.journals.is_empty());
        }
    }

    /// Frees memory of logs: of those that remember nothing, and if none does, of the one of `key`.
    pub(super) fn shed_logs(&self, rare: &mut Rare, number: usize, key: u64, now: u64) {
        if self.remove_idle_logs(rare, now) > 0 {
            return;
        }
        if let Some(log) = rare.logs.remove(&key) {
            self.log_bytes.fetch_sub(bytes_of(&log), Relaxed);
            self.fold(rare, number, key, log.busy_until());
        }
    }

    fn sweep_logs(&self, number: usize, now: u64) -> Swept {
        let mut rare = self.beside[number].rare();
        if rare.logs.is_empty() {
            return Swept::default();
        }
        let looked_at = rare.logs.len();
        Swept { looked_at, removed: self.remove_idle_logs(&mut rare, now) }
    }

    fn remove_idle_logs(&self, rare: &mut Rare, now: u64) -> usize {
        // Before any is removed: nobody may decide about those as if it were earlier.
        self.earliest.fetch_max(now, Relaxed);
        let before = rare.logs.len();
        let mut freed = 0;
        rare.logs.retain(|_, log| {
            let busy = log.busy_until() > now;
            freed += if busy { 0 } else { bytes_of(log) };
            busy
        });
        self.log_bytes.fetch_sub(freed, Relaxed);
        let removed = before - rare.logs.len();
        if removed > 0 && rare.logs.capacity() > 4 * rare.logs.len().max(16) {
            rare.logs.shrink_to_fit();
        }
        removed
    }
}
