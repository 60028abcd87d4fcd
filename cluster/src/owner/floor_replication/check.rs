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

use super::{BOUND, ClaimedFloors, FROM_FLOORS, MAX_RAISES, SILENT};
use crate::{
    owner::slot_ownership::{Claim, SlotOwnership},
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
            None => claim.floor.map(Floor::empty_at),
            Some(reserve) => self.bounds_of(claim, charge, reserve, now),
        }
    }

    fn bounds_of(&self, claim: &mut Claim, charge: &Charge, reserve: Reserve, now: Nanos) -> Option<Floor> {
        let slot = claim.slot.index();
        let binding = self.floors.bindings[slot].load(Acquire);
        let (mut empty_at, mut at_least) = (claim.floor, Mark::default());
        if binding & FROM_FLOORS != 0
            && let Some(basis) = self.floors.bases.load().get(&claim.slot.get())
            && let Some(mark) = basis.at_least(reserve, &charge.limit)
        {
            (empty_at, at_least) = (basis.empty_at(reserve), mark);
        }
        let mut agreed = ClaimedFloors { reserve, at_most: Mark::new(u64::MAX), binding, beyond: false };
        if binding & BOUND != 0 && charge.cost != Cost::PEEK {
            let is_cut_off = binding & SILENT != 0 && !self.has_session(now);
            agreed.beyond = is_cut_off && claim.consistency == Consistency::Available;
            if !agreed.beyond {
                let acknowledged = self.floors.acknowledged.get(slot, charge.key);
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

    /// A charge counts: raises the floor, if the bucket is near it.
    #[inline]
    pub(crate) fn spent(&self, claim: &Claim, charge: &Charge, decision: &Decision, now: Nanos) {
        if let Some(agreed) = claim.agreed
            && agreed.binding & BOUND != 0
            && !agreed.beyond
            && charge.cost != Cost::PEEK
        {
            let mark = agreed.reserve.mark(&charge.limit, charge.cost, decision, now);
            if decision.allowed && agreed.reserve.is_near(mark, agreed.at_most) {
                self.raise(charge.key, charge.rule, agreed.reserve.ahead(mark));
            }
        }
    }

    /// A charge is [held](Decision::is_held): its floor is replicated at once.
    pub(crate) fn want(&self, claim: &Claim, charge: &Charge, decision: &Decision, now: Nanos) {
        if let Some(agreed) = claim.agreed.filter(|_| decision.is_held()) {
            let mark = agreed.reserve.mark(&charge.limit, charge.cost, decision, now);
            self.raise(charge.key, charge.rule, agreed.reserve.ahead(mark));
            self.floors.stats.count_held();
            self.floors.wants.fetch_add(1, SeqCst);
            self.floors.urgent.notify_waiters();
        }
    }

    /// Whether the floors of a charge's rule are replicated to a successor.
    pub(crate) fn replicates(&self, claim: &Claim) -> bool {
        claim.agreed.is_some_and(|agreed| agreed.binding & BOUND != 0)
    }

    /// The key of a charge is banned. Nobody waits until the successor knows it.
    pub(crate) fn note_ban(&self, charge: &Charge, mark: Mark) {
        let key = charge.key.of_ban();
        if !self.is_acknowledged(key, mark) {
            self.raise(key, charge.rule, mark);
        }
    }

    pub(super) fn raise(&self, key: KeyHash, rule: RuleId, mark: Mark) {
        let mut raises = self.floors.raises.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = raises.get_mut(&key) {
            *known = mark.max(*known);
        } else if raises.len() < MAX_RAISES {
            raises.insert(key, (rule, mark));
        }
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
