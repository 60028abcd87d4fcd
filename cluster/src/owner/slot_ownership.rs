//! The right to decide, where checks read it: a word for each slot, and until when the session lasts.
//!
//! A check claims its slot, charges the bucket, and then looks again. **A charge counts only if, after it was made, the slot
//! was still this node's, in the same tenure, and the session still lasted**; one that does not count is forfeited, and the
//! check begins anew. So a thread that was stopped in between admits nothing.
//!
//! While the buckets of a slot are on their way to another node, no charge may be missed:
//!
//! 1. Who moves a slot marks it as *sending*, and only then reads its buckets. A charge that was made before is in what is
//!    read; one that was made after finds the mark when it looks again (both sides put a full fence in between), notes its
//!    key, and looks once more.
//! 2. Then the slot is *frozen*, and only then the notes are taken. A charge whose key was noted before that is sent with
//!    the rest; one that looks later finds the slot frozen, and is forfeited.

mod awake;
mod share;

pub(crate) use crate::owner::slot_ownership::share::Share;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidegate_limiter::{
    Nanos,
    cluster::{Consistency, KeyHash},
};

use super::{
    floor_replication::{ClaimedFloors, FloorAgreements, Floors},
    node::{Change, Effect, Install, Kept, Node, Role},
    session::{Session, SessionTiming},
    shares::{WITHOUT_CONTACT, WITHOUT_CONTACT_AT_START},
    table::{SlotMove, Table},
    takeover::TakeoverBasis,
};
use crate::{
    ids::NodeStart,
    planted::PlantedBug,
    slots::{SLOTS, SlotId},
};

/// What a check sees of a slot. Two bits of a word; the others count tenures.
const NOTHING: u64 = 0;
const DECIDES: u64 = 1;
const SENDS: u64 = 2;
const FROZEN: u64 = 3;
const STATE: u64 = 3;
const TENURE: u64 = 4;

/// Keys that are noted while slots are on the way. Beyond that, charges are forfeited until the move is over.
const MAX_NOTED: usize = 1 << 20;

#[derive(Debug, Default)]
struct Slot {
    word: AtomicU64,
    /// When its buckets count as exhausted; 0: never.
    floor: AtomicU64,
}

/// A slot that a check has claimed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(super) slot: SlotId,
    word: u64,
    pub(super) consistency: Consistency,
    /// When the slot's buckets count as exhausted.
    pub(crate) floor: Option<Nanos>,
    /// What the charge sees of the agreement with the successor, if its rule has one.
    pub(super) agreed: Option<ClaimedFloors>,
}

impl Claim {
    /// Whether the slot's buckets are on their way to another node.
    pub(crate) fn is_being_sent(&self) -> bool {
        self.word & STATE == SENDS
    }
}

/// Why a slot cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclaimed {
    /// It is another node's.
    Elsewhere,
    /// Its last buckets are on their way to another node.
    Frozen,
    /// It is this node's, but the session does not last.
    Lapsed,
}

/// This node's rights.
#[derive(Debug)]
pub(crate) struct SlotOwnership {
    slots: Box<[Slot]>,
    /// Until when a `strict` rule may be decided: while the session lasts.
    strict_until: AtomicU64,
    /// Until when an `available` one may: while this process was not stopped for so long that its session may have ended.
    /// Who was may have lost its slots and does not know it.
    awake_until: AtomicU64,
    /// After such a stop: until a session was asked for since, or this instant.
    hold_until: AtomicU64,
    held: AtomicBool,
    /// Before this instant there are no shares: this process has begun, or gone on after a stop, a moment ago, and that it hears
    /// nothing of an owner says nothing yet. The end of time: it is not known yet.
    shares_from: AtomicU64,
    /// Until when there are shares without another session; see [`WITHOUT_CONTACT`](super::shares::WITHOUT_CONTACT).
    shares_until: AtomicU64,
    /// Which share this node gives: how often that has changed, and how many equal parts there are (0: it gives none).
    share: AtomicU64,
    /// Up to where this node must apply the log to have a session, if the leader has refused one for want of that; 0: it has not.
    behind: AtomicU64,
    /// When this node last began to own a slot: until then another may have decided about it.
    began: AtomicU64,
    core: Mutex<Core>,
    noted: Mutex<HashMap<u16, HashSet<KeyHash>>>,
    given_up: AtomicBool,
    timing: SessionTiming,
    pub(super) floors: Floors,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) node: Node,
    session: Session,
    /// The last grant that does not count yet: from which index of the log on it does, and when it was asked for.
    granting: Option<(u64, Nanos)>,
    watched: Option<Nanos>,
    /// When this node began, or went on after it was stopped.
    resumed: Nanos,
    /// Whether a session was granted since that was asked for since.
    granted: bool,
    /// When this node began to have links.
    linked: Nanos,
    /// It has given away what it knew, and decides nothing any more.
    retired: bool,
    /// Until it has applied the log up to there, this node gives one of no fewer parts than these.
    held_share: Option<(u32, u64)>,
    pub(super) agreements: FloorAgreements,
}

/// What a node does about a change of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToDo {
    /// Moves whose buckets this node has to send, by id.
    pub(crate) send: Vec<SlotMove>,
    /// How many slots were begun from floors.
    pub(crate) reserved: usize,
}

impl SlotOwnership {
    pub(crate) fn new(me: NodeStart, timing: SessionTiming, now: Nanos) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            strict_until: AtomicU64::new(0),
            awake_until: AtomicU64::new(0),
            hold_until: AtomicU64::new(0),
            held: AtomicBool::new(false),
            shares_from: AtomicU64::new(u64::MAX),
            shares_until: AtomicU64::new(now.saturating_add(WITHOUT_CONTACT_AT_START).get()),
            share: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            began: AtomicU64::new(now.get()),
            core: Mutex::new(Core {
                node: Node::new(me, SLOTS),
                session: Session::new(timing),
                granting: None,
                watched: None,
                resumed: now,
                granted: false,
                linked: now,
                retired: false,
                held_share: None,
                agreements: FloorAgreements::default(),
            }),
            noted: Mutex::default(),
            given_up: AtomicBool::new(false),
            timing,
            floors: Floors::default(),
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lasts(&self, consistency: Consistency, now: Nanos) -> bool {
        let until = match consistency {
            Consistency::Strict => &self.strict_until,
            Consistency::Available => &self.awake_until,
        };
        now.get() < until.load(Relaxed)
    }

    /// Claims the slot of a key at this instant.
    #[inline]
    pub(crate) fn claim(
        &self,
        slot: SlotId,
        consistency: Consistency,
        now: Nanos,
    ) -> Result<Claim, Unclaimed> {
        let place = &self.slots[slot.index()];
        let word = place.word.load(Acquire);
        match word & STATE {
            NOTHING => return Err(Unclaimed::Elsewhere),
            FROZEN => return Err(Unclaimed::Frozen),
            _ => {}
        }
        if !self.lasts(consistency, now) {
            return Err(Unclaimed::Lapsed);
        }
        let floor = place.floor.load(Relaxed);
        let floor = (floor != 0).then(|| Nanos::new(floor));
        Ok(Claim { slot, word, consistency, floor, agreed: None })
    }

    /// Whether a charge that was made under a claim counts. `now` is read after the charge.
    #[inline]
    pub(crate) fn confirm(&self, claim: &Claim, key: KeyHash, now: Nanos) -> bool {
        fence(SeqCst);
        let word = self.slots[claim.slot.index()].word.load(Acquire);
        let counts = word == claim.word && word & STATE == DECIDES || self.note(claim, word, key);
        counts && self.lasts(claim.consistency, now) && self.is_as_agreed(claim, now)
    }

    /// The slot's buckets are being sent: notes the key, so that it is sent again.
    #[cold]
    fn note(&self, claim: &Claim, word: u64, key: KeyHash) -> bool {
        if word & STATE != SENDS || word - SENDS != claim.word & !STATE {
            return false;
        }
        {
            let mut noted = self.noted();
            let keys = noted.entry(claim.slot.get()).or_default();
            if keys.len() >= MAX_NOTED / super::leader::BATCH {
                return false;
            }
            keys.insert(key);
        }
        fence(SeqCst);
        self.slots[claim.slot.index()].word.load(Acquire) == word
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<u16, HashSet<KeyHash>>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the log says up to this index. Afterwards [`SlotOwnership::applied`] has to be called when the router knows it
    /// too. Before slots are begun from floors, `inherit` is called with them, and for how long time is to stand still for
    /// their buckets; if it returns false, they count as exhausted.
    pub(crate) fn observe(
        &self,
        index: u64,
        table: &Arc<Table>,
        now: Nanos,
        inherit: impl FnOnce(&[usize], Duration) -> bool,
    ) -> ToDo {
        let mut core = self.core();
        let mut todo = ToDo::default();
        if core.retired {
            return todo;
        }
        let changes = core.node.observe(index, table);
        self.observe_successors(&mut core);
        let begins = |effect| {
            matches!(
                effect,
                Effect::BeginFull | Effect::BeginDrained | Effect::BeginKept | Effect::BeginReserved(_)
            )
        };
        let begun = changes.iter().filter(|change| begins(change.effect));
        let mut bases: Vec<(usize, Option<Arc<TakeoverBasis>>)> = begun
            .map(|change| match change.effect {
                Effect::BeginReserved(owner) => {
                    (change.slot, self.takeover_basis(&core, change.slot, owner, now).map(Arc::new))
                }
                Effect::BeginKept => {
                    let kept = core.node.kept_basis(change.slot);
                    (change.slot, kept.and_then(|(rules, basis)| basis.with(rules, self.reserves())))
                }
                _ => (change.slot, None),
            })
            .collect();
        let reserved: Vec<usize> = changes
            .iter()
            .filter(|change| matches!(change.effect, Effect::BeginReserved(_)))
            .map(|change| change.slot)
            .filter(|slot| bases.iter().any(|(known, basis)| known == slot && basis.is_some()))
            .collect();
        if !reserved.is_empty() {
            if inherit(&reserved, Self::unheard(&bases)) {
                todo.reserved = reserved.len();
            } else {
                let is_lost = |(slot, _): &&mut (usize, Option<Arc<TakeoverBasis>>)| reserved.contains(slot);
                bases.iter_mut().filter(is_lost).for_each(|(_, basis)| *basis = None);
            }
        }
        if !bases.is_empty() {
            self.set_bases(&bases);
            self.began.fetch_max(now.get(), Relaxed);
        }
        for Change { slot, effect } in changes {
            let role = core.node.role(slot);
            debug_assert!(role.decides() || effect == Effect::End, "{effect:?} of a slot that is {role:?}");
            match effect {
                Effect::BeginFull => self.begin(slot, 0),
                Effect::BeginDrained | Effect::BeginReserved(_) if PlantedBug::FullStart.is_on() => {
                    self.begin(slot, 0);
                }
                // What has no floors starts exhausted in any case.
                Effect::BeginDrained | Effect::BeginReserved(_) => self.begin(slot, now.get()),
                Effect::BeginKept => self.begin(slot, core.node.kept_floor(slot)),
                Effect::Resume => self.set(slot, DECIDES),
                Effect::Send => {
                    let Role::Sending(id) = role else { continue };
                    self.noted().remove(&(slot as u16));
                    self.set(slot, SENDS);
                    todo.send.push(SlotMove { slot: slot as u16, id });
                }
                Effect::End => {
                    self.noted().remove(&(slot as u16));
                    self.set(slot, NOTHING);
                }
            }
        }
        // After all of it: who was granted time for this index has given up what it lost.
        core.session.applied(index);
        self.note_granted(&mut core);
        todo
    }

    /// A new tenure.
    fn begin(&self, slot: usize, floor: u64) {
        let place = &self.slots[slot];
        let tenure = (place.word.load(Relaxed) & !STATE) + TENURE;
        // No check claims it in between: it would have the wrong floor.
        place.word.store(tenure | NOTHING, SeqCst);
        place.floor.store(floor, SeqCst);
        place.word.store(tenure | DECIDES, SeqCst);
        fence(SeqCst);
    }

    fn set(&self, slot: usize, state: u64) {
        let word = &self.slots[slot].word;
        word.store(word.load(Relaxed) & !STATE | state, SeqCst);
        fence(SeqCst);
    }

    /// Freezes slots at their sender. Returns those that are, with their epochs and floors, and the keys that were charged
    /// since they began to be sent.
    pub(crate) fn freeze(&self, moves: &[SlotMove]) -> (Vec<Frozen>, Vec<KeyHash>) {
        let mut core = self.core();
        let frozen = core.node.freeze(moves);
        if !PlantedBug::MoveWithoutFreeze.is_on() {
            frozen.iter().for_each(|one| self.set(usize::from(one.slot), FROZEN));
        }
        let mut noted = self.noted();
        let keys = frozen.iter().filter_map(|one| noted.remove(&one.slot)).flatten().collect();
        let with_floor = |one: &SlotMove| {
            let slot = usize::from(one.slot);
            let basis = self.basis_of(one.slot);
            Frozen { one: *one, epoch: core.node.epoch(slot), floor: self.floor_of(slot), basis }
        };
        (frozen.iter().map(with_floor).collect(), keys)
    }

    /// When a slot's buckets count as exhausted.
    pub(super) fn floor_of(&self, slot: usize) -> Option<Nanos> {
        let floor = self.slots[slot].floor.load(Relaxed);
        (floor != 0).then(|| Nanos::new(floor))
    }

    /// Whether slots of these moves still have to be sent.
    pub(crate) fn is_moving(&self, moves: &[SlotMove]) -> bool {
        let core = self.core();
        moves.iter().any(|one| {
            let role = core.node.role(usize::from(one.slot));
            role == Role::Sending(one.id) || role == Role::Frozen(one.id)
        })
    }

    /// Takes over a slot whose buckets are here; its buckets count as exhausted at `floor`.
    pub(crate) fn install(
        &self,
        one: SlotMove,
        epoch: u64,
        floor: Option<Nanos>,
        basis: Option<Arc<TakeoverBasis>>,
        now: Nanos,
    ) -> Install {
        let mut core = self.core();
        if core.retired {
            return Install::NotYet;
        }
        let outcome = core.node.install(one, epoch);
        if outcome == Install::Now {
            self.began.fetch_max(now.get(), Relaxed);
            self.set_bases(&[(usize::from(one.slot), basis)]);
            self.begin(usize::from(one.slot), floor.map_or(0, |floor| floor.get().max(1)));
        }
        outcome
    }

    /// Whether buckets that come by each of these moves are taken.
    pub(crate) fn awaits(&self, moves: &[SlotMove]) -> Vec<Install> {
        let core = self.core();
        if core.retired {
            return vec![Install::NotYet; moves.len()];
        }
        moves.iter().map(|one| core.node.awaits(*one)).collect()
    }

    /// Promises not to take these slots, where they are not taken.
    pub(crate) fn refuse(&self, moves: &[SlotMove]) -> Refusal {
        let mut core = self.core();
        let mut refusal = Refusal::default();
        for one in moves {
            if core.node.refuse(*one) {
                refusal.refused.push(*one);
            } else if core.node.role(usize::from(one.slot)) == Role::Installed(one.id) {
                refusal.taken.push(*one);
            }
        }
        refusal
    }

    /// It has what it knew when it ended the last time.
    pub(crate) fn keep(&self, kept: Kept) {
        self.core().node.keep(kept);
    }

    /// Decides nothing any more, and returns which slots were this node's and nobody else's, with epochs and floors.
    pub(crate) fn retire(&self) -> Vec<Frozen> {
        self.give_up();
        let mut core = self.core();
        core.retired = true;
        let mut owned = Vec::new();
        for slot in 0..SLOTS {
            let floor = self.floor_of(slot);
            self.set(slot, NOTHING);
            if core.node.role(slot) == Role::Owner {
                owned.push(Frozen {
                    one: SlotMove { slot: slot as u16, id: 0 },
                    epoch: core.node.epoch(slot),
                    floor,
                    basis: self.basis_of(slot as u16),
                });
            }
        }
        owned
    }

    /// This node wants to own nothing any more, not even what it would get if another one died.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    pub(crate) fn me(&self) -> NodeStart {
        self.core().node.me()
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Relaxed)
    }

    pub(crate) fn timing(&self) -> SessionTiming {
        self.timing
    }
}

/// What a target says of moves that should be given up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// It will not take these.
    pub(crate) refused: Vec<SlotMove>,
    /// It has these.
    pub(crate) taken: Vec<SlotMove>,
}

/// A slot that is frozen at its sender.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) one: SlotMove,
    pub(crate) epoch: u64,
    pub(crate) floor: Option<Nanos>,
    /// If it was begun from floors: how.
    pub(crate) basis: Option<Arc<TakeoverBasis>>,
}

#[cfg(test)]
mod tests;
