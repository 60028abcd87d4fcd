//! Checks that other nodes send: decided if this node owns their slots, never sent on.

use smallvec::SmallVec;
use tidegate_limiter::{
    cluster::{Charge, Consistency, KeyHash, Newer, Reserve, RuleId, Standing},
    rules::Mode,
};
use tidegate_proto::peer::{self, Check, Decided, Outcome};

use super::core::Router;
use crate::{
    owner::slot_ownership::{Claim, Unclaimed},
    planted::PlantedBug,
    requests::Taken,
    slots::SlotId,
    wire,
};

/// What the newest rules that are known demand of a charge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands {
    pub(super) consistency: Consistency,
    pub(super) reserve: Option<Reserve>,
}

impl Router {
    /// Brings the buckets of checks near that are about to be decided.
    pub(crate) fn warm_for_peer(&self, checks: &[Check]) {
        let charges = checks.iter().flat_map(|check| check.charges.as_slice());
        self.store.warm(charges.map(|charge| KeyHash::from_raw(charge.key)));
    }

    /// Decides a check that another node sent, if this node owns its slots.
    pub(crate) fn decide_for_peer(&self, worker: usize, check: &Check) -> (Outcome, Option<Taken>) {
        let (outcome, taken) = self.try_decide_for_peer(check);
        let stats = &self.workers[worker];
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
            let slot = SlotId::of(charge.key);
            let newest = self.newest(charge, asked, check.revision);
            let consistency = newest.map_or(wire::consistency_of(asked), |found| found.consistency);
            match (self.ownership.claim(slot, consistency, now), newest) {
                (Ok(mut claim), Ok(Demands { reserve, .. })) => {
                    charge.floor = self.ownership.bounds(&mut claim, charge, reserve, now);
                    claims.push(claim);
                }
                (Err(Unclaimed::Elsewhere | Unclaimed::Frozen), _) => {
                    return (Outcome::NotOwner { slot: slot.get() }, None);
                }
                (_, Err(revision)) => return (Outcome::Newer { revision }, None),
                (Err(Unclaimed::Lapsed), _) if consistency == Consistency::Strict => {
                    let lapsed = now.saturating_since(self.ownership.lapsed_since());
                    return (Outcome::Lapsed { for_nanos: lapsed.as_nanos() as u64 }, None);
                }
                (Err(Unclaimed::Lapsed), _) => return (Outcome::NotReady, None),
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

    /// Has a charge hold as the newer rules say, those of the asker or those in force here, and tells what they demand. The
    /// limit of rules that have been replaced counts no more, whichever node still has them.
    ///
    /// # Errors
    /// Where only the asker can tell: with the revision of the rules that it needs for that.
    #[inline]
    pub(super) fn newest(
        &self,
        charge: &mut Charge,
        asked: &peer::Charge,
        revision: u64,
    ) -> Result<Demands, u64> {
        if revision != self.in_force.newest()
            && let Some(newer) = self.newer(charge, asked, revision)?
        {
            (charge.key, charge.limit, charge.mode) = (newer.key, newer.limit, newer.mode);
            charge.ban = newer.ban;
            let Newer { consistency, reserve, .. } = newer;
            return Ok(Demands { consistency, reserve });
        }
        // An asker of an earlier version does not know that its own limit has floors.
        let reserve = match charge.rule {
            RuleId::INLINE => Reserve::of_inline(&charge.limit),
            _ => asked.reserve.then(|| self.ownership.reserve(asked.rule)).flatten(),
        };
        Ok(Demands { consistency: wire::consistency_of(asked), reserve })
    }

    #[cold]
    fn newer(&self, charge: &Charge, asked: &peer::Charge, revision: u64) -> Result<Option<Newer>, u64> {
        if charge.rule == RuleId::INLINE || PlantedBug::AskersLimit.is_on() {
            return Ok(None);
        }
        let rules = self.in_force.load();
        match rules.standing(charge.rule, wire::limit_ref_of(asked), charge.key, &charge.limit, revision) {
            Standing::AsAsked => Ok(None),
            Standing::Newer(newer) => Ok(Some(newer)),
            // It counts, and denies nothing, by the newer rules too.
            Standing::Unknown { .. } if charge.mode == Mode::Shadow && !rules.enforces(charge.rule) => {
                Ok(None)
            }
            Standing::Unknown { revision } => Err(revision),
        }
    }

    pub(crate) fn undo_for_peer(&self, taken: Taken) {
        self.undo(taken, self.clock.now());
    }
}
