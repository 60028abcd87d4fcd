//! What a running node gives for a backup: the buckets of slots that are its own, some slots at a time, while it goes on deciding.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidegate_proto::{CodecError, codec};

use crate::{
    ownership::{context::Context, saved::SavedSlot},
    rpc::buckets::{WireBucket, WireLetGo, WireTakeoverBasis},
    slots::{SLOTS, SlotId},
};

/// Buckets in one part, about: 16 MiB of them. With more of them it has fewer slots.
const MAX_BUCKETS: usize = 1 << 18;
/// Bytes of one part: those of one slot, however many.
const MAX_PART_BYTES: usize = 256 << 20;

/// Buckets of some slots of one owner.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct BucketPart {
    /// When, in Unix milliseconds of the node.
    pub(super) taken_ms: u64,
    /// The last slot that was looked at.
    pub(super) last: u16,
    pub(super) slots: Vec<SavedSlot>,
    pub(super) buckets: Vec<WireBucket>,
    /// What strict rules have let go of, some of which may be buckets of these slots.
    pub(super) let_go: Vec<WireLetGo>,
}

impl BucketPart {
    /// What this node knows of those of these slots that it owns, as bytes. It reads the whole store.
    pub(crate) fn look(context: &Context, first: u16, last: u16) -> Result<Vec<u8>, CodecError> {
        let mut last = last.min(SLOTS as u16 - 1).max(first);
        let part = loop {
            match Self::try_look(context, first, last) {
                Some(part) => break part,
                None => last = first + (last - first) / 2,
            }
        };
        let mut bytes = Vec::new();
        codec::encode(&part, &mut bytes, MAX_PART_BYTES)?;
        Ok(bytes)
    }

    /// `None`: these slots have too many buckets for one part.
    fn try_look(context: &Context, first: u16, last: u16) -> Option<Self> {
        let (ownership, store) = (&context.ownership, &context.buckets.store);
        let slots = first..=last;
        let before = ownership.owned(slots.clone());
        let now = context.group.clock.now();
        let owned: BTreeSet<u16> = before.iter().map(|slot| slot.one.slot).collect();
        let mut buckets: Vec<WireBucket> = Vec::new();
        let mut is_too_much = false;
        store.buckets(
            now,
            |key| owned.contains(&SlotId::of(key).get()),
            |bucket| {
                is_too_much |= buckets.len() >= MAX_BUCKETS && first < last;
                if !is_too_much {
                    buckets.push(bucket.into());
                }
            },
        );
        if is_too_much {
            return None;
        }
        // After the buckets: what was let go of meanwhile is among these.
        let let_go = WireLetGo::all(store, now);
        // A slot that went away meanwhile may have been charged by its next owner.
        let after = ownership.owned(slots);
        // Without a session others may have charged them since, and this node may not have heard.
        let has_session = ownership.has_session(context.group.clock.now());
        let ago = |at: tidegate_limiter::Nanos| now.saturating_since(at).as_nanos() as u64;
        let is_still_own = |slot: &&crate::owner::slot_ownership::Frozen| {
            has_session && after.iter().any(|after| (after.one, after.epoch) == (slot.one, slot.epoch))
        };
        let slots = before.iter().filter(is_still_own).map(|slot| SavedSlot {
            slot: slot.one.slot,
            epoch: slot.epoch,
            drained_ago: slot.floor.map(ago),
            basis: slot
                .basis
                .as_ref()
                .map(|basis| WireTakeoverBasis::of(basis, ownership.number_of(&basis.rules), now)),
        });
        let slots = slots.collect();
        Some(Self { taken_ms: context.group.clock.unix_millis(), last, slots, buckets, let_go })
    }
}

/// What is in a part.
#[derive(Debug, Clone)]
pub struct PartSummary {
    /// Which slots were the node's.
    pub slots: Vec<u16>,
    /// The last slot that was looked at.
    pub last: u16,
}

/// Looks at a part that a node has given. `None`: it is none.
pub fn look_at_part(bytes: &[u8]) -> Option<PartSummary> {
    let part: BucketPart = codec::decode(bytes).ok()?;
    Some(PartSummary { slots: part.slots.iter().map(|slot| slot.slot).collect(), last: part.last })
}
