//! A check is split by who owns the slots of its buckets.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tidegate_limiter::{
    Decision, Nanos,
    cluster::{Charge, Consistency},
    rules::Mode,
};
use tidegate_proto::peer::MAX_CHARGES;

use super::core::Router;
use crate::{
    owner::slot_ownership::{Claim, Unclaimed},
    requests::Taken,
    routes::{Peer, Routes},
    slots::SlotId,
    verdict::{Answer, Answers, DecidedBy, Decisions, LossPolicy},
};

/// `retry_after` of a check that is denied because the successor of a slot does not answer: by then the log names another one, or
/// none.
const HELD_RETRY: Duration = Duration::from_millis(250);

/// A frame takes so many; what is more for one owner is asked in another one. One goes along where nothing is to be taken.
const MAX_PLACES: usize = MAX_CHARGES - 1;

/// The charges of a check that one member owns, by their place in the check.
pub(super) struct Part {
    pub(super) owner: Owner,
    pub(super) places: SmallVec<[usize; 4]>,
}

/// Who decides about a part.
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
pub(super) enum Owner {
    /// This node, under these claims, in the order of the places.
    Here(SmallVec<[Claim; 4]>),
    Peer(Arc<Peer>),
    /// Whoever is asked: limits that deny whatever was consumed.
    Anybody,
    /// Nobody whom this node knows. `soon`: the slot is about to have an owner.
    Nobody {
        soon: bool,
    },
}

/// How a part of a check ended.
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
pub(super) enum PartOutcome {
    Decided {
        allowed: bool,
        decisions: Decisions,
        undo: Option<UndoBy>,
    },
    /// The owner does not own it (any more, or yet): worth another attempt.
    Misrouted,
    /// The owner has newer rules, and cannot tell by which of them the part was to be made.
    Behind {
        revision: u64,
    },
    Lost(LossReason),
}

/// Why a part is decided by nobody: since when that is so is found out when it matters, not earlier, because meanwhile somebody
/// may have decided.
#[derive(Debug, Clone, Copy)]
pub(super) enum LossReason {
    /// Somebody may decide about it.
    Unknown,
    /// The slots are this node's, and it has no session.
    Lapsed,
    /// The owner is not heard.
    Unheard,
    /// The owner has no session; what it said.
    ItsLapse { since: Nanos },
}

/// What takes a part back.
pub(super) enum UndoBy {
    Hold(Taken),
    Reply(u64),
}

/// Where a charge is decided.
pub(super) enum Found {
    Here(Claim),
    /// At the member at this place.
    There(usize),
    /// Anywhere: it is denied.
    Anywhere,
    Nobody {
        soon: bool,
    },
}

impl Router {
    /// Where a charge is decided.
    pub(super) fn owner_of(&self, routes: &Routes, charge: &Charge, policy: LossPolicy, now: Nanos) -> Found {
        if charge.limit.denies() {
            return Found::Anywhere;
        }
        let slot = SlotId::of(charge.key);
        let member = match self.ownership.claim(slot, policy.consistency, now) {
            Ok(claim) => return Found::Here(claim),
            Err(Unclaimed::Lapsed) => return Found::Nobody { soon: false },
            Err(Unclaimed::Frozen) => routes.target(slot),
            Err(Unclaimed::Elsewhere) => routes.owner(slot),
        };
        member.map_or(Found::Nobody { soon: true }, Found::There)
    }

    /// Sorts the charges by who owns them, and fills in the floors of this node's own.
    pub(super) fn split(
        &self,
        routes: &Routes,
        charges: &mut [Charge],
        policies: &[LossPolicy],
        now: Nanos,
    ) -> SmallVec<[Part; 2]> {
        let mut parts: SmallVec<[Part; 2]> = SmallVec::new();
        for (index, charge) in charges.iter_mut().enumerate() {
            let found = self.owner_of(routes, charge, policies[index], now);
            let fits = |part: &&mut Part| match (&part.owner, &found) {
                // Also here: a request that comes again by another way must be in the same parts.
                (Owner::Here(_), Found::Here(_)) => is_like(part, policies, index),
                (Owner::Anybody, Found::Anywhere) => true,
                (Owner::Nobody { soon }, Found::Nobody { soon: other }) => {
                    soon == other && is_like(part, policies, index)
                }
                (Owner::Peer(peer), Found::There(member)) => {
                    part.places.len() < MAX_PLACES
                        && is_like(part, policies, index)
                        && routes.peers[*member].as_ref().is_some_and(|other| Arc::ptr_eq(peer, other))
                }
                _ => false,
            };
            let part = match parts.iter_mut().rev().find(fits) {
                Some(part) => part,
                None => {
                    let owner = match &found {
                        Found::Here(_) => Owner::Here(SmallVec::new()),
                        Found::Anywhere => Owner::Anybody,
                        Found::Nobody { soon } => Owner::Nobody { soon: *soon },
                        Found::There(member) => match &routes.peers[*member] {
                            Some(peer) => Owner::Peer(Arc::clone(peer)),
                            None => Owner::Nobody { soon: true },
                        },
                    };
                    parts.push(Part { owner, places: SmallVec::new() });
                    parts.last_mut().expect("it was just pushed")
                }
            };
            part.places.push(index);
            if let (Owner::Here(claims), Found::Here(mut claim)) = (&mut part.owner, found) {
                charge.floor = self.ownership.bounds(&mut claim, charge, policies[index].reserve, now);
                claims.push(claim);
            }
        }
        parts
    }
}

/// Whether a part is this node's, which has no session in which to decide it.
pub(super) fn is_lapsed(part: &Part, policies: &[LossPolicy]) -> bool {
    let is_strict = |place: &usize| policies[*place].consistency == Consistency::Strict;
    matches!(part.owner, Owner::Nobody { soon: false }) && part.places.iter().all(is_strict)
}

/// Whether a charge is decided as those of a part are: an owner without a session decides the ones, and not the others.
fn is_like(part: &Part, policies: &[LossPolicy], place: usize) -> bool {
    part.places.first().is_none_or(|first| policies[*first].consistency == policies[place].consistency)
}

/// What a limit says that denies whatever was consumed.
pub(super) fn denial(charge: &Charge) -> Decision {
    Decision {
        allowed: false,
        limit: charge.limit.burst_size(),
        remaining: 0,
        reset_after: Duration::ZERO,
        retry_after: None,
        delay: Duration::ZERO,
        assumed: false,
        banned: false,
    }
}

/// Whether a check that was denied was so only because successors must acknowledge floors first.
pub(super) fn is_held(charges: &[Charge], decisions: &[Decision]) -> bool {
    let denied = || charges.iter().zip(decisions).filter(|(_, decision)| !decision.allowed);
    let enforced = |(charge, _): &(&Charge, &Decision)| charge.mode == Mode::Enforce;
    // Where no rule denies that is enforced here, it is so at an owner with newer rules.
    let any_counts = !denied().any(|denial| enforced(&denial));
    let mut denials = denied().filter(|denial| any_counts || enforced(denial)).peekable();
    denials.peek().is_some() && denials.all(|(_, decision)| decision.is_held())
}

pub(super) fn part_is_held(part: &Part, charges: &[Charge], decisions: &[Decision]) -> bool {
    let own: SmallVec<[Charge; 4]> = part.places.iter().map(|place| charges[*place]).collect();
    is_held(&own, decisions)
}

/// Takes in what was decided about a part. Whether what is held denies is known when all parts are: see [`tell_held`].
pub(super) fn note(answers: &mut Answers, part: &Part, decisions: &[Decision], by: impl Fn() -> DecidedBy) {
    debug_assert_eq!(part.places.len(), decisions.len());
    for (place, decision) in part.places.iter().zip(decisions) {
        answers[*place] = Some(Answer { decision: *decision, by: by() });
    }
}

/// Has the decisions that are held say what they mean for the whole check: beside one that denies by itself they deny nothing, whichever
/// owner was heard first. `else_denied`: some part was denied and not held, by whichever of its rules.
pub(super) fn tell_held(allowed: bool, else_denied: bool, charges: &[Charge], answers: &mut Answers) {
    let denies = |(charge, answer): (&Charge, &Option<Answer>)| {
        charge.mode == Mode::Enforce && answer.as_ref().is_some_and(|answer| answer.decision.denies())
    };
    let deny_nothing = allowed || else_denied || charges.iter().zip(answers.iter()).any(denies);
    for Answer { decision, .. } in answers.iter_mut().flatten().filter(|answer| answer.decision.is_held()) {
        *decision = match deny_nothing {
            true => decision.unless_held(),
            // The successor was waited for long enough.
            false => Decision { retry_after: Some(HELD_RETRY), ..*decision },
        };
    }
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{
        Cost, Limit,
        cluster::{KeyHash, RuleId},
    };

    use super::*;

    fn charge(mode: Mode) -> Charge {
        Charge {
            key: KeyHash::from_raw(2),
            rule: RuleId::INLINE,
            limit: Limit::per_minute(10),
            cost: Cost::ONE,
            mode,
            floor: None,
            ban: None,
        }
    }

    fn answer(allowed: bool, retry_after: Option<Duration>) -> Option<Answer> {
        let decision = Decision { allowed, retry_after, remaining: 5, ..denial(&charge(Mode::Enforce)) };
        Some(Answer { decision, by: DecidedBy::Owner })
    }

    /// The answer: of each place whether it denies, and after how many milliseconds.
    fn told(
        allowed: bool,
        else_denied: bool,
        modes: &[Mode],
        answers: &[Option<Answer>],
    ) -> Vec<Option<(bool, Option<u128>)>> {
        let charges: Vec<Charge> = modes.iter().copied().map(charge).collect();
        let mut answers = Answers::from(answers.to_vec());
        tell_held(allowed, else_denied, &charges, &mut answers);
        let told = |answer: Answer| {
            (answer.decision.allowed, answer.decision.retry_after.map(|wait| wait.as_millis()))
        };
        answers.into_iter().map(|answer| answer.map(told)).collect()
    }

    #[test]
    fn what_is_held_denies_only_where_no_other_owner_denies_whichever_was_heard_first() {
        let (held, fits) = (answer(false, Some(Duration::ZERO)), answer(true, None));
        let denies = answer(false, Some(Duration::from_secs(9)));
        let (is_held, is_allowed, is_denied) =
            (Some((false, Some(250))), Some((true, None)), Some((false, Some(9000))));
        let both = [Mode::Enforce; 2];
        assert_eq!(told(false, false, &both, &[held.clone(), denies.clone()]), [is_allowed, is_denied]);
        assert_eq!(told(false, false, &both, &[denies.clone(), held.clone()]), [is_denied, is_allowed]);
        assert_eq!(told(false, false, &both, &[held.clone(), fits]), [is_held, is_allowed]);
        assert_eq!(told(false, false, &both, &[held.clone(), None]), [is_held, None]);
        assert_eq!(told(false, true, &both, &[held.clone(), None]), [is_allowed, None], "by newer rules");
        // A rule in shadow mode keeps nobody from anything.
        let shadow = [Mode::Enforce, Mode::Shadow];
        assert_eq!(told(false, false, &shadow, &[held.clone(), denies]), [is_held, is_denied]);
        assert_eq!(told(true, false, &shadow, &[answer(true, None), held]), [is_allowed, is_allowed]);
    }
}
