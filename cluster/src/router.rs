//! Who decides a check: this node, the owner of its slot, or, when no owner answers, what its rule says.
//!
//! The router reads the slot table that somebody publishes ([`Router::publish`]) and never asks gossip. A check is
//! decided by the node that owns its slot, where it arrives: either by this one or by the one it is forwarded to,
//! which decides it or refuses it, but never forwards it on.
//!
//! Several rules can match one request, and their buckets can have several owners. All must allow. Each owner charges
//! its part all or nothing; when one denies, what the others took is given back ([`Store::undo`]).

mod amend;
mod asking;
mod charging;
mod parts;
mod peers;

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
use tidegate_limiter::{Charge, Decision, Nanos, Store};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

pub use self::amend::Amended;
use self::{
    asking::{PartOutcome, UndoBy, Why},
    parts::{Owner, Part, is_held, is_lapsed, note, part_is_held},
};

use crate::{
    clock::Clock,
    loss::Shares,
    owner::rights::{Claim, Rights, Share},
    planted::PlantedBug,
    requests::Requests,
    routes::Routes,
    slots::SlotId,
    stats::LaneStats,
    verdict::{Answers, DecidedBy, Decisions, Local, NotReady, Verdict, Wish},
};

/// How often a check is sent again after "I do not own that slot".
const MAX_ATTEMPTS: u32 = 5;
/// The pause before that, unless the slot table changes earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// What a caller is told to wait when the successor of a slot does not answer: until then the log names another, or none.
const HELD_RETRY: Duration = Duration::from_millis(250);
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
    clock: Clock,
    lanes: Vec<Arc<LaneStats>>,
    /// How long an owner is waited for.
    forward_timeout: Duration,
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

    /// Up to where this node must apply the log to have a session, and up to where it has, if that is what it lacks.
    pub(crate) fn lag(&self) -> Option<(u64, u64)> {
        self.rights.lag(self.clock.now())
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
        let mut lost: SmallVec<[(&Part, Why); 2]> = SmallVec::new();

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
                            lost.push((part, Why::Unknown));
                        }
                    }
                }
                Owner::Nobody { soon } => {
                    misrouted |= soon;
                    lost.push((part, if is_lapsed(part, wishes) { Why::Lapsed } else { Why::Unknown }));
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
                    lost.push((part, Why::Unknown));
                }
                PartOutcome::Lost(why) => lost.push((part, why)),
            }
        }

        if allowed && held {
            self.give_back(lane, taken, charges, now);
            return Tried::Held;
        }
        let retry = allowed && misrouted && may_retry;
        if allowed && !retry {
            for (part, why) in lost {
                let noticed = self.clock.now();
                let since = self.unowned_since(lane, part, why, now, noticed);
                let known = self.rights.share(noticed).map(|share| by_owners(share, routes));
                let mut decide =
                    |share| self.shares.decide(&part.places, charges, wishes, share, now, &mut answers);
                allowed = decide(known.map(|share| Share { since: share.since.max(since), ..share }));
                let after = self.rights.share(self.clock.now()).map(|share| by_owners(share, routes));
                if allowed && after != known {
                    // The process was stopped in between, or the log gives this node another share: what was charged is
                    // forfeited.
                    allowed = decide(None);
                }
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
}

/// The share as it is, unless a bug is planted.
fn by_owners(share: Share, routes: &Routes) -> Share {
    if PlantedBug::SharesByOwners.is_on() { Share { parts: routes.member_count(), ..share } } else { share }
}
