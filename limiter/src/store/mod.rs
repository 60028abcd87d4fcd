//! The buckets of a node, shared by all of its threads.
//!
//! Only buckets in debt are kept: a full one looks the same as one never seen. Each is 16 bytes, fingerprint and state,
//! in the table of a shard. A check of one bucket that is there finds and charges it without a lock (`table.rs` says why
//! that is right). One of several locks their shards, in the order of their numbers, takes the states out, decides about
//! all of them and then charges all or none. The logs of `sliding_log` are kept beside.
//!
//! Memory is bounded ([`StoreConfig::max_memory`]), and shared out by rule: each that has buckets can keep as many as an equal part
//! of the memory holds, whatever others do, and more where others leave some. A rule that needs still more lets go of its own,
//! those first that are used the least, and says what that means ([`OnMemoryFull`]). `sweep.rs` and `classes.rs` say how.

mod assigned;
mod bans;
mod budget;
mod charging;
mod class;
mod classes;
mod former;
mod handover;
mod holds;
mod journal;
mod known_limits;
mod level;
mod line;
mod locked;
mod many;
mod marks;
mod pages;
mod prefetch;
mod shard;
mod shards;
mod sweep;
mod table;

use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

pub(crate) use self::many::GROUP;
pub use self::{
    handover::{Bucket, LetGo},
    holds::HoldId,
    level::level,
    shards::{Store, StoreConfig},
    sweep::Swept,
};
use self::{holds::Keys, shard::MAX_SPARED, table::table_key};
use crate::{
    Algorithm, Answer, Charge, Cost, Decision, KeyHash, Limit, Mode, Nanos, OnMemoryFull, Returned, RuleId,
    Rules,
    algorithm::{self, Asked},
};

/// Holds past their deadline that are closed on the way to a new one.
const HOLDS_AT_ONCE: usize = 64;

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Buckets with a state of their own, logs included.
    pub buckets: usize,
    /// Bytes that all buckets take: tables and logs.
    pub bytes: usize,
    /// Of these, bytes of logs.
    pub log_bytes: usize,
    /// Buckets for which there was no room, since the start, of rules with [`OnMemoryFull::Forget`] and of limits that came
    /// with checks: each was a full one again.
    pub forgotten: u64,
    /// Buckets for which there was no room, since the start, of rules with [`OnMemoryFull::Strict`]: each may since have been
    /// stricter than it should be.
    pub folded: u64,
    /// Bans that have begun, since the start.
    pub bans: u64,
    /// Charges that may still be undone.
    pub holds: usize,
}

impl Store {
    /// Says which rules there are, and what happens with the buckets of each when there is no room for all: from now on. Rules
    /// that are not among them, and limits that come with checks, forget.
    pub fn set_rules(&self, rules: &Rules) {
        self.set_policies(rules.all().map(|rule| (rule.id(), rule.on_memory_full())));
    }

    /// As if all rules were one, and not strict: for tests, which are to find it.
    #[doc(hidden)]
    pub fn share_memory_among_all(&self) {
        self.classes.share_among_all();
    }

    pub(crate) fn set_policies(&self, rules: impl Iterator<Item = (RuleId, OnMemoryFull)>) {
        self.classes.set_rules(rules);
    }

    /// Decides about one bucket, and charges it if it allows. A cost of 0 ([`Cost::PEEK`]) only looks: it is allowed if
    /// a cost of 1 would be.
    pub fn check(&self, charge: &Charge, now: Nanos) -> Decision {
        self.ask(&charge.asked(), now).decision()
    }

    #[inline]
    pub(crate) fn ask<'l>(&self, asked: &Asked<'l>, now: Nanos) -> Answer<'l> {
        self.charge_unlocked(asked, now).unwrap_or_else(|| self.charge_locked(asked, now))
    }

    /// Decides about all buckets of a check at once. True if every one that is enforced allows; then all of those are
    /// charged, and of those in shadow mode each one that allows. Otherwise none is. Appends a decision for each; if
    /// nothing was charged, they say what remains without it.
    pub fn check_all(&self, charges: &[Charge], now: Nanos, decisions: &mut SmallVec<[Decision; 4]>) -> bool {
        if let [charge] = charges {
            let decision = self.check(charge, now);
            decisions.push(decision);
            return decision.allowed || charge.mode == Mode::Shadow;
        }
        self.charge_all(charges, now, None, decisions).is_some()
    }

    /// As [`Store::check_all`], but what was charged can be undone until `until`. There is no id when nothing was
    /// charged, or when too many charges can be undone already: these then stay, whatever becomes of the request. What can be
    /// undone has a thirty-second of the memory, at most 32 MiB: so many times 512 bytes.
    pub fn hold(
        &self,
        charges: &[Charge],
        now: Nanos,
        until: Nanos,
        decisions: &mut SmallVec<[Decision; 4]>,
    ) -> (bool, Option<HoldId>) {
        let hold = self.reserve(charges.len(), now);
        match self.charge_all(charges, now, hold, decisions) {
            None => (false, None),
            Some(keys) if keys.is_empty() => (true, None),
            Some(keys) => {
                let id = hold.inspect(|id| self.holds().add(*id, keys, until.ticks()));
                (true, id.map(HoldId))
            }
        }
    }

    /// Takes back what was charged under `hold`, once, because the request did not run after all. Each bucket is then
    /// what it would be had that charge never been made, and never fuller; what the bucket has forgotten since, because
    /// it ran full or its window ended, does not come back. Charges that were denied in between stay denied.
    pub fn undo(&self, hold: HoldId, now: Nanos) {
        let Some(keys) = self.holds().take(hold.0) else { return };
        for key in keys {
            let mut locked = self.lock(key);
            let now = self.not_before(now);
            locked.undo(table_key(key), hold.0, now);
        }
    }

    /// Says that what was charged under `hold` stays, so that others can be undone instead. Not needed: it stays after
    /// the deadline too.
    pub fn settle(&self, hold: HoldId) {
        let keys = self.holds().take(hold.0);
        self.close(hold.0, keys.unwrap_or_default());
    }

    /// Gives units back to a bucket, never more than it has given. One that is not in memory gets none.
    pub fn refund(&self, key: KeyHash, limit: &Limit, cost: Cost, now: Nanos) {
        let mut locked = self.lock(key);
        let now = self.not_before(now);
        let key = table_key(key);
        locked.forget_journal(key);
        if limit.algorithm() == Algorithm::SlidingLog {
            locked.refund_log(key, cost);
        } else {
            let refund = |state| algorithm::refund(limit, algorithm::nearest(limit, state, now), cost, now);
            locked.change(key, refund);
        }
    }

    /// Gives units of an earlier charge back, as far as that still weighs: what has refilled since is not given once more, and a window that
    /// has ended gives nothing to the next one.
    pub fn refund_charge(&self, key: KeyHash, limit: &Limit, returned: Returned, now: Nanos) {
        let mut locked = self.lock(key);
        let now = self.not_before(now);
        let key = table_key(key);
        locked.forget_journal(key);
        if limit.algorithm() == Algorithm::SlidingLog {
            locked.refund_charge_of_log(key, limit, returned, now);
        } else {
            let refund = |state| {
                let state = algorithm::nearest(limit, state, now);
                algorithm::refund_charge(limit, state, returned, now)
            };
            locked.change(key, refund);
        }
    }

    /// Forgets what a bucket knows: it is a full one, also where it had been let go of. A ban of its key is lifted and forgotten.
    pub fn reset(&self, key: KeyHash) {
        let mut locked = self.lock(key);
        locked.lift_ban(key);
        let key = table_key(key);
        locked.forget_journal(key);
        locked.remove_log(key);
        locked.change(key, |_| 0);
        if self.classes.has_marks(self.earliest.load(Relaxed)) {
            let spared = &mut locked.shard.spared;
            if spared.len() >= MAX_SPARED {
                spared.clear();
            }
            spared.insert(key);
        }
    }

    /// What the store holds. It looks at each shard shortly.
    pub fn stats(&self) -> StoreStats {
        let buckets = (0..self.budget.shards)
            .map(|number| self.lock_number(number).shard)
            .map(|shard| shard.buckets + shard.logs.len())
            .sum();
        let log_bytes = self.log_bytes.load(Relaxed);
        let [forgotten, folded] = [0, 1].map(|place: usize| self.let_go[place].load(Relaxed));
        StoreStats {
            buckets,
            bytes: self.table_bytes.load(Relaxed) + log_bytes,
            log_bytes,
            forgotten,
            folded,
            bans: self.bans.load(Relaxed),
            holds: self.holds().len(),
        }
    }

    /// The id for a hold, after making room by closing some of those whose time is over.
    fn reserve(&self, charges: usize, now: Nanos) -> Option<u64> {
        self.close_expired(now, HOLDS_AT_ONCE);
        self.holds().reserve(charges)
    }

    /// Each look closes at most one, so that no check waits for the holds of all others.
    fn close_expired(&self, now: Nanos, looks: usize) {
        let expired = self.holds().take_expired(now.ticks(), looks);
        expired.into_iter().for_each(|(id, keys)| self.close(id, keys));
    }

    fn close(&self, hold: u64, keys: Keys) {
        for key in keys {
            self.lock(key).close(table_key(key), hold);
        }
    }
}
