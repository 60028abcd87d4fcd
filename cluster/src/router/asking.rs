//! Other owners are asked for their parts of a check, and give back what they took when somebody denies.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_limiter::{Nanos, cluster::Charge};
use tidegate_proto::peer::Outcome;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    attempt::{Asked, Attempt},
    core::Router,
    parts::{LossReason, Owner, Part, PartOutcome, UndoBy},
};
use crate::{
    link::{NotSent, Reply},
    planted::PlantedBug,
    verdict::LossPolicy,
    wire,
};

/// An owner without a session for so long, in nanoseconds, will hardly have one before the check's deadline.
const LAPSED_FOR_GOOD: u64 = 100_000_000;

/// What an owner has said of itself is believed for so long from asking it.
const STILL_TRUE: Duration = Duration::from_millis(25);

impl Router {
    /// Asks the owner of a part; `None` if it cannot be asked.
    pub(super) fn ask(&self, check: &Attempt<'_>, part: &Part) -> Asked {
        self.ask_with(check, part, None)
    }

    /// As [`Router::ask`]. With one more charge, which must be impossible, it takes nothing.
    pub(super) fn ask_with(
        &self,
        check: &Attempt<'_>,
        part: &Part,
        impossible: Option<(&Charge, LossPolicy)>,
    ) -> Asked {
        let Owner::Peer(owner) = &part.owner else { return None };
        let (undoable, request) = match impossible {
            None => (check.is_undoable(), check.request),
            Some(_) => (false, None),
        };
        let own = part.places.iter().map(|place| (&check.charges[*place], check.policies[*place]));
        let wire = wire::charges_to_wire(own.chain(impossible))?;
        match owner.links[check.worker].ask(wire, check.revision, undoable, request) {
            Ok(answer) => Some(answer),
            Err(NotSent::Unreachable) => {
                self.workers[check.worker].unreachable.add(1);
                None
            }
            Err(NotSent::Full) => {
                self.workers[check.worker].queue_full.add(1);
                None
            }
        }
    }

    /// Waits for an answer; `None`: there is none yet. Then it is waited for again.
    pub(super) async fn hear_by(
        &self,
        until: Instant,
        answer: &mut Option<oneshot::Receiver<Reply>>,
    ) -> Option<Option<Reply>> {
        match answer {
            Some(answer) => timeout_at(until, answer).await.ok().map(Result::ok),
            None => Some(None),
        }
    }

    pub(super) async fn hear(
        &self,
        worker: usize,
        part: &Part,
        mut answer: Option<oneshot::Receiver<Reply>>,
        deadline: Instant,
    ) -> PartOutcome {
        match self.hear_by(deadline, &mut answer).await {
            Some(reply) => self.outcome(worker, part, reply),
            None => {
                self.workers[worker].timed_out.add(1);
                PartOutcome::Lost(LossReason::Unheard)
            }
        }
    }

    /// What an answer means; `None`: the link was lost, or there was none.
    pub(super) fn outcome(&self, worker: usize, part: &Part, reply: Option<Reply>) -> PartOutcome {
        let Some(reply) = reply else { return PartOutcome::Lost(LossReason::Unheard) };
        let stats = &self.workers[worker];
        stats.answered.add(1);
        match reply.outcome {
            Outcome::Decided(decided) if decided.decisions.len() == part.places.len() => {
                PartOutcome::Decided {
                    allowed: decided.allowed,
                    decisions: decided.decisions.iter().map(wire::decision_from_wire).collect(),
                    undo: Some(UndoBy::Reply(reply.id)),
                }
            }
            Outcome::NotOwner { .. } | Outcome::NotReady => {
                stats.not_owner.add(1);
                PartOutcome::Misrouted
            }
            Outcome::Newer { revision } => PartOutcome::Behind { revision },
            // It may be about to have a session again.
            Outcome::Lapsed { for_nanos } if for_nanos < LAPSED_FOR_GOOD => PartOutcome::Misrouted,
            Outcome::Lapsed { for_nanos } => {
                // It said so before now, so it is no later than that.
                let since = Nanos::new(self.clock.now().get().saturating_sub(for_nanos));
                PartOutcome::Lost(LossReason::ItsLapse { since })
            }
            // It lives, and may decide for others.
            Outcome::Decided(_) | Outcome::Malformed => PartOutcome::Lost(LossReason::Unknown),
        }
    }

    /// Since when nobody decides about a part that was asked for at `asked` or later, as far as this node can know at this instant.
    pub(super) fn unowned_since(
        &self,
        worker: usize,
        part: &Part,
        why: LossReason,
        asked: Nanos,
        now: Nanos,
    ) -> Nanos {
        match (why, &part.owner) {
            (LossReason::Lapsed, _) => self.ownership.lapsed_since(),
            (LossReason::Unheard, Owner::Peer(owner)) => owner.note_loss(worker, now),
            // Where its answer has waited for others, or for this process to go on, it may have decided again.
            (LossReason::ItsLapse { since }, _) if now < asked.saturating_add(STILL_TRUE) => since,
            _ => now,
        }
    }

    pub(super) fn give_back(
        &self,
        worker: usize,
        taken: SmallVec<[(&Part, UndoBy); 2]>,
        charges: &[Charge],
        now: Nanos,
    ) {
        for (part, undo) in taken {
            match (undo, &part.owner) {
                (UndoBy::Hold(taken), _) => {
                    self.undo(taken, now);
                    if PlantedBug::ReturnedTwice.is_on() {
                        for charge in part.places.iter().map(|place| &charges[*place]) {
                            self.store.refund(charge.key, &charge.limit, charge.cost, now);
                        }
                    }
                }
                (UndoBy::Reply(id), Owner::Peer(owner)) => owner.links[worker].undo(id),
                (UndoBy::Reply(_), _) => unreachable!("this node's own part is taken back by its hold"),
            }
        }
    }
}
