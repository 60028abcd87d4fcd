//! Charges that may be taken back, because other owners have yet to agree.
//!
//! Taking one back must not give a bucket more than it would hold had the charge never been made. Its state alone does
//! not tell: once the bucket has been full, the charge is forgotten, and subtracting it again would be a gift. So each
//! hold knows an instant before which the bucket can not have been full since, and an undo of an earlier charge of the
//! same bucket, which makes it full earlier, brings that instant forward.

use std::collections::{HashMap, VecDeque};

use smallvec::SmallVec;

use super::Charged;
use crate::KeyHash;

/// Charges that can be undone at one time; those beyond that stay.
const MAX_HOLDS: usize = 1 << 16;

/// Names a check whose charges can be undone, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(u64);

#[derive(Debug, Default)]
pub(super) struct Holds {
    next: u64,
    open: HashMap<HoldId, SmallVec<[Charged; 4]>>,
    /// Which holds charged a bucket.
    by_key: HashMap<KeyHash, SmallVec<[HoldId; 2]>>,
    /// In the order in which they were made: when each ends.
    ends: VecDeque<(u64, HoldId)>,
}

impl Holds {
    /// Notes what was charged. Must be called before anybody else can charge or undo the same buckets.
    pub(super) fn add(&mut self, charged: SmallVec<[Charged; 4]>, now: u64, until: u64) -> Option<HoldId> {
        self.end_those_before(now);
        if self.open.len() >= MAX_HOLDS || charged.is_empty() {
            return None;
        }
        let id = HoldId(self.next);
        self.next += 1;
        for part in &charged {
            self.by_key.entry(part.key).or_default().push(id);
        }
        self.open.insert(id, charged);
        self.ends.push_back((until, id));
        Some(id)
    }

    /// What was charged under `id`, if it can still be undone.
    pub(super) fn take(&mut self, id: HoldId, now: u64) -> SmallVec<[Charged; 4]> {
        self.end_those_before(now);
        self.close(id)
    }

    /// The state of the bucket of `key` has been lowered by `ticks`: because the charge of `undone` was taken back,
    /// which only matters to charges that came after it, or for another reason, which matters to all.
    pub(super) fn note_lowered(&mut self, key: KeyHash, ticks: u64, undone: Option<HoldId>) {
        for id in
            self.by_key.get(&key).into_iter().flatten().filter(|id| undone.is_none_or(|undone| **id > undone))
        {
            let parts = self.open.get_mut(id).into_iter().flatten();
            for part in parts.filter(|part| part.key == key) {
                part.full_at = part.full_at.saturating_sub(ticks);
            }
        }
    }

    fn end_those_before(&mut self, now: u64) {
        while let Some(&(until, id)) = self.ends.front()
            && (until < now || !self.open.contains_key(&id))
        {
            self.ends.pop_front();
            self.close(id);
        }
    }

    fn close(&mut self, id: HoldId) -> SmallVec<[Charged; 4]> {
        let charged = self.open.remove(&id).unwrap_or_default();
        for part in &charged {
            if let Some(ids) = self.by_key.get_mut(&part.key) {
                ids.retain(|known| *known != id);
                if ids.is_empty() {
                    self.by_key.remove(&part.key);
                }
            }
        }
        charged
    }
}
