//! The sliding log: each admitted request is remembered for one period.
//!
//! ```text
//!     cost c is allowed at t  iff  (sum of costs admitted in (t - period, t])  +  c  <=  count
//! ```
//!
//! Exact: at most `count` units in any interval shorter than the period. A log that remembers more than
//! [`MAX_ENTRIES`] requests counts neighbours as one, at the later one's instant: stricter by at most their distance.

use std::collections::VecDeque;

use crate::{Cost, Decision, Limit, time::duration};

/// Requests that one log remembers one by one.
pub(crate) const MAX_ENTRIES: usize = 1 << 16;

/// The admitted requests of one bucket.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Instants and units, oldest first.
    entries: VecDeque<(u64, u64)>,
    /// Of all entries.
    total: u64,
    /// The latest instant that was forgotten.
    forgotten: Option<u64>,
    /// How long an entry counts, as the last charge had it.
    memory: u64,
}

impl Log {
    /// Decides about `cost` units beside `pending` ones that the same check has taken already. `until` is an instant
    /// before which nothing passes.
    pub(crate) fn decide(
        &mut self,
        limit: &Limit,
        until: u64,
        pending: u64,
        cost: Cost,
        now: u64,
    ) -> Decision {
        // Time that went back counts as the latest instant seen.
        let seen = self.entries.back().map_or(now, |(last, _)| now.max(*last));
        if let Some(until) = seen.checked_sub(limit.memory()) {
            self.forget(until);
        }
        let count = limit.count();
        let used = if until > now { count } else { self.total.saturating_add(pending) };
        let can_ever = cost.get() <= count;
        let asked = cost.get().max(1);
        let allowed = can_ever && used.saturating_add(asked) <= count && seen < u64::MAX - limit.memory();
        let taken = if allowed { cost.get() } else { 0 };
        let last = match self.entries.back() {
            _ if taken > 0 || pending > 0 => seen.saturating_add(limit.memory()),
            Some((last, _)) => last.saturating_add(limit.memory()),
            None => now,
        };
        let retry = || until.max(self.room_at(limit, pending.saturating_add(asked))).saturating_sub(now);
        Decision {
            allowed,
            limit: count,
            remaining: count.saturating_sub(used.saturating_add(taken)),
            reset_after: duration(last.max(until).saturating_sub(now)),
            retry_after: (!allowed && can_ever).then(|| duration(retry())),
            delay: duration(0),
            assumed: false,
        }
    }

    /// Remembers a request that was admitted; tells the instant at which it counts.
    pub(crate) fn push(&mut self, limit: &Limit, cost: Cost, now: u64) -> u64 {
        self.memory = limit.memory();
        self.total = self.total.saturating_add(cost.get());
        match self.entries.back_mut() {
            Some((last, units)) if *last >= now => {
                *units = units.saturating_add(cost.get());
                return *last;
            }
            _ => {}
        }
        if self.entries.len() >= MAX_ENTRIES {
            self.halve(MAX_ENTRIES);
        }
        if self.entries.is_empty() {
            // Most logs are short; the default first step of a deque is four.
            self.entries.reserve_exact(1);
        }
        self.entries.push_back((now, cost.get()));
        now
    }

    /// Gives units back, the newest first.
    pub(crate) fn refund(&mut self, cost: Cost) {
        let mut left = cost.get();
        while let Some((_, units)) = self.entries.back_mut() {
            let part = left.min(*units);
            *units -= part;
            self.total = self.total.saturating_sub(part);
            left -= part;
            if *units > 0 {
                break;
            }
            self.entries.pop_back();
        }
    }

    /// Takes back a request that counted at `charged`, as if it had not been.
    pub(crate) fn undo(&mut self, cost: Cost, charged: u64) {
        if self.forgotten.is_some_and(|forgotten| charged <= forgotten) {
            return;
        }
        // Entries only ever move to a later neighbour.
        let place = self.entries.partition_point(|(at, _)| *at < charged);
        if let Some((_, units)) = self.entries.get_mut(place) {
            let part = cost.get().min(*units);
            *units -= part;
            self.total = self.total.saturating_sub(part);
            if *units == 0 {
                self.entries.remove(place);
            }
        }
    }

    /// One with these entries. They may come from another node: in any order, and more than a log remembers.
    pub(crate) fn of(memory: u64, entries: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut entries: Vec<(u64, u64)> = entries.collect();
        if !entries.is_sorted_by_key(|(at, _)| *at) {
            entries.sort_unstable_by_key(|(at, _)| *at);
        }
        let total = entries.iter().fold(0, |total: u64, (_, units)| total.saturating_add(*units));
        let mut log = Self { entries: entries.into(), total, forgotten: None, memory };
        log.bound();
        log
    }

    /// The least strict log that is as strict as both of these: of the units since an instant it counts as many as the one that
    /// counts more of them, whichever instant that is.
    ///
    /// Two logs of one bucket count the same requests twice, and a log that was sent later has them later. So units are not
    /// added, and entries are not compared one by one: if one of the two counts all that was admitted, so does the result.
    pub(crate) fn stricter(self, other: Self) -> Self {
        if self.entries.is_empty() || other.entries.is_empty() {
            let memory = self.memory.max(other.memory);
            let known = if self.entries.is_empty() { other } else { self };
            return Self { memory, ..known };
        }
        let mut entries = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let mut ours = self.entries.iter().rev().peekable();
        let mut theirs = other.entries.iter().rev().peekable();
        let (mut our_units, mut their_units, mut counted) = (0_u64, 0_u64, 0_u64);
        // From the newest to the oldest.
        while let Some(at) = ours.peek().map(|entry| entry.0).max(theirs.peek().map(|entry| entry.0)) {
            while let Some((_, units)) = ours.next_if(|entry| entry.0 == at) {
                our_units = our_units.saturating_add(*units);
            }
            while let Some((_, units)) = theirs.next_if(|entry| entry.0 == at) {
                their_units = their_units.saturating_add(*units);
            }
            let units = our_units.max(their_units);
            if units > counted {
                entries.push((at, units - counted));
                counted = units;
            }
        }
        entries.reverse();
        let mut log = Self {
            entries: entries.into(),
            total: counted,
            forgotten: self.forgotten.max(other.forgotten),
            memory: self.memory.max(other.memory),
        };
        log.bound();
        debug_assert!(log.total == self.total.max(other.total), "the oldest instant counts all units");
        log
    }

    /// How long an entry counts.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Instants and units, oldest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// Until when it counts anything.
    pub(crate) fn busy_until(&self) -> u64 {
        self.entries.back().map_or(0, |(last, _)| last.saturating_add(self.memory))
    }

    /// Bytes that its entries take.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u64, u64)>()
    }

    fn forget(&mut self, until: u64) {
        while let Some((at, units)) = self.entries.front() {
            if *at > until {
                break;
            }
            self.total = self.total.saturating_sub(*units);
            self.forgotten = Some(*at);
            self.entries.pop_front();
        }
    }

    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Units of all entries, those included that count no more and were not looked at since.
    pub(crate) fn units(&self) -> u64 {
        self.total
    }

    /// Takes half of the memory: counts neighbours as one, at the later one's instant.
    pub(crate) fn thin(&mut self) {
        self.halve(self.entries.len().div_ceil(2));
    }

    /// Remembers no more requests one by one than a log does.
    fn bound(&mut self) {
        while self.entries.len() > MAX_ENTRIES {
            self.halve(self.entries.len().div_ceil(2));
        }
    }

    fn halve(&mut self, capacity: usize) {
        let mut halved = VecDeque::with_capacity(capacity);
        let mut entries = self.entries.iter();
        while let Some((at, units)) = entries.next() {
            halved.push_back(match entries.next() {
                Some((later, more)) => (*later, units.saturating_add(*more)),
                None => (*at, *units),
            });
        }
        self.entries = halved;
    }

    /// When `asked` units pass if nothing else comes; only asked when they could ever.
    fn room_at(&self, limit: &Limit, asked: u64) -> u64 {
        let mut used = self.total;
        for (at, units) in &self.entries {
            if used.saturating_add(asked) <= limit.count() {
                break;
            }
            used = used.saturating_sub(*units);
            if used.saturating_add(asked) <= limit.count() {
                return at.saturating_add(limit.memory());
            }
        }
        0
    }
}
