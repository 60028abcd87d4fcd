//! What the owners of buckets would decide now, for people who ask why something is denied.

use std::sync::Arc;

use futures_util::future::join_all;
use smallvec::SmallVec;
use tidegate_limiter::{Nanos, cluster::Charge};
use tokio::time::Instant;

use super::{
    attempt::Attempt,
    core::Router,
    explain::{note, without_impossible},
    parts::{LossReason, Owner, PartOutcome, denial},
};
use crate::{
    slots::SlotId,
    verdict::{Answer, Answers, CheckOptions, LossPolicy, NotReady},
};

/// What one bucket's owner would decide now; see [`Router::look_at_each`].
#[derive(Debug, Clone)]
pub struct Look {
    /// The slot of the bucket.
    pub slot: u16,
    /// The node that owns it, as far as this node knows; `None`: nobody does, or there is no bucket, as of a limit that denies everything.
    pub owner: Option<Arc<str>>,
    /// What would be decided, and by whom; `None`: who owns it is not heard and nobody decides for it, it has newer rules than this node,
    /// or this node asks others too often.
    pub answer: Option<Answer>,
}

impl Router {
    /// Asks the owner of each charge's bucket what it would decide of that charge alone, and what is left before it. **Nothing is taken.** The owners are asked at
    /// the same time, until `options.deadline`.
    ///
    /// # Errors
    /// When this node has no slot table yet.
    pub async fn look_at_each(
        &self,
        worker: usize,
        me: &str,
        charges: &mut [Charge],
        policies: &[LossPolicy],
        options: CheckOptions,
        now: Nanos,
    ) -> Result<Vec<Look>, NotReady> {
        let routes = self.routes().ok_or(NotReady)?;
        let routes = &*routes;
        let looks = charges.iter_mut().zip(policies).map(|(charge, policy)| async move {
            let (charges, policies) = (std::slice::from_mut(charge), std::slice::from_ref(policy));
            let parts = self.split(routes, charges, policies, now);
            let check = Attempt {
                worker,
                routes,
                parts: &parts,
                charges,
                policies,
                revision: options.revision,
                request: None,
                now,
                begun: Instant::now(),
                deadline: options.deadline,
                may_retry: false,
                was_held: false,
            };
            let owner = match parts.first().map(|part| &part.owner) {
                Some(Owner::Here(_)) => Some(Arc::from(me)),
                Some(Owner::Peer(peer)) => Some(Arc::clone(&peer.member.id.name)),
                Some(Owner::Anybody | Owner::Nobody { .. }) | None => None,
            };
            Look { slot: SlotId::of(check.charges[0].key).get(), owner, answer: self.look(&check).await }
        });
        Ok(join_all(looks).await)
    }

    /// Of a check with one charge.
    async fn look(&self, check: &Attempt<'_>) -> Option<Answer> {
        let part = check.parts.first()?;
        let mut answers = Answers::from_iter([None]);
        let mut lost = SmallVec::new();
        match &part.owner {
            Owner::Anybody => note(&mut answers, part, &[denial(&check.charges[0])]),
            Owner::Here(_) => {
                // Another owner says what is left as of a check that takes nothing.
                let Charge { limit, cost, .. } = &check.charges[0];
                let decision = self.store.preview(&check.charges[0], check.now);
                note(&mut answers, part, &[decision.given_back(limit, *cost)]);
            }
            Owner::Peer(_) if !self.previews[check.worker].allows(check.now) => {}
            Owner::Peer(_) => {
                let mut asked = self.preview(check, part);
                let outcome = match self.hear_by(check.deadline, &mut asked).await {
                    Some(reply) => self.outcome(check.worker, part, reply.map(without_impossible)),
                    None => PartOutcome::Lost(LossReason::Unheard),
                };
                match outcome {
                    PartOutcome::Decided { decisions, .. } => note(&mut answers, part, &decisions),
                    // Somebody may decide about it; what a share would say is too strict.
                    PartOutcome::Lost(LossReason::Unknown)
                    | PartOutcome::Misrouted
                    | PartOutcome::Behind { .. } => {}
                    PartOutcome::Lost(why) => lost.push((part, why)),
                }
            }
            Owner::Nobody { soon: true } => {}
            Owner::Nobody { soon: false } => lost.push((part, LossReason::Lapsed)),
        }
        if !lost.is_empty() {
            let (lost, _) = self.shares_of(check, lost);
            self.shares.preview(&lost, check.charges, check.policies, check.now, &mut answers);
        }
        answers.pop().flatten()
    }
}
