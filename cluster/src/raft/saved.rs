//! What a node's buckets know, kept on its disk while it does not run.
//!
//! It is written when the node ends, after the last charge, and read once when it starts again. It counts for the slots that
//! nobody else has owned in between: the log tells. For all others, and after a crash, buckets begin used up. Debts are
//! durations: the time in which the node did not run is not counted, because only a wall clock could tell it.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use tidegate_limiter::{Nanos, Store};
use tidegate_proto::codec;
use tracing::{info, warn};

use super::{
    command::NodeId,
    disk::{DiskFault, take_debts, write_debts},
    moves::{WireBirth, WireBucket},
};
use crate::{
    owner::{
        Holder,
        node::{Kept, KeptSlot},
        rights::{Frozen, Rights},
    },
    slots::SlotId,
};

/// Buckets that are kept; with more of them none is.
const MAX_BUCKETS: usize = 4_000_000;
/// Longest file.
const MAX_BYTES: usize = 1 << 30;

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    holder: Holder,
    slots: Vec<SavedSlot>,
    buckets: Vec<WireBucket>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct SavedSlot {
    slot: u16,
    epoch: u64,
    /// How long ago its buckets were used up, in nanoseconds.
    drained_ago: Option<u64>,
    birth: Option<WireBirth>,
}

/// Decides nothing any more, and writes what is known of the buckets. Returns of how many.
pub(super) fn save(directory: &Path, rights: &Rights, store: &Store, now: Nanos) -> Result<usize, String> {
    let holder = rights.me();
    let owned = rights.retire();
    let mut wanted = vec![false; crate::slots::SLOTS];
    owned.iter().for_each(|slot| wanted[usize::from(slot.one.slot)] = true);
    let mut buckets: Vec<WireBucket> = Vec::new();
    store.buckets(
        now,
        |key| wanted[SlotId::of(key).index()],
        |bucket| {
            if buckets.len() <= MAX_BUCKETS {
                buckets.push(bucket.into());
            }
        },
    );
    if buckets.len() > MAX_BUCKETS {
        return Err(format!("there are more than {MAX_BUCKETS} buckets"));
    }
    // What only the sketch knows can not be told.
    let unknown = store.has_folded(now);
    let ago = |floor: Nanos| now.saturating_since(floor).as_nanos() as u64;
    let slot = |slot: &Frozen| SavedSlot {
        slot: slot.one.slot,
        epoch: slot.epoch,
        drained_ago: if unknown { Some(0) } else { slot.floor.map(ago) },
        birth: slot.birth.as_ref().filter(|_| !unknown).map(|birth| WireBirth::of(birth, now)),
    };
    let saved = Saved { holder, slots: owned.iter().map(slot).collect(), buckets };
    let mut bytes = Vec::new();
    codec::encode(&saved, &mut bytes, MAX_BYTES).map_err(|error| error.to_string())?;
    write_debts(directory, &bytes).map_err(|error| error.to_string())?;
    Ok(saved.buckets.len())
}

/// Puts into the store what the node knew when it ended, if it ended well. Whether it did.
pub(super) fn restore(
    directory: &Path,
    node: NodeId,
    rights: &Rights,
    store: &Store,
    now: Nanos,
) -> Result<bool, DiskFault> {
    let Some(bytes) = take_debts(directory)? else { return Ok(false) };
    let saved: Saved = match codec::decode(&bytes) {
        Ok(saved) => saved,
        Err(error) => {
            warn!("what the buckets knew can not be read: they begin used up ({error})");
            return Ok(false);
        }
    };
    if saved.holder.node != node {
        return Ok(false);
    }
    let count = saved.buckets.len();
    saved.buckets.into_iter().for_each(|bucket| store.take_over(&bucket.into(), now));
    let floor = |slot: &SavedSlot| slot.drained_ago.map_or(0, |ago| now.get().saturating_sub(ago).max(1));
    let birth = |slot: &SavedSlot| slot.birth.map(|birth| birth.into_birth(now));
    let slots: BTreeMap<u16, KeptSlot> =
        saved.slots.iter().map(|slot| (slot.slot, (slot.epoch, floor(slot), birth(slot)))).collect();
    info!(buckets = count, slots = slots.len(), "what the buckets knew is read");
    rights.keep(Kept { holder: saved.holder, slots });
    Ok(true)
}
