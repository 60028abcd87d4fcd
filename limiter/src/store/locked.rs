//! A shard with its lock held: taking states out, putting them back, adding buckets, and what is noted of them.

use std::sync::{
    MutexGuard, PoisonError,
    atomic::Ordering::{Acquire, Relaxed},
};

use sdd::{Guard, Shared};

use super::{
    Store, budget,
    class::Class,
    journal::{ChargeEffect, Journal, Undo},
    line::{MOVED, TAKEN},
    shard::{ClassLog, JournaledBucket, Shard},
    table::{self, Entry, Table, table_key},
};
use crate::{
    Algorithm, Cost, Decision, KeyHash, Limit, Returned,
    algorithm::{self, Asked, Counted, log::Log},
};

pub(super) struct Locked<'s> {
    pub(super) store: &'s Store,
    pub(super) number: usize,
    pub(super) shard: MutexGuard<'s, Shard>,
    /// It stays the shard's table while the lock is held, except by `make_room`.
    pub(super) table: Shared<Table>,
}

impl Store {
    pub(super) fn lock(&self, key: KeyHash) -> Locked<'_> {
        self.lock_number(self.shard_of(key))
    }

    pub(super) fn lock_number(&self, number: usize) -> Locked<'_> {
        // A panic can leave a state taken out, and nothing passes then; see `Locked::take`.
        let shard = self.shards[number].lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.tables[number].get_shared(Acquire, &Guard::new());
        Locked { store: self, number, shard, table: table.expect("each shard has a table") }
    }
}

impl Locked<'_> {
    /// What the fingerprints of all buckets of the shard's table begin with, where the table has their classes.
    pub(super) fn upper(&self) -> u64 {
        let budget = &self.store.budget;
        let shard = (self.number as u64) << (u64::BITS - budget.shards.ilog2());
        shard & !(u64::MAX >> budget.class_bits)
    }

    /// Takes the state of a bucket out of the table, if it is there. Until it is [put](Self::put) back, a thread that
    /// wants to charge it waits for the lock; room must not be made meanwhile.
    pub(super) fn take(&mut self, key: u64) -> Option<u64> {
        let place = self.table.get(key)?;
        match place.swap(TAKEN, Relaxed) {
            TAKEN => Some(self.journaled_state(key)),
            MOVED => {
                place.store(MOVED, Relaxed);
                None
            }
            state => Some(state),
        }
    }

    /// Whether there is a bucket to take.
    pub(super) fn is_there(&self, key: u64) -> bool {
        self.table.get(key).is_some_and(|state| state.load(Relaxed) != MOVED)
    }

    /// Leaves a bucket without the state that was taken: it is not there any more.
    pub(super) fn leave(&mut self, key: u64) {
        if let Some(place) = self.table.get(key) {
            place.store(MOVED, Relaxed);
        }
    }

    pub(super) fn journaled_state(&mut self, key: u64) -> u64 {
        let kept = self.shard.journals.get_mut(&key).and_then(|kept| kept.state.take());
        // Only a panic between taking and putting can lose one. Then nothing passes, rather than everything.
        kept.unwrap_or(u64::MAX)
    }

    /// Puts back the state of a bucket that was taken.
    pub(super) fn put(&mut self, key: u64, state: u64) {
        let state = self.keep(key, state);
        if let Some(place) = self.table.get(key) {
            place.store(state, Relaxed);
        }
    }

    /// Adds a bucket that is not there. Room is made before, so it stays for as long as it takes to fill an eighth of the
    /// shard.
    pub(super) fn add(&mut self, key: u64, class: Class, state: u64, now: u64) {
        if self.shard.buckets >= budget::capacity(self.table.slots()) {
            self.make_room(1, now, now);
        }
        let state = self.keep(key, state);
        match self.table.get(key) {
            // It has moved, and is back.
            Some(place) => place.store(state, Relaxed),
            None => {
                self.table.add(Entry { key, class, state });
                self.shard.buckets += 1;
            }
        }
    }

    /// What a table gets for a state: nothing, where a journal keeps it.
    pub(super) fn keep(&mut self, key: u64, state: u64) -> u64 {
        match self.shard.journals.get_mut(&key) {
            Some(kept) => {
                kept.state = Some(state);
                TAKEN
            }
            None => table::present(state),
        }
    }

    /// Notes a charge, while the state of its bucket is taken out.
    pub(super) fn note(&mut self, key: u64, before: u64, effect: ChargeEffect, hold: Option<u64>) {
        if let Some(kept) = self.shard.journals.get_mut(&key)
            && !kept.journal.note(hold, effect)
        {
            self.forget_journal(key);
        }
        if let Some(hold) = hold {
            self.shard.journals.entry(key).or_insert_with(|| JournaledBucket {
                journal: Journal::begin(before, hold, effect),
                state: None,
            });
        }
    }

    /// Nothing that was charged before can be undone any more.
    pub(super) fn forget_journal(&mut self, key: u64) {
        if let Some(JournaledBucket { state: Some(state), .. }) = self.shard.journals.remove(&key) {
            self.put(key, state);
        }
    }

    pub(super) fn close(&mut self, key: u64, hold: u64) {
        if let Some(kept) = self.shard.journals.get_mut(&key) {
            kept.journal.close(hold);
            if kept.journal.is_empty() {
                self.forget_journal(key);
            }
        }
    }

    pub(super) fn undo(&mut self, key: u64, hold: u64, now: u64) {
        while let Some(undo) = self.shard.journals.get_mut(&key).and_then(|kept| kept.journal.undo(hold)) {
            match undo {
                Undo::Count { limit, counted, cost, .. } if limit.algorithm() == Algorithm::SlidingLog => {
                    // A log that was forgotten as a whole may have been followed by a new one.
                    let counts = counted.at.saturating_add(limit.memory()) > now;
                    if let (true, Some(kept)) = (counts, self.shard.logs.get_mut(&key)) {
                        kept.log.undo(cost, counted.at);
                    }
                }
                // Where the bucket has been removed meanwhile, it knew of nothing with the charge.
                Undo::State(without) => self.change(key, |state| without.min(state)),
                Undo::Count { limit, counted, cost, is_last } => {
                    self.change(key, |state| algorithm::undo(&limit, state, cost, counted, is_last, now));
                }
            }
        }
        if self.shard.journals.get(&key).is_some_and(|kept| kept.journal.is_empty()) {
            self.forget_journal(key);
        }
    }

    /// Changes the state of a bucket that is in the table.
    pub(super) fn change(&mut self, key: u64, change: impl FnOnce(u64) -> u64) {
        if let Some(state) = self.take(key) {
            self.put(key, change(state));
        }
    }

    /// How late the state of a bucket may be that is not in memory: one that was never seen knows of nothing, but of a rule that
    /// never refills what it lets go, it may have been let go.
    pub(super) fn assumed(&self, key: u64, class: Class, limit: &Limit, now: u64) -> Option<u64> {
        let classes = &self.store.classes;
        if !classes.is_strict(class) || !classes.has_marks(now) {
            return None;
        }
        let is_of_window = KeyHash::from_raw(key).is_of_window();
        let state = classes.assumed(class, is_of_window, algorithm::horizon(limit), now);
        (state > now && !self.shard.spared.contains(&key))
            .then(|| algorithm::nearest(limit, algorithm::strictest(limit, state, now), now))
    }

    /// A bucket that is removed although it knows of something.
    pub(super) fn let_go(&mut self, key: u64, class: Class, state: u64, now: u64) {
        let is_strict = self.store.classes.is_strict(class);
        // A ban says nothing of what others of its rule have consumed.
        if !self.store.classes.forgets(class) && !KeyHash::from_raw(key).is_of_ban() {
            self.store.classes.mark(class, KeyHash::from_raw(key).is_of_window(), state, now);
            self.shard.spared.remove(&key);
        }
        self.store.let_go[usize::from(is_strict)].fetch_add(1, Relaxed);
        // Nothing of what it was charged is there to be undone.
        self.forget_journal(key);
    }

    pub(super) fn decide_log(&mut self, asked: &Asked<'_>, pending: u64, now: u64) -> Decision {
        let key = table_key(asked.key);
        let exhausted_until =
            asked.bounds.floor().map_or(0, |floor| floor.saturating_add(asked.limit.memory()));
        if let Some(ClassLog { log, .. }) = self.shard.logs.get_mut(&key) {
            return log.decide(asked.limit, exhausted_until, pending, asked.cost, now);
        }
        let class = self.store.classes.of(asked.rule);
        let assumed = self.assumed(key, class, asked.limit, now).unwrap_or(0);
        let until = exhausted_until.max(assumed);
        let decision = Log::default().decide(asked.limit, until, pending, asked.cost, now);
        Decision { assumed: assumed > now, ..decision }
    }

    pub(super) fn push_log(&mut self, asked: &Asked<'_>, now: u64, hold: Option<u64>) {
        let key = table_key(asked.key);
        let known = self.shard.logs.get(&key).map_or(0, |kept| bytes_of(&kept.log));
        let of = || self.store.classes.of(asked.rule);
        let kept =
            self.shard.logs.entry(key).or_insert_with(|| ClassLog { class: of(), log: Log::default() });
        let class = kept.class;
        let at = kept.log.push(asked.limit, asked.cost, now);
        let bytes = bytes_of(&kept.log);
        if hold.is_some() || !self.shard.journals.is_empty() {
            let counted = Counted { at, before: None };
            self.note(key, 0, ChargeEffect::Counted { limit: *asked.limit, counted, cost: asked.cost }, hold);
        }
        self.count_log(class, known, bytes);
        if bytes > known {
            self.make_room_for_log(key, class, bytes - known, now);
        }
    }

    pub(super) fn refund_log(&mut self, key: u64, cost: Cost) {
        if let Some(kept) = self.shard.logs.get_mut(&key) {
            kept.log.refund(cost);
        }
    }

    pub(super) fn refund_charge_of_log(&mut self, key: u64, limit: &Limit, returned: Returned, now: u64) {
        let charged = returned.charged.ticks();
        let counts = charged.saturating_add(limit.memory()) > now;
        if let (true, Some(kept)) = (counts, self.shard.logs.get_mut(&key)) {
            kept.log.undo(returned.units, charged);
        }
    }

    pub(super) fn remove_log(&mut self, key: u64) -> Option<Log> {
        let ClassLog { class, log } = self.shard.logs.remove(&key)?;
        self.count_log(class, bytes_of(&log), 0);
        Some(log)
    }

    /// The bytes of a log have changed.
    pub(super) fn count_log(&mut self, class: Class, before: usize, after: usize) {
        self.shard.count_log(before, after);
        self.store.log_bytes.fetch_add(after, Relaxed);
        self.store.log_bytes.fetch_sub(before, Relaxed);
        self.store.classes.count_log_bytes(class, before, after);
    }
}

/// Bytes of a log with its place in the map, which may be filled by half.
pub(super) fn bytes_of(log: &Log) -> usize {
    log.bytes() + 2 * size_of::<(u64, ClassLog)>()
}
