//! Buckets on their way to another node's store.
//!
//! Two clocks never show the same, so what a bucket owes travels as a duration, and the store that takes it over adds its
//! own present: the time on the way makes the bucket stricter, never looser. Windows lie where the calendar has them; their
//! states travel as they are, and the difference of the clocks shifts the end of the window: a store that takes over one that
//! ends later than its own next one charges it as that (`algorithm::nearest`).
//!
//! **What arrives twice, or late, makes a bucket stricter, never looser**: what is known here stays, and the result is the
//! stricter of both.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Store,
    class::Class,
    line::TAKEN,
    locked::{Locked, bytes_of},
    marks::ClassMark,
    shard::{ClassLog, JournaledBucket, Shard},
    table::{Entry, table_key},
};
use crate::{
    KeyHash, Nanos, RuleId,
    algorithm::log::Log,
    mark::{Held, Mark},
};

/// A bucket that knows of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Which one.
    pub key: KeyHash,
    /// Whose.
    pub rule: RuleId,
    /// What it knows.
    pub held: Held,
}

/// What is known of buckets of a rule that are not in memory any more, and never refilled for that
/// ([`OnMemoryFull::Strict`](crate::OnMemoryFull::Strict)): some of them know this, none of them more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetGo {
    /// Which rule.
    pub rule: RuleId,
    /// What they know; never a log.
    pub held: Held,
}

impl Store {
    /// Tells of all buckets that know of something and are wanted, in no order. Each shard is locked for as long as its
    /// buckets are looked at.
    pub fn buckets(&self, now: Nanos, wanted: impl Fn(KeyHash) -> bool, mut each: impl FnMut(Bucket)) {
        for number in 0..self.budget.shards {
            let mut locked = self.lock_number(number);
            let now = self.not_before(now);
            let upper = locked.upper();
            let Locked { table, shard, .. } = &mut locked;
            for Entry { key, class, state } in table.entries(upper) {
                let hash = KeyHash::from_raw(key);
                if wanted(hash)
                    && let Some(held) = held(shard, key, state, now)
                {
                    each(Bucket { key: hash, rule: self.classes.rule_of(class), held });
                }
            }
            for (key, ClassLog { class, log }) in &locked.shard.logs {
                let hash = KeyHash::from_raw(*key);
                if wanted(hash)
                    && let Some(held) = held_log(log, now)
                {
                    each(Bucket { key: hash, rule: self.classes.rule_of(*class), held });
                }
            }
        }
    }

    /// Tells what is known of one bucket: nothing, one thing, or a state and a log.
    pub fn bucket(&self, key: KeyHash, now: Nanos, mut each: impl FnMut(Bucket)) {
        let mut locked = self.lock(key);
        let now = self.not_before(now);
        let table_key = table_key(key);
        let state = locked.table.get(table_key).map(|state| state.load(Relaxed));
        let held = state.and_then(|state| held(&mut locked.shard, table_key, state, now));
        let held = held.zip(locked.table.class_of(table_key));
        let log = locked.shard.logs.get(&table_key);
        let log = log.and_then(|kept| Some((held_log(&kept.log, now)?, kept.class)));
        for (held, class) in held.into_iter().chain(log) {
            each(Bucket { key, rule: self.classes.rule_of(class), held });
        }
    }

    /// How far a bucket is used, as far as others may be told; none of a log.
    pub fn mark(&self, key: KeyHash, now: Nanos) -> Option<Mark> {
        let mut mark = None;
        self.bucket(key, now, |bucket| mark = mark.max(bucket.held.mark(now)));
        mark
    }

    /// Takes a bucket over from another store. What is known of it here already counts too.
    pub fn take_over(&self, bucket: &Bucket, now: Nanos) {
        let mut locked = self.lock(bucket.key);
        let now = self.not_before(now);
        let (key, class) = (table_key(bucket.key), self.classes.of(bucket.rule));
        locked.forget_journal(key);
        if !matches!(bucket.held, Held::Log { .. })
            && let Some(log) = locked.remove_log(key)
        {
            // The log was let go of there.
            self.classes.mark(class, false, log.busy_until(), now);
        }
        let state = match &bucket.held {
            Held::Debt(debt) => now.saturating_add(*debt),
            Held::Window(state) => *state,
            Held::Log { memory, entries } => {
                let entries = entries.iter().map(|(age, units)| (now.saturating_sub(*age), *units));
                let sent = Log::of(*memory, entries);
                // What is known here may be older than what comes, or newer: it may have come before, and this node may have
                // admitted requests since.
                let log = match locked.remove_log(key) {
                    Some(known) => known.stricter(sent),
                    None => sent,
                };
                locked.put_log(key, class, log, now);
                return;
            }
        };
        if state <= now {
            return;
        }
        match locked.take(key) {
            Some(known) => locked.put(key, known.max(state)),
            None => locked.add(key, class, state, now),
        }
    }

    /// Says that states are about to be taken over for which time stood still for so long ([`Held::postponed`]): they lie further
    /// ahead than a charge could have made them, by so much, and what is let go of them counts all the same.
    pub fn postpone(&self, by: Duration, now: Nanos) {
        self.classes.postpone(Nanos::new(0).saturating_add(by).ticks(), self.not_before(now));
    }

    /// What is known of buckets that are not in memory any more, of all rules that are strict about it.
    pub fn let_go(&self, now: Nanos) -> Vec<LetGo> {
        let now = self.not_before(now);
        let let_go = |mark: ClassMark| {
            let held =
                if mark.is_of_window { Held::Window(mark.state) } else { Held::Debt(mark.state - now) };
            LetGo { rule: mark.rule, held }
        };
        self.classes.marks(now).into_iter().map(let_go).collect()
    }

    /// Takes over what another store knows of buckets that it has let go of: here some of them may be asked for. What is not in
    /// memory here, of the same rule, counts as strictly.
    pub fn take_over_let_go(&self, let_go: &LetGo, now: Nanos) {
        let now = self.not_before(now);
        let (is_of_window, state) = match let_go.held {
            Held::Debt(debt) => (false, now.saturating_add(debt)),
            Held::Window(state) => (true, state),
            Held::Log { .. } => return,
        };
        let class = self.classes.of(let_go.rule);
        // Of rules that are not strict it says nothing; whether this one is may not be known yet.
        if state > now && !self.classes.forgets(class) {
            self.classes.mark(class, is_of_window, state, now);
        }
    }
}

impl Locked<'_> {
    pub(super) fn put_log(&mut self, key: u64, class: Class, log: Log, now: u64) {
        let bytes = bytes_of(&log);
        self.count_log(class, 0, bytes);
        self.shard.logs.insert(key, ClassLog { class, log });
        self.make_room_for_log(key, class, bytes, now);
    }
}

fn held(shard: &mut Shard, key: u64, state: u64, now: u64) -> Option<Held> {
    let state = match state {
        // Only a panic can have lost one; then nothing passes.
        TAKEN => shard.journals.get_mut(&key).map_or(u64::MAX, JournaledBucket::tell),
        state => state,
    };
    let is_window = KeyHash::from_raw(key).is_of_window();
    (state > now).then(|| if is_window { Held::Window(state) } else { Held::Debt(state - now) })
}

fn held_log(log: &Log, now: u64) -> Option<Held> {
    let entries = |(at, units): (u64, u64)| (now.saturating_sub(at), units);
    (log.busy_until() > now)
        .then(|| Held::Log { memory: log.memory(), entries: log.entries().map(entries).collect() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smallvec::SmallVec;

    use super::*;
    use crate::{Algorithm, Charge, Cost, Limit, Mode, Period, RuleId, StoreConfig};

    const START: u64 = 1_800_000_000_000_000_000;
    const ALL: [Algorithm; 5] = [
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
        Algorithm::SlidingLog,
    ];

    fn store(max_memory: usize) -> Store {
        Store::new(StoreConfig { max_memory, shards: 4 }, Nanos::new(START))
    }

    fn charge(algorithm: Algorithm, key: u64) -> Charge {
        let limit = Limit::parse("100/1h", None, algorithm).unwrap();
        let windows = matches!(algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow);
        let key = KeyHash::from_raw(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1 | u64::from(windows));
        Charge {
            key,
            rule: RuleId::INLINE,
            limit,
            cost: Cost::new(7).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        }
    }

    fn look(store: &Store, charge: &Charge, now: Nanos) -> u64 {
        store.check(&Charge { cost: Cost::PEEK, ..*charge }, now).remaining
    }

    #[test]
    fn a_bucket_counts_elsewhere_as_it_did_whatever_that_clock_shows_and_however_often_it_comes() {
        for algorithm in ALL {
            let (from, to) = (store(1 << 20), store(1 << 20));
            let now = Nanos::new(START);
            let charge = charge(algorithm, 5);
            from.check(&charge, now);
            let left = look(&from, &charge, now);
            let mut sent = Vec::new();
            from.buckets(now, |key| key == charge.key, |bucket| sent.push(bucket));
            assert_eq!(sent.len(), 1, "{algorithm:?}");
            let mut one = Vec::new();
            from.bucket(charge.key, now, |bucket| one.push(bucket));
            assert_eq!(one, sent);
            // Windows are where the calendar has them, so their clocks differ by less than a window.
            let ahead = now.saturating_add(Duration::from_millis(200));
            to.take_over(&sent[0], ahead);
            assert_eq!(look(&to, &charge, ahead), left, "{algorithm:?}");
            to.take_over(&sent[0], ahead);
            assert_eq!(look(&to, &charge, ahead), left, "{algorithm:?} twice");
        }
    }

    #[test]
    fn a_window_that_another_clock_has_in_the_future_counts_as_the_next_one_and_not_until_then() {
        let minute = Duration::from_secs(60);
        let limits = [
            Limit::parse("10/1m", None, Algorithm::FixedWindow).unwrap(),
            Limit::parse("10/1m", None, Algorithm::SlidingWindow).unwrap(),
            Limit::new(Algorithm::FixedWindow, 10, Period::from_first(minute), None).unwrap(),
        ];
        for (limit, several) in limits.into_iter().flat_map(|limit| [(limit, false), (limit, true)]) {
            let charge = Charge { limit, cost: Cost::new(1).unwrap(), ..charge(Algorithm::FixedWindow, 5) };
            let other = Charge { key: KeyHash::from_raw(charge.key.get() ^ 1 << 40), ..charge };
            let (from, to, now) = (store(1 << 20), store(1 << 20), Nanos::new(START));
            let ahead = now.saturating_add(43 * minute);
            (0..8).for_each(|_| assert!(from.check(&charge, ahead).allowed));
            from.buckets(ahead, |_| true, |bucket| to.take_over(&bucket, now));

            let mut admitted = Vec::new();
            for second in 0..240 {
                let now = now.saturating_add(Duration::from_secs(second));
                let charges = if several { vec![charge, other] } else { vec![charge] };
                if to.check_all(&charges, now, &mut SmallVec::new()) {
                    admitted.push(second);
                }
            }
            // The window that is counted on may be the next one.
            let within = |seconds: u64| admitted.iter().filter(|at| **at < seconds).count();
            assert!(within(60) <= 2, "{limit:?}, {several}: {admitted:?}");
            assert!(within(180) >= 10, "{limit:?}, {several}: {admitted:?}");
        }
    }

    #[test]
    fn what_can_still_be_undone_travels_as_if_it_stayed() {
        let (from, to) = (store(1 << 20), store(1 << 20));
        let now = Nanos::new(START);
        let charge = charge(Algorithm::TokenBucket, 9);
        let mut decisions = SmallVec::new();
        let (_, hold) = from.hold(&[charge], now, now.saturating_add(Duration::from_secs(2)), &mut decisions);
        from.buckets(now, |_| true, |bucket| to.take_over(&bucket, now));
        assert_eq!(look(&to, &charge, now), 93);
        from.undo(hold.unwrap(), now);
        assert_eq!(look(&from, &charge, now), 100);
    }
}
