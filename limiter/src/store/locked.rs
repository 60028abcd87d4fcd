//! A shard with its lock held: taking states out, putting them back, adding buckets, and what is noted of them.

use std::sync::{MutexGuard, atomic::Ordering::Relaxed};

use sdd::Shared;

use super::{
    Store, budget,
    journal::{Deed, Journal, Undo},
    shard::{Kept, Shard},
    table::{self, TAKEN, Table},
};
use crate::{
    Algorithm, Cost, Decision, KeyHash, Limit,
    algorithm::{self, log::Log},
    decision::Asked,
};

pub(super) struct Locked<'s> {
    pub(super) store: &'s Store,
    pub(super) number: usize,
    pub(super) shard: MutexGuard<'s, Shard>,
    /// It stays the shard's table while the lock is held, except by `make_room`.
    pub(super) table: Shared<Table>,
}

impl Locked<'_> {
    /// Takes the state of a bucket out of the table, if it is there. Until it is [put](Self::put) back, who wants to
    /// charge it waits for the lock; room must not be made meanwhile.
    pub(super) fn take(&mut self, key: u64) -> Option<u64> {
        let state = match self.table.get(key)?.swap(TAKEN, Relaxed) {
            TAKEN => self.kept_state(key),
            state => state,
        };
        Some(state)
    }

    pub(super) fn kept_state(&mut self, key: u64) -> u64 {
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

    /// Adds a bucket that is not there.
    pub(super) fn add(&mut self, key: u64, state: u64, now: u64) {
        if self.shard.buckets >= budget::capacity(self.table.slots()) {
            self.make_room(1, now, now);
        }
        let state = self.keep(key, state);
        self.table.add(key, state);
        self.shard.buckets += 1;
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
    pub(super) fn note(&mut self, key: u64, before: u64, deed: Deed, hold: Option<u64>) {
        if let Some(kept) = self.shard.journals.get_mut(&key)
            && !kept.journal.note(hold, deed)
        {
            self.forget_journal(key);
        }
        if let Some(hold) = hold {
            self.shard
                .journals
                .entry(key)
                .or_insert_with(|| Kept { journal: Journal::begin(before, hold, deed), state: None });
        }
    }

    /// Nothing that was charged before can be undone any more.
    pub(super) fn forget_journal(&mut self, key: u64) {
        if let Some(Kept { state: Some(state), .. }) = self.shard.journals.remove(&key) {
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
                Undo::Count { limit, at, cost } if limit.algorithm() == Algorithm::SlidingLog => {
                    // A log that was forgotten as a whole may have been followed by a new one.
                    let counts = at.saturating_add(limit.memory()) > now;
                    if let (true, Some(log)) = (counts, self.shard.logs.get_mut(&key)) {
                        log.undo(cost, at);
                    }
                }
                // Where the bucket has been removed meanwhile, it knew of nothing with the charge.
                Undo::State(without) => self.change(key, |state| without.min(state)),
                Undo::Count { limit, at, cost } => {
                    self.change(key, |state| algorithm::undo(&limit, state, cost, at, now));
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

    pub(super) fn decide_log(&mut self, asked: &Asked<'_>, pending: u64, now: u64) -> Decision {
        let key = table_key(asked.key);
        let used_up = asked.bounds.floor().map_or(0, |floor| floor.saturating_add(asked.limit.memory()));
        let until = used_up.max(self.shard.estimate(key));
        match self.shard.logs.get_mut(&key) {
            Some(log) => log.decide(asked.limit, until, pending, asked.cost, now),
            None => Log::default().decide(asked.limit, until, pending, asked.cost, now),
        }
    }

    pub(super) fn push_log(&mut self, key: u64, limit: &Limit, cost: Cost, now: u64, hold: Option<u64>) {
        let known = self.shard.logs.get(&key).map_or(0, bytes_of);
        let log = self.shard.logs.entry(key).or_default();
        let at = log.push(limit, cost, now);
        let bytes = bytes_of(log);
        let all = self.store.log_bytes.fetch_add(bytes, Relaxed).saturating_add(bytes);
        self.store.log_bytes.fetch_sub(known, Relaxed);
        if all.saturating_sub(known) > self.store.budget.log_bytes && bytes > known {
            // The log goes into the sketch: until its last entry is forgotten, nothing passes.
            self.shed_logs(key, now);
        } else if hold.is_some() || !self.shard.journals.is_empty() {
            self.note(key, 0, Deed::Counted { limit: *limit, at, cost }, hold);
        }
    }

    pub(super) fn refund_log(&mut self, key: u64, cost: Cost) {
        if let Some(log) = self.shard.logs.get_mut(&key) {
            log.refund(cost);
        }
    }

    pub(super) fn remove_log(&mut self, key: u64) -> Option<Log> {
        let log = self.shard.logs.remove(&key);
        self.store.log_bytes.fetch_sub(log.as_ref().map_or(0, bytes_of), Relaxed);
        log
    }
}

/// The fingerprint of a bucket as tables have it: 0 is none there.
#[inline]
pub(super) fn table_key(key: KeyHash) -> u64 {
    key.get().max(1)
}

/// Bytes of a log with its place in the map.
pub(super) fn bytes_of(log: &Log) -> usize {
    log.bytes() + 2 * size_of::<(u64, Log)>()
}
