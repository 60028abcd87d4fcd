//! Who decides a check: this node, the owner of its slot, or, when no owner answers, what its rule says.
//!
//! The router reads the slot table that somebody publishes ([`Router::publish`]) and never asks gossip. A check is
//! decided by the node that owns its slot, where it arrives: either by this one or by the one it is forwarded to,
//! which decides it or refuses it, but never forwards it on.
//!
//! Several rules can match one request, and their buckets can have several owners. All must allow. Each owner charges
//! its part all or nothing; when one denies, what the others took is given back ([`Store::undo`]).

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;
use tidegate_limiter::{Charge, Decision, Nanos, OnOwnerLoss, Store};
use tidegate_proto::peer::{Check, Decided, MAX_CHARGES, Outcome};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};

pub(crate) use tidegate_limiter::HoldId;

use crate::{
    clock::Clock,
    link::{NotSent, Reply},
    loss::Shares,
    routes::{Peer, Place, Routes},
    slots::SlotId,
    stats::LaneStats,
    verdict::{Answer, Answers, DecidedBy, Decisions, Local, NotReady, Verdict},
    wire,
};

/// How often a check is sent again after "I do not own that slot".
const MAX_ATTEMPTS: u32 = 5;
/// The pause before that, unless the slot table changes earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How long a local charge can be undone while other owners are asked.
const HOLD: Duration = Duration::from_secs(2);

/// Decides checks, or has them decided.
#[derive(Debug)]
pub struct Router {
    routes: ArcSwapOption<Routes>,
    /// Wakes checks that wait for a table that fits.
    changed: Notify,
    store: Arc<Store>,
    shares: Shares,
    clock: Clock,
    lanes: Vec<Arc<LaneStats>>,
    /// How long an owner is waited for.
    forward_timeout: Duration,
}

/// The charges of a check that one member owns, by their place in the check.
struct Part {
    /// `None`: this node.
    owner: Option<Arc<Peer>>,
    places: SmallVec<[usize; 4]>,
}

/// How a part of a check ended.
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
enum PartOutcome {
    Decided {
        allowed: bool,
        decisions: Decisions,
        undo: Option<UndoBy>,
    },
    /// The owner does not own it (any more, or yet): worth another attempt.
    Misrouted,
    Lost,
}

/// What takes a part back.
enum UndoBy {
    Hold(HoldId),
    Reply(u64),
}

impl Router {
    pub(crate) fn new(
        store: Arc<Store>,
        shares: Shares,
        clock: Clock,
        lanes: Vec<Arc<LaneStats>>,
        forward_timeout: Duration,
    ) -> Self {
        Self {
            routes: ArcSwapOption::empty(),
            changed: Notify::new(),
            store,
            shares,
            clock,
            lanes,
            forward_timeout,
        }
    }

    /// Whether this node takes part: it has the cluster's rules and a slot table.
    pub fn has_routes(&self) -> bool {
        self.routes.load().is_some()
    }

    pub(crate) fn publish(&self, routes: Option<Arc<Routes>>) {
        self.routes.store(routes);
        self.changed.notify_waiters();
    }

    pub(crate) fn routes(&self) -> Option<Arc<Routes>> {
        self.routes.load_full()
    }

    /// Removes buckets that are full again, those of the shares too, in a small step. For a thread that serves nobody.
    pub fn sweep(&self, now: Nanos) {
        self.store.sweep(now);
        self.shares.sweep(now);
    }

    /// Decides a check if this node owns all of its slots: the fast path, without a wait. Fills in the floors of
    /// `charges` and appends to `out` when it decides.
    pub fn decide_local(&self, charges: &mut [Charge], now: Nanos, out: &mut Decisions) -> Local {
        let routes = self.routes.load();
        let Some(routes) = &*routes else { return Local::NotReady };
        for charge in charges.iter_mut() {
            match routes.place(charge.key) {
                Place::Here { floor } => charge.floor = floor,
                Place::There { .. } => return Local::Elsewhere,
            }
        }
        Local::Decided { allowed: self.store.check_all(charges, now, out) }
    }

    /// Decides a check wherever its slots are owned, within the node's check timeout. `losses` says for each charge
    /// what its rule wants when no owner answers. `lane` is that of the calling thread.
    ///
    /// # Errors
    /// Only when this node has no slot table yet.
    pub async fn decide(
        &self,
        lane: usize,
        charges: &mut [Charge],
        losses: &[OnOwnerLoss],
        now: Nanos,
    ) -> Result<Verdict, NotReady> {
        assert_eq!(charges.len(), losses.len(), "each charge has its rule's wish");
        let deadline = Instant::now() + self.forward_timeout;
        let mut attempt = 1;
        loop {
            let routes = self.routes().ok_or(NotReady)?;
            // Before the table is used, so that a change during the attempt is not missed.
            let changed = self.changed.notified();
            let parts = split(&routes, charges);
            let may_retry = attempt < MAX_ATTEMPTS && Instant::now() < deadline;
            let verdict =
                self.attempt(lane, &routes, &parts, charges, losses, now, deadline, may_retry).await;
            if let Some(verdict) = verdict {
                return Ok(verdict);
            }
            attempt += 1;
            let pause = RETRY_PAUSE.min(deadline.saturating_duration_since(Instant::now()));
            let _ = timeout(pause, changed).await;
        }
    }

    /// One attempt: `None` if an owner has changed and another attempt may be made.
    #[expect(clippy::too_many_arguments, reason = "the parts of one step of `decide`")]
    async fn attempt(
        &self,
        lane: usize,
        routes: &Routes,
        parts: &[Part],
        charges: &mut [Charge],
        losses: &[OnOwnerLoss],
        now: Nanos,
        deadline: Instant,
        may_retry: bool,
    ) -> Option<Verdict> {
        let mut answers: Answers = charges.iter().map(|_| None).collect();
        let undoable = parts.len() > 1;
        let mut taken: SmallVec<[(&Part, UndoBy); 2]> = SmallVec::new();

        // This node's own part costs nothing to ask, so it goes first: a denial here spares the others.
        for part in parts.iter().filter(|part| part.owner.is_none()) {
            let (allowed, decisions, undo) = self.decide_here(part, charges, undoable, now);
            note(&mut answers, part, &decisions, || DecidedBy::Owner);
            if !allowed {
                return Some(Verdict { allowed: false, answers });
            }
            taken.extend(undo.map(|undo| (part, undo)));
        }

        // All other owners are asked at the same time.
        let asked: SmallVec<[_; 2]> = parts
            .iter()
            .filter_map(|part| part.owner.as_ref().map(|owner| (part, owner)))
            .map(|(part, owner)| (part, owner, self.ask(lane, owner, part, charges, undoable)))
            .collect();
        let mut allowed = true;
        let mut misrouted = false;
        let mut lost: SmallVec<[(&Part, &Arc<Peer>); 2]> = SmallVec::new();
        for (part, owner, answer) in asked {
            match self.hear(lane, part, answer, deadline).await {
                PartOutcome::Decided { allowed: this_allowed, decisions, undo } => {
                    note(&mut answers, part, &decisions, || {
                        DecidedBy::Forwarded(Arc::clone(&owner.member.id.name))
                    });
                    allowed &= this_allowed;
                    if this_allowed {
                        taken.extend(undo.map(|undo| (part, undo)));
                    }
                }
                PartOutcome::Misrouted => {
                    misrouted = true;
                    lost.push((part, owner));
                }
                PartOutcome::Lost => lost.push((part, owner)),
            }
        }

        let retry = allowed && misrouted && may_retry;
        if allowed && !retry {
            for (part, owner) in lost {
                // Not when the check came: meanwhile the owner may have answered others.
                let since = owner.note_loss(self.clock.now());
                allowed = self.shares.decide(
                    &part.places,
                    charges,
                    losses,
                    routes.member_count(),
                    since,
                    now,
                    &mut answers,
                );
                if !allowed {
                    break;
                }
            }
        }
        if !allowed || retry {
            self.give_back(lane, taken, now);
        } else {
            for (_, undo) in taken {
                // A peer's part stays by itself when its time is over.
                if let UndoBy::Hold(hold) = undo {
                    self.store.settle(hold);
                }
            }
        }
        (!retry).then_some(Verdict { allowed, answers })
    }

    fn decide_here(
        &self,
        part: &Part,
        charges: &[Charge],
        undoable: bool,
        now: Nanos,
    ) -> (bool, Decisions, Option<UndoBy>) {
        let own: SmallVec<[Charge; 4]> = part.places.iter().map(|place| charges[*place]).collect();
        let mut decisions = Decisions::new();
        if undoable {
            let (allowed, hold) = self.store.hold(&own, now, now.saturating_add(HOLD), &mut decisions);
            (allowed, decisions, hold.map(UndoBy::Hold))
        } else {
            (self.store.check_all(&own, now, &mut decisions), decisions, None)
        }
    }

    fn ask(
        &self,
        lane: usize,
        owner: &Peer,
        part: &Part,
        charges: &[Charge],
        undoable: bool,
    ) -> Option<oneshot::Receiver<Reply>> {
        let wire = wire::charges_to_wire(part.places.iter().map(|place| &charges[*place]))?;
        match owner.links[lane].ask(wire, undoable) {
            Ok(answer) => Some(answer),
            Err(NotSent::Unreachable) => {
                self.lanes[lane].unreachable.add(1);
                None
            }
            Err(NotSent::Full) => {
                self.lanes[lane].queue_full.add(1);
                None
            }
        }
    }

    async fn hear(
        &self,
        lane: usize,
        part: &Part,
        answer: Option<oneshot::Receiver<Reply>>,
        deadline: Instant,
    ) -> PartOutcome {
        let Some(answer) = answer else { return PartOutcome::Lost };
        let stats = &self.lanes[lane];
        let reply = match timeout_at(deadline, answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_link_lost)) => return PartOutcome::Lost,
            Err(_elapsed) => {
                stats.timed_out.add(1);
                return PartOutcome::Lost;
            }
        };
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
            Outcome::Decided(_) | Outcome::Malformed => PartOutcome::Lost,
        }
    }

    fn give_back(&self, lane: usize, taken: SmallVec<[(&Part, UndoBy); 2]>, now: Nanos) {
        for (part, undo) in taken {
            match (undo, &part.owner) {
                (UndoBy::Hold(hold), _) => self.store.undo(hold, now),
                (UndoBy::Reply(id), Some(owner)) => owner.links[lane].undo(id),
                (UndoBy::Reply(_), None) => unreachable!("this node's own part is taken back by its hold"),
            }
        }
    }

    /// Decides a check that another node sent, if this node owns its slots.
    pub(crate) fn decide_for_peer(&self, lane: usize, check: &Check) -> (Outcome, Option<HoldId>) {
        let (outcome, hold) = self.try_decide_for_peer(check);
        let stats = &self.lanes[lane];
        match outcome {
            Outcome::Decided(_) => stats.decided_for_peers.add(1),
            _ => stats.refused_to_peers.add(1),
        }
        (outcome, hold)
    }

    fn try_decide_for_peer(&self, check: &Check) -> (Outcome, Option<HoldId>) {
        let routes = self.routes.load();
        let Some(routes) = &*routes else { return (Outcome::NotReady, None) };
        let Some(mut charges) = wire::charges_from_wire(&check.charges) else {
            return (Outcome::Malformed, None);
        };
        for charge in &mut charges {
            match routes.place(charge.key) {
                Place::Here { floor } => charge.floor = floor,
                Place::There { .. } => {
                    return (Outcome::NotOwner { slot: SlotId::of(charge.key).get() }, None);
                }
            }
        }
        let now = self.clock.now();
        let mut decisions = Decisions::new();
        let (allowed, hold) = if check.undoable {
            self.store.hold(&charges, now, now.saturating_add(HOLD), &mut decisions)
        } else {
            (self.store.check_all(&charges, now, &mut decisions), None)
        };
        let decisions = decisions.iter().map(wire::decision_to_wire).collect();
        (Outcome::Decided(Decided { allowed, decisions }), hold)
    }

    pub(crate) fn undo_for_peer(&self, hold: HoldId) {
        self.store.undo(hold, self.clock.now());
    }
}

/// Sorts the charges by who owns them, and fills in the floors of this node's own.
fn split(routes: &Routes, charges: &mut [Charge]) -> SmallVec<[Part; 2]> {
    let mut parts: SmallVec<[Part; 2]> = SmallVec::new();
    let mut members: SmallVec<[usize; 2]> = SmallVec::new();
    for (index, charge) in charges.iter_mut().enumerate() {
        let member = match routes.place(charge.key) {
            Place::Here { floor } => {
                charge.floor = floor;
                routes.me
            }
            Place::There { member } => member,
        };
        // A frame takes so many; what is more for one owner is asked in another one.
        let has_room =
            |place: &usize| parts[*place].owner.is_none() || parts[*place].places.len() < MAX_CHARGES;
        match members.iter().rposition(|known| *known == member).filter(has_room) {
            Some(place) => parts[place].places.push(index),
            None => {
                members.push(member);
                let owner = routes.peers[member].clone();
                parts.push(Part { owner, places: SmallVec::from_slice(&[index]) });
            }
        }
    }
    parts
}

fn note(answers: &mut Answers, part: &Part, decisions: &[Decision], by: impl Fn() -> DecidedBy) {
    debug_assert_eq!(part.places.len(), decisions.len());
    for (place, decision) in part.places.iter().zip(decisions) {
        answers[*place] = Some(Answer { decision: *decision, by: by() });
    }
}
