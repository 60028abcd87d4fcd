//! Bans where checks meet them, with the shard of the bucket locked: a check of a rule that bans never takes the way without a lock.
//! So of checks at the same time one finds that the limit is exceeded and begins the ban, and the others find the ban.
//!
//! A ban changes nothing of its bucket: that goes on refilling, and is what it would be when the ban is over.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Store,
    charging::{Planned, place_of},
    locked::Locked,
    table::table_key,
};
use crate::{
    Algorithm, Answer, Charge, Cost, Decision, KeyHash, Mark, Mode, Nanos,
    algorithm::{self, Asked, Bounds},
    ban::Ban,
    time::duration,
};

impl Store {
    /// What is known of bans of a key, if there is something: for its successor.
    pub fn ban_mark(&self, key: KeyHash, now: Nanos) -> Option<Mark> {
        let locked = self.lock(key);
        let now = self.not_before(now);
        let state = locked.table.get(table_key(key.of_ban()))?.load(Relaxed);
        (state > now).then(|| Mark::new(state))
    }

    /// Begins the bans of keys that a check has found over their limit, when no state is taken out any more. A check that could never
    /// pass, whatever was consumed, says nothing of that.
    pub(super) fn ban_exceeded(
        &self,
        charges: &[Charge],
        plan: &[Planned],
        shards: &mut [Locked<'_>],
        now: u64,
        decisions: &mut [Decision],
    ) {
        let is_never = |(charge, decision): (&Charge, &Decision)| {
            charge.mode == Mode::Enforce && !decision.allowed && decision.retry_after.is_none()
        };
        if charges.iter().all(|charge| charge.ban.is_none()) || charges.iter().zip(&*decisions).any(is_never)
        {
            return;
        }
        for ((charge, planned), decision) in charges.iter().zip(plan).zip(decisions) {
            let Some(ban) = charge.ban.filter(|_| !decision.allowed && !decision.banned) else { continue };
            let (asked, place) = (charge.asked(), place_of(shards, self.shard_of(charge.key)));
            let locked = &mut shards[place];
            if let Some(rest) = locked.banned_for(&asked, now) {
                // By another charge of the same check.
                *decision = decision.banned(rest);
            } else if locked.has_exceeded(&asked, decision, planned.before, now) {
                *decision = decision.banned(locked.begin_ban(&asked, ban, now));
            }
        }
    }
}

impl Locked<'_> {
    /// One bucket whose rule bans, unless its key is banned. No state may be taken out.
    pub(super) fn charge_unless_banned<'l>(&mut self, asked: &Asked<'l>, ban: Ban, now: u64) -> Answer<'l> {
        if self.banned_for(asked, now).is_some() {
            return Answer::ready(self.preview(asked, now));
        }
        let answer = self.charge(asked, now);
        if answer.is_allowed() || asked.cost == Cost::PEEK {
            return answer;
        }
        let (decision, before) = (answer.decision(), self.state_before(asked, now));
        if !self.has_exceeded(asked, &decision, before, now) {
            return Answer::ready(decision);
        }
        Answer::ready(decision.banned(self.begin_ban(asked, ban, now)))
    }

    /// For how long the key is banned; `None`: it is not.
    pub(super) fn banned_for(&mut self, asked: &Asked<'_>, now: u64) -> Option<Duration> {
        let ban = asked.ban?;
        let key = table_key(asked.key.of_ban());
        let state = self.table.get(key)?.load(Relaxed);
        let (end, cut) = ban.running(state, now)?;
        if let Some(state) = cut {
            self.put(key, state);
        }
        Some(duration(end - now))
    }

    /// Whether a check was denied because its key has consumed what the limit gives: not because that had to be assumed of a bucket, or
    /// is so for who asks for more than there ever is. `before` is the state before the check; of a log, what it has taken of it.
    pub(super) fn has_exceeded(
        &mut self,
        asked: &Asked<'_>,
        decision: &Decision,
        before: u64,
        now: u64,
    ) -> bool {
        let is_denied = !decision.allowed && !decision.assumed && decision.retry_after.is_some();
        if !is_denied || asked.cost == Cost::PEEK || self.may_be_assumed(asked, now) {
            return false;
        }
        let alone = Asked { bounds: Bounds::NONE, ..*asked };
        match asked.limit.algorithm() {
            Algorithm::SlidingLog => !self.decide_log(&alone, before, now).allowed,
            _ => !algorithm::outcome(&alone, before, now).allowed,
        }
    }

    /// Whether what the bucket says may rest on what had to be assumed of it: since its owner was lost, or others like it were let go of.
    fn may_be_assumed(&self, asked: &Asked<'_>, now: u64) -> bool {
        let classes = &self.store.classes;
        if classes.has_marks(now) && classes.is_strict(classes.of(asked.rule)) {
            return true;
        }
        let (limit, bounds) = (asked.limit, Bounds { at_most: u64::MAX, ..asked.bounds });
        match limit.algorithm() {
            Algorithm::SlidingLog => {
                bounds.floor().is_some_and(|floor| floor.saturating_add(limit.memory()) > now)
            }
            _ => {
                let of_nothing = algorithm::decide(limit, 0, bounds, Cost::PEEK, now).decision;
                of_nothing.remaining < of_nothing.limit
            }
        }
    }

    /// Begins a ban; for how long. Room may be made for it, so no state may be taken out.
    pub(super) fn begin_ban(&mut self, asked: &Asked<'_>, ban: Ban, now: u64) -> Duration {
        let key = table_key(asked.key.of_ban());
        let known = self.take(key);
        let state = ban.begin(known.unwrap_or(0), now);
        match known {
            Some(_) => self.put(key, state),
            None => self.add(key, self.store.classes.of(asked.rule), state, now),
        }
        self.store.bans.fetch_add(1, Relaxed);
        duration(ban.running(state, now).map_or(0, |(end, _)| end - now))
    }

    /// Lifts a ban, and forgets that there was one.
    pub(super) fn lift_ban(&mut self, key: KeyHash) {
        self.change(table_key(key.of_ban()), |_| 0);
    }

    fn state_before(&mut self, asked: &Asked<'_>, now: u64) -> u64 {
        if asked.limit.algorithm() == Algorithm::SlidingLog {
            return 0;
        }
        let key = table_key(asked.key);
        let Some(state) = self.take(key) else { return 0 };
        self.put(key, state);
        algorithm::nearest(asked.limit, state, now)
    }
}
