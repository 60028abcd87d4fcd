//! Making room: removing buckets that know of nothing, in small steps, and letting go of others where that is not enough.
//!
//! Room is shared out by class, that is by rule (`classes.rs`): while those of one class are no more than its part, nothing that
//! other classes do takes one of them away. A class that has more lets go of its own, those first that are used the least: an
//! exhausted bucket is the last that is let go, and to have it let go others of its rule must be used as far.

use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use sdd::{Guard, Shared, Tag};

use super::{
    Store, budget,
    classes::{self, Class},
    locked::{Locked, bytes_of},
    shard::KeptLog,
    table::{Entry, TAKEN},
};
use crate::{Nanos, time::TICKS_PER_NANO};

/// Buckets that one call of [`Store::sweep`] looks at, about.
const SWEEP_STEPS: usize = 8_192;

/// Room for buckets that know of nothing takes at most this part of the memory.
const IDLE_PART: usize = 4;
/// A bucket that has been full again for less than this (a second, in ticks) is not swept: where a limit refills quickly it
/// is probably in use, and each sweep would only make the next check add it again. A full table removes it all the same.
const LINGER: u64 = 1_000_000_000 * TICKS_PER_NANO;
/// A log with more entries is thinned out before it is let go: then it is a little stricter, and forgets nothing.
const THIN_BEYOND: usize = 64;
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
            if !self.classes.has_marks(now) {
                locked.shard.spared.clear();
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
    /// `more` need. If there would be no room, some are let go. Returns how many were removed.
    pub(super) fn make_room(&mut self, more: usize, gone: u64, now: u64) -> usize {
        // Before any is removed: nobody may decide about those as if it were earlier.
        self.store.earliest.fetch_max(now, Relaxed);
        let (before, old) = (self.shard.buckets, self.table.clone());
        let mut busy: Vec<Entry> = Vec::with_capacity(before);
        for entry in old.drain(self.upper()) {
            let state = if entry.state == TAKEN { self.kept_state(entry.key) } else { entry.state };
            if state > gone {
                busy.push(Entry { state, ..entry });
            }
        }
        let max_slots = self.store.budget.max_slots;
        let most = budget::capacity(max_slots) / 8 * 7;
        if busy.len() > most {
            busy.retain(|entry| entry.state > now);
        }
        if busy.len() > most {
            self.shed(&mut busy, most, now);
        }
        let wanted = (busy.len() + more).max(if more > 0 { self.lively(before) } else { 0 });
        let slots = if wanted == 0 { 0 } else { budget::slots_for(wanted).min(max_slots) };
        let table = self.store.new_table(slots);
        let mut soonest = u64::MAX;
        for entry in &busy {
            soonest = soonest.min(entry.state);
            table.add(Entry { state: self.keep(entry.key, entry.state), ..*entry });
        }
        let kept = busy.len();
        self.shard.buckets = kept;
        self.shard.settle(soonest);
        self.table = Shared::new(table);
        self.store.hints[self.number].set(&self.table);
        let retired = self.store.tables[self.number].swap((Some(self.table.clone()), Tag::None), AcqRel);
        drop((busy, old, retired.0));
        free_retired();
        before - kept
    }

    /// Lets go of buckets of those classes that have more than their part, until `most` are left.
    fn shed(&mut self, busy: &mut Vec<Entry>, most: usize, now: u64) {
        let mut counts = vec![0; self.store.classes.len()];
        busy.iter().for_each(|entry| counts[usize::from(entry.class)] += 1);
        let level = classes::level(counts.iter().copied(), most);
        for (class, count) in (0..).zip(counts).filter(|(_, count)| *count > level) {
            let of_class = |entry: &&Entry| entry.class == class;
            let mut states: Vec<u64> = busy.iter().filter(of_class).map(|entry| entry.state).collect();
            let (before, last, _) = states.select_nth_unstable(count - level - 1);
            let last = *last;
            // So many of those that are used as far as the last that has to go.
            let mut equals = count - level - before.iter().filter(|state| **state < last).count();
            busy.retain(|entry| {
                let stays = entry.class != class || entry.state > last || entry.state == last && equals == 0;
                if !stays {
                    equals -= usize::from(entry.state == last);
                    self.let_go(entry.key, class, entry.state, now);
                }
                stays
            });
        }
        debug_assert!(busy.len() <= most);
    }

    /// For how many buckets there is to be room, when a table with so many is full. Those that are full again were used since
    /// the table was made, or last swept, and probably will be again: a table that is made for the others only would soon be
    /// full once more, and each bucket be added again and again. But a flood of keys that nobody uses twice looks the same,
    /// so that goes only up to a part of the budget.
    fn lively(&self, buckets: usize) -> usize {
        (buckets + 1).min(budget::capacity(self.store.budget.max_slots) / IDLE_PART)
    }

    /// After the log of `key` has grown by so many bytes. Where there is no room for it, those classes that have more than their
    /// part let go of logs, but not at each charge: each time a batch goes, and the next look at the logs of this shard comes
    /// when they have grown by a part of what is left. So a new log pays for a look at some sixteen others, however many there are,
    /// and the logs of a flood go beyond their budget by about that part of it.
    pub(super) fn make_room_for_log(&mut self, key: u64, class: Class, grown: usize, now: u64) {
        if self.are_logs_over() && self.shard.are_logs_worth_a_look() {
            self.remove_idle_logs(now);
            self.shed_logs(Some((key, class, grown)), now);
            self.shard.settle_logs();
        }
    }

    fn are_logs_over(&self) -> bool {
        self.store.log_bytes.load(Relaxed) > self.store.budget.log_bytes
    }

    /// Lets go of logs of those classes that have more than their part, if all together have too much. `charged` is the log that
    /// was just charged, its class, and by how much it has grown.
    fn shed_logs(&mut self, charged: Option<(u64, Class, usize)>, now: u64) {
        if !self.are_logs_over() {
            return;
        }
        let level = self.store.classes.log_level(self.store.budget.log_bytes);
        let mut here: Vec<Class> = self.shard.logs.values().map(|kept| kept.class).collect();
        here.sort_unstable();
        here.dedup();
        here.retain(|class| self.store.classes.log_bytes(*class) > level);
        for class in here {
            let charged = charged.filter(|(_, of, _)| *of == class);
            let (but, grown) = charged.map_or((None, 0), |(key, _, grown)| (Some(key), grown));
            self.shed_logs_of(class, level, but, grown, now);
        }
    }

    /// Frees an eighth of what the logs of a class have in this shard, and as much as one of them has grown, if they have more
    /// than this shard's part of what the class may keep; those first that count the fewest units, and of
    /// these the ones that were charged the longest ago. The one of `but` stays: it has just been charged.
    fn shed_logs_of(&mut self, class: Class, level: usize, but: Option<u64>, grown: usize, now: u64) {
        let of_class = |(_, kept): &(&u64, &KeptLog)| kept.class == class;
        let mut own: Vec<(u64, u64, u64)> = Vec::new();
        let mut bytes = 0;
        for (key, KeptLog { log, .. }) in self.shard.logs.iter().filter(of_class) {
            bytes += bytes_of(log);
            own.push((log.units(), log.busy_until(), *key));
        }
        if bytes <= level / self.store.budget.shards {
            return;
        }
        own.retain(|(_, _, key)| Some(*key) != but);
        own.sort_unstable();
        let mut left = grown.max(bytes / 8) + 1;
        for key in own.into_iter().map(|(_, _, key)| key).chain(but) {
            if left == 0 {
                break;
            }
            let Some(KeptLog { log, .. }) = self.shard.logs.get_mut(&key) else { continue };
            let before = bytes_of(log);
            if log.len() > THIN_BEYOND {
                log.thin();
                let after = bytes_of(log);
                self.count_log(class, before, after);
                left = left.saturating_sub(before.saturating_sub(after));
            } else if Some(key) != but
                && let Some(log) = self.remove_log(key)
            {
                self.let_go(key, class, log.busy_until(), now);
                left = left.saturating_sub(before);
            }
        }
    }

    fn sweep_logs(&mut self, now: u64) -> Swept {
        if self.shard.logs.is_empty() {
            return Swept::default();
        }
        let looked_at = self.shard.logs.len();
        let removed = self.remove_idle_logs(now);
        // Classes that had room when they took more than their part, and that others now need.
        self.shed_logs(None, now);
        Swept { looked_at, removed }
    }

    fn remove_idle_logs(&mut self, now: u64) -> usize {
        // As in `make_room`.
        self.store.earliest.fetch_max(now, Relaxed);
        let idle: Vec<u64> = {
            let is_idle = |(_, kept): &(&u64, &KeptLog)| kept.log.busy_until() <= now;
            self.shard.logs.iter().filter(is_idle).map(|(key, _)| *key).collect()
        };
        idle.iter().for_each(|key| _ = self.remove_log(*key));
        let logs = &mut self.shard.logs;
        if !idle.is_empty() && logs.capacity() > 4 * logs.len().max(16) {
            logs.shrink_to_fit();
        }
        idle.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Algorithm, Charge, Cost, KeyHash, Limit, Mode, Nanos, RuleId, Store, StoreConfig};

    const START: Nanos = Nanos::new(1_800_000_000_000_000_000);

    fn charge(key: u64, rule: u64) -> Charge {
        let key = KeyHash::from_raw(key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1);
        let limit = Limit::parse("20/1h", None, Algorithm::SlidingLog).unwrap();
        Charge { key, rule: RuleId::from_raw(rule), limit, cost: Cost::ONE, mode: Mode::Enforce, floor: None }
    }

    #[test]
    fn logs_go_in_batches_and_all_of_them_are_no_more_than_their_budget_and_a_little() {
        let store = Store::new(StoreConfig { max_memory: 16 << 20, shards: 16 }, START);
        let (mut batches, mut before) = (0_u64, 0);
        let flood = 100_000;
        for key in 0..flood {
            store.check(&charge(key, 2), START);
            let let_go = store.let_go[0].load(super::Relaxed);
            batches += u64::from(let_go > before);
            before = let_go;
            let log_bytes = store.log_bytes.load(super::Relaxed);
            assert!(log_bytes <= store.budget.log_bytes / 8 * 9, "{log_bytes} after {key}");
        }
        // Each shard has room for some 700 logs; of these 40 or more go at a time.
        assert!(before > flood / 2 && batches * 40 < flood, "{before} in {batches} batches");
        // Another rule gets its part while these wait for nobody to sweep.
        for key in flood..2 * flood {
            store.check(&charge(key, 4), START);
            let log_bytes = store.log_bytes.load(super::Relaxed);
            assert!(log_bytes <= store.budget.log_bytes / 8 * 9, "{log_bytes} after {key}");
        }
        let [one, other] =
            [2, 4].map(|rule| store.classes.log_bytes(store.classes.of(RuleId::from_raw(rule))));
        assert!(one > store.budget.log_bytes / 3 && other > store.budget.log_bytes / 3, "{one}, {other}");
    }
}
