//! What this node charges: its own part of a check, once for each request, and taken back where others deny.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_limiter::{
    Decision, Nanos,
    cluster::{Charge, HoldId},
};

use super::{
    core::Router,
    parts::UndoBy,
    parts::{Part, is_held},
};
use crate::{
    owner::slot_ownership::Claim,
    requests::{REMEMBER, Remembered, RequestKey, Share, Taken},
    slots::SlotId,
    verdict::Decisions,
};

/// How long a local charge can be undone while other owners are asked.
const HOLD: Duration = Duration::from_secs(2);

impl Router {
    /// Charges this node's own part; `None` if what was charged does not count.
    pub(super) fn decide_here(
        &self,
        part: &Part,
        claims: &[Claim],
        charges: &[Charge],
        undoable: bool,
        request: Option<u64>,
        now: Nanos,
    ) -> Option<(bool, Decisions, Option<UndoBy>)> {
        let own: SmallVec<[Charge; 4]> = part.places.iter().map(|place| charges[*place]).collect();
        let (allowed, decisions, taken) = self.charge_once(&own, claims, undoable, request, now)?;
        Some((allowed, decisions, taken.map(UndoBy::Hold)))
    }

    /// Charges, unless the request with that number was charged here before.
    pub(super) fn charge_once(
        &self,
        own: &[Charge],
        claims: &[Claim],
        undoable: bool,
        request: Option<u64>,
        now: Nanos,
    ) -> Option<(bool, Decisions, Option<Taken>)> {
        let Some(number) = request else {
            let (allowed, decisions, hold) = self.charge(own, claims, undoable, now)?;
            return Some((allowed, decisions, hold.map(|hold| Taken { hold, request: None })));
        };
        let key = RequestKey::of(number, own);
        // Locked while it is charged: another thread may have the same request.
        let mut part = self.requests.lock(key);
        if let Some(decisions) = self.requests.repeat(&mut part, key, now) {
            return Some((true, decisions.into_iter().collect(), None));
        }
        let (allowed, decisions, hold) = self.charge(own, claims, undoable, now)?;
        let mut until = None;
        if allowed && let Some(first) = own.first() {
            let slot = SlotId::of(first.key);
            let remembered = Remembered { key, slot, rest: REMEMBER, decisions: decisions.as_slice().into() };
            until = self.requests.remember(&mut part, Share::of(own), remembered, now);
            if until.is_some() {
                self.requests.note_charges(&mut part, key, own, now);
            }
        }
        Some((allowed, decisions, hold.map(|hold| Taken { hold, request: until.map(|until| (key, until)) })))
    }

    /// Takes a charge back; not if another check was answered by it. The request is forgotten first: whoever sees the bucket
    /// without the charge must not find it.
    pub(super) fn undo(&self, taken: Taken, now: Nanos) {
        if taken.request.is_none_or(|(key, until)| self.requests.forget(key, until, || self.clock.now())) {
            self.store.undo(taken.hold, now);
        } else {
            self.store.settle(taken.hold);
        }
    }

    pub(super) fn charge(
        &self,
        own: &[Charge],
        claims: &[Claim],
        undoable: bool,
        now: Nanos,
    ) -> Option<(bool, Decisions, Option<HoldId>)> {
        let mut decisions = Decisions::new();
        let (allowed, hold) = if undoable {
            self.store.hold(own, now, now.saturating_add(HOLD), &mut decisions)
        } else {
            (self.store.check_all(own, now, &mut decisions), None)
        };
        if !allowed {
            claims.iter().zip(own).for_each(|(claim, charge)| self.ownership.note_denied(claim, charge.key));
            self.note_bans(claims, own, &decisions, now);
        }
        if !allowed && is_held(own, &decisions) {
            for ((claim, charge), decision) in claims.iter().zip(own).zip(&decisions) {
                self.ownership.want(claim, charge, decision, now, || self.store.mark(charge.key, now));
            }
        }
        if allowed && !self.counts(claims, own, &decisions, now, self.clock.now()) {
            if let Some(hold) = hold {
                self.store.undo(hold, now);
            }
            return None;
        }
        Some((allowed, decisions, hold))
    }

    /// A denied check has begun bans, or found them: who decides about these keys next has to know of them, by plan or after a crash.
    pub(super) fn note_bans(&self, claims: &[Claim], charges: &[Charge], decisions: &[Decision], now: Nanos) {
        for ((claim, charge), decision) in claims.iter().zip(charges).zip(decisions) {
            if charge.ban.is_some() && decision.banned {
                self.ownership.note_denied(claim, charge.key.of_ban());
                if self.ownership.replicates(claim)
                    && let Some(mark) = self.store.ban_mark(charge.key, now)
                {
                    self.ownership.note_ban(claim, charge, mark);
                }
            }
        }
    }
}
