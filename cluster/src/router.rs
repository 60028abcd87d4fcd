//! Who decides a check: this node, the owner of its slot, or, when no owner answers, what its rule says.
//!
//! The router reads the slot table that somebody publishes ([`Router::publish`]) and never asks gossip. A check is
//! decided by the node that owns its slot, where it arrives: either by this one or by the one it is forwarded to,
//! which decides it or refuses it, but never forwards it on.
//!
//! Several rules can match one request, and their buckets can have several owners. All must allow. Each owner charges
//! its part all or nothing; when one denies, what the others took is given back ([`Store::undo`]).

mod amend;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;
use tidegate_limiter::{Charge, Decision, HoldId, KeyHash, Mode, Nanos, Store};
use tidegate_proto::peer::{Check, Decided, MAX_CHARGES, Outcome};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};

pub use self::amend::Amended;

use crate::{
    clock::Clock,
    link::{NotSent, Reply},
    loss::Shares,
    owner::rights::{Claim, Rights, Unclaimed},
    planted::PlantedBug,
    requests::{REMEMBER, Remembered, RequestKey, Requests, Taken},
    routes::{LostSince, Peer, Routes},
    slots::SlotId,
    stats::LaneStats,
    verdict::{Answer, Answers, DecidedBy, Decisions, Local, NotReady, Verdict, Wish},
    wire,
};

/// How often a check is sent again after "I do not own that slot".
const MAX_ATTEMPTS: u32 = 5;
/// The pause before that, unless the slot table changes earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// What a caller is told to wait when the successor of a slot does not answer: until then the log names another, or none.
const HELD_RETRY: Duration = Duration::from_millis(250);
/// How long a local charge can be undone while other owners are asked.
const HOLD: Duration = Duration::from_secs(2);

/// Decides checks, or has them decided.
#[derive(Debug)]
pub struct Router {
    routes: ArcSwapOption<Routes>,
    /// Whether there are some: each check asks.
    has_routes: AtomicBool,
    /// Wakes checks that wait for a table that fits.
    changed: Notify,
    store: Arc<Store>,
    floors: Arc<Store>,
    shares: Shares,
    rights: Arc<Rights>,
    requests: Arc<Requests>,
    /// Since when slots that this node should decide about have no owner that it knows.
    unowned_since: LostSince,
    clock: Clock,
    lanes: Vec<Arc<LaneStats>>,
    /// How long an owner is waited for.
    forward_timeout: Duration,
}

/// The charges of a check that one member owns, by their place in the check.
struct Part {
    owner: Owner,
    places: SmallVec<[usize; 4]>,
}

/// Who decides about a part.
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
enum Owner {
    /// This node, under these claims, in the order of the places.
    Here(SmallVec<[Claim; 4]>),
    Peer(Arc<Peer>),
    /// Nobody whom this node knows. `soon`: the slot is about to have an owner.
    Nobody {
        soon: bool,
    },
}

/// Where a charge is decided.
enum Found {
    Here(Claim),
    /// At the member at this place.
    There(usize),
    Nobody {
        soon: bool,
    },
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

/// How an attempt ended.
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
enum Tried {
    Decided(Verdict),
    /// An owner has changed: worth another attempt.
    Misrouted,
    /// The successor of a slot has to be told first.
    Held,
}

/// What takes a part back.
enum UndoBy {
    Hold(Taken),
    Reply(u64),
}

impl Router {
    #[expect(clippy::too_many_arguments, reason = "what a node is made of")]
    pub(crate) fn new(
        store: Arc<Store>,
        floors: Arc<Store>,
        shares: Shares,
        rights: Arc<Rights>,
        requests: Arc<Requests>,
        clock: Clock,
        lanes: Vec<Arc<LaneStats>>,
        forward_timeout: Duration,
    ) -> Self {
        Self {
            routes: ArcSwapOption::empty(),
            has_routes: AtomicBool::new(false),
            changed: Notify::new(),
            store,
            floors,
            shares,
            rights,
            requests,
            unowned_since: LostSince::default(),
            clock,
            lanes,
            forward_timeout,
        }
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether this node takes part: it has the cluster's rules and a slot table.
    pub fn has_routes(&self) -> bool {
        self.has_routes.load(Acquire)
    }

    pub(crate) fn publish(&self, routes: Option<Arc<Routes>>) {
        let has_routes = routes.is_some();
        self.routes.store(routes);
        self.has_routes.store(has_routes, Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn routes(&self) -> Option<Arc<Routes>> {
        self.routes.load_full()
    }

    /// Checks of requests that were charged before, and of such whose id was ignored because too many are remembered.
    pub fn requests(&self) -> (u64, u64) {
        (self.requests.repeated(), self.requests.unremembered())
    }

    /// Removes buckets that are full again, those of the shares too, in a small step. For a thread that serves nobody.
    pub fn sweep(&self, now: Nanos) {
        self.store.sweep(now);
        self.floors.sweep(now);
        self.shares.sweep(now);
        self.requests.sweep(now);
    }

    /// Decides a check if this node owns all of its slots: the fast path, without a wait. Fills in the floors of
    /// `charges` and appends to `out` when it decides.
    pub fn decide_local(
        &self,
        charges: &mut [Charge],
        wishes: &[Wish],
        now: Nanos,
        out: &mut Decisions,
    ) -> Local {
        if !self.has_routes() {
            return Local::NotReady;
        }
        let mut claims: SmallVec<[Claim; 4]> = SmallVec::new();
        for (charge, wish) in charges.iter_mut().zip(wishes) {
            let Ok(mut claim) = self.rights.claim(SlotId::of(charge.key), wish.consistency, now) else {
                return Local::Elsewhere;
            };
            charge.floor = self.rights.bounds(&mut claim, charge, wish.reserve, now);
            claims.push(claim);
        }
        let before = out.len();
        let allowed = self.store.check_all(charges, now, out);
        let at = self.clock.now();
        if allowed && !self.counts(&claims, charges, &out[before..], now, at)
            || !allowed && is_held(charges, &out[before..])
        {
            // Forfeited, or to be tried again; the slow path finds who decides.
            out.truncate(before);
            return Local::Elsewhere;
        }
        Local::Decided { allowed, at }
    }

    /// Whether charges that were just made at `decided` count: the second look of `Rights`. `now` is read after they were made.
    fn counts(
        &self,
        claims: &[Claim],
        charges: &[Charge],
        decisions: &[Decision],
        decided: Nanos,
        now: Nanos,
    ) -> bool {
        let counts =
            claims.iter().zip(charges).all(|(claim, charge)| self.rights.confirm(claim, charge.key, now));
        if counts {
            self.unowned_since.clear();
            for ((claim, charge), decision) in claims.iter().zip(charges).zip(decisions) {
                self.rights.spent(claim, charge, decision, decided);
            }
        }
        counts
    }

    /// Decides a check wherever its slots are owned, within the node's check timeout. `wishes` says for each charge
    /// what its rule wants. `lane` is that of the calling thread.
    ///
    /// # Errors
    /// Only when this node has no slot table yet.
    pub async fn decide(
        &self,
        lane: usize,
        charges: &mut [Charge],
        wishes: &[Wish],
        now: Nanos,
    ) -> Result<Verdict, NotReady> {
        self.decide_once(lane, charges, wishes, None, now).await
    }

    /// As [`Router::decide`], for a request with that number: asked again within two seconds, it is not charged again.
    /// Without a number it is the same as that.
    ///
    /// # Errors
    /// Only when this node has no slot table yet.
    pub async fn decide_once(
        &self,
        lane: usize,
        charges: &mut [Charge],
        wishes: &[Wish],
        request: Option<u64>,
        mut now: Nanos,
    ) -> Result<Verdict, NotReady> {
        assert_eq!(charges.len(), wishes.len(), "each charge has its rule's wish");
        let deadline = Instant::now() + self.forward_timeout;
        let mut attempt = 1;
        loop {
            let routes = self.routes().ok_or(NotReady)?;
            // Before the table is used, so that a change during the attempt is not missed.
            let changed = self.changed.notified();
            let acknowledged = self.rights.acknowledgements().notified();
            let parts = self.split(&routes, charges, wishes, now);
            let may_retry = attempt < MAX_ATTEMPTS && Instant::now() < deadline;
            let tried =
                self.attempt(lane, &routes, &parts, charges, wishes, request, now, deadline, may_retry).await;
            let pause = RETRY_PAUSE.min(deadline.saturating_duration_since(Instant::now()));
            match tried {
                Tried::Decided(verdict) => return Ok(verdict),
                Tried::Misrouted => {
                    attempt += 1;
                    let _ = timeout(pause, changed).await;
                }
                // The deadline ends this: it is no matter of who decides.
                Tried::Held => {
                    let _ = timeout(pause, acknowledged).await;
                }
            }
            now = self.clock.now();
        }
    }

    /// One attempt.
    #[expect(clippy::too_many_arguments, reason = "the parts of one step of `decide`")]
    async fn attempt(
        &self,
        lane: usize,
        routes: &Routes,
        parts: &[Part],
        charges: &mut [Charge],
        wishes: &[Wish],
        request: Option<u64>,
        now: Nanos,
        deadline: Instant,
        may_retry: bool,
    ) -> Tried {
        let mut answers: Answers = charges.iter().map(|_| None).collect();
        let undoable = parts.len() > 1;
        let mut taken: SmallVec<[(&Part, UndoBy); 2]> = SmallVec::new();
        let (mut misrouted, mut held) = (false, false);
        let is_early = Instant::now() < deadline;
        let mut lost: SmallVec<[&Part; 2]> = SmallVec::new();

        // This node's own part costs nothing to ask, so it goes first: a denial here spares the others.
        for part in parts {
            match &part.owner {
                Owner::Here(claims) => {
                    match self.decide_here(part, claims, charges, undoable, request, now) {
                        Some((allowed, decisions, undo)) => {
                            note(&mut answers, part, &decisions, || DecidedBy::Owner);
                            if !allowed {
                                self.give_back(lane, taken, charges, now);
                                if is_early && part_is_held(part, charges, &decisions) {
                                    return Tried::Held;
                                }
                                return Tried::Decided(Verdict { allowed: false, answers });
                            }
                            taken.extend(undo.map(|undo| (part, undo)));
                        }
                        None => {
                            misrouted = true;
                            lost.push(part);
                        }
                    }
                }
                Owner::Nobody { soon } => {
                    misrouted |= soon;
                    lost.push(part);
                }
                Owner::Peer(_) => {}
            }
        }
        if misrouted && may_retry {
            self.give_back(lane, taken, charges, now);
            return Tried::Misrouted;
        }

        // All other owners are asked at the same time.
        let asked: SmallVec<[_; 2]> = parts
            .iter()
            .filter_map(|part| match &part.owner {
                Owner::Peer(owner) => Some((part, owner)),
                _ => None,
            })
            .map(|(part, owner)| {
                (part, owner, self.ask(lane, owner, part, charges, wishes, undoable, request))
            })
            .collect();
        let mut allowed = true;
        for (part, owner, answer) in asked {
            match self.hear(lane, part, answer, deadline).await {
                PartOutcome::Decided { allowed: this_allowed, decisions, undo } => {
                    note(&mut answers, part, &decisions, || {
                        DecidedBy::Forwarded(Arc::clone(&owner.member.id.name))
                    });
                    if this_allowed {
                        taken.extend(undo.map(|undo| (part, undo)));
                    } else if is_early && part_is_held(part, charges, &decisions) {
                        held = true;
                    } else {
                        allowed = false;
                    }
                }
                PartOutcome::Misrouted => {
                    misrouted = true;
                    lost.push(part);
                }
                PartOutcome::Lost => lost.push(part),
            }
        }

        if allowed && held {
            self.give_back(lane, taken, charges, now);
            return Tried::Held;
        }
        let retry = allowed && misrouted && may_retry;
        if allowed && !retry {
            for part in lost {
                // Not when the check came: meanwhile the owner may have answered others.
                let noticed = self.clock.now();
                let since = match &part.owner {
                    Owner::Peer(owner) => owner.note_loss(noticed),
                    Owner::Here(_) | Owner::Nobody { .. } => self.unowned_since.note(noticed),
                };
                allowed = self.shares.decide(
                    &part.places,
                    charges,
                    wishes,
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
            self.give_back(lane, taken, charges, now);
        } else {
            for (_, undo) in taken {
                // A peer's part stays by itself when its time is over.
                if let UndoBy::Hold(taken) = undo {
                    self.store.settle(taken.hold);
                }
            }
        }
        if retry { Tried::Misrouted } else { Tried::Decided(Verdict { allowed, answers }) }
    }

    /// Charges this node's own part; `None` if what was charged does not count.
    fn decide_here(
        &self,
        part: &Part,
        claims: &[Claim],
        charges: &[Charge],
        undoable: bool,
        request: Option<u64>,
        now: Nanos,
    ) -> Option<(bool, Decisions, Option<UndoBy>)> {
        let own: SmallVec<[Charge; 4]> = part.places.iter().map(|place| charges[*place]).collect();
        let (allowed, decisions, taken) = self.charge_once(&own, claims, undoable, request, now)?;
        Some((allowed, decisions, taken.map(UndoBy::Hold)))
    }

    /// Charges, unless the request with that number was charged here before.
    fn charge_once(
        &self,
        own: &[Charge],
        claims: &[Claim],
        undoable: bool,
        request: Option<u64>,
        now: Nanos,
    ) -> Option<(bool, Decisions, Option<Taken>)> {
        let Some(number) = request else {
            let (allowed, decisions, hold) = self.charge(own, claims, undoable, now)?;
            return Some((allowed, decisions, hold.map(|hold| Taken { hold, request: None })));
        };
        let key = RequestKey::of(number, own);
        // Locked while it is charged: another thread may have the same request.
        let mut part = self.requests.lock(key);
        if let Some(decisions) = self.requests.repeat(&mut part, key, now) {
            return Some((true, decisions.into_iter().collect(), None));
        }
        let (allowed, decisions, hold) = self.charge(own, claims, undoable, now)?;
        let mut until = None;
        if allowed && let Some(first) = own.first() {
            let slot = SlotId::of(first.key);
            let remembered = Remembered { key, slot, rest: REMEMBER, decisions: decisions.as_slice().into() };
            until = self.requests.remember(&mut part, remembered, now);
        }
        Some((allowed, decisions, hold.map(|hold| Taken { hold, request: until.map(|until| (key, until)) })))
    }

    /// Takes a charge back; not if another check was answered by it. The request is forgotten first: whoever sees the bucket
    /// without the charge must not find it.
    fn undo(&self, taken: Taken, now: Nanos) {
        if taken.request.is_none_or(|(key, until)| self.requests.forget(key, until, || self.clock.now())) {
            self.store.undo(taken.hold, now);
        } else {
            self.store.settle(taken.hold);
        }
    }

    fn charge(
        &self,
        own: &[Charge],
        claims: &[Claim],
        undoable: bool,
        now: Nanos,
    ) -> Option<(bool, Decisions, Option<HoldId>)> {
        let mut decisions = Decisions::new();
        let (allowed, hold) = if undoable {
            self.store.hold(own, now, now.saturating_add(HOLD), &mut decisions)
        } else {
            (self.store.check_all(own, now, &mut decisions), None)
        };
        if !allowed && is_held(own, &decisions) {
            for ((claim, charge), decision) in claims.iter().zip(own).zip(&decisions) {
                self.rights.want(claim, charge, decision, now);
            }
        }
        if allowed && !self.counts(claims, own, &decisions, now, self.clock.now()) {
            if let Some(hold) = hold {
                self.store.undo(hold, now);
            }
            return None;
        }
        Some((allowed, decisions, hold))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step of `decide`")]
    fn ask(
        &self,
        lane: usize,
        owner: &Peer,
        part: &Part,
        charges: &[Charge],
        wishes: &[Wish],
        undoable: bool,
        request: Option<u64>,
    ) -> Option<oneshot::Receiver<Reply>> {
        let own = part.places.iter().map(|place| {
            let wish = wishes[*place];
            (&charges[*place], wish.consistency, wish.reserve)
        });
        let wire = wire::charges_to_wire(own)?;
        match owner.links[lane].ask(wire, undoable, request) {
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

    fn give_back(&self, lane: usize, taken: SmallVec<[(&Part, UndoBy); 2]>, charges: &[Charge], now: Nanos) {
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
                (UndoBy::Reply(id), Owner::Peer(owner)) => owner.links[lane].undo(id),
                (UndoBy::Reply(_), _) => unreachable!("this node's own part is taken back by its hold"),
            }
        }
    }

    /// Brings the buckets of checks near that are about to be decided.
    pub(crate) fn warm_for_peer(&self, checks: &[Check]) {
        let charges = checks.iter().flat_map(|check| check.charges.as_slice());
        self.store.warm(charges.map(|charge| KeyHash::from_raw(charge.key)));
    }

    /// Decides a check that another node sent, if this node owns its slots.
    pub(crate) fn decide_for_peer(&self, lane: usize, check: &Check) -> (Outcome, Option<Taken>) {
        let (outcome, taken) = self.try_decide_for_peer(check);
        let stats = &self.lanes[lane];
        match outcome {
            Outcome::Decided(_) => stats.decided_for_peers.add(1),
            _ => stats.refused_to_peers.add(1),
        }
        (outcome, taken)
    }

    fn try_decide_for_peer(&self, check: &Check) -> (Outcome, Option<Taken>) {
        if !self.has_routes() {
            return (Outcome::NotReady, None);
        }
        let Some(mut charges) = wire::charges_from_wire(&check.charges) else {
            return (Outcome::Malformed, None);
        };
        let now = self.clock.now();
        let mut claims: SmallVec<[Claim; 4]> = SmallVec::new();
        for (charge, asked) in charges.iter_mut().zip(check.charges.as_slice()) {
            let (slot, consistency) = (SlotId::of(charge.key), wire::consistency_of(asked));
            match self.rights.claim(slot, consistency, now) {
                Ok(mut claim) => {
                    let reserve = asked.reserve.and_then(|rule| self.rights.reserve(rule));
                    charge.floor = self.rights.bounds(&mut claim, charge, reserve, now);
                    claims.push(claim);
                }
                Err(Unclaimed::Elsewhere | Unclaimed::Frozen) => {
                    return (Outcome::NotOwner { slot: slot.get() }, None);
                }
                Err(Unclaimed::Lapsed) => return (Outcome::NotReady, None),
            }
        }
        let Some((allowed, decisions, taken)) =
            self.charge_once(&charges, &claims, check.undoable, check.request, now)
        else {
            return (Outcome::NotOwner { slot: SlotId::of(charges[0].key).get() }, None);
        };
        let decisions = decisions.iter().map(wire::decision_to_wire).collect();
        (Outcome::Decided(Decided { allowed, decisions }), taken)
    }

    /// Where a charge is decided.
    fn owner_of(&self, routes: &Routes, charge: &Charge, wish: Wish, now: Nanos) -> Found {
        let slot = SlotId::of(charge.key);
        let member = match self.rights.claim(slot, wish.consistency, now) {
            Ok(claim) => return Found::Here(claim),
            Err(Unclaimed::Lapsed) => return Found::Nobody { soon: false },
            Err(Unclaimed::Frozen) => routes.target(slot),
            Err(Unclaimed::Elsewhere) => routes.owner(slot),
        };
        member.map_or(Found::Nobody { soon: true }, Found::There)
    }

    /// Sorts the charges by who owns them, and fills in the floors of this node's own.
    fn split(
        &self,
        routes: &Routes,
        charges: &mut [Charge],
        wishes: &[Wish],
        now: Nanos,
    ) -> SmallVec<[Part; 2]> {
        let mut parts: SmallVec<[Part; 2]> = SmallVec::new();
        for (index, charge) in charges.iter_mut().enumerate() {
            let found = self.owner_of(routes, charge, wishes[index], now);
            let fits = |part: &&mut Part| match (&part.owner, &found) {
                (Owner::Here(_), Found::Here(_)) => true,
                (Owner::Nobody { soon }, Found::Nobody { soon: other }) => soon == other,
                (Owner::Peer(peer), Found::There(member)) => {
                    // A frame takes so many; what is more for one owner is asked in another one.
                    part.places.len() < MAX_CHARGES
                        && routes.peers[*member].as_ref().is_some_and(|other| Arc::ptr_eq(peer, other))
                }
                _ => false,
            };
            let part = match parts.iter_mut().rev().find(fits) {
                Some(part) => part,
                None => {
                    let owner = match &found {
                        Found::Here(_) => Owner::Here(SmallVec::new()),
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
                charge.floor = self.rights.bounds(&mut claim, charge, wishes[index].reserve, now);
                claims.push(claim);
            }
        }
        parts
    }

    pub(crate) fn undo_for_peer(&self, taken: Taken) {
        self.undo(taken, self.clock.now());
    }
}

/// Whether a check was denied only because successors have to be told first.
fn is_held(charges: &[Charge], decisions: &[Decision]) -> bool {
    let denied =
        |(charge, decision): &(&Charge, &Decision)| charge.mode == Mode::Enforce && !decision.allowed;
    let mut denials = charges.iter().zip(decisions).filter(denied).peekable();
    denials.peek().is_some() && denials.all(|(_, decision)| decision.is_held())
}

fn part_is_held(part: &Part, charges: &[Charge], decisions: &[Decision]) -> bool {
    let own: SmallVec<[Charge; 4]> = part.places.iter().map(|place| charges[*place]).collect();
    is_held(&own, decisions)
}

fn note(answers: &mut Answers, part: &Part, decisions: &[Decision], by: impl Fn() -> DecidedBy) {
    debug_assert_eq!(part.places.len(), decisions.len());
    for (place, decision) in part.places.iter().zip(decisions) {
        let mut decision = *decision;
        if decision.is_held() {
            // Told to who asked: the successor was waited for long enough.
            decision.retry_after = Some(HELD_RETRY);
        }
        answers[*place] = Some(Answer { decision, by: by() });
    }
}
