//! Making room: removing buckets that know of nothing, in small steps, and letting go of others where that is not enough.
//!
//! Room is shared out by class, that is by rule (`classes.rs`): while those of one class are no more than its part, nothing that
//! other classes do takes one of them away. A class that has more lets go of its own, those first that are used the least: an
//! exhausted bucket is the last that is let go, and to have it let go others of its rule must be used as far.

use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use sdd::{Guard, Shared, Tag};

use super::{
    Store, budget,
    class::Class,
    level::level,
    line::TAKEN,
    locked::{Locked, bytes_of},
    shard::ClassLog,
    table::Entry,
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
#[non_exhaustive]
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

/// Frees tables that were given up and that nobody reads any more, now rather than hundreds of checks later: the shard
/// that grows next finds their memory free. While a thread is in the middle of a check, it may come later.
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
        self.rebuild(more, now, |entry| entry.state > gone)
    }

    /// Moves all buckets that are to stay to a new table. `stays` is asked when their states are taken out: then nobody charges
    /// them until they are in the new one.
    pub(super) fn rebuild(&mut self, more: usize, now: u64, mut stays: impl FnMut(&Entry) -> bool) -> usize {
        // Before any is removed: nobody may decide about those as if it were earlier.
        self.store.earliest.fetch_max(now, Relaxed);
        let (before, old) = (self.shard.buckets, self.table.clone());
        let mut busy: Vec<Entry> = Vec::with_capacity(before);
        for entry in old.drain(self.upper()) {
            let state = if entry.state == TAKEN { self.journaled_state(entry.key) } else { entry.state };
            let entry = Entry { state, ..entry };
            if stays(&entry) {
                busy.push(entry);
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
        let mut going = Going::of(busy, self.store.classes.len(), most);
        busy.retain(|entry| {
            let goes = going.takes(entry);
            if goes {
                self.let_go(entry.key, entry.class, entry.state, now);
            }
            !goes
        });
        debug_assert_eq!(busy.len(), most);
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
        let of_class = |(_, kept): &(&u64, &ClassLog)| kept.class == class;
        let mut own: Vec<(u64, u64, u64)> = Vec::new();
        let mut bytes = 0;
        for (key, ClassLog { log, .. }) in self.shard.logs.iter().filter(of_class) {
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
            let Some(ClassLog { log, .. }) = self.shard.logs.get_mut(&key) else { continue };
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
            let is_idle = |(_, kept): &(&u64, &ClassLog)| kept.log.busy_until() <= now;
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

/// Which buckets of a full shard go: of each class all that are earlier than a state, and so many that are just that.
struct Going(Box<[(u64, usize)]>);

impl Going {
    /// A few passes over all buckets, however many classes have too many: with the shard's lock held, this is how long a check waits.
    fn of(busy: &[Entry], classes: usize, most: usize) -> Self {
        let mut counts = vec![0; classes];
        busy.iter().for_each(|entry| counts[usize::from(entry.class)] += 1);
        let level = level(counts.iter().copied(), most);
        // The states of each class that has too many, side by side; where the next one of a class stands.
        let (mut places, mut all) = (vec![usize::MAX; classes], 0);
        for (place, count) in places.iter_mut().zip(&counts).filter(|(_, count)| **count > level) {
            *place = all;
            all += count;
        }
        let (mut states, firsts) = (vec![0; all], places.clone());
        for entry in busy {
            let place = &mut places[usize::from(entry.class)];
            if *place != usize::MAX {
                states[*place] = entry.state;
                *place += 1;
            }
        }
        let mut going = vec![(0, 0); classes];
        for (class, first) in firsts.into_iter().enumerate().filter(|(_, first)| *first != usize::MAX) {
            let of_class = &mut states[first..first + counts[class]];
            let leave = of_class.len() - level;
            let (before, last, _) = of_class.select_nth_unstable(leave - 1);
            let last = *last;
            // So many of those that are used as far as the last that has to go.
            going[class] = (last, leave - before.iter().filter(|state| **state < last).count());
        }
        // Equal parts leave some room; of what would go, the most used have it. Where classes are more than buckets that fit, that
        // is all the room there is.
        let kept: usize = counts.iter().map(|count| (*count).min(level)).sum();
        let mut next: Vec<&mut (u64, usize)> = going.iter_mut().filter(|(_, equals)| *equals > 0).collect();
        next.sort_unstable_by_key(|(last, _)| std::cmp::Reverse(*last));
        next.into_iter().take(most - kept).for_each(|(_, equals)| *equals -= 1);
        Self(going.into())
    }

    /// Asked once of each.
    fn takes(&mut self, entry: &Entry) -> bool {
        let (last, equals) = &mut self.0[usize::from(entry.class)];
        let goes = entry.state < *last || entry.state == *last && *equals > 0;
        *equals -= usize::from(goes && entry.state == *last);
        goes
    }
}

#[cfg(test)]
mod tests;
