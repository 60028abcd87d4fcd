//! Which charges may still be undone, of all shards.

use std::collections::{HashMap, VecDeque};

use smallvec::SmallVec;

use crate::KeyHash;

/// Names what [`Store::hold`](crate::Store::hold) charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HoldId(pub(super) u64);

/// The buckets that one hold charged.
pub(super) type Keys = SmallVec<[KeyHash; 4]>;

/// All open holds.
#[derive(Debug)]
pub(super) struct Holds {
    open: HashMap<u64, Keys>,
    /// Deadlines and ids, in the order of their making. Most have been closed long before.
    order: VecDeque<(u64, u64)>,
    next: u64,
    max: usize,
}

impl Holds {
    pub(super) fn new(max: usize) -> Self {
        Self { open: HashMap::new(), order: VecDeque::new(), next: 1, max }
    }

    /// The id of a hold that is about to be made, unless there are too many.
    pub(super) fn reserve(&mut self) -> Option<u64> {
        if self.order.len() >= self.max {
            return None;
        }
        let id = self.next;
        self.next += 1;
        Some(id)
    }

    pub(super) fn add(&mut self, id: u64, keys: Keys, until: u64) {
        self.open.insert(id, keys);
        self.order.push_back((until, id));
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Keys> {
        self.open.remove(&id)
    }

    /// The next hold whose deadline has passed. Deadlines are taken in the order of the holds' making.
    pub(super) fn take_expired(&mut self, now: u64) -> Option<(u64, Keys)> {
        while let Some((until, id)) = self.order.front().copied() {
            let keys = match self.open.get(&id) {
                Some(_) if until > now => return None,
                Some(_) => self.open.remove(&id),
                None => None,
            };
            self.order.pop_front();
            if let Some(keys) = keys {
                return Some((id, keys));
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
