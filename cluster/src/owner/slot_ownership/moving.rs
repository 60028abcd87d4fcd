//! Slots that go from one owner to another, and those that end with this node: what their buckets count as goes along.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use serde::{Deserialize, Serialize};
use tidegate_limiter::{Nanos, cluster::KeyHash};

use super::{FROZEN, NOTHING, SlotOwnership};
use crate::{
    owner::{
        node::{Install, Role},
        table::SlotMove,
        takeover::TakeoverBasis,
    },
    planted::PlantedBug,
    slots::SLOTS,
};

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

impl SlotOwnership {
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

    /// Which of these slots are this node's and nobody else's, with epochs and floors. They stay so.
    pub(crate) fn owned(&self, slots: std::ops::RangeInclusive<u16>) -> Vec<Frozen> {
        let core = self.core();
        let own = |slot: &u16| core.node.role(usize::from(*slot)) == Role::Owner;
        let frozen = |slot: u16| Frozen {
            one: SlotMove { slot, id: 0 },
            epoch: core.node.epoch(usize::from(slot)),
            floor: self.floor_of(usize::from(slot)),
            basis: self.basis_of(slot),
        };
        slots.filter(own).map(frozen).collect()
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
}
