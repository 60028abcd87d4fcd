//! What a node's buckets know, kept on its disk while it does not run.
//!
//! It is written when the node ends, after the last charge, and read once when it starts again. It counts for the slots that
//! nobody else has owned in between: the log tells. For all others, and after a crash, what is on the disk of their floors counts
//! (`disk_task`). Debts are durations: the time in which the node did not run is not counted, because only a wall clock could tell it.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use tidegate_limiter::{
    Nanos,
    cluster::{Bucket, Held, KeyHash, LetGo, RuleId, Store, level},
};
use tidegate_proto::codec;
use tracing::{info, warn};

use crate::{
    ids::{NodeId, NodeStart},
    owner::{
        kept::{Kept, KeptBuckets, KeptSlot},
        slot_ownership::{Frozen, SlotOwnership},
    },
    raft::files::{DiskError, load_buckets, save_buckets},
    rpc::buckets::{WireBucket, WireLetGo, WireTakeoverBasis},
    slots::SlotId,
};

/// Buckets that are kept. With more of them, rules that have more than their part lose those that are used the least, as when
/// memory is full: what a rule has let go of so is forgotten, or assumed where it is strict.
const MAX_BUCKETS: usize = 4_000_000;
/// Longest file.
pub(crate) const MAX_BYTES: usize = 1 << 30;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) start: NodeStart,
    pub(crate) slots: Vec<SavedSlot>,
    pub(crate) buckets: Vec<WireBucket>,
    pub(crate) let_go: Vec<WireLetGo>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SavedSlot {
    pub(crate) slot: u16,
    pub(crate) epoch: u64,
    /// How long ago its buckets were exhausted, in nanoseconds.
    pub(crate) drained_ago: Option<u64>,
    pub(crate) basis: Option<WireTakeoverBasis>,
}

/// Decides nothing any more, and writes what is known of the buckets. Returns of how many.
pub(crate) fn save(
    directory: &Path,
    ownership: &SlotOwnership,
    store: &Store,
    now: Nanos,
) -> Result<usize, String> {
    let start = ownership.me();
    let owned = ownership.retire();
    let mut wanted = vec![false; crate::slots::SLOTS];
    owned.iter().for_each(|slot| wanted[usize::from(slot.one.slot)] = true);
    let is_wanted = |key: KeyHash| wanted[SlotId::of(key).index()];
    let (buckets, mut let_go) = fullest(store, is_wanted, MAX_BUCKETS, now);
    let ago = |floor: Nanos| now.saturating_since(floor).as_nanos() as u64;
    let slot = |slot: &Frozen| SavedSlot {
        slot: slot.one.slot,
        epoch: slot.epoch,
        drained_ago: slot.floor.map(ago),
        basis: slot
            .basis
            .as_ref()
            .map(|basis| WireTakeoverBasis::of(basis, ownership.number_of(&basis.rules), now)),
    };
    let_go.extend(WireLetGo::all(store, now));
    let saved = Saved { start, slots: owned.iter().map(slot).collect(), buckets, let_go };
    let mut bytes = Vec::new();
    codec::encode(&saved, &mut bytes, MAX_BYTES).map_err(|error| error.to_string())?;
    save_buckets(directory, &bytes).map_err(|error| error.to_string())?;
    Ok(saved.buckets.len())
}

/// The wanted buckets, at most so many, and of those that are left out the fullest of each rule.
fn fullest(
    store: &Store,
    is_wanted: impl Fn(KeyHash) -> bool,
    most: usize,
    now: Nanos,
) -> (Vec<WireBucket>, Vec<WireLetGo>) {
    // Of a log its units: they are compared with those of the same rule only.
    let used = |held: &Held| match held {
        Held::Debt(used) | Held::Window(used) => *used,
        Held::Log { entries, .. } => entries.iter().map(|(_, units)| units).sum(),
    };
    let mut counts: BTreeMap<RuleId, usize> = BTreeMap::new();
    store.buckets(now, &is_wanted, |bucket| *counts.entry(bucket.rule).or_default() += 1);
    let level = level(counts.values().copied(), most);
    // Of each rule that has too many, the least that is kept.
    let mut least: BTreeMap<RuleId, u64> = BTreeMap::new();
    for (rule, count) in counts.into_iter().filter(|(_, count)| *count > level) {
        let mut all = Vec::with_capacity(count);
        store.buckets(now, &is_wanted, |bucket| {
            if bucket.rule == rule {
                all.push(used(&bucket.held));
            }
        });
        // There may be fewer meanwhile.
        if let Some(leave) = all.len().checked_sub(level + 1) {
            // Those that are used as far go too.
            least.insert(rule, all.select_nth_unstable(leave).1.saturating_add(1));
        }
    }
    let mut kept: Vec<WireBucket> = Vec::new();
    let mut let_go: BTreeMap<RuleId, Held> = BTreeMap::new();
    store.buckets(now, &is_wanted, |Bucket { key, rule, held }| {
        if least.get(&rule).is_none_or(|least| used(&held) >= *least) {
            kept.push(Bucket { key, rule, held }.into());
        } else if !key.is_of_ban()
            && let Some(mark) = held.until(now)
        {
            let fullest = let_go.entry(rule).or_insert_with(|| mark.clone());
            if fullest.mark(now) < mark.mark(now) {
                *fullest = mark;
            }
        }
    });
    let let_go = let_go.into_iter().map(|(rule, held)| LetGo { rule, held }.into());
    (kept, let_go.collect())
}

/// Puts into the store what the node knew when it ended, if it ended well.
pub(crate) fn restore(
    directory: &Path,
    node: NodeId,
    store: &Store,
    now: Nanos,
) -> Result<Option<Kept>, DiskError> {
    let loaded = load_buckets(directory)?;
    let bytes = match loaded {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(fault) => {
            warn!(%fault, "what the buckets knew cannot be read: they start from their floors, or as on_total_loss of their rules says");
            return Ok(None);
        }
    };
    let saved: Saved = match codec::decode(&bytes) {
        Ok(saved) => saved,
        Err(error) => {
            warn!(%error, "what the buckets knew cannot be read: they start exhausted");
            return Ok(None);
        }
    };
    if saved.start.node != node {
        return Ok(None);
    }
    let count = saved.buckets.len();
    saved.buckets.into_iter().for_each(|bucket| store.take_over(&bucket.into(), now));
    saved.let_go.into_iter().for_each(|let_go| let_go.take_over(store, now));
    let floor = |slot: &SavedSlot| slot.drained_ago.map_or(0, |ago| now.get().saturating_sub(ago).max(1));
    let basis = |slot: &SavedSlot| slot.basis.map(|basis| basis.into_basis(now));
    let kept = |slot: &SavedSlot| KeptSlot {
        start: saved.start,
        epoch: slot.epoch,
        saved: Some(KeptBuckets { floor: floor(slot), basis: basis(slot) }),
        floors: None,
    };
    let slots: BTreeMap<u16, KeptSlot> = saved.slots.iter().map(|slot| (slot.slot, kept(slot))).collect();
    info!(buckets = count, slots = slots.len(), "what the buckets knew is read");
    Ok(Some(Kept { slots, readers: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{
        Algorithm, Cost, Limit,
        cluster::{Charge, StoreConfig},
        rules::Mode,
    };

    use super::*;

    #[test]
    fn of_too_many_buckets_those_of_other_rules_are_kept_and_of_the_rule_that_has_them_the_fullest() {
        let now = Nanos::new(1_800_000_000_000_000_000);
        let store = Store::new(StoreConfig::default(), now);
        let charge = |rule: u64, key: u64, cost| Charge {
            key: KeyHash::from_raw((rule << 32 | key).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1),
            rule: RuleId::from_raw(rule * 2),
            limit: Limit::parse("10/1d", None, Algorithm::TokenBucket).unwrap(),
            cost: Cost::new(cost).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        (0..100).for_each(|key| assert!(store.check(&charge(1, key, 1), now).allowed));
        (0..5_000).for_each(|key| assert!(store.check(&charge(2, key, 1 + key % 10), now).allowed));
        let (kept, let_go) = fullest(&store, |_| true, 1_100, now);
        let kept: Vec<Bucket> = kept.into_iter().map(Bucket::from).collect();
        let of = |rule: u64| kept.iter().filter(move |one| one.rule.get() == rule * 2);
        assert_eq!(of(1).count(), 100);
        let full =
            |one: &Bucket| matches!(one.held, Held::Debt(debt) if debt > 8 * 4 * 86_400_000_000_000 / 10);
        assert!((500..=1_000).contains(&of(2).count()), "{}", of(2).count());
        assert!(of(2).all(full));
        assert_eq!(let_go.len(), 1);
        assert_eq!(fullest(&store, |_| true, 10_000, now).0.len(), 5_100);
    }
}
