//! What happens when no owner answers: each rule's `on_owner_loss`.
//!
//! A *share* is what this node may admit by itself meanwhile: 1/N of the rate and of the burst. The log says N for each node
//! that may answer, so that the shares of all of them are the whole at most ([`crate::owner::shares`]). It starts empty each time an owner is lost, so that all shares together with what the lost
//! owner admitted stay inside the limit for as long as that owner does not go on deciding. A node that was stopped itself, or has
//! just begun, can not tell: it gives out nothing until it can.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tidegate_limiter::{Charge, Decision, Floor, Limit, Mode, Nanos, OnOwnerLoss, Store};

use crate::{
    owner::rights::Share,
    planted::PlantedBug,
    verdict::{Answer, Answers, DecidedBy, Decisions, Wish},
};

/// What a caller is told to wait when the rule denies for want of an owner: about as long as it takes until another
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

    /// Decides the charges at `places`, whose owner has been lost for as long as the share counts, all or nothing; `None`: this
    /// node gives none, as it may be that only it can not hear the owner. Returns whether it allows, and notes the answers.
    pub(crate) fn decide(
        &self,
        places: &[usize],
        charges: &[Charge],
        wishes: &[Wish],
        share: Option<Share>,
        now: Nanos,
        answers: &mut Answers,
    ) -> bool {
        let mut from_share: SmallVec<[usize; 4]> = SmallVec::new();
        let mut shares: SmallVec<[Charge; 4]> = SmallVec::new();
        for &place in places {
            let charge = &charges[place];
            match wishes[place].on_owner_loss {
                OnOwnerLoss::Share => {
                    let part = share.and_then(|Share { since, parts, .. }| {
                        let limit = charge.limit.share(parts.saturating_mul(carved(wishes[place])))?;
                        Some((limit, since))
                    });
                    match part {
                        Some((limit, since)) => {
                            from_share.push(place);
                            shares.push(Charge { limit, floor: Some(Floor::empty_at(since)), ..*charge });
                        }
                        // No share, or a limit smaller than the cluster: this node's part of it is nothing.
                        None => answers[place] = Some(by_rule(charge, false)),
                    }
                }
                OnOwnerLoss::Deny => answers[place] = Some(by_rule(charge, false)),
                OnOwnerLoss::Allow => answers[place] = Some(by_rule(charge, true)),
            }
        }
        let denies = |place: &usize| {
            charges[*place].mode == Mode::Enforce
                && answers[*place].as_ref().is_some_and(|answer| !answer.decision.allowed)
        };
        if places.iter().any(denies) {
            return false;
        }
        let mut decisions = Decisions::new();
        let allowed = self.store.check_all(&shares, now, &mut decisions);
        for (place, decision) in from_share.into_iter().zip(decisions) {
            answers[place] = Some(Answer { decision, by: DecidedBy::Share });
        }
        allowed
    }
}

/// A share of a carved limit is one of what was carved out.
fn carved(wish: Wish) -> u32 {
    if wish.carved && !PlantedBug::ShareNotCarved.is_on() { Limit::CARVED_PARTS } else { 1 }
}

/// The answer to a charge that nobody decides.
pub(crate) fn by_rule(charge: &Charge, allowed: bool) -> Answer {
    let decision = Decision {
        allowed,
        limit: charge.limit.burst(),
        remaining: 0,
        reset_after: RETRY_AFTER_LOSS,
        retry_after: (!allowed).then_some(RETRY_AFTER_LOSS),
        delay: Duration::ZERO,
        assumed: false,
    };
    Answer { decision, by: DecidedBy::Fallback }
}
