//! What the answer of a denied check says of buckets whose owners had not been asked when it was denied.
//!
//! A caller that waits for `retry_after` must not be denied by another rule then, and the headers say what is left of each. So
//! the owners that are left are asked what they would say, all at the same time. Where a denial is likely this is done while the
//! owner that is likely to deny is asked, so that it takes no second round trip.
//!
//! **Nothing is taken for it.** With the charges that an owner is asked about goes one that no limit allows: an owner charges
//! its part of a check all or nothing, and says of each charge what it would have decided. Nodes of earlier versions do, too.

use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Decision, Limit,
    cluster::{Charge, LimitRef, RuleId},
    rules::Mode,
};
use tidegate_proto::peer::Outcome;

use super::{
    attempt::{Asked, Attempt, Previews},
    core::Router,
    parts::{LossReason, Owner, Part, PartOutcome},
};
use crate::{
    link::Reply,
    verdict::{Answer, Answers, DecidedBy, LossPolicy},
};

/// What no limit allows, of the same slot: a token bucket is asked for more than it holds.
fn impossible(like: &Charge, policy: LossPolicy) -> (Charge, LossPolicy) {
    let charge = Charge {
        key: like.key,
        rule: RuleId::INLINE,
        limit: Limit::per_second(1),
        cost: Cost::MAX,
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    };
    (charge, LossPolicy { reserve: None, limit_ref: LimitRef::INLINE, ..policy })
}

impl Router {
    /// Asks the owners of all parts but `first` what they would say.
    pub(super) fn preview_others<'a>(&self, check: &Attempt<'a>, first: &Part) -> Previews<'a> {
        if check.parts.len() < 2 || !self.previews[check.worker].allows(check.now) {
            return Previews::new();
        }
        let others = check.parts.iter().filter(|part| !std::ptr::eq(first, *part));
        let others =
            others.filter(|part| matches!(part.owner, Owner::Peer(_)) && part.is_enforced(check.charges));
        others.map(|part| (part, self.preview(check, part))).collect()
    }

    pub(super) fn preview(&self, check: &Attempt<'_>, part: &Part) -> Asked {
        let first = *part.places.first()?;
        let (charge, policy) = impossible(&check.charges[first], check.policies[first]);
        self.ask_with(check, part, Some((&charge, policy)))
    }

    /// Fills in what is not known of a check that is denied. `previews` are owners that were asked already, `lost` parts whose owners did
    /// not decide.
    pub(super) async fn explain<'a>(
        &self,
        check: &Attempt<'a>,
        mut previews: Previews<'a>,
        mut lost: SmallVec<[(&'a Part, LossReason); 2]>,
        answers: &mut Answers,
    ) {
        let is_open = |part: &Part| {
            let mut places = part.places.iter();
            part.is_enforced(check.charges) && places.any(|place| answers[*place].is_none())
        };
        // What a rule denies whatever was consumed never passes: the others have nothing to add, and whoever is blocked costs no
        // other node anything.
        if check
            .parts
            .iter()
            .any(|part| matches!(part.owner, Owner::Anybody) && part.is_enforced(check.charges))
        {
            return;
        }
        let open: SmallVec<[&Part; 2]> = check.parts.iter().filter(|part| is_open(part)).collect();
        // One that somebody may decide about is asked, maybe once more. What a share would say of it is too strict: it begins empty.
        lost.retain(|(part, why)| is_open(part) && !matches!(why, LossReason::Unknown));
        let may_ask = !previews.is_empty() || self.may_preview(check, &open, &lost);
        let mut asked = Previews::new();
        for part in open {
            match &part.owner {
                _ if lost.iter().any(|(lost, _)| std::ptr::eq(*lost, part)) => {}
                Owner::Here(_) => {
                    let look = |place: &usize| self.store.preview(&check.charges[*place], check.now);
                    let decisions: SmallVec<[Decision; 4]> = part.places.iter().map(look).collect();
                    note(answers, part, &decisions);
                }
                Owner::Peer(_) if !may_ask => {}
                Owner::Peer(_) => {
                    let known = previews.iter().position(|(asked, _)| std::ptr::eq(*asked, part));
                    let answer = match known {
                        Some(place) => previews.swap_remove(place).1,
                        None => self.preview(check, part),
                    };
                    asked.push((part, answer));
                }
                // About to have an owner.
                Owner::Nobody { .. } | Owner::Anybody => {}
            }
        }
        for (part, mut answer) in asked {
            let outcome = match self.hear_by(check.deadline, &mut answer).await {
                Some(reply) => self.outcome(check.worker, part, reply.map(without_impossible)),
                None => PartOutcome::Lost(LossReason::Unheard),
            };
            match outcome {
                PartOutcome::Decided { decisions, .. } => {
                    self.learn_denials(check, part, &decisions);
                    note(answers, part, &decisions);
                }
                // An attempt that began late says nothing of an owner that it did not hear.
                PartOutcome::Lost(LossReason::Unheard) if check.was_held => {}
                PartOutcome::Lost(why) => lost.push((part, why)),
                // Who owns it is about to be known, and a denial is not worth another attempt.
                PartOutcome::Misrouted | PartOutcome::Behind { .. } => {}
            }
        }
        if !lost.is_empty() {
            let (lost, _) = self.shares_of(check, lost);
            self.shares.preview(&lost, check.charges, check.policies, check.now, answers);
        }
    }
}

impl Router {
    /// Whether owners are to be asked now, if there is one to ask.
    fn may_preview(&self, check: &Attempt<'_>, open: &[&Part], lost: &[(&Part, LossReason)]) -> bool {
        let is_lost = |part: &Part| lost.iter().any(|(lost, _)| std::ptr::eq(*lost, part));
        open.iter().any(|part| matches!(part.owner, Owner::Peer(_)) && !is_lost(part))
            && self.previews[check.worker].allows(check.now)
    }
}

impl Part {
    fn is_enforced(&self, charges: &[Charge]) -> bool {
        self.places.iter().any(|place| charges[*place].mode == Mode::Enforce)
    }
}

pub(super) fn without_impossible(mut reply: Reply) -> Reply {
    if let Outcome::Decided(decided) = &mut reply.outcome {
        decided.decisions.pop();
    }
    reply
}

/// What one would have waited for a successor to acknowledge does not deny.
pub(super) fn note(answers: &mut Answers, part: &Part, decisions: &[Decision]) {
    for (place, decision) in part.places.iter().zip(decisions) {
        let decision = decision.unless_held();
        let by = match &part.owner {
            Owner::Peer(owner) => DecidedBy::Forwarded(Arc::clone(&owner.member.id.name)),
            Owner::Here(_) | Owner::Anybody | Owner::Nobody { .. } => DecidedBy::Owner,
        };
        answers[*place].get_or_insert(Answer { decision, by });
    }
}
