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

/// Takes in what was decided about a part. `is_held`: it was denied only because successors must acknowledge floors first.
pub(super) fn note(
    answers: &mut Answers,
    part: &Part,
    decisions: &[Decision],
    is_held: bool,
    by: impl Fn() -> DecidedBy,
) {
    debug_assert_eq!(part.places.len(), decisions.len());
    for (place, decision) in part.places.iter().zip(decisions) {
        let decision = match decision.is_held() && is_held {
            // Told to who asked: the successor was waited for long enough.
            true => Decision { retry_after: Some(HELD_RETRY), ..*decision },
            false => decision.unless_held(),
        };
        answers[*place] = Some(Answer { decision, by: by() });
    }
}
