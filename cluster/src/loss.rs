//! What happens when no owner answers: each rule's `on_owner_loss`.
//!
//! A *share* is what this node may admit by itself meanwhile: 1/N of the rate and of the burst. The log says N for each node
//! that may answer, so that the shares of all of them are the whole at most ([`crate::owner::shares`]). It starts empty each time an owner is lost, so that all shares together with what the lost
//! owner admitted stay inside the limit for as long as that owner does not go on deciding. A node that was stopped itself, or has
//! just begun, cannot tell: it gives out nothing until it can.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tidegate_limiter::{
    Decision, Limit, Nanos,
    cluster::{Charge, Floor, OnOwnerLoss, Store},
    rules::Mode,
};

use crate::{
    owner::slot_ownership::Share,
    planted::PlantedBug,
    verdict::{Answer, Answers, DecidedBy, Decisions, LossPolicy},
};

/// `retry_after` when the rule denies because the slot has no owner: about as long as it takes until another
/// node has taken the slot over.
const RETRY_AFTER_LOSS: Duration = Duration::from_secs(3);

/// The buckets of this node's shares: other ones than those of the slots that it owns.
#[derive(Debug)]
pub(crate) struct Shares {
    store: Arc<Store>,
}

impl Shares {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Removes shares that are full again, in a small step.
    pub(crate) fn sweep(&self, now: Nanos) {
        self.store.sweep(now);
    }

    /// Decides charges that no owner decides, each at its place in `lost`, with the share that counts for it since its owner was
    /// lost; `None`: this node gives none, as it may be that only it cannot hear the owner. All or nothing: what one of them
    /// denies consumes nothing of the others. Returns whether it allows, and notes the answers.
    pub(crate) fn decide(
        &self,
        lost: &[(usize, Option<Share>)],
        charges: &[Charge],
        policies: &[LossPolicy],
        now: Nanos,
        answers: &mut Answers,
    ) -> bool {
        let shares = self::shares(lost, charges, policies, answers);
        let denies = |(place, _): &(usize, Option<Share>)| {
            charges[*place].mode == Mode::Enforce
                && answers[*place].as_ref().is_some_and(|answer| !answer.decision.allowed)
        };
        if lost.iter().any(denies) {
            self.look(&shares, now, answers);
            return false;
        }
        let mut decisions = Decisions::new();
        let own: SmallVec<[Charge; 4]> = shares.iter().map(|(_, charge)| *charge).collect();
        let allowed = self.store.check_all(&own, now, &mut decisions);
        for ((place, _), decision) in shares.into_iter().zip(decisions) {
            answers[place] = Some(Answer { decision, by: DecidedBy::Share });
        }
        allowed
    }

    /// Fills in what is not known of such charges, of a check that is denied: nothing is taken.
    pub(crate) fn preview(
        &self,
        lost: &[(usize, Option<Share>)],
        charges: &[Charge],
        policies: &[LossPolicy],
        now: Nanos,
        answers: &mut Answers,
    ) {
        let shares = self::shares(lost, charges, policies, answers);
        self.look(&shares, now, answers);
    }

    fn look(&self, shares: &[(usize, Charge)], now: Nanos, answers: &mut Answers) {
        for (place, charge) in shares {
            let decision = self.store.preview(charge, now);
            answers[*place] = Some(Answer { decision, by: DecidedBy::Share });
        }
    }
}

/// What is to be asked of shares, with its places, of what is not known yet. Where the rule itself answers, that is filled in.
fn shares(
    lost: &[(usize, Option<Share>)],
    charges: &[Charge],
    policies: &[LossPolicy],
    answers: &mut Answers,
) -> SmallVec<[(usize, Charge); 4]> {
    let mut shares = SmallVec::new();
    for &(place, share) in lost {
        if answers[place].is_none() {
            match of_share(&charges[place], policies[place], share) {
                Ok(charge) => shares.push((place, charge)),
                Err(answer) => answers[place] = Some(answer),
            }
        }
    }
    shares
}

/// What is charged to a share; otherwise the answer of the rule itself.
fn of_share(charge: &Charge, policy: LossPolicy, share: Option<Share>) -> Result<Charge, Answer> {
    match policy.on_owner_loss {
        OnOwnerLoss::Share => {
            let part = share.and_then(|Share { since, parts, .. }| {
                let limit = charge.limit.share(parts.saturating_mul(carved(policy)))?;
                // It begins empty: that it denies does not say that the key has exceeded its limit.
                Some(Charge { limit, floor: Some(Floor::empty_at(since)), ban: None, ..*charge })
            });
            // No share, or a limit smaller than the cluster: this node's part of it is nothing.
            part.ok_or_else(|| by_rule(charge, false))
        }
        OnOwnerLoss::Deny => Err(by_rule(charge, false)),
        OnOwnerLoss::Allow => Err(by_rule(charge, true)),
    }
}

/// A share of a carved limit is one of what was carved out.
fn carved(policy: LossPolicy) -> u32 {
    if policy.carved && !PlantedBug::ShareNotCarved.is_on() { Limit::CARVED_PARTS } else { 1 }
}

/// The answer to a charge that nobody decides.
pub(crate) fn by_rule(charge: &Charge, allowed: bool) -> Answer {
    let decision = Decision {
        allowed,
        limit: charge.limit.burst_size(),
        remaining: 0,
        reset_after: RETRY_AFTER_LOSS,
        retry_after: (!allowed).then_some(RETRY_AFTER_LOSS),
        delay: Duration::ZERO,
        assumed: false,
        banned: false,
    };
    Answer { decision, by: DecidedBy::Fallback }
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{
        Algorithm, Cost,
        cluster::{Consistency, KeyHash, LimitRef, RuleId, StoreConfig},
    };

    use super::*;

    #[test]
    fn what_one_lost_part_denies_consumes_no_share_of_another() {
        let now = Nanos::new(1 << 43);
        let shares = Shares::new(Arc::new(Store::new(StoreConfig::default(), now)));
        let charge = |key: u64, text: &str| Charge {
            key: KeyHash::from_raw(key),
            rule: RuleId::INLINE,
            limit: Limit::parse(text, None, Algorithm::TokenBucket).expect("a limit"),
            cost: Cost::ONE,
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        let policy = LossPolicy {
            on_owner_loss: OnOwnerLoss::Share,
            consistency: Consistency::Available,
            carved: false,
            reserve: None,
            limit_ref: LimitRef::INLINE,
        };
        // A limit of all clients, and that of one who is over it: two owners, neither of which answers.
        let (whole, client) = (charge(1, "40/1h"), charge(2, "4/1h"));
        let full = Nanos::new(now.get() - Duration::from_secs(3600).as_nanos() as u64);
        let share = Some(Share { since: full, parts: 2, changes: 0 });
        let decide = |charges: &[Charge]| {
            let mut answers: Answers = charges.iter().map(|_| None).collect();
            let lost: Vec<_> = (0..charges.len()).map(|place| (place, share)).collect();
            shares.decide(&lost, charges, &[policy, policy], now, &mut answers)
        };
        let allowed = (0..50).filter(|_| decide(&[whole, client])).count();
        assert_eq!(allowed, 2, "half of the limit of one client");
        let left = (0..50).filter(|_| decide(&[whole])).count();
        assert_eq!(left, 18, "half of 40, less what was allowed: denied checks have consumed nothing");
    }
}
