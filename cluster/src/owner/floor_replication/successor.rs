//! Floors at the successor: what it was told, and from where slots begin that it takes over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_limiter::Nanos;

use super::{BORN, Heard, MAX_OWNERS, TakeoverBasis, TakeoverState};
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
    pub(crate) fn hear(&self, owner: NodeStart, answer: u64, now: Nanos) {
        let mut core = self.core();
        let heard = &mut core.tellings.heard;
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
        let known = core.tellings.heard.entry(owner).or_insert(Heard { answer: (0, now), alive: None });
        known.answer = (known.answer.0 + 1, now);
        known.answer.0
    }

    /// An owner begins to tell of these slots.
    pub(crate) fn begin_hearing(&self, bonds: &[(u16, Agreement)]) {
        let mut core = self.core();
        bonds.iter().for_each(|(slot, bond)| core.node.heir(*slot).begin(*bond));
    }

    /// An owner has told all of these slots.
    pub(crate) fn complete_hearing(&self, testament: &[(u16, Agreement, TakeoverState)]) {
        let mut core = self.core();
        for (slot, bond, inheritance) in testament {
            if core.node.heir(*slot).complete(*bond) {
                core.tellings.inheritances.insert(*slot, *inheritance);
            }
        }
    }

    /// How this node begins a slot from the floors of that owner; `None`: its buckets count as exhausted.
    pub(in crate::owner) fn birth(
        &self,
        core: &Core,
        slot: usize,
        owner: NodeStart,
        now: Nanos,
    ) -> Option<TakeoverBasis> {
        let inheritance = core.tellings.inheritances.get(&(slot as u16))?;
        let heard = core.tellings.heard.get(&owner)?.alive?;
        let rules = self.reserves();
        let is_agreed =
            inheritance.since == core.tellings.since.number() || PlantedBug::OldFloorsCount.is_on();
        (is_agreed && inheritance.fingerprint == rules.fingerprint() && !rules.is_empty()).then_some(
            TakeoverBasis { rules, heard, begun: now, before: inheritance.before, elder: inheritance.elder },
        )
    }

    /// A new tenure of these slots; `None`: not from floors. Before a check can claim them.
    pub(in crate::owner) fn bear(&self, slots: &[(usize, Option<Arc<TakeoverBasis>>)]) {
        let mut births = BTreeMap::clone(&self.floors.births.load());
        for (slot, birth) in slots {
            match birth {
                Some(birth) => births.insert(*slot as u16, Arc::clone(birth)),
                None => births.remove(&(*slot as u16)),
            };
        }
        self.floors.births.store(Arc::new(births));
        for (slot, birth) in slots {
            let born = if birth.is_some() { BORN } else { 0 };
            self.rebind(*slot, |binding| binding & !BORN | born);
        }
    }

    /// How this slot was begun.
    pub(crate) fn birth_of(&self, slot: u16) -> Option<Arc<TakeoverBasis>> {
        self.floors.births.load().get(&slot).cloned()
    }

    /// How long time is to stand still for the buckets of slots that are begun from floors: nobody can tell what the shares of
    /// others admitted meanwhile.
    pub(in crate::owner) fn unheard(births: &[(usize, Option<Arc<TakeoverBasis>>)]) -> Duration {
        let born = births.iter().filter_map(|(_, birth)| birth.as_ref());
        born.map(|birth| birth.begun.saturating_since(birth.heard)).max().unwrap_or_default()
    }
}
