//! Buckets, requests and floors as nodes send them to each other: instants as so long ago, because each node has a clock of its
//! own. What is saved on a disk has the same form.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tidegate_limiter::{
    Nanos,
    cluster::{Bucket, Held, KeyHash, LetGo, RuleId, Store},
};
use tidegate_proto::peer;

use crate::{
    ids::NodeStart,
    owner::{
        floors::Agreement,
        table::SlotMove,
        takeover::{TakeoverBasis, TakeoverState, as_one},
    },
    requests::{MovedCharge, Remembered, RequestKey},
    slots::SlotId,
    wire,
};

/// Buckets for the target of a move.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct HandOver {
    /// By which moves they come.
    pub(crate) moves: Vec<SlotMove>,
    pub(crate) buckets: Vec<WireBucket>,
    /// What strict rules have let go of, some of which may be buckets of these slots.
    pub(crate) let_go: Vec<WireLetGo>,
    /// These slots are the target's with this: their owner decides no more.
    pub(crate) slots: Vec<WireSlot>,
    /// Requests that were charged and may be asked again.
    pub(crate) requests: Vec<WireRequest>,
    /// When requests were charged, of which something may be given back.
    pub(crate) charges: Vec<WireCharge>,
}

impl HandOver {
    /// The moves that this ends.
    pub(crate) fn moves(&self) -> impl Iterator<Item = SlotMove> + '_ {
        self.slots.iter().map(|slot| slot.one)
    }
}

/// As [`Remembered`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireRequest {
    pub(crate) key: (u64, u64),
    pub(crate) slot: u16,
    pub(crate) rest: Duration,
    pub(crate) decisions: Vec<peer::Decision>,
}

/// As [`MovedCharge`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WireCharge {
    pub(crate) request: (u64, u64),
    pub(crate) key: u64,
    /// When it was made: counts where the bucket is one of windows, which lie where the calendar has them.
    pub(crate) at: u64,
    /// The same as so long ago, in nanoseconds.
    pub(crate) ago: u64,
    pub(crate) units: u64,
}

impl WireCharge {
    pub(crate) fn of(moved: &MovedCharge, now: Nanos) -> Self {
        let MovedCharge { request, key, at, units } = *moved;
        let ago = now.saturating_since(at).as_nanos() as u64;
        Self { request: request.parts(), key: key.get(), at: at.get(), ago, units }
    }

    pub(crate) fn into_moved(self, now: Nanos) -> MovedCharge {
        let (request, key) = (RequestKey::new(self.request), KeyHash::from_raw(self.key));
        let at = if key.is_of_window() { self.at } else { now.get().saturating_sub(self.ago) };
        MovedCharge { request, key, at: Nanos::new(at), units: self.units }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireBucket {
    pub(crate) key: u64,
    pub(crate) rule: u64,
    pub(crate) held: WireHeld,
}

/// As [`LetGo`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireLetGo {
    pub(crate) rule: u64,
    pub(crate) held: WireHeld,
}

impl WireLetGo {
    /// All that a store has let go of.
    pub(crate) fn all(store: &Store, now: Nanos) -> Vec<Self> {
        store.let_go(now).into_iter().map(Self::from).collect()
    }

    pub(crate) fn take_over(self, store: &Store, now: Nanos) {
        store.take_over_let_go(&LetGo { rule: RuleId::from_raw(self.rule), held: self.held.into() }, now);
    }
}

/// As [`Held`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WireHeld {
    Debt(u64),
    Window(u64),
    Log { memory: u64, entries: Vec<(u64, u64)> },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WireSlot {
    pub(crate) one: SlotMove,
    pub(crate) epoch: u64,
    /// How long ago its buckets were exhausted, in nanoseconds; `None`: they never were.
    pub(crate) drained_ago: Option<u64>,
    pub(crate) basis: Option<WireTakeoverBasis>,
}

/// As [`TakeoverBasis`]: all of it as long ago, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WireTakeoverBasis {
    /// What the rules are called that it was begun under.
    pub(crate) rules: u64,
    pub(crate) heard: u64,
    pub(crate) begun: u64,
    pub(crate) before: Option<u64>,
    pub(crate) earlier: Option<(u64, u64)>,
}

impl WireTakeoverBasis {
    pub(crate) fn of(basis: &TakeoverBasis, rules: u64, now: Nanos) -> Self {
        let ago = |at: Nanos| now.saturating_since(at).as_nanos() as u64;
        Self {
            rules,
            heard: ago(basis.heard),
            begun: ago(basis.begun),
            before: basis.before.map(ago),
            earlier: as_one(&basis.earlier).map(|(heard, begun)| (ago(heard), ago(begun))),
        }
    }

    /// With what the rules are called, but without them.
    pub(crate) fn into_basis(self, now: Nanos) -> (u64, TakeoverBasis) {
        let at = |ago: u64| Nanos::new(now.get().saturating_sub(ago));
        let basis = TakeoverBasis {
            rules: Arc::default(),
            heard: at(self.heard),
            begun: at(self.begun),
            before: self.before.map(at),
            earlier: self.earlier.map(|(heard, begun)| (at(heard), at(begun))).into_iter().collect(),
        };
        (self.rules, basis)
    }
}

/// What became of a [`HandOver`] at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HandedOver {
    /// All of it is there.
    Done,
    /// The target has not applied the beginning of the move.
    NotYet,
    /// The move is over.
    Never,
}

impl HandOver {
    /// Buckets that go ahead.
    pub(crate) fn part(moves: &[SlotMove], buckets: Vec<WireBucket>) -> Self {
        Self { moves: moves.to_vec(), buckets, ..Self::default() }
    }
}

impl From<Bucket> for WireBucket {
    fn from(Bucket { key, rule, held }: Bucket) -> Self {
        Self { key: key.get(), rule: rule.get(), held: held.into() }
    }
}

impl From<WireBucket> for Bucket {
    fn from(WireBucket { key, rule, held }: WireBucket) -> Self {
        Self { key: KeyHash::from_raw(key), rule: RuleId::from_raw(rule), held: held.into() }
    }
}

impl From<LetGo> for WireLetGo {
    fn from(LetGo { rule, held }: LetGo) -> Self {
        Self { rule: rule.get(), held: held.into() }
    }
}

impl From<Held> for WireHeld {
    fn from(held: Held) -> Self {
        match held {
            Held::Debt(debt) => Self::Debt(debt),
            Held::Window(state) => Self::Window(state),
            Held::Log { memory, entries } => Self::Log { memory, entries },
        }
    }
}

impl From<WireHeld> for Held {
    fn from(held: WireHeld) -> Self {
        match held {
            WireHeld::Debt(debt) => Self::Debt(debt),
            WireHeld::Window(state) => Self::Window(state),
            WireHeld::Log { memory, entries } => Self::Log { memory, entries },
        }
    }
}

impl From<Remembered> for WireRequest {
    fn from(Remembered { key, slot, rest, decisions }: Remembered) -> Self {
        let decisions = decisions.iter().map(wire::decision_to_wire).collect();
        Self { key: key.parts(), slot: slot.get(), rest, decisions }
    }
}

impl WireRequest {
    /// `None`: there is no such slot.
    pub(crate) fn into_remembered(self) -> Option<Remembered> {
        let decisions = self.decisions.iter().map(wire::decision_from_wire).collect();
        Some(Remembered {
            key: RequestKey::new(self.key),
            slot: SlotId::new(self.slot)?,
            rest: self.rest,
            decisions,
        })
    }
}

impl WireBucket {
    pub(crate) fn bytes(&self) -> usize {
        40 + match &self.held {
            WireHeld::Log { entries, .. } => 16 * entries.len(),
            _ => 0,
        }
    }
}

/// What an owner says to a successor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FloorUpdate {
    pub(crate) owner: NodeStart,
    pub(crate) to: NodeStart,
    /// The number of the last answer that it has got; 0: none.
    pub(crate) answer: u64,
    /// These attempts begin.
    pub(crate) begin: Vec<(u16, Agreement)>,
    /// These buckets are used so far, or will be.
    pub(crate) buckets: Vec<WireBucket>,
    /// The successor has received everything about these slots.
    pub(crate) complete: Vec<(u16, Agreement, WireTakeoverState)>,
    /// What strict rules had let go of before that.
    pub(crate) let_go: Vec<WireLetGo>,
}

impl FloorUpdate {
    /// In whose name it is.
    pub(crate) fn owner(&self) -> NodeStart {
        self.owner
    }
}

/// As [`TakeoverState`]: instants as so long ago, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WireTakeoverState {
    pub(crate) fingerprint: u64,
    pub(crate) since: u64,
    pub(crate) before: Option<u64>,
    pub(crate) earlier: Option<(u64, u64)>,
}

impl WireTakeoverState {
    pub(crate) fn of(state: &TakeoverState, now: Nanos) -> Self {
        let ago = |at: Nanos| now.saturating_since(at).as_nanos() as u64;
        Self {
            fingerprint: state.fingerprint,
            since: state.since,
            before: state.before.map(ago),
            earlier: as_one(&state.earlier).map(|(heard, begun)| (ago(heard), ago(begun))),
        }
    }

    pub(crate) fn into_state(self, now: Nanos) -> TakeoverState {
        let at = |ago: u64| Nanos::new(now.get().saturating_sub(ago));
        TakeoverState {
            fingerprint: self.fingerprint,
            since: self.since,
            before: self.before.map(at),
            earlier: self.earlier.map(|(heard, begun)| (at(heard), at(begun))).into_iter().collect(),
        }
    }
}
