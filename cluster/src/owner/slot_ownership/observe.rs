//! What the log says of slots, taken in: which of them this node begins to decide, which it sends, and which it ends.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidegate_limiter::Nanos;

use super::{DECIDES, NOTHING, SENDS, SlotOwnership};
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
}

impl SlotOwnership {
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
}
