//! One attempt at a check: in which order its owners are asked, and what becomes of it when they do not agree.
//!
//! 1. What is denied whatever was consumed, by this node.
//! 2. What another node owns and has denied lately (see [`Denials`](super::denials::Denials)), alone.
//! 3. What this node owns, which costs nothing to ask.
//! 4. All other owners, at the same time.
//! 5. What nobody decides, by what its rule says.
//!
//! A denial ends it, and what earlier steps charged is given back; then the owners that were not asked yet say what they would have
//! decided (see `explain`). Without a denial that is remembered there is no second step, and a check takes one round trip, however
//! many owners it has.

use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Decision, Nanos,
    cluster::{Charge, Floor},
    rules::Mode,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    core::Router,
    parts::{LossReason, Owner, Part, PartOutcome, UndoBy, denial, is_lapsed, note, part_is_held, tell_held},
};
use crate::{
    link::Reply,
    loss::by_rule,
    owner::slot_ownership::Share,
    planted::PlantedBug,
    routes::Routes,
    verdict::{Answers, DecidedBy, LossPolicy, Verdict},
};

/// A check in one attempt.
pub(super) struct Attempt<'a> {
    pub(super) worker: usize,
    pub(super) routes: &'a Routes,
    pub(super) parts: &'a [Part],
    pub(super) charges: &'a [Charge],
    pub(super) policies: &'a [LossPolicy],
    /// Of the rules that the charges were made by.
    pub(super) revision: u64,
    pub(super) request: Option<u64>,
    pub(super) now: Nanos,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    pub(super) may_retry: bool,
    /// An earlier attempt was held: its owner was alive a moment ago.
    pub(super) was_held: bool,
}

/// How an attempt ended.
pub(super) enum AttemptOutcome {
    Decided(Verdict),
    /// An owner has changed: worth another attempt.
    Misrouted,
    /// The successor of a slot must acknowledge the floor first. Where that takes until the deadline, the check is denied: the owner lives, so
    /// `on_owner_loss` says nothing about it.
    Held {
        /// Another node owns it: its acknowledgements are not heard of here.
        by_peer: bool,
        /// What is held in it is not told yet ([`tell_held`]).
        denied: Verdict,
    },
    /// An owner has newer rules, by which only a node that sees the request can tell what is to be charged: one that has this
    /// revision. Who cannot get it denies: no limit but the old one is known here, and that counts no more.
    Behind {
        revision: u64,
        denied: Verdict,
    },
}

impl AttemptOutcome {
    fn denied(&mut self) -> Option<&mut Verdict> {
        match self {
            Self::Decided(denied) | Self::Held { denied, .. } | Self::Behind { denied, .. } => Some(denied),
            Self::Misrouted => None,
        }
    }
}

/// An answer that will come; `None`: nobody could be asked.
pub(super) type Asked = Option<oneshot::Receiver<Reply>>;

/// Owners that were asked what they would say.
pub(super) type Previews<'a> = SmallVec<[(&'a Part, Asked); 2]>;

/// Places of a check whose owners were lost, and which part of each its share is.
type LostPlaces = SmallVec<[(usize, Option<Share>); 4]>;

/// What is known so far.
struct Progress<'a> {
    answers: Answers,
    taken: SmallVec<[(&'a Part, UndoBy); 2]>,
    lost: SmallVec<[(&'a Part, LossReason); 2]>,
    previews: Previews<'a>,
    denied: bool,
    misrouted: bool,
    held: bool,
    held_by_peer: bool,
    behind: Option<u64>,
}

impl Attempt<'_> {
    /// Whether owners may be asked at several places, so that what one took may have to be given back.
    pub(super) fn is_undoable(&self) -> bool {
        self.parts.len() > 1
    }

    /// A check that is held is tried again until its deadline.
    fn is_early(&self) -> bool {
        self.begun < self.deadline
    }

    /// Until when an owner that is asked alone is waited for: then the others are asked too.
    fn half_way(&self) -> Instant {
        self.begun + self.deadline.saturating_duration_since(self.begun) / 2
    }
}

impl Progress<'_> {
    /// How it ends, if no other owner has to be asked for that.
    fn end(&mut self, check: &Attempt<'_>, may_retry: bool) -> Option<AttemptOutcome> {
        if self.denied {
            return Some(AttemptOutcome::Decided(Verdict {
                allowed: false,
                answers: std::mem::take(&mut self.answers),
            }));
        }
        if let Some(revision) = self.behind {
            let denied = Verdict { allowed: false, answers: std::mem::take(&mut self.answers) };
            return Some(AttemptOutcome::Behind { revision, denied });
        }
        if self.held {
            let denied = Verdict { allowed: false, answers: std::mem::take(&mut self.answers) };
            return Some(match check.is_early() {
                true => AttemptOutcome::Held { by_peer: self.held_by_peer, denied },
                false => AttemptOutcome::Decided(denied),
            });
        }
        (self.misrouted && may_retry).then_some(AttemptOutcome::Misrouted)
    }
}

impl Router {
    pub(super) async fn attempt(&self, check: &Attempt<'_>) -> AttemptOutcome {
        let mut course = Progress {
            answers: check.charges.iter().map(|_| None).collect(),
            taken: SmallVec::new(),
            lost: SmallVec::new(),
            previews: Previews::new(),
            denied: false,
            misrouted: false,
            held: false,
            held_by_peer: false,
            behind: None,
        };
        let mut tried = self.run(check, &mut course).await;
        if let AttemptOutcome::Decided(Verdict { allowed: true, answers }) = &mut tried {
            tell_held(true, false, check.charges, answers);
            for (_, undo) in course.taken {
                // A peer's part stays by itself when its time is over.
                if let UndoBy::Hold(taken) = undo {
                    self.store.settle(taken.hold);
                }
            }
            return tried;
        }
        if let Some(verdict) = tried.denied() {
            for place in course.taken.iter().flat_map(|(part, _)| &part.places) {
                if let Some(answer) = &mut verdict.answers[*place] {
                    let Charge { limit, cost, .. } = &check.charges[*place];
                    answer.decision = answer.decision.given_back(limit, *cost);
                }
            }
        }
        self.give_back(check.worker, course.taken, check.charges, check.now);
        match &mut tried {
            AttemptOutcome::Decided(Verdict { answers, .. }) => {
                self.explain(check, course.previews, course.lost, answers).await;
                // Behind it: an owner that was only asked what it would say may deny by itself.
                tell_held(false, course.denied, check.charges, answers);
            }
            AttemptOutcome::Behind { denied, .. } => {
                tell_held(false, true, check.charges, &mut denied.answers)
            }
            // Most are tried again.
            AttemptOutcome::Held { .. } | AttemptOutcome::Misrouted => {}
        }
        tried
    }

    async fn run<'a>(&self, check: &Attempt<'a>, course: &mut Progress<'a>) -> AttemptOutcome {
        for part in check.parts.iter().filter(|part| matches!(part.owner, Owner::Anybody)) {
            let outcome = Self::denied(check, part);
            self.take(check, part, outcome, course);
        }
        if course.denied
            && let Some(tried) = course.end(check, false)
        {
            return tried;
        }
        let mut asked: SmallVec<[(&Part, Asked); 2]> = SmallVec::new();
        let first = self.likely_denial(check);
        if let Some(part) = first {
            let mut answer = self.ask(check, part);
            course.previews = self.preview_others(check, part);
            match self.hear_by(check.half_way(), &mut answer).await {
                Some(reply) => {
                    let outcome = self.outcome(check.worker, part, reply);
                    self.take(check, part, outcome, course);
                }
                None => {
                    // A late attempt waits for less than that, which says nothing of the owner.
                    let waited = check.half_way() - check.begun;
                    if let Owner::Peer(owner) = &part.owner
                        && waited >= self.forward_timeout / 3
                    {
                        owner.is_slow(check.now);
                    }
                    asked.push((part, answer));
                }
            }
            if let Some(tried) = course.end(check, check.may_retry) {
                return tried;
            }
        }

        // This node's own part costs nothing to ask: a denial here spares the others.
        for part in check.parts {
            match &part.owner {
                Owner::Here(claims) => {
                    let undoable = check.is_undoable();
                    let decided =
                        self.decide_here(part, claims, check.charges, undoable, check.request, check.now);
                    let outcome = match decided {
                        Some((allowed, decisions, undo)) => PartOutcome::Decided { allowed, decisions, undo },
                        None => PartOutcome::Misrouted,
                    };
                    self.take(check, part, outcome, course);
                    if (course.denied || course.held)
                        && let Some(tried) = course.end(check, false)
                    {
                        return tried;
                    }
                }
                Owner::Nobody { soon } => {
                    course.misrouted |= soon;
                    let why = if is_lapsed(part, check.policies) {
                        LossReason::Lapsed
                    } else {
                        LossReason::Unknown
                    };
                    course.lost.push((part, why));
                }
                Owner::Peer(_) | Owner::Anybody => {}
            }
        }
        if let Some(tried) = course.end(check, check.may_retry) {
            return tried;
        }

        // All other owners are asked at the same time.
        let others = check.parts.iter().filter(|part| {
            matches!(part.owner, Owner::Peer(_)) && first.is_none_or(|first| !std::ptr::eq(first, *part))
        });
        asked.extend(others.map(|part| (part, self.ask(check, part))));
        // These answer for all that there is to say.
        course.previews.clear();
        for (part, answer) in asked {
            let outcome = self.hear(check.worker, part, answer, check.deadline).await;
            self.take(check, part, outcome, course);
        }
        if let Some(tried) = course.end(check, check.may_retry) {
            return tried;
        }
        let is_unheard = |(_, why): &(&Part, LossReason)| matches!(why, LossReason::Unheard);
        if check.was_held && course.lost.iter().any(is_unheard) {
            // There was no time left for an answer.
            for place in course.lost.iter().flat_map(|(part, _)| &part.places) {
                course.answers[*place] = Some(by_rule(&check.charges[*place], false));
            }
            let denied = Verdict { allowed: false, answers: std::mem::take(&mut course.answers) };
            return AttemptOutcome::Held { by_peer: true, denied };
        }
        let allowed = self.decide_lost(check, course);
        AttemptOutcome::Decided(Verdict { allowed, answers: std::mem::take(&mut course.answers) })
    }

    /// A part that is denied whatever was consumed.
    fn denied(check: &Attempt<'_>, part: &Part) -> PartOutcome {
        let charges = || part.places.iter().map(|place| &check.charges[*place]);
        PartOutcome::Decided {
            allowed: charges().all(|charge| charge.mode == Mode::Shadow),
            decisions: charges().map(denial).collect(),
            undo: None,
        }
    }

    /// The part of another node that is likely to deny, and more so than any other. None of a node that was too slow to be
    /// asked alone a moment ago: the others would be asked too late.
    fn likely_denial<'a>(&self, check: &Attempt<'a>) -> Option<&'a Part> {
        if !check.is_undoable() {
            return None;
        }
        let likelihood = |part: &Part| {
            let keys = part.places.iter().map(|place| check.charges[*place].key);
            keys.filter_map(|key| self.denials.likelihood(key, check.now)).max()
        };
        let parts = check.parts.iter().filter(|part| !matches!(part.owner, Owner::Nobody { .. }));
        let (_, part) =
            parts.filter_map(|part| Some((likelihood(part)?, part))).max_by_key(|(score, _)| *score)?;
        let is_quick = matches!(&part.owner, Owner::Peer(owner) if owner.may_be_asked_alone(check.now));
        (is_quick && !self.would_deny_here(check)).then_some(part)
    }

    /// Whether this node's own part denies, by a look. Then it does so before others are charged.
    fn would_deny_here(&self, check: &Attempt<'_>) -> bool {
        let here = check.parts.iter().filter(|part| matches!(part.owner, Owner::Here(_)));
        here.flat_map(|part| &part.places).map(|place| &check.charges[*place]).any(|charge| {
            let look = Charge { cost: Cost::PEEK, floor: charge.floor.map(Floor::unbounded), ..*charge };
            let left = self.store.check(&look, check.now).remaining;
            charge.mode == Mode::Enforce && left < charge.cost.get().max(1)
        })
    }

    /// Takes in how a part ended.
    fn take<'a>(&self, check: &Attempt<'a>, part: &'a Part, outcome: PartOutcome, course: &mut Progress<'a>) {
        match outcome {
            PartOutcome::Decided { allowed, decisions, undo } => {
                let is_held = !allowed && part_is_held(part, check.charges, &decisions);
                note(&mut course.answers, part, &decisions, || match &part.owner {
                    Owner::Peer(owner) => DecidedBy::Forwarded(Arc::clone(&owner.member.id.name)),
                    Owner::Here(_) | Owner::Anybody | Owner::Nobody { .. } => DecidedBy::Owner,
                });
                if check.is_undoable() {
                    self.learn(check, part, allowed, &decisions);
                }
                if allowed {
                    course.taken.extend(undo.map(|undo| (part, undo)));
                } else if is_held {
                    course.held = true;
                    course.held_by_peer |= matches!(part.owner, Owner::Peer(_));
                } else {
                    course.denied = true;
                }
            }
            PartOutcome::Misrouted => {
                course.misrouted = true;
                course.lost.push((part, LossReason::Unknown));
            }
            PartOutcome::Behind { revision } => {
                course.behind = course.behind.max(Some(revision));
                for place in &part.places {
                    course.answers[*place] = Some(by_rule(&check.charges[*place], false));
                }
            }
            PartOutcome::Lost(why) => course.lost.push((part, why)),
        }
    }

    /// Remembers what has denied, for checks of the same buckets that come next.
    fn learn(&self, check: &Attempt<'_>, part: &Part, allowed: bool, decisions: &[Decision]) {
        for (place, decision) in part.places.iter().zip(decisions) {
            if decision.allowed {
                self.denials.allowed(check.charges[*place].key, check.now);
            }
        }
        if !allowed {
            self.learn_denials(check, part, decisions);
        }
    }

    pub(super) fn learn_denials(&self, check: &Attempt<'_>, part: &Part, decisions: &[Decision]) {
        for (place, decision) in part.places.iter().zip(decisions) {
            // One that can never pass says nothing of other checks of the same bucket.
            if decision.denies() && decision.retry_after.is_some() {
                self.denials.denied(check.charges[*place].key, decision, check.now);
            }
        }
    }

    /// Decides what no owner has decided, as the rules say; whether all of it is allowed.
    fn decide_lost(&self, check: &Attempt<'_>, course: &mut Progress<'_>) -> bool {
        if course.lost.is_empty() {
            return true;
        }
        let (mut lost, known) = self.shares_of(check, std::mem::take(&mut course.lost));
        let mut decide = |lost: &[_]| {
            self.shares.decide(lost, check.charges, check.policies, check.now, &mut course.answers)
        };
        let allowed = decide(&lost);
        if allowed && self.share(check, self.clock.now()) != known {
            // The process was stopped in between, or the log gives this node another share: what was charged is
            // forfeited.
            lost.iter_mut().for_each(|(_, share)| *share = None);
            return decide(&lost);
        }
        allowed
    }

    /// Each place that no owner decides about, with the share that counts for it; and this node's share now.
    pub(super) fn shares_of(
        &self,
        check: &Attempt<'_>,
        parts: SmallVec<[(&Part, LossReason); 2]>,
    ) -> (LostPlaces, Option<Share>) {
        let noticed = self.clock.now();
        let known = self.share(check, noticed);
        let mut lost: SmallVec<[(usize, Option<Share>); 4]> = SmallVec::new();
        for (part, why) in parts {
            let since = self.unowned_since(check.worker, part, why, check.now, noticed);
            let share = known.map(|share| Share { since: share.since.max(since), ..share });
            lost.extend(part.places.iter().map(|place| (*place, share)));
        }
        (lost, known)
    }

    fn share(&self, check: &Attempt<'_>, now: Nanos) -> Option<Share> {
        self.ownership.share(now).map(|share| by_owners(share, check.routes))
    }
}

/// The share as it is, unless a bug is planted.
fn by_owners(share: Share, routes: &Routes) -> Share {
    if PlantedBug::SharesByOwners.is_on() { Share { parts: routes.member_count(), ..share } } else { share }
}
