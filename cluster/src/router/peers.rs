//! Checks that other nodes send: decided if this node owns their slots, never sent on.

use smallvec::SmallVec;
use tidegate_limiter::{Consistency, KeyHash};
use tidegate_proto::peer::{Check, Decided, Outcome};

use super::Router;
use crate::{
    owner::rights::{Claim, Unclaimed},
    requests::Taken,
    slots::SlotId,
    wire,
};

impl Router {
    /// Brings the buckets of checks near that are about to be decided.
    pub(crate) fn warm_for_peer(&self, checks: &[Check]) {
        let charges = checks.iter().flat_map(|check| check.charges.as_slice());
        self.store.warm(charges.map(|charge| KeyHash::from_raw(charge.key)));
    }

    /// Decides a check that another node sent, if this node owns its slots.
    pub(crate) fn decide_for_peer(&self, lane: usize, check: &Check) -> (Outcome, Option<Taken>) {
        let (outcome, taken) = self.try_decide_for_peer(check);
        let stats = &self.lanes[lane];
        match outcome {
            Outcome::Decided(_) => stats.decided_for_peers.add(1),
            _ => stats.refused_to_peers.add(1),
        }
        (outcome, taken)
    }

    fn try_decide_for_peer(&self, check: &Check) -> (Outcome, Option<Taken>) {
        if !self.has_routes() {
            return (Outcome::NotReady, None);
        }
        let Some(mut charges) = wire::charges_from_wire(&check.charges) else {
            return (Outcome::Malformed, None);
        };
        let now = self.clock.now();
        let mut claims: SmallVec<[Claim; 4]> = SmallVec::new();
        for (charge, asked) in charges.iter_mut().zip(check.charges.as_slice()) {
            let (slot, consistency) = (SlotId::of(charge.key), wire::consistency_of(asked));
            match self.rights.claim(slot, consistency, now) {
                Ok(mut claim) => {
                    let reserve = asked.reserve.then(|| self.rights.reserve(asked.rule)).flatten();
                    charge.floor = self.rights.bounds(&mut claim, charge, reserve, now);
                    claims.push(claim);
                }
                Err(Unclaimed::Elsewhere | Unclaimed::Frozen) => {
                    return (Outcome::NotOwner { slot: slot.get() }, None);
                }
                Err(Unclaimed::Lapsed) if consistency == Consistency::Strict => {
                    let lapsed = now.saturating_since(self.rights.lapsed_since());
                    return (Outcome::Lapsed { for_nanos: lapsed.as_nanos() as u64 }, None);
                }
                Err(Unclaimed::Lapsed) => return (Outcome::NotReady, None),
            }
        }
        let Some((allowed, decisions, taken)) =
            self.charge_once(&charges, &claims, check.undoable, check.request, now)
        else {
            return (Outcome::NotOwner { slot: SlotId::of(charges[0].key).get() }, None);
        };
        let decisions = decisions.iter().map(wire::decision_to_wire).collect();
        (Outcome::Decided(Decided { allowed, decisions }), taken)
    }

    pub(crate) fn undo_for_peer(&self, taken: Taken) {
        self.undo(taken, self.clock.now());
    }
}
