//! Floors where checks meet them: how far a charge may go, which floors are to be replicated to successors, and which this node
//! has received as one. `floors` says when either counts.

mod check;
mod disk;
mod disk_slots;
mod owner;
mod successor;

pub(crate) use self::disk_slots::DiskSlot;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use arc_swap::ArcSwap;
use tidegate_limiter::{
    Nanos,
    cluster::{KeyHash, Mark, Reserve, Reserves, RuleId},
};
use tokio::sync::Notify;

use super::{
    acknowledged::{Acknowledged, Side},
    floors::{Agreement, SuccessorRef},
    takeover::{RuleChanges, TakeoverBasis, TakeoverState},
};
use crate::{ids::NodeStart, slots::SLOTS, stats::FloorStats};

/// What a charge sees of the agreement with the successor. The other bits count changes.
const BOUND: u64 = 1;
/// The slot was begun from floors.
const FROM_FLOORS: u64 = 2;
/// The successor is silent, and so is the leader.
const SILENT: u64 = 4;
/// The node's own disk has all floors, or may believe so.
const DISK: u64 = 8;
/// The disk is silent.
const DISK_SILENT: u64 = 16;
const CHANGE: u64 = 32;

/// By side: the bit that says that the owner is bound to it, and the one that says that it is silent.
const fn bits(side: Side) -> (u64, u64) {
    match side {
        Side::Successor => (BOUND, SILENT),
        Side::Disk => (DISK, DISK_SILENT),
    }
}

/// Floors that wait to be sent. Beyond that a charge that needs it is held, and asks again.
const MAX_RAISES: usize = 1 << 16;
/// Rules of before that are known beside those that slots were begun under, and how many rules all of them have.
const MAX_FORMER: usize = 256;
const MAX_FORMER_RULES: usize = 1 << 16;
/// Owners of which it is known when they were alive.
const MAX_OWNERS: usize = 1024;

/// This node's floors: those that it sends, and those that it has received.
#[derive(Debug)]
pub(super) struct Floors {
    /// For each slot: [`BOUND`], [`FROM_FLOORS`], [`SILENT`], [`DISK`], [`DISK_SILENT`].
    bindings: Box<[AtomicU64]>,
    acknowledged: Acknowledged,
    /// Of the slots that were begun from floors.
    bases: ArcSwap<BTreeMap<u16, Arc<TakeoverBasis>>>,
    /// The rules in force.
    reserves: ArcSwap<Reserves>,
    /// Rules that were in force before, the newest last: slots may have been begun under them.
    former: Mutex<VecDeque<Arc<Reserves>>>,
    /// When rules became others since slots were begun.
    changes: ArcSwap<RuleChanges>,
    /// By side.
    raises: Mutex<[HashMap<KeyHash, (RuleId, Mark)>; 2]>,
    /// Whether this node keeps floors on its disk.
    has_disk: AtomicBool,
    /// Whether the disk has not answered for so long that no check waits for it.
    disk_hangs: AtomicBool,
    /// Whether the disk says of each slot whose it is that this node may begin from its floors.
    is_adopted: AtomicBool,
    /// Some charge waits for what is among the raises; so many did.
    urgent: Notify,
    wants: AtomicU64,
    /// More is acknowledged.
    acknowledgements: Notify,
    /// Counts changes of what there is to do.
    version: AtomicU64,
    stats: Arc<FloorStats>,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            bindings: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            acknowledged: Acknowledged::default(),
            bases: ArcSwap::default(),
            reserves: ArcSwap::default(),
            former: Mutex::default(),
            changes: ArcSwap::default(),
            raises: Mutex::default(),
            has_disk: AtomicBool::new(false),
            disk_hangs: AtomicBool::new(false),
            is_adopted: AtomicBool::new(true),
            urgent: Notify::new(),
            wants: AtomicU64::new(0),
            acknowledgements: Notify::new(),
            version: AtomicU64::new(0),
            stats: Arc::default(),
        }
    }
}

/// What a claim says of the floors, for a charge whose rule has some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedFloors {
    reserve: Reserve,
    at_most: Mark,
    binding: u64,
    /// Of [`BOUND`] and [`DISK`] those that the charge keeps to.
    kept_to: u64,
    /// It is decided beyond the successor's floors: neither the leader nor the successor answers, and the rule is to stay available.
    beyond: bool,
}

/// Since which entries of the log the domains whose rules have floors have these rules.
///
/// An owner admits without replicating floors while no rule has any. When the same rules are back, the successor may
/// still have the floors of before, all of them, by the same agreement. So **floors count only under the very writes of the rules
/// under which they were sent**. By their content the rules of before and after look the same; by their place in the
/// log they do not, also at a node that has skipped what was in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Since {
    domains: BTreeMap<Arc<str>, u64>,
    /// All that was written up to this entry is in these rules, whichever domain it is of.
    newest: u64,
}

impl Since {
    pub(crate) fn new(domains: impl IntoIterator<Item = (Arc<str>, u64)>) -> Self {
        let domains: BTreeMap<Arc<str>, u64> = domains.into_iter().collect();
        let newest = domains.values().copied().max().unwrap_or(0);
        Self { domains, newest }
    }

    /// The same of rules in which all is that was written up to this entry.
    pub(crate) fn at(self, newest: u64) -> Self {
        Self { newest, ..self }
    }

    /// Whether each of these domains has that revision, and no domain a later one than all that these rules know.
    fn is_of(&self, revision: impl Fn(&str) -> Option<u64>, newest: Option<u64>) -> bool {
        newest.is_none_or(|newest| self.newest >= newest)
            && self.domains.iter().all(|(domain, since)| revision(domain) == Some(*since))
    }

    /// A number that differs where these do.
    pub(super) fn number(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for (domain, since) in &self.domains {
            hasher.update(&(domain.len() as u64).to_le_bytes());
            hasher.update(domain.as_bytes());
            hasher.update(&since.to_le_bytes());
        }
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes"))
    }
}

/// When an owner was alive for sure, as its successor knows.
#[derive(Debug, Clone, Copy)]
struct Heard {
    /// The last answer to it, and when it was given.
    answer: (u64, Nanos),
    alive: Option<Nanos>,
}

/// What an owner knows of one side.
#[derive(Debug)]
struct SideAgreements {
    senders: Box<[super::floors::FloorSender]>,
    attempts: u64,
    /// Attempts up to this one do not count any more.
    stale: u64,
}

impl Default for SideAgreements {
    fn default() -> Self {
        Self { senders: (0..SLOTS).map(|_| Default::default()).collect(), attempts: 0, stale: 0 }
    }
}

impl SideAgreements {
    /// What this side has is not complete any more, until all floors are sent again.
    fn begin_anew(&mut self) {
        self.stale = self.attempts;
        for sender in &mut self.senders {
            sender.doubt();
        }
    }
}

/// What is known under the lock of [`SlotOwnership`].
#[derive(Debug, Default)]
pub(super) struct FloorAgreements {
    sides: [SideAgreements; 2],
    since: Since,
    takeovers: BTreeMap<u16, TakeoverState>,
    heard: BTreeMap<NodeStart, Heard>,
    disk: disk_slots::DiskSlots,
}

/// A floor that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) key: KeyHash,
    pub(crate) rule: RuleId,
    pub(crate) mark: Mark,
    pub(crate) successor_ref: SuccessorRef,
}

impl FloorAgreements {
    fn side(&self, side: Side) -> &SideAgreements {
        &self.sides[side as usize]
    }

    fn side_mut(&mut self, side: Side) -> &mut SideAgreements {
        &mut self.sides[side as usize]
    }

    /// No side is complete any more, until all floors are sent again.
    fn begin_anew(&mut self) {
        self.sides.iter_mut().for_each(SideAgreements::begin_anew);
    }

    /// Whether this agreement binds, and what is sent by it counts.
    fn holds(&self, side: Side, slot: u16, agreement: &Agreement) -> bool {
        let side = self.side(side);
        agreement.attempt > side.stale && side.senders[usize::from(slot)].agreement() == Some(*agreement)
    }
}
