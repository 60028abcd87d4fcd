//! Refunds and resets: changes of buckets that are no decision. The owner of the slot makes them where they arrive, over
//! one hop at most, as it does with checks.
//!
//! They are made at most once. One that is overtaken by its slot's move to another node can be lost, and then the bucket is
//! stricter than it was asked to be, never looser; so none is made while the slot's buckets are on their way, and none is
//! repeated once an owner may have made it.

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost,
    cluster::{Charge, Floor},
};
use tidegate_proto::peer::{Amend, Amendment, Decided, MAX_CHARGES, Outcome};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    core::{MAX_ATTEMPTS, MAX_SENT, RETRY_PAUSE, Router},
    parts::{Owner, Part, PartOutcome, denial, note},
    peers::Demands,
};
use crate::{
    link::Reply,
    owner::slot_ownership::{Claim, Unclaimed},
    planted::PlantedBug,
    routes::Peer,
    slots::SlotId,
    verdict::{Answers, DecidedBy, Decisions, LossPolicy, NotReady},
    wire,
};

/// What became of refunds or resets.
#[derive(Debug, Clone)]
pub struct Amended {
    /// For each bucket what a look says after the change, and who made it; `None` if no owner is known to have made it.
    pub answers: Answers,
    /// Whether one of those without an answer may have been made all the same: its owner was asked, and did not answer.
    pub unsure: bool,
}

impl Amended {
    /// Whether every bucket was changed.
    pub fn is_complete(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }
}

impl Router {
    /// Gives back the cost of each charge, or forgets what its bucket knows, wherever the slots are owned, within the
    /// node's check timeout. Each bucket is changed by itself. A refund gives a bucket no more than it has given. `worker` is
    /// that of the calling thread.
    ///
    /// A refund of what a request was charged ([`Amendment::RefundOf`]) gives back what of that still weighs, and no charge twice.
    ///
    /// What it cannot do: a bucket whose slot counts as exhausted since its owner was lost stays as strict as it is, and one that
    /// is not in memory gets no refund. The answers tell what is so afterwards. `revision` is that of the rules that the charges
    /// were made by: where the owner has newer ones, by which only who sees the request can tell what it has charged, nothing is
    /// changed.
    ///
    /// # Errors
    /// Only when this node has no slot table yet.
    pub async fn amend(
        &self,
        worker: usize,
        amendment: Amendment,
        charges: &[Charge],
        policies: &[LossPolicy],
        revision: u64,
    ) -> Result<Amended, NotReady> {
        assert_eq!(charges.len(), policies.len(), "each charge has its rule's wish");
        let deadline = Instant::now() + self.forward_timeout;
        let mut all = Amended { answers: Answers::new(), unsure: false };
        // A reset is for all limits of a rule, which may be more than one message carries.
        for (charges, policies) in charges.chunks(MAX_CHARGES).zip(policies.chunks(MAX_CHARGES)) {
            let some = self.amend_some(worker, amendment, charges, policies, revision, deadline).await?;
            all.answers.extend(some.answers);
            all.unsure |= some.unsure;
        }
        Ok(all)
    }

    async fn amend_some(
        &self,
        worker: usize,
        amendment: Amendment,
        charges: &[Charge],
        policies: &[LossPolicy],
        revision: u64,
        deadline: Instant,
    ) -> Result<Amended, NotReady> {
        let mut amended = Amended { answers: charges.iter().map(|_| None).collect(), unsure: false };
        // By their place in `charges`: what no owner has been asked for yet.
        let mut open: SmallVec<[usize; 4]> = (0..charges.len()).collect();
        let (mut attempt, mut sent) = (1, 1);
        loop {
            // Before the table is loaded, so that no change after that is missed.
            let changed = self.changed.notified();
            let routes = self.routes().ok_or(NotReady)?;
            let now = self.clock.now();
            let mut charges: SmallVec<[Charge; 4]> = open.iter().map(|place| charges[*place]).collect();
            let policies: SmallVec<[LossPolicy; 4]> = open.iter().map(|place| policies[*place]).collect();
            let parts = self.split(&routes, &mut charges, &policies, now);
            let asked: SmallVec<[_; 2]> = parts
                .iter()
                .map(|part| match &part.owner {
                    Owner::Peer(owner) => {
                        self.send(worker, owner, amendment, part, &charges, &policies, revision)
                    }
                    Owner::Here(_) | Owner::Anybody | Owner::Nobody { .. } => None,
                })
                .collect();
            let mut answers: Answers = charges.iter().map(|_| None).collect();
            let mut still_open: SmallVec<[usize; 4]> = SmallVec::new();
            for (part, answer) in parts.iter().zip(asked) {
                let was_sent = answer.is_some();
                let made = match &part.owner {
                    Owner::Here(claims) => {
                        let own: SmallVec<[Charge; 4]> =
                            part.places.iter().map(|place| charges[*place]).collect();
                        let made = self.amend_here(amendment, claims, &own);
                        made.inspect(|looks| note(&mut answers, part, looks, || DecidedBy::Owner)).is_some()
                    }
                    Owner::Peer(owner) => match self.hear(worker, part, answer, deadline).await {
                        PartOutcome::Decided { decisions, .. } => {
                            note(&mut answers, part, &decisions, || {
                                DecidedBy::Forwarded(std::sync::Arc::clone(&owner.member.id.name))
                            });
                            true
                        }
                        PartOutcome::Misrouted | PartOutcome::Behind { .. } => false,
                        PartOutcome::Lost(_) => {
                            amended.unsure |= was_sent;
                            // Once it may have been made it is not asked for again.
                            was_sent
                        }
                    },
                    // It has no bucket.
                    Owner::Anybody => {
                        let denials: Decisions =
                            part.places.iter().map(|place| denial(&charges[*place])).collect();
                        note(&mut answers, part, &denials, || DecidedBy::Owner);
                        true
                    }
                    Owner::Nobody { .. } => false,
                };
                if !made {
                    still_open.extend(part.places.iter().map(|place| open[*place]));
                }
            }
            for (place, answer) in open.iter().zip(answers) {
                amended.answers[*place] = answer;
            }
            open = still_open;
            if open.is_empty() || attempt == MAX_ATTEMPTS || sent == MAX_SENT || Instant::now() >= deadline {
                return Ok(amended);
            }
            let pause = RETRY_PAUSE.min(deadline.saturating_duration_since(Instant::now()));
            // As of a check: changes that concern other slots use no attempts up.
            sent += 1;
            if timeout(pause, changed).await.is_err() {
                attempt += 1;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step of `amend`")]
    fn send(
        &self,
        worker: usize,
        owner: &Peer,
        amendment: Amendment,
        part: &Part,
        charges: &[Charge],
        policies: &[LossPolicy],
        revision: u64,
    ) -> Option<oneshot::Receiver<Reply>> {
        let own = part.places.iter().map(|place| (&charges[*place], policies[*place]));
        let charges = wire::charges_to_wire(own)?;
        if PlantedBug::RefundRepeated.is_on() {
            // Nobody hears the answer; but what nobody waits for would not be sent.
            std::mem::forget(owner.links[worker].amend(amendment, charges.clone(), revision));
        }
        owner.links[worker].amend(amendment, charges, revision).ok()
    }

    /// Changes buckets that this node owns, and looks at them then; `None` if that has to wait.
    fn amend_here(&self, amendment: Amendment, claims: &[Claim], charges: &[Charge]) -> Option<Decisions> {
        // What has been sent already would win at the next owner over what is changed here now.
        if claims.iter().any(Claim::is_being_sent) {
            return None;
        }
        let now = self.clock.now();
        let amend_one = |charge: &Charge| {
            match amendment {
                Amendment::Refund => {
                    self.store.take_over_former(charge, now);
                    self.store.refund(charge.key, &charge.limit, charge.cost, now);
                }
                Amendment::RefundOf(number) => {
                    // Of the limit in force: what was charged under another one is not given back.
                    for returned in self.requests.take_charged(number, charge.key, charge.cost, now) {
                        self.store.refund_charge(charge.key, &charge.limit, returned, now);
                    }
                }
                Amendment::Reset => {
                    // First: who refunds by a request's id in between gives nothing back to the bucket as it is then.
                    self.requests.note_reset(charge.key, now);
                    self.store.forget_former(charge, now);
                    self.store.reset(charge.key);
                }
            }
            let floor = charge.floor.map(Floor::unbounded);
            self.store.check(&Charge { cost: Cost::PEEK, floor, ..*charge }, now)
        };
        Some(charges.iter().map(amend_one).collect())
    }

    /// Makes the changes that another node asks for, if this node owns their slots.
    pub(crate) fn amend_for_peer(&self, amend: &Amend) -> Outcome {
        if !self.has_routes() {
            return Outcome::NotReady;
        }
        let Some(mut charges) = wire::charges_from_wire(&amend.charges) else { return Outcome::Malformed };
        let Some(first) = charges.first().map(|charge| SlotId::of(charge.key).get()) else {
            return Outcome::Malformed;
        };
        let now = self.clock.now();
        let mut claims: SmallVec<[Claim; 4]> = SmallVec::new();
        for (charge, asked) in charges.iter_mut().zip(amend.charges.as_slice()) {
            let slot = SlotId::of(charge.key);
            let newest = match self.newest(charge, asked, amend.revision) {
                // It takes no limit to forget.
                Err(_) if amend.amendment == Amendment::Reset => {
                    Ok(Demands { consistency: wire::consistency_of(asked), reserve: None })
                }
                newest => newest,
            };
            let consistency = newest.map_or(wire::consistency_of(asked), |found| found.consistency);
            match (self.ownership.claim(slot, consistency, now), newest) {
                (Ok(mut claim), Ok(Demands { reserve, .. })) => {
                    charge.floor = self.ownership.bounds(&mut claim, charge, reserve, now);
                    claims.push(claim);
                }
                (Err(Unclaimed::Elsewhere | Unclaimed::Frozen), _) => {
                    return Outcome::NotOwner { slot: slot.get() };
                }
                (_, Err(revision)) => return Outcome::Newer { revision },
                (Err(Unclaimed::Lapsed), _) => return Outcome::NotReady,
            }
        }
        match self.amend_here(amend.amendment, &claims, &charges) {
            Some(looks) => {
                let decisions = looks.iter().map(wire::decision_to_wire).collect();
                Outcome::Decided(Decided { allowed: true, decisions })
            }
            None => Outcome::NotOwner { slot: first },
        }
    }
}
