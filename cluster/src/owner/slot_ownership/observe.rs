//! What the log says of slots, taken in: which of them this node begins to decide, which it sends, and which it ends.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidegate_limiter::{
    Nanos,
    cluster::{KeyHash, Mark},
};

use super::{Core, DECIDES, NOTHING, SENDS, SlotOwnership};
use crate::{
    owner::{
        node::{Change, Effect, Role},
        table::{SlotMove, Table},
        takeover::TakeoverBasis,
    },
    planted::PlantedBug,
};

/// What a node does about a change of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToDo {
    /// Moves whose buckets this node has to send, by id.
    pub(crate) send: Vec<SlotMove>,
    /// How many slots were begun from floors.
    pub(crate) reserved: usize,
    /// How many slots were begun from the floors on this node's disk.
    pub(crate) from_disk: usize,
    /// Nothing was taken in: slots wait for the rules to be in force, or for the disk to say nothing of them.
    pub(crate) waits_for_disk: bool,
}

/// Where the buckets are with which slots begin.
pub(crate) trait Heritage {
    /// Puts the replicated floors of these slots where the buckets are; for their buckets time stands still for so long. False:
    /// they count as exhausted.
    fn take_floors(&mut self, slots: &[usize], unheard: Duration) -> bool;

    /// What the disk has acknowledged of these slots. `puts`: it is put where the buckets are. `None`: it counts for nothing.
    fn take_from_disk(&mut self, _slots: &[usize], _puts: bool) -> Option<Vec<(KeyHash, Mark)>> {
        None
    }

    /// Whether what the disk had when this node began may count.
    fn has_disk(&self) -> bool {
        true
    }

    /// Whether nobody else can have given shares while this node did not run.
    fn is_alone(&self) -> bool {
        false
    }
}

/// Of a node that has nothing to take.
#[cfg(test)]
pub(crate) struct NoBuckets;

#[cfg(test)]
impl Heritage for NoBuckets {
    fn take_floors(&mut self, _slots: &[usize], _unheard: Duration) -> bool {
        true
    }
}

impl SlotOwnership {
    /// Takes in what the log says up to this index, unless slots have to [wait](ToDo::waits_for_disk) first. Afterwards
    /// [`SlotOwnership::applied`] has to be called when the router knows it too. Before slots are begun from floors, `inherit` is
    /// called with them, and for how long time is to stand still for their buckets; if it returns false, they count as exhausted.
    pub(crate) fn observe(
        &self,
        index: u64,
        table: &Arc<Table>,
        now: Nanos,
        mut heritage: impl Heritage,
    ) -> ToDo {
        let mut core = self.core();
        let mut todo = ToDo::default();
        if core.retired {
            return todo;
        }
        let has_disk = heritage.has_disk();
        if self.refused_on_disk(&mut core, table, has_disk, now) {
            todo.waits_for_disk = true;
            return todo;
        }
        let changes = core.node.observe(index, table);
        self.observe_successors(&mut core);
        self.note_table(&mut core);
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
                    (change.slot, self.kept_basis(&core, change.slot, heritage.is_alone(), now))
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
            if heritage.take_floors(&reserved, Self::unheard(&bases, &reserved)) {
                todo.reserved = reserved.len();
            } else {
                let is_lost = |(slot, _): &&mut (usize, Option<Arc<TakeoverBasis>>)| reserved.contains(slot);
                bases.iter_mut().filter(is_lost).for_each(|(_, basis)| *basis = None);
            }
        }
        todo.from_disk = self.take_from_disk(&mut core, &changes, &mut bases, &mut heritage, now);
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
                Effect::BeginKept => {
                    let saved = core.node.kept(slot).and_then(|kept| kept.saved.as_ref());
                    let is_planted = PlantedBug::FullStart.is_on();
                    let without = if is_planted { 0 } else { now.get() };
                    self.begin(slot, saved.map_or(without, |saved| saved.floor));
                }
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

    /// How a slot begins of which something is kept; `None`: what was not saved counts as exhausted.
    fn kept_basis(&self, core: &Core, slot: usize, is_alone: bool, now: Nanos) -> Option<Arc<TakeoverBasis>> {
        let kept = core.node.kept(slot)?;
        if let Some(saved) = &kept.saved {
            let (rules, basis) = saved.basis.clone()?;
            return basis.with(self.reserves_of(rules));
        }
        let floors = kept.floors.as_ref().filter(|floors| self.is_agreed_on_disk(core, floors))?;
        let mut earlier = floors.earlier.clone();
        earlier.extend((floors.shown > now).then_some((floors.shown, now)));
        Some(Arc::new(TakeoverBasis {
            rules: self.reserves(),
            // What nobody can have given away has refilled for this node.
            heard: if is_alone { now } else { floors.heard.min(now) },
            begun: now,
            before: floors.before,
            earlier,
        }))
    }

    /// Slots that begin with what this node's disk has acknowledged: how many do so with nothing but that. All of them are bound
    /// to the disk from their first charge on.
    fn take_from_disk(
        &self,
        core: &mut Core,
        changes: &[Change],
        bases: &mut [(usize, Option<Arc<TakeoverBasis>>)],
        heritage: &mut impl Heritage,
        now: Nanos,
    ) -> usize {
        let on_disk = |change: &&Change| {
            let kept = core.node.kept(change.slot).filter(|_| change.effect == Effect::BeginKept);
            kept.and_then(|kept| kept.floors.as_ref())
                .is_some_and(|floors| self.is_agreed_on_disk(core, floors))
        };
        let is_saved = |slot: &usize| core.node.kept(*slot).is_some_and(|kept| kept.saved.is_some());
        let (saved, lost): (Vec<usize>, Vec<usize>) =
            changes.iter().filter(on_disk).map(|change| change.slot).partition(is_saved);
        let mut begun = 0;
        for (slots, puts) in [(saved, false), (lost, true)].into_iter().filter(|(slots, _)| !slots.is_empty())
        {
            match heritage.take_from_disk(&slots, puts) {
                Some(marks) => {
                    self.bind_inherited(core, &slots, &marks, now);
                    begun += if puts { slots.len() } else { 0 };
                }
                None if puts => {
                    let is_lost = |(slot, _): &&mut (usize, Option<_>)| slots.contains(slot);
                    bases.iter_mut().filter(is_lost).for_each(|(_, basis)| *basis = None);
                }
                None => {}
            }
        }
        begun
    }
}
