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

    /// Some holds whose deadline has passed, after a look at no more than `looks`. Deadlines are taken in the order of
    /// the holds' making.
    pub(super) fn take_expired(&mut self, now: u64, looks: usize) -> Vec<(u64, Keys)> {
        let mut expired = Vec::new();
        for _ in 0..looks {
            let Some((until, id)) = self.order.front().copied() else { break };
            match self.open.get(&id) {
                Some(_) if until > now => break,
                Some(_) => expired.extend(self.open.remove(&id).map(|keys| (id, keys))),
                None => {}
            }
            self.order.pop_front();
        }
        expired
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
