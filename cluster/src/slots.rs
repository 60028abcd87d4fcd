//! Who owns which part of the key space.
//!
//! A key hash falls into one of [`SLOTS`] slots; each slot has one owner.

use std::{fmt, hash::Hasher as _, sync::Arc};

use siphasher::sip::SipHasher13;
use tidegate_limiter::cluster::KeyHash;

/// How many slots the key space has. The same on each node of a cluster.
pub const SLOTS: usize = 4096;

/// One of the [`SLOTS`] parts of the key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u16);

impl SlotId {
    /// The slot of a key, the same for all limits that a rule has for it, or had. The hash is mixed again (the finisher of MurmurHash3): the bucket map uses its bits too, and
    /// a node that owns 1/N of the slots must still fill all of its shards.
    pub fn of(key: KeyHash) -> Self {
        let mut bits = key.place();
        bits ^= bits >> 33;
        bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
        bits ^= bits >> 33;
        bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self((bits >> (64 - SLOTS.trailing_zeros())) as u16)
    }

    /// The slot with that number, if there is one.
    pub(crate) fn new(number: u16) -> Option<Self> {
        (usize::from(number) < SLOTS).then_some(Self(number))
    }

    /// All slots in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS as u16).map(Self)
    }

    /// Its number, below [`SLOTS`].
    pub fn get(self) -> u16 {
        self.0
    }

    /// Its place in a table of all slots.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The owner of each slot. Immutable: a change is another table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotTable {
    members: Vec<Arc<str>>,
    /// For each slot the place of its owner in `members`.
    owners: Box<[u16]>,
}

impl SlotTable {
    /// The table in which each slot has the owner at that place among `members`, who are sorted.
    pub(crate) fn of(members: Vec<Arc<str>>, owners: Box<[u16]>) -> Self {
        debug_assert!(members.is_sorted() && owners.len() == SLOTS);
        debug_assert!(owners.iter().all(|owner| usize::from(*owner) < members.len()));
        Self { members, owners }
    }

    /// The owners of all slots, in their order.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Arc<str>> {
        self.owners.iter().map(|owner| &self.members[usize::from(*owner)])
    }

    /// Who owns `slot`.
    pub fn owner(&self, slot: SlotId) -> &Arc<str> {
        &self.members[self.owner_index(slot)]
    }

    /// The owner's place in [`SlotTable::members`].
    pub fn owner_index(&self, slot: SlotId) -> usize {
        usize::from(self.owners[slot.index()])
    }

    /// All members that may own slots, by name.
    pub fn members(&self) -> &[Arc<str>] {
        &self.members
    }

    /// A fingerprint of the table: nodes that show the same one agree about each owner.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for member in &self.members {
            hasher.write_u64(member.len() as u64);
            hasher.write(member.as_bytes());
        }
        for &owner in &self.owners {
            hasher.write(&owner.to_le_bytes());
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_hashes_fall_into_all_slots() {
        let mut hit = vec![0; SLOTS];
        (0..SLOTS as u64 * 32).for_each(|n| hit[SlotId::of(KeyHash::from_raw(n)).index()] += 1);
        assert!(hit.iter().all(|count| (1..100).contains(count)));
    }
}
