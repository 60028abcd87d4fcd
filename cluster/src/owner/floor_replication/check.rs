//! The way of a check through the floors: how far a charge may go, and what it leaves to be replicated.

use std::sync::{
    Arc, PoisonError,
    atomic::Ordering::{Acquire, SeqCst},
};

use tidegate_limiter::{
    Cost, Decision, Nanos,
    cluster::{Charge, Consistency, Floor, KeyHash, Mark, Reserve, RuleId},
};
use tokio::sync::Notify;

use super::{BOUND, ClaimedFloors, DISK, DISK_SILENT, FROM_FLOORS, MAX_RAISES, SILENT, Side, bits};
use crate::{
    owner::{
        slot_ownership::{Claim, SlotOwnership},
        takeover::Assumed,
    },
    slots::SlotId,
    stats::FloorStats,
};

impl SlotOwnership {
    /// What is said of a bucket beside what is known of it here.
    #[inline]
    pub(crate) fn bounds(
        &self,
        claim: &mut Claim,
        charge: &Charge,
        reserve: Option<Reserve>,
        now: Nanos,
    ) -> Option<Floor> {
        match reserve {
            None => {
                // As good as always nothing is assumed.
                claim.floor?;
                let binding = self.floors.bindings[claim.slot.index()].load(Acquire);
                self.assumed(claim, binding, charge, None).empty_at.map(Floor::empty_at)
            }
            Some(reserve) => self.bounds_of(claim, charge, reserve, now),
        }
    }

    /// What the bucket counts as, because nobody can tell what it had admitted.
    fn assumed(&self, claim: &Claim, binding: u64, charge: &Charge, reserve: Option<Reserve>) -> Assumed {
        let of_basis = if binding & FROM_FLOORS == 0 {
            None
        } else {
            let (bases, now) = (self.floors.bases.load(), self.floors.reserves.load());
            let basis = bases.get(&claim.slot.get());
            basis.and_then(|basis| {
                let changes = self.floors.changes.load();
                basis.assumed(&now, &changes, charge.rule, reserve, &charge.limit)
            })
        };
        let assumed = of_basis.unwrap_or(Assumed { empty_at: claim.floor, at_least: Mark::default() });
        let starts_full = assumed.empty_at.is_some() && self.floors.reserves.load().starts_full(charge.rule);
        Assumed { empty_at: assumed.empty_at.filter(|_| !starts_full), ..assumed }
    }

    fn bounds_of(&self, claim: &mut Claim, charge: &Charge, reserve: Reserve, now: Nanos) -> Option<Floor> {
        let slot = claim.slot.index();
        let binding = self.floors.bindings[slot].load(Acquire);
        let Assumed { empty_at, at_least } = self.assumed(claim, binding, charge, Some(reserve));
        let mut agreed =
            ClaimedFloors { reserve, at_most: Mark::new(u64::MAX), binding, kept_to: 0, beyond: false };
        if binding & (BOUND | DISK) != 0 && charge.cost != Cost::PEEK {
            agreed.kept_to = binding & (BOUND | DISK);
            // Never beyond those of the disk: this node itself will begin from them, whoever else is lost.
            if binding & SILENT != 0 && claim.consistency == Consistency::Available && !self.has_session(now)
            {
                agreed.beyond = agreed.kept_to & BOUND != 0;
                agreed.kept_to &= !BOUND;
            }
            let sides: &[Side] = match agreed.kept_to {
                BOUND => &[Side::Successor],
                DISK => &[Side::Disk],
                _ => &Side::ALL,
            };
            if agreed.kept_to != 0 {
                let acknowledged = self.floors.acknowledged.get(slot, charge.key, sides);
                agreed.at_most = reserve.at_most(&charge.limit, acknowledged, now);
            }
        }
        claim.agreed = Some(agreed);
        (empty_at.is_some() || at_least != Mark::default() || agreed.at_most != Mark::new(u64::MAX))
            .then(|| Floor::between(empty_at, at_least, agreed.at_most))
    }

    /// Whether the agreement is what it was when the charge was made. The caller has made a fence.
    #[inline]
    pub(in crate::owner) fn is_as_agreed(&self, claim: &Claim, now: Nanos) -> bool {
        claim.agreed.is_none_or(|agreed| {
            let binding = self.floors.bindings[claim.slot.index()].load(Acquire);
            binding == agreed.binding && !(agreed.beyond && self.has_session(now))
        })
    }

    /// A charge counts: raises the floor, if the bucket is near it. `state`: what the bucket knows.
    #[inline]
    pub(crate) fn spent(
        &self,
        claim: &Claim,
        charge: &Charge,
        decision: &Decision,
        now: Nanos,
        state: impl FnOnce() -> Option<Mark>,
    ) {
        if let Some(agreed) = claim.agreed.filter(|agreed| agreed.kept_to != 0 && decision.allowed) {
            let (reserve, limit) = (agreed.reserve, &charge.limit);
            let mark = reserve.mark(charge, decision, now, state);
            if reserve.is_near(limit, mark, agreed.at_most) {
                self.raise(charge.key, charge.rule, reserve.ahead(limit, mark, now), agreed.kept_to);
            }
        }
    }

    /// A charge is [held](Decision::is_held): its floor is replicated at once. `state`: what the bucket knows.
    pub(crate) fn want(
        &self,
        claim: &Claim,
        charge: &Charge,
        decision: &Decision,
        now: Nanos,
        state: impl FnOnce() -> Option<Mark>,
    ) {
        if let Some(agreed) = claim.agreed.filter(|_| decision.is_held()) {
            let (reserve, limit) = (agreed.reserve, &charge.limit);
            let mark = reserve.mark(charge, decision, now, state);
            self.raise(charge.key, charge.rule, reserve.ahead(limit, mark, now), agreed.kept_to);
            self.floors.stats.count_held();
            self.floors.wants.fetch_add(1, SeqCst);
            self.floors.urgent.notify_waiters();
        }
    }

    /// Whether the floors of a charge's rule are replicated to a successor, or kept on the disk.
    pub(crate) fn replicates(&self, claim: &Claim) -> bool {
        claim.agreed.is_some_and(|agreed| agreed.binding & (BOUND | DISK) != 0)
    }

    /// The key of a charge is banned. Nobody waits until the successor and the disk know it.
    pub(crate) fn note_ban(&self, claim: &Claim, charge: &Charge, mark: Mark) {
        let key = charge.key.of_ban();
        let binding = claim.agreed.map_or(0, |agreed| agreed.binding);
        for side in Side::ALL.into_iter().filter(|side| binding & bits(*side).0 != 0) {
            if self.acknowledged_by(side, key).is_none_or(|known| known < mark) {
                self.raise(key, charge.rule, mark, bits(side).0);
            }
        }
    }

    /// `wanted`: [`BOUND`], [`DISK`] or both.
    pub(super) fn raise(&self, key: KeyHash, rule: RuleId, mark: Mark, wanted: u64) {
        let mut raises = self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        for side in Side::ALL.into_iter().filter(|side| wanted & bits(*side).0 != 0) {
            let raises = &mut raises[side as usize];
            if let Some((_, known)) = raises.get_mut(&key) {
                *known = mark.max(*known);
            } else if raises.len() < MAX_RAISES {
                raises.insert(key, (rule, mark));
            }
        }
    }

    /// Whether it is no use to wait for more to be acknowledged of this key: its floors wait for a disk that hangs.
    pub(crate) fn waits_in_vain(&self, key: KeyHash) -> bool {
        self.floors.disk_hangs.load(Acquire)
            && self.floors.bindings[SlotId::of(key).index()].load(Acquire) & DISK_SILENT != 0
    }

    /// Wakes who waits for more to be acknowledged.
    pub(crate) fn acknowledgements(&self) -> &Notify {
        &self.floors.acknowledgements
    }

    /// What is counted of floors.
    pub(crate) fn floor_stats(&self) -> &Arc<FloorStats> {
        &self.floors.stats
    }

    /// The rule with that number, if it has floors.
    pub(crate) fn reserve(&self, rule: u64) -> Option<Reserve> {
        self.floors.reserves.load().get(rule)
    }
}
