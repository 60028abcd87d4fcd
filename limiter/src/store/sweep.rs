//! Making room: removing buckets that know of nothing, in small steps, and folding others into the sketch.

use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use sdd::{Guard, Shared, Tag};

use super::{
    Store, budget,
    locked::{Locked, bytes_of},
    sketch::Sketch,
    table::{TAKEN, Table},
};
use crate::{Nanos, time::TICKS_PER_NANO};

/// Buckets that one call of [`Store::sweep`] looks at, about.
const SWEEP_STEPS: usize = 8_192;

/// Room for buckets that know of nothing takes at most this part of the memory.
const IDLE_PART: usize = 4;
/// A bucket that has been full again for less than this (a second, in ticks) is not swept: where a limit refills quickly it
/// is probably in use, and each sweep would only make the next check add it again. A full table removes it all the same.
const LINGER: u64 = 1_000_000_000 * TICKS_PER_NANO;
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
    /// Removes some buckets that have been full again for a second and gives their memory back, and closes some holds whose
    /// deadline has passed; each call goes on where the last one ended.
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
            let mut locked = self.lock_number(number);
            let now = self.not_before(now);
            if locked.shard.is_worth_a_look(now.saturating_sub(LINGER)) {
                swept.looked_at += locked.shard.buckets;
                swept.removed += locked.remove_idle(now);
            }
            let looked_at = locked.sweep_logs(now);
            swept.looked_at += looked_at.looked_at + 1;
            swept.removed += looked_at.removed;
            if swept.looked_at >= steps {
                break;
            }
        }
        swept
    }
}

/// Epochs after which what was retired in the first one is freed.
const EPOCHS: usize = 4;

/// Frees tables that were given up and that nobody reads any more, now rather than hundreds of checks later: whoever grows
/// next finds their memory free. While a thread is in the middle of a check, it may come later.
fn free_retired() {
    for _ in 0..EPOCHS {
        Guard::new().accelerate();
    }
}

impl Locked<'_> {
    fn remove_idle(&mut self, now: u64) -> usize {
        let (table, gone) = (self.table.clone(), now.saturating_sub(LINGER));
        // Those whose state a journal keeps are looked at when others are removed.
        let (idle, soonest) = table.states().fold((false, u64::MAX), |(idle, soonest), state| {
            (idle || (state <= gone && state != TAKEN), soonest.min(state))
        });
        if idle || soonest == TAKEN {
            return self.make_room(0, gone, now);
        }
        self.shard.settle(soonest);
        0
    }

    /// Moves all buckets that know of something after `gone`, which is now or earlier, to a new table, as large as they and
    /// `more` need. If there would be no room, those that need the table for the shortest time go into the sketch. Returns
    /// how many were removed.
    pub(super) fn make_room(&mut self, more: usize, gone: u64, now: u64) -> usize {
        // Before any is removed: nobody may decide about those as if it were earlier.
        self.store.earliest.fetch_max(now, Relaxed);
        let (before, old) = (self.shard.buckets, self.table.clone());
        let mut busy: Vec<(u64, u64)> = Vec::with_capacity(before);
        for (key, state) in old.drain() {
            let state = if state == TAKEN { self.kept_state(key) } else { state };
            if state > gone {
                busy.push((key, state));
            }
        }
        let max_slots = self.store.budget.max_slots;
        let most = budget::capacity(max_slots) / 8 * 7;
        if busy.len() > most {
            busy.retain(|(_, state)| *state > now);
        }
        if busy.len() > most {
            let leave = busy.len() - most;
            busy.select_nth_unstable_by_key(leave, |(_, state)| *state);
            busy.drain(..leave).for_each(|(key, state)| self.fold(key, state));
        }
        let wanted = (busy.len() + more).max(if more > 0 { self.lively(before) } else { 0 });
        let slots = if wanted == 0 { 0 } else { budget::slots_for(wanted).min(max_slots) };
        let table = Table::with_slots(slots);
        let mut soonest = u64::MAX;
        for (key, state) in &busy {
            soonest = soonest.min(*state);
            table.add(*key, self.keep(*key, *state));
        }
        let kept = busy.len();
        self.shard.buckets = kept;
        self.shard.settle(soonest);
        self.store.table_bytes.fetch_add(budget::table_bytes(table.slots()), Relaxed);
        self.store.table_bytes.fetch_sub(budget::table_bytes(old.slots()), Relaxed);
        self.table = Shared::new(table);
        self.store.hints[self.number].set(&self.table);
        let retired = self.store.tables[self.number].swap((Some(self.table.clone()), Tag::None), AcqRel);
        drop((busy, old, retired.0));
        free_retired();
        before - kept
    }

    /// For how many buckets there is to be room, when a table with so many is full. Those that are full again were used since
    /// the table was made, or last swept, and probably will be again: a table that is made for the others only would soon be
    /// full once more, and each bucket be added again and again. But a flood of keys that nobody uses twice looks the same,
    /// so that goes only up to a part of the budget.
    fn lively(&self, buckets: usize) -> usize {
        (buckets + 1).min(budget::capacity(self.store.budget.max_slots) / IDLE_PART)
    }

    fn fold(&mut self, key: u64, state: u64) {
        let store = self.store;
        let sketch = self.shard.sketch.get_or_insert_with(|| {
            let sketch = Sketch::new(store.budget.sketch_cells);
            store.sketch_bytes.fetch_add(sketch.bytes(), Relaxed);
            sketch
        });
        sketch.raise(key, state);
        store.folded.fetch_add(1, Relaxed);
        // What is in the sketch can not be lowered.
        self.forget_journal(key);
    }

    /// Frees memory of logs: of those that remember nothing, and if none does, of the one of `key`.
    pub(super) fn shed_logs(&mut self, key: u64, now: u64) {
        if self.remove_idle_logs(now) > 0 {
            return;
        }
        if let Some(log) = self.shard.logs.remove(&key) {
            self.store.log_bytes.fetch_sub(bytes_of(&log), Relaxed);
            self.fold(key, log.busy_until());
        }
    }

    fn sweep_logs(&mut self, now: u64) -> Swept {
        if self.shard.logs.is_empty() {
            return Swept::default();
        }
        let looked_at = self.shard.logs.len();
        Swept { looked_at, removed: self.remove_idle_logs(now) }
    }

    fn remove_idle_logs(&mut self, now: u64) -> usize {
        // As in `make_room`.
        self.store.earliest.fetch_max(now, Relaxed);
        let logs = &mut self.shard.logs;
        let before = logs.len();
        let mut freed = 0;
        logs.retain(|_, log| {
            let busy = log.busy_until() > now;
            freed += if busy { 0 } else { bytes_of(log) };
            busy
        });
        let removed = before - logs.len();
        if removed > 0 && logs.capacity() > 4 * logs.len().max(16) {
            logs.shrink_to_fit();
        }
        self.store.log_bytes.fetch_sub(freed, Relaxed);
        removed
    }
}
