//! Floors on the owner's own disk: one more side that must acknowledge a charge before it counts.
//!
//! **While the disk says of a slot, for this start of the node and this epoch, that it is complete, the owner is bound to the
//! disk.** So it is bound before that is written, and is free only when the disk durably says otherwise
//! ([`SlotOwnership::free`]) or nothing at all ([`SlotOwnership::release_disk`]). A disk that does not answer keeps the owner bound, also
//! where neither the leader nor the successor answers: all of them may be killed before it answers again.
//!
//! **A slot of which the disk has all floors begins from them, or after the disk durably says nothing of it.** They may not count: the
//! rules with floors are others, or those in force lag behind the log. If the slot began without them, and free, a start after this
//! one might find the rules of before, and begin from the floors as if this one had admitted nothing.
//!
//! A slot that begins from the disk's floors is bound from its first charge on: the disk has all floors already, under the name of
//! the start before. Until they have the new name, the next start goes by the log, which says of whom this one took the slot:
//! what this one charged is within the same floors.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering::{Acquire, Release},
    time::Duration,
};

use tidegate_limiter::{
    Nanos,
    cluster::{KeyHash, Mark},
};

use super::{DiskSlot, FloorAgreements, Raise, Side, bits};
use crate::{
    ids::NodeStart,
    owner::{
        floors::{Agreement, SuccessorRef},
        kept::KeptFloors,
        slot_ownership::{Core, SlotOwnership},
        table::{SlotRow, Table},
    },
    slots::{SLOTS, SlotId},
};

impl FloorAgreements {
    pub(super) fn forget_inherited(&mut self) {
        let senders = &self.sides[Side::Disk as usize].senders;
        self.disk
            .inherited
            .retain(|slot, agreement| senders[usize::from(*slot)].agreement() == Some(*agreement));
    }
}

impl SlotOwnership {
    /// This node keeps floors on its disk. `is_adopted`: nothing is there from earlier starts.
    pub(crate) fn keep_floors_on_disk(&self, is_adopted: bool) {
        self.floors.has_disk.store(true, Release);
        self.floors.is_adopted.store(is_adopted, Release);
    }

    /// Whether the disk names the slots as the log has them: before that this node must not get any.
    pub(crate) fn is_adopted(&self) -> bool {
        self.floors.is_adopted.load(Acquire)
    }

    pub(crate) fn set_adopted(&self) {
        self.floors.is_adopted.store(true, Release);
    }

    /// What the disk has to name anew; `None`: the log was not read yet.
    pub(crate) fn renamed_on_disk(&self) -> Option<Vec<(u16, NodeStart, u64)>> {
        let mut core = self.core();
        let disk = &mut core.agreements.disk;
        disk.has_table.then(|| std::mem::take(&mut disk.renamed))
    }

    pub(in crate::owner) fn note_table(&self, core: &mut Core) {
        let renamed = core.node.take_renamed();
        let disk = &mut core.agreements.disk;
        disk.has_table = true;
        disk.renamed.extend(renamed);
    }

    /// What the disk's agreement is about, for a slot of this node. Nobody names the disk: 0 is no index of a naming.
    pub(super) fn disk_ref(&self, me: NodeStart, row: &SlotRow) -> Option<SuccessorRef> {
        let has_disk = self.floors.has_disk.load(Acquire);
        (has_disk && row.owner == me).then_some(SuccessorRef { epoch: row.epoch, named: 0 })
    }

    /// Whether what the disk has counts under the rules in force.
    pub(in crate::owner) fn is_agreed_on_disk(&self, core: &Core, kept: &KeptFloors) -> bool {
        let reserves = self.reserves();
        kept.since == core.agreements.since.number()
            && kept.fingerprint == reserves.fingerprint()
            && !reserves.is_empty()
    }

    /// The slots that this table has the node begin and of which the disk has floors that do not count. While there are some, the
    /// table is not taken in.
    pub(in crate::owner) fn refused_on_disk(
        &self,
        core: &mut Core,
        table: &Table,
        has_floors: bool,
        now: Nanos,
    ) -> bool {
        let mut slots = core.node.begins_from_disk(table);
        let counts = |slot: u16| {
            has_floors && self.counts_on_disk(core, slot) && !core.agreements.disk.is_dropping(slot)
        };
        slots.retain(|slot| !counts(*slot));
        let is_refused = !slots.is_empty();
        core.agreements.disk.refuse(slots, now);
        is_refused
    }

    fn counts_on_disk(&self, core: &Core, slot: u16) -> bool {
        let floors = core.node.kept(usize::from(slot)).and_then(|kept| kept.floors.as_ref());
        floors.is_some_and(|floors| self.is_agreed_on_disk(core, floors))
    }

    /// The slots that wait for the disk to say nothing of them, for so long at least. From now on none of them begins from it. Those whose
    /// floors count by now, because the rules are in force that they waited for, are to begin with them. `has_floors`: whether the disk's
    /// floors can still be read.
    pub(crate) fn take_refused_on_disk(&self, patience: Duration, has_floors: bool, now: Nanos) -> Vec<u16> {
        let mut core = self.core();
        let counting: Vec<u16> = match has_floors {
            true => (0..SLOTS as u16).filter(|slot| self.counts_on_disk(&core, *slot)).collect(),
            false => Vec::new(),
        };
        core.agreements.disk.take_refused(patience, &counting, now)
    }

    /// The disk durably says nothing of these: they begin without it, and free.
    pub(crate) fn dropped_on_disk(&self, slots: &[u16]) {
        let mut core = self.core();
        core.node.forget_floors(Some(slots));
        core.agreements.disk.dropped();
    }

    /// These slots begin with what the disk knows: they are bound to it before anything is charged. `marks`: what is there.
    pub(in crate::owner) fn bind_inherited(
        &self,
        core: &mut Core,
        slots: &[usize],
        marks: &[(KeyHash, Mark)],
        now: Nanos,
    ) {
        let owner = core.node.me();
        core.agreements.side_mut(Side::Disk).attempts += 1;
        let attempt = core.agreements.side(Side::Disk).attempts;
        for slot in slots {
            let Some(successor_ref) = core.agreements.side(Side::Disk).senders[*slot].successor_ref() else {
                continue;
            };
            let agreement = Agreement { successor_ref, attempt, owner };
            let binds = self.bind_one(core, Side::Disk, *slot as u16, agreement);
            assert!(binds, "nothing else binds a slot that begins");
            core.agreements.disk.inherited.insert(*slot as u16, agreement);
        }
        for (key, mark) in marks {
            // Of what there is no room for, less is believed to be there: stricter.
            self.floors.acknowledged.note(SlotId::of(*key).index(), *key, Side::Disk, *mark, now);
        }
    }

    /// The slots of this node that the disk does not have all of, and can have.
    pub(crate) fn not_on_disk(&self) -> Vec<DiskSlot> {
        let mut core = self.core();
        core.agreements.forget_inherited();
        let agreements = &core.agreements;
        (0..SLOTS)
            .filter_map(|slot| {
                let sender = agreements.side(Side::Disk).senders[slot];
                let successor_ref = sender.successor_ref().filter(|_| !sender.is_complete())?;
                let slot = slot as u16;
                let inherited = agreements.disk.inherited.get(&slot).copied();
                let inherited = inherited.filter(|one| agreements.holds(Side::Disk, slot, one));
                // A slot that is moving will be another's.
                let is_moving = core.node.row(usize::from(slot)).is_some_and(|row| row.moving.is_some());
                (!is_moving).then_some(DiskSlot { slot, successor_ref, inherited })
            })
            .collect()
    }

    /// Before these slots are written to the disk from the start: nothing that is there counts for those to which this node is
    /// not bound. Which those are.
    pub(crate) fn forget_on_disk(&self, slots: &[(u16, SuccessorRef)]) -> Vec<u16> {
        let core = self.core();
        let senders = &core.agreements.side(Side::Disk).senders;
        let free = slots.iter().filter(|(slot, _)| senders[usize::from(*slot)].agreement().is_none());
        let free: Vec<u16> = free.map(|(slot, _)| *slot).collect();
        free.iter().for_each(|slot| self.floors.acknowledged.clear(usize::from(*slot), Side::Disk));
        free
    }

    /// These have their new name on the disk.
    pub(crate) fn inherited_are_complete(&self, agreements: &[(u16, Agreement)]) {
        self.completed(Side::Disk, agreements.iter().copied());
        let mut core = self.core();
        for (slot, agreement) in agreements {
            if core.agreements.disk.inherited.get(slot) == Some(agreement) {
                core.agreements.disk.inherited.remove(slot);
            }
        }
    }

    /// Those of the slots to which no agreement with the disk binds this node.
    pub(crate) fn unbound_on_disk(&self, mut slots: Vec<u16>) -> Vec<u16> {
        let core = self.core();
        let senders = &core.agreements.side(Side::Disk).senders;
        slots.retain(|slot| senders[usize::from(*slot)].agreement().is_none());
        slots
    }

    /// Of slots that the disk has of this start, with their epochs, those that it does not own any more, or owns anew.
    pub(crate) fn ended_on_disk(&self, slots: Vec<(u16, u64)>) -> Vec<u16> {
        let core = self.core();
        let senders = &core.agreements.side(Side::Disk).senders;
        let is_owned = |slot: u16, epoch: u64| {
            senders[usize::from(slot)].successor_ref().is_some_and(|named| named.epoch == epoch)
        };
        slots.into_iter().filter(|(slot, epoch)| !is_owned(*slot, *epoch)).map(|(slot, _)| slot).collect()
    }

    /// What the disk's agreements about these slots are about.
    pub(crate) fn named_on_disk(&self, slots: &BTreeSet<u16>) -> Vec<(u16, SuccessorRef)> {
        let core = self.core();
        let senders = &core.agreements.side(Side::Disk).senders;
        let named = |slot: &u16| Some((*slot, senders[usize::from(*slot)].successor_ref()?));
        slots.iter().filter_map(named).collect()
    }

    /// The floors that are to be written.
    pub(crate) fn take_disk_raises(&self, most: usize) -> Vec<Raise> {
        self.take_raises_of(Side::Disk, most, |_, _| true)
    }

    /// Whether the disk has all floors of any slot: then it matters when this node was alive.
    pub(crate) fn is_bound_to_disk(&self) -> bool {
        self.core().agreements.side(Side::Disk).senders.iter().any(|sender| sender.agreement().is_some())
    }

    /// Of how many buckets floors are known.
    pub(crate) fn known_floors(&self) -> usize {
        self.floors.acknowledged.count()
    }

    /// The disk does not answer: no rule goes on beyond the floors that it has. `hangs`: not for so long that no check waits for it.
    pub(crate) fn disk_is_silent(&self, hangs: bool) {
        self.floors.disk_hangs.store(hangs, Release);
        let core = self.core();
        let (bound, silent) = bits(Side::Disk);
        let senders = &core.agreements.side(Side::Disk).senders;
        for slot in (0..SLOTS).filter(|slot| senders[*slot].agreement().is_some()) {
            let binding = self.floors.bindings[slot].load(Acquire);
            debug_assert!(binding & bound != 0, "an agreement binds");
            if binding & silent == 0 {
                self.rebind(slot, |binding| binding | silent);
            }
        }
    }

    /// The disk answers again.
    pub(crate) fn disk_is_heard_again(&self) {
        let _core = self.core();
        self.floors.disk_hangs.store(false, Release);
        let (_, silent) = bits(Side::Disk);
        for slot in (0..SLOTS).filter(|slot| self.floors.bindings[*slot].load(Acquire) & silent != 0) {
            self.rebind(slot, |binding| binding & !silent);
        }
    }

    /// The disk durably knows of no slot: this node is free of it.
    pub(crate) fn release_disk(&self) {
        let mut core = self.core();
        self.floors.disk_hangs.store(false, Release);
        core.agreements.side_mut(Side::Disk).begin_anew();
        core.agreements.disk.inherited.clear();
        core.node.forget_floors(None);
        core.agreements.disk.dropped();
        for slot in 0..SLOTS {
            let sender = &mut core.agreements.side_mut(Side::Disk).senders[slot];
            if let Some(agreement) = sender.agreement() {
                let is_free = sender.free(agreement);
                assert!(is_free, "it is not complete");
                self.unbind(slot, Side::Disk);
            }
        }
        self.count_complete(&core);
    }

    /// Whether this node may still begin slots with what it knew when it ended.
    pub(crate) fn keeps_something(&self) -> bool {
        self.core().node.keeps_something()
    }
}
