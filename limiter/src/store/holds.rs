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
    max: Most,
    /// Of all that are open.
    charges: usize,
}

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Most {
    /// Holds, those included whose deadline has not passed though they are closed.
    pub(super) holds: usize,
    /// Charges that can be undone: each keeps memory with its bucket.
    pub(super) charges: usize,
}

impl Holds {
    pub(super) fn new(max: Most) -> Self {
        Self { open: HashMap::new(), order: VecDeque::new(), next: 1, max, charges: 0 }
    }

    /// The id of a hold of so many charges that is about to be made, unless there are too many. (Those that several threads are
    /// about to make at the same time are not counted yet.)
    pub(super) fn reserve(&mut self, charges: usize) -> Option<u64> {
        if self.order.len() >= self.max.holds || self.charges + charges > self.max.charges {
            return None;
        }
        let id = self.next;
        self.next += 1;
        Some(id)
    }

    pub(super) fn add(&mut self, id: u64, keys: Keys, until: u64) {
        self.charges += keys.len();
        self.open.insert(id, keys);
        self.order.push_back((until, id));
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Keys> {
        let keys = self.open.remove(&id)?;
        self.charges -= keys.len();
        Some(keys)
    }

    /// Some holds whose deadline has passed, after a look at no more than `looks`. Deadlines are taken in the order of
    /// the holds' making.
    pub(super) fn take_expired(&mut self, now: u64, looks: usize) -> Vec<(u64, Keys)> {
        let mut expired = Vec::new();
        for _ in 0..looks {
            let Some((until, id)) = self.order.front().copied() else { break };
            match self.open.get(&id) {
                Some(_) if until > now => break,
                Some(_) => expired.extend(self.take(id).map(|keys| (id, keys))),
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
