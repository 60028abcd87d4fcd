//! What a node may do with each slot, from the table that it has applied and the moves in which it takes part: a state
//! machine of values. The session is the other half of the right to decide.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    floors::{FloorReceiver, SuccessorRef},
    kept::{Kept, KeptSlot, goes_on},
    table::{SlotMove, SlotRow, Start, Table},
};
use crate::{ids::NodeStart, planted::PlantedBug};

/// What a node is to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Nothing.
    None,
    /// It decides.
    Owner,
    /// It decides, and sends the buckets to the target of the move with this id.
    Sending(u64),
    /// It decides no more: the last of the buckets go to the target of this move.
    Frozen(u64),
    /// It has the buckets and decides, though the log does not say so yet.
    Installed(u64),
    /// It has promised not to take the slot by this move.
    Refused(u64),
}

impl Role {
    /// Whether it lets the node decide, while its session lasts.
    pub(crate) fn decides(self) -> bool {
        matches!(self, Self::Owner | Self::Sending(_) | Self::Installed(_))
    }
}

/// What a change of the table means for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// This node decides from now on, and nobody has before.
    BeginFull,
    /// This node decides from now on; what was admitted before it cannot tell.
    BeginDrained,
    /// This node decides from now on, with what it knew when it ended the last time: nobody else has decided since.
    BeginKept,
    /// This node decides from now on, from the floors that this owner has sent it.
    BeginReserved(NodeStart),
    /// It goes on with the buckets that it has.
    Resume,
    /// It decides, and begins to send the buckets.
    Send,
    /// It decides no more.
    End,
}

/// A slot of which something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) slot: usize,
    pub(crate) effect: Effect,
}

/// What a node is to one slot: the state machine that there is 4,096 times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    role: Role,
    /// Of the row when this node last became its owner.
    epoch: u64,
}

impl Slot {
    pub(crate) const NEW: Self = Self { role: Role::None, epoch: 0 };

    pub(crate) fn role(self) -> Role {
        self.role
    }

    /// Of the row when this node last became its owner: what the buckets of the slot are sent with.
    pub(crate) fn epoch(self) -> u64 {
        self.epoch
    }

    /// Whether the row has the node begin the slot.
    fn begins(self, row: &SlotRow) -> bool {
        !matches!(self.role, Role::Owner | Role::Sending(_) | Role::Frozen(_)) || self.epoch != row.epoch
    }

    /// Whether it has it begin with what is `kept`, as [`Slot::observe`] says it.
    pub(crate) fn begins_kept(self, me: NodeStart, row: &SlotRow, kept: (NodeStart, u64)) -> bool {
        let is_kept = matches!(row.start, Start::Drained { from, epoch, .. } if kept == (from, epoch));
        row.owner == me && is_kept && self.begins(row)
    }

    /// Takes in the row; changes of it may have been skipped.
    /// `kept` is the owner, with the epoch of the row, whose last buckets this node has; `receiver` what it has received of
    /// the slot as a successor.
    pub(crate) fn observe(
        &mut self,
        me: NodeStart,
        row: &SlotRow,
        kept: Option<(NodeStart, u64)>,
        receiver: FloorReceiver,
        mut note: impl FnMut(Effect),
    ) {
        if row.owner != me {
            let pending = row.moving.filter(|pending| pending.to == me).map(|pending| pending.id);
            let stays = match self.role {
                Role::Installed(id) | Role::Refused(id) => pending == Some(id),
                Role::None => true,
                Role::Owner | Role::Sending(_) | Role::Frozen(_) => false,
            };
            if !stays {
                note(Effect::End);
                self.role = Role::None;
            }
            return;
        }
        if self.begins(row) {
            note(match (row.start, self.role) {
                (Start::Full, _) => Effect::BeginFull,
                (Start::Drained { from, epoch, .. }, _) if kept == Some((from, epoch)) => Effect::BeginKept,
                (Start::Drained { from, epoch, named: Some(named) }, _)
                    if receiver.may_begin(from, SuccessorRef { epoch, named }) =>
                {
                    Effect::BeginReserved(from)
                }
                (Start::Moved(id), Role::Installed(installed)) if id == installed => Effect::Resume,
                (Start::Aborted(id), Role::Sending(sending)) if id == sending => Effect::Resume,
                _ => Effect::BeginDrained,
            });
            (self.role, self.epoch) = (Role::Owner, row.epoch);
        }
        match (row.moving, self.role) {
            (None, Role::Sending(_) | Role::Frozen(_)) => {
                self.role = Role::Owner;
                note(Effect::Resume);
            }
            (Some(pending), Role::Sending(id) | Role::Frozen(id)) if id == pending.id => {}
            (Some(pending), _) => {
                self.role = Role::Sending(pending.id);
                note(Effect::Send);
            }
            (None, _) => {}
        }
    }

    /// Stops deciding, if the slot is still being moved by this move.
    pub(crate) fn freeze(&mut self, id: u64) -> bool {
        let is_sending = self.role == Role::Sending(id);
        if is_sending {
            self.role = Role::Frozen(id);
        }
        is_sending
    }

    /// Takes the slot over: the last of its buckets, filled in that epoch, are here. `row` is what this node has applied up
    /// to that index.
    pub(crate) fn install(
        &mut self,
        me: NodeStart,
        row: Option<&SlotRow>,
        applied: u64,
        id: u64,
        epoch: u64,
    ) -> Install {
        let is_last = row.is_some_and(|row| row.epoch == epoch) || PlantedBug::NoEpochFence.is_on();
        match self.awaits(me, row, applied, id) {
            Install::Now if is_last => {
                self.role = Role::Installed(id);
                Install::Now
            }
            Install::Now => Install::Never,
            other => other,
        }
    }

    /// Whether buckets that come by this move are taken: only until the slot is installed, and while the log has the move.
    /// What comes later is older than what the slot's owner has admitted since.
    pub(crate) fn awaits(self, me: NodeStart, row: Option<&SlotRow>, applied: u64, id: u64) -> Install {
        match self.role {
            Role::Installed(installed) if installed == id => return Install::Before,
            Role::Refused(refused) if refused == id => return Install::Never,
            _ => {}
        }
        let pending = row.and_then(|row| row.moving);
        match pending {
            Some(pending) if pending.id == id && pending.to == me => Install::Now,
            // Its beginning is not applied here.
            _ if applied < id => Install::NotYet,
            _ => Install::Never,
        }
    }

    /// Promises not to take the slot by this move; false if it has, or if it cannot tell.
    pub(crate) fn refuse(&mut self, row: Option<&SlotRow>, id: u64) -> bool {
        let is_pending = row.and_then(|row| row.moving).is_some_and(|pending| pending.id == id);
        if !is_pending || self.role == Role::Installed(id) {
            return false;
        }
        self.role = Role::Refused(id);
        true
    }
}

/// One node and all slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    me: NodeStart,
    applied: u64,
    table: Arc<Table>,
    slots: Vec<Slot>,
    kept: Option<Kept>,
    /// Slots whose owner the disk has to name anew.
    renamed: Vec<(u16, NodeStart, u64)>,
    receivers: BTreeMap<u16, FloorReceiver>,
}

impl Node {
    pub(crate) fn new(me: NodeStart, slots: usize) -> Self {
        Self {
            me,
            applied: 0,
            table: Arc::default(),
            slots: vec![Slot::NEW; slots],
            kept: None,
            renamed: Vec::new(),
            receivers: BTreeMap::new(),
        }
    }

    /// It has what it knew when it ended.
    pub(crate) fn keep(&mut self, kept: Kept) {
        self.kept = Some(kept);
    }

    /// What is kept of a slot.
    pub(crate) fn kept(&self, slot: usize) -> Option<&KeptSlot> {
        self.kept.as_ref()?.slots.get(&(slot as u16))
    }

    /// The slots that this table has the node begin of which its disk has all floors.
    pub(crate) fn begins_from_disk(&self, table: &Table) -> Vec<u16> {
        let Some(kept) = &self.kept else { return Vec::new() };
        let begins = |(slot, one): &(&u16, &KeptSlot)| {
            let place = usize::from(**slot);
            let row = table.row(place).filter(|_| one.floors.is_some());
            row.is_some_and(|row| self.slots[place].begins_kept(self.me, row, (one.start, one.epoch)))
        };
        kept.slots.iter().filter(begins).map(|(slot, _)| *slot).collect()
    }

    /// The disk says nothing of these slots any more; `None`: of none.
    pub(crate) fn forget_floors(&mut self, slots: Option<&[u16]>) {
        let Some(kept) = &mut self.kept else { return };
        kept.slots.retain(|slot, one| {
            if slots.is_none_or(|slots| slots.binary_search(slot).is_ok()) {
                one.floors = None;
            }
            one.floors.is_some() || one.saved.is_some()
        });
    }

    /// Whether slots may still begin with what is kept: while the log says of one that an earlier start owns it.
    pub(crate) fn keeps_something(&self) -> bool {
        let is_earlier = |row: &SlotRow| row.owner.node == self.me.node && row.owner != self.me;
        self.kept.is_some() && (!self.table.is_assigned() || self.table.rows().iter().any(is_earlier))
    }

    pub(crate) fn take_renamed(&mut self) -> Vec<(u16, NodeStart, u64)> {
        std::mem::take(&mut self.renamed)
    }

    fn rename_kept(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        for (slot, one) in kept.slots.iter_mut().filter(|(_, one)| one.floors.is_some()) {
            if let Some(row) = self.table.row(usize::from(*slot)).filter(|row| row.owner != self.me)
                && goes_on(row, (one.start, one.epoch), &kept.readers)
            {
                (one.start, one.epoch, one.saved) = (row.owner, row.epoch, None);
                self.renamed.push((*slot, row.owner, row.epoch));
            }
        }
    }

    /// What this node has received of a slot as its successor.
    pub(crate) fn receiver(&mut self, slot: u16) -> &mut FloorReceiver {
        self.receivers.entry(slot).or_default()
    }

    /// The row of a slot.
    pub(crate) fn row(&self, slot: usize) -> Option<&SlotRow> {
        self.table.row(slot)
    }

    pub(crate) fn me(&self) -> NodeStart {
        self.me
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) fn role(&self, slot: usize) -> Role {
        self.slots.get(slot).map_or(Role::None, |slot| slot.role())
    }

    pub(crate) fn epoch(&self, slot: usize) -> u64 {
        self.slots[slot].epoch()
    }

    /// Takes in the table after the entry with this index; entries may have been skipped.
    pub(crate) fn observe(&mut self, index: u64, table: &Arc<Table>) -> Vec<Change> {
        debug_assert!(index >= self.applied, "what was applied stays so");
        self.applied = index;
        let mut changes = Vec::new();
        if !Arc::ptr_eq(table, &self.table) {
            self.table = Arc::clone(table);
            self.rename_kept();
            for (slot, (known, row)) in self.slots.iter_mut().zip(table.rows()).enumerate() {
                let kept = self
                    .kept
                    .as_ref()
                    .and_then(|kept| kept.slots.get(&(slot as u16)).map(|kept| (kept.start, kept.epoch)));
                let receiver = self.receivers.get(&(slot as u16)).copied().unwrap_or_default();
                known.observe(self.me, row, kept, receiver, |effect| changes.push(Change { slot, effect }));
            }
        }
        changes
    }

    /// Stops deciding about those of the slots that are still being moved; returns which.
    pub(crate) fn freeze(&mut self, moves: &[SlotMove]) -> Vec<SlotMove> {
        let mut freeze = |one: &SlotMove| {
            self.slots.get_mut(usize::from(one.slot)).is_some_and(|slot| slot.freeze(one.id))
        };
        moves.iter().filter(|one| freeze(one)).copied().collect()
    }

    /// What becomes of the last of a slot's buckets at the target of a move. Other members say which slot: there may be none such.
    pub(crate) fn install(&mut self, one: SlotMove, epoch: u64) -> Install {
        let place = usize::from(one.slot);
        let Some(slot) = self.slots.get_mut(place) else { return Install::Never };
        slot.install(self.me, self.table.row(place), self.applied, one.id, epoch)
    }

    /// Whether buckets that come by this move are taken.
    pub(crate) fn awaits(&self, one: SlotMove) -> Install {
        let place = usize::from(one.slot);
        let Some(slot) = self.slots.get(place) else { return Install::Never };
        slot.awaits(self.me, self.table.row(place), self.applied, one.id)
    }

    /// Promises not to take the slot by this move; false if it has, or cannot tell.
    pub(crate) fn refuse(&mut self, one: SlotMove) -> bool {
        let place = usize::from(one.slot);
        self.slots.get_mut(place).is_some_and(|slot| slot.refuse(self.table.row(place), one.id))
    }
}

/// Whether a target has taken a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Install {
    /// It decides from now on.
    Now,
    /// It did so before.
    Before,
    /// It does not know of the move yet: worth another attempt.
    NotYet,
    /// The move is over, or given up.
    Never,
}

#[cfg(test)]
mod tests;
