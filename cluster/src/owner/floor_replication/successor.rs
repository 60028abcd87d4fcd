//! Floors at the successor: which it has received, and from where slots begin that it takes over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_limiter::Nanos;

use super::{FROM_FLOORS, Heard, MAX_OWNERS, TakeoverBasis, TakeoverState};
use crate::{
    ids::NodeStart,
    owner::{
        floors::Agreement,
        slot_ownership::{Core, SlotOwnership},
    },
    planted::PlantedBug,
};

impl SlotOwnership {
    /// An owner says something; `answer` is the number of the last answer that it has got.
    pub(crate) fn note_owner(&self, owner: NodeStart, answer: u64, now: Nanos) {
        let mut core = self.core();
        let heard = &mut core.agreements.heard;
        if heard.len() > MAX_OWNERS {
            heard.clear();
        }
        let known = heard.entry(owner).or_insert(Heard { answer: (0, now), alive: None });
        // It was alive when it got that answer, which was not before it was given.
        if answer != 0 && known.answer.0 == answer {
            known.alive = known.alive.max(Some(known.answer.1));
        }
    }

    /// The owner is being answered; by this number.
    pub(crate) fn answer(&self, owner: NodeStart, now: Nanos) -> u64 {
        let mut core = self.core();
        let known = core.agreements.heard.entry(owner).or_insert(Heard { answer: (0, now), alive: None });
        known.answer = (known.answer.0 + 1, now);
        known.answer.0
    }

    /// An owner begins to send the floors of these slots.
    pub(crate) fn begin_receiving(&self, agreements: &[(u16, Agreement)]) {
        let mut core = self.core();
        agreements.iter().for_each(|(slot, agreement)| core.node.receiver(*slot).begin(*agreement));
    }

    /// An owner has sent all floors of these slots.
    pub(crate) fn complete_receiving(&self, complete: &[(u16, Agreement, TakeoverState)]) {
        let mut core = self.core();
        for (slot, agreement, state) in complete {
            if core.node.receiver(*slot).complete(*agreement) {
                core.agreements.takeovers.insert(*slot, state.clone());
            }
        }
    }

    /// How this node begins a slot from the floors of that owner; `None`: its buckets count as exhausted.
    pub(in crate::owner) fn takeover_basis(
        &self,
        core: &Core,
        slot: usize,
        owner: NodeStart,
        now: Nanos,
    ) -> Option<TakeoverBasis> {
        let state = core.agreements.takeovers.get(&(slot as u16))?;
        let heard = core.agreements.heard.get(&owner)?.alive?;
        let rules = self.reserves();
        let is_agreed = state.since == core.agreements.since.number() || PlantedBug::OldFloorsCount.is_on();
        (is_agreed && state.fingerprint == rules.fingerprint() && !rules.is_empty()).then_some(
            TakeoverBasis { rules, heard, begun: now, before: state.before, earlier: state.earlier.clone() },
        )
    }

    /// A new tenure of these slots; `None`: not from floors. Before a check can claim them.
    pub(in crate::owner) fn set_bases(&self, slots: &[(usize, Option<Arc<TakeoverBasis>>)]) {
        let mut bases = BTreeMap::clone(&self.floors.bases.load());
        for (slot, basis) in slots {
            match basis {
                Some(basis) => bases.insert(*slot as u16, Arc::clone(basis)),
                None => bases.remove(&(*slot as u16)),
            };
        }
        self.floors.bases.store(Arc::new(bases));
        for (slot, basis) in slots {
            let from_floors = if basis.is_some() { FROM_FLOORS } else { 0 };
            self.rebind(*slot, |binding| binding & !FROM_FLOORS | from_floors);
        }
    }

    /// How this slot was begun.
    pub(crate) fn basis_of(&self, slot: u16) -> Option<Arc<TakeoverBasis>> {
        self.floors.bases.load().get(&slot).cloned()
    }

    /// How long time is to stand still for the buckets of slots that are begun from floors: nobody can tell what the shares of
    /// others admitted meanwhile.
    pub(in crate::owner) fn unheard(
        bases: &[(usize, Option<Arc<TakeoverBasis>>)],
        reserved: &[usize],
    ) -> Duration {
        let known = bases.iter().filter(|(slot, _)| reserved.contains(slot));
        let known = known.filter_map(|(_, basis)| basis.as_ref());
        known.map(|basis| basis.begun.saturating_since(basis.heard)).max().unwrap_or_default()
    }
}
