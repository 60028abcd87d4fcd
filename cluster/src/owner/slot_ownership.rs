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
mod moving;
mod observe;
mod share;

pub(crate) use crate::owner::slot_ownership::{
    moving::{Frozen, Refusal},
    observe::Heritage,
    share::Share,
};

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, SeqCst},
            fence,
        },
    },
};

use tidegate_limiter::{
    Nanos,
    cluster::{Consistency, KeyHash},
};

use super::{
    floor_replication::{ClaimedFloors, FloorAgreements, Floors},
    kept::Kept,
    node::Node,
    session::{Session, SessionTiming},
    shares::WITHOUT_CONTACT_AT_START,
};
use crate::{
    ids::NodeStart,
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

    /// A check was denied under a claim. It took nothing, but its bucket may have taken over what its key consumed under another
    /// limit: then the target of a move has only what that knew when it was sent.
    #[inline]
    pub(crate) fn note_denied(&self, claim: &Claim, key: KeyHash) {
        let word = self.slots[claim.slot.index()].word.load(Acquire);
        if word & STATE == SENDS {
            self.note(claim, word, key);
        }
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<u16, HashSet<KeyHash>>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// When a slot's buckets count as exhausted.
    pub(super) fn floor_of(&self, slot: usize) -> Option<Nanos> {
        let floor = self.slots[slot].floor.load(Relaxed);
        (floor != 0).then(|| Nanos::new(floor))
    }

    /// It has what it knew when it ended the last time.
    pub(crate) fn keep(&self, kept: Kept) {
        self.core().node.keep(kept);
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

#[cfg(test)]
mod tests;
