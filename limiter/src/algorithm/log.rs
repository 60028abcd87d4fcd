//! The sliding log: each admitted request is remembered for one period.
//!
//! ```text
//!     cost c is allowed at t  iff  (sum of costs admitted in (t - period, t])  +  c  <=  count
//! ```
//!
//! Exact: at most `count` units in any interval shorter than the period. A log that remembers more than
//! [`MAX_ENTRIES`] requests counts neighbours as one, at the later one's instant: stricter by at most their distance.
//!
//! A log may be asked for several periods, where a rule has got another one. It remembers for as long as the longest of them,
//! and never for less again: what a check under a short period does not count, a later one under a long period does.
//!
//! Each entry has the units of all entries up to it, so the units of a period, and the instant at which there is room, are
//! found by a binary search. A check of a log with [`MAX_ENTRIES`] entries looks at some thirty of them.

use std::collections::VecDeque;

use crate::{
    Cost, Decision, Limit,
    period::MAX_PERIOD,
    time::{TICKS_PER_NANO, duration},
};

/// Requests that one log remembers one by one.
pub(crate) const MAX_ENTRIES: usize = 1 << 16;
/// Far more than any limit has room for. Entries before the newest so many units decide nothing, so they are forgotten
/// before sums of units can overflow.
const MANY_UNITS: u64 = 1 << 62;
/// Ticks of the longest period: what another node sends cannot make a log remember for longer.
const MAX_MEMORY: u64 = MAX_PERIOD.as_nanos() as u64 * TICKS_PER_NANO;

/// The admitted requests of one bucket.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Instants, oldest first, and the units of all requests up to then. These sums wrap: only differences count.
    entries: VecDeque<(u64, u64)>,
    /// The same sum before the first entry.
    before: u64,
    /// The latest instant that was forgotten.
    forgotten: Option<u64>,
    /// How long an entry is remembered: the longest period that was asked for.
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
        self.memory = self.memory.max(limit.memory());
        // Time that went back counts as the latest instant seen.
        let seen = self.entries.back().map_or(now, |(last, _)| now.max(*last));
        if let Some(until) = seen.checked_sub(self.memory) {
            self.forget(until);
        }
        let count = limit.count();
        let used = if until > now { count } else { self.used(limit, seen).saturating_add(pending) };
        let can_ever = cost.get().max(1) <= count;
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
            banned: false,
        }
    }

    /// Units that count at `now`: more than the limit has, where that was larger before.
    pub(crate) fn consumed(&mut self, limit: &Limit, now: u64) -> u64 {
        self.decide(limit, 0, 0, Cost::PEEK, now);
        self.used(limit, now)
    }

    /// Remembers a request that was admitted; returns the instant at which it counts.
    pub(crate) fn push(&mut self, limit: &Limit, cost: Cost, now: u64) -> u64 {
        self.memory = self.memory.max(limit.memory());
        if self.units() > MANY_UNITS {
            self.forget_what_decides_nothing();
        }
        let sum = self.sum().wrapping_add(cost.get());
        match self.entries.back_mut() {
            Some((last, up_to)) if *last >= now => {
                *up_to = sum;
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
        self.entries.push_back((now, sum));
        now
    }

    /// Gives units back, the newest first.
    pub(crate) fn refund(&mut self, cost: Cost) {
        let left = self.units().saturating_sub(cost.get());
        while let Some(last) = self.entries.len().checked_sub(1) {
            if self.units_before(last) < left {
                self.entries[last].1 = self.before.wrapping_add(left);
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
        if place == self.entries.len() {
            return;
        }
        let units = self.units_before(place + 1) - self.units_before(place);
        let part = cost.get().min(units);
        // Those that came since: what can be undone was charged a moment ago.
        for (_, up_to) in self.entries.range_mut(place..) {
            *up_to = up_to.wrapping_sub(part);
        }
        if part == units {
            self.entries.remove(place);
        }
    }

    /// One with these entries. They may come from another node: in any order, and more than a log remembers.
    pub(crate) fn of(memory: u64, entries: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut entries: Vec<(u64, u64)> = entries.filter(|(_, units)| *units > 0).collect();
        if !entries.is_sorted_by_key(|(at, _)| *at) {
            entries.sort_unstable_by_key(|(at, _)| *at);
        }
        let mut newest_first = Vec::with_capacity(entries.len());
        let mut counted = 0;
        while let Some((at, units)) = entries.pop().filter(|_| counted <= MANY_UNITS) {
            newest_first.push((at, counted));
            counted += units.min(Cost::MAX.get());
        }
        Self::of_newest(newest_first, counted, None, memory.min(MAX_MEMORY))
    }

    /// Of instants, the newest first, with the units of all that are newer, which end in `total`.
    fn of_newest(mut entries: Vec<(u64, u64)>, total: u64, forgotten: Option<u64>, memory: u64) -> Self {
        entries.reverse();
        entries.iter_mut().for_each(|(_, newer)| *newer = total - *newer);
        let mut log = Self { entries: entries.into(), before: 0, forgotten, memory };
        log.bound();
        log
    }

    /// The least strict log that is as strict as both of these: of the units since an instant it counts as many as the one that
    /// counts more of them, whichever instant that is.
    ///
    /// Two logs of one bucket count the same requests twice, and a log that was sent later has them later. So units are not
    /// added, and entries are not compared one by one: if one of the two counts all that was admitted, so does the result.
    pub(crate) fn stricter(self, other: Self) -> Self {
        let memory = self.memory.max(other.memory);
        if self.entries.is_empty() || other.entries.is_empty() {
            let known = if self.entries.is_empty() { other } else { self };
            return Self { memory, ..known };
        }
        // Units before an entry say how many there are since its instant.
        let mut ours = (0..self.entries.len()).rev().peekable();
        let mut theirs = (0..other.entries.len()).rev().peekable();
        let (mut our_units, mut their_units, mut counted) = (0, 0, 0);
        let mut newest_first = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let at = |log: &Self, place: Option<&usize>| place.map(|place| log.entries[*place].0);
        while let Some(latest) = at(&self, ours.peek()).max(at(&other, theirs.peek())) {
            while let Some(place) = ours.next_if(|place| self.entries[*place].0 == latest) {
                our_units = self.units() - self.units_before(place);
            }
            while let Some(place) = theirs.next_if(|place| other.entries[*place].0 == latest) {
                their_units = other.units() - other.units_before(place);
            }
            let units: u64 = our_units.max(their_units);
            if units > counted {
                newest_first.push((latest, counted));
                counted = units;
            }
        }
        debug_assert!(counted == self.units().max(other.units()), "the oldest instant counts all units");
        Self::of_newest(newest_first, counted, self.forgotten.max(other.forgotten), memory)
    }

    /// How long an entry is remembered.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Instants and units, oldest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut before = self.before;
        self.entries.iter().map(move |(at, up_to)| {
            let units = up_to.wrapping_sub(before);
            before = *up_to;
            (*at, units)
        })
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
        while self.entries.front().is_some_and(|(at, _)| *at <= until) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((at, up_to)) = self.entries.pop_front() {
            self.before = up_to;
            self.forgotten = Some(at);
        }
    }

    #[cold]
    fn forget_what_decides_nothing(&mut self) {
        while self.units() - self.units_before(1) >= Cost::MAX.get() {
            self.forget_oldest();
        }
    }

    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Units of all entries, those included that count no more and were not looked at since.
    pub(crate) fn units(&self) -> u64 {
        self.sum().wrapping_sub(self.before)
    }

    fn sum(&self) -> u64 {
        self.entries.back().map_or(self.before, |(_, up_to)| *up_to)
    }

    /// Units of the entries before this place.
    fn units_before(&self, place: usize) -> u64 {
        let last = place.checked_sub(1).and_then(|last| self.entries.get(last));
        last.map_or(0, |(_, up_to)| up_to.wrapping_sub(self.before))
    }

    /// Units that count under a limit, when all that is older than the memory is forgotten.
    fn used(&self, limit: &Limit, seen: u64) -> u64 {
        match seen.checked_sub(limit.memory()) {
            Some(until) if limit.memory() < self.memory => {
                let place = self.entries.partition_point(|(at, _)| *at <= until);
                self.units() - self.units_before(place)
            }
            _ => self.units(),
        }
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
        halved.extend(self.entries.iter().skip(1).step_by(2));
        if self.entries.len() % 2 == 1 {
            halved.extend(self.entries.back());
        }
        self.entries = halved;
    }

    /// When `asked` units pass if nothing else comes; only asked when they could ever.
    fn room_at(&self, limit: &Limit, asked: u64) -> u64 {
        let excess = self.units().saturating_add(asked).saturating_sub(limit.count());
        if excess == 0 {
            return 0;
        }
        // One that the limit does not count any more may be found: then there was room before now.
        let place = self.entries.partition_point(|(_, up_to)| up_to.wrapping_sub(self.before) < excess);
        self.entries.get(place).map_or(0, |(at, _)| at.saturating_add(limit.memory()))
    }
}
