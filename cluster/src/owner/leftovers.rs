//! What a store still has of slots from before.
//!
//! What an owner has let go of is known by marks, and those count for buckets that are not in memory. An older copy of such a
//! bucket would count instead of them: left by an earlier tenure, by a move that was given up, or by floors that were told before.
//! So **where a slot is filled from another node, the store has nothing of it but what came by this filling**: whoever fills it
//! knows all that is to be known. What was there is forgotten first, by a look at the whole store on a thread of its own, and only
//! if there was something.
//!
//! A tenure can begin meanwhile. **From its beginning on nothing of the slot is forgotten**: [`Leftovers::begin`] says so before
//! any check can claim the slot, and the store asks with the shard locked.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tidegate_limiter::{KeyHash, Nanos, Store};

use crate::slots::{SLOTS, SlotId};

/// For one store. `F` names a filling: a move, or what a bond began with.
#[derive(Debug)]
pub(crate) struct Leftovers<F> {
    known: Mutex<Known<F>>,
    /// What is there of these slots is being forgotten.
    going: Box<[AtomicBool]>,
}

#[derive(Debug)]
struct Known<F> {
    slots: Box<[Has<F>]>,
    /// Tenures that have ended, and whose buckets nobody has begun to forget.
    ended: BTreeSet<u16>,
}

/// What a store has of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has<F> {
    Nothing,
    /// What came by this, and nothing else.
    FilledBy(F),
    Anything,
}

/// Whether slots can be filled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Yes,
    /// When this is [forgotten](Leftovers::forget), and what somebody else is forgetting already.
    After(Vec<u16>),
}

impl<F: Copy + Eq> Default for Leftovers<F> {
    fn default() -> Self {
        Self {
            known: Mutex::new(Known { slots: vec![Has::Nothing; SLOTS].into(), ended: BTreeSet::new() }),
            going: (0..SLOTS).map(|_| AtomicBool::new(false)).collect(),
        }
    }
}

impl<F: Copy + Eq> Leftovers<F> {
    /// The node decides about the slot from now on, with what is there.
    pub(crate) fn begin(&self, slot: usize) {
        let mut known = self.known();
        known.slots[slot] = Has::Anything;
        known.ended.remove(&(slot as u16));
        self.going[slot].store(false, SeqCst);
    }

    /// It decides no more, or what was filled in does not count.
    pub(crate) fn end(&self, slot: usize) {
        let mut known = self.known();
        if known.slots[slot] != Has::Nothing {
            known.ended.insert(slot as u16);
        }
    }

    /// Before slots are filled. What is to be forgotten first is the caller's to forget.
    pub(crate) fn prepare(&self, fillings: impl IntoIterator<Item = (u16, F)>) -> Ready {
        let mut known = self.known();
        let (mut waits, mut leftovers) = (false, Vec::new());
        for (slot, filling) in fillings {
            let place = usize::from(slot);
            if self.going[place].load(SeqCst) {
                waits = true;
                continue;
            }
            match known.slots[place] {
                Has::Nothing => known.slots[place] = Has::FilledBy(filling),
                Has::FilledBy(known) if known == filling => {}
                Has::FilledBy(_) | Has::Anything => leftovers.push(slot),
            }
        }
        known.start(&leftovers, &self.going);
        if waits || !leftovers.is_empty() { Ready::After(leftovers) } else { Ready::Yes }
    }

    /// Those of the slots of which there is something; the caller's to forget.
    pub(crate) fn left_of(&self, slots: &[usize]) -> Vec<u16> {
        let mut known = self.known();
        let has_some = |slot: &&usize| known.slots[**slot] != Has::Nothing;
        let left: Vec<u16> = slots.iter().filter(has_some).map(|slot| *slot as u16).collect();
        known.start(&left, &self.going);
        left
    }

    /// The slots whose tenure has ended and that nobody fills; the caller's to forget.
    pub(crate) fn ended(&self) -> Vec<u16> {
        let mut known = self.known();
        let is_left = |slot: &u16| !self.going[usize::from(*slot)].load(SeqCst);
        let ended: Vec<u16> = known.ended.iter().copied().filter(is_left).collect();
        known.start(&ended, &self.going);
        ended
    }

    /// Forgets what the store has of these slots, but of those about which this node has begun to decide.
    pub(crate) fn forget(&self, slots: &[u16], store: &Store, now: Nanos) {
        if slots.is_empty() {
            return;
        }
        let mut wanted = vec![false; SLOTS];
        slots.iter().for_each(|slot| wanted[usize::from(*slot)] = true);
        let is_wanted = |key: KeyHash| {
            let slot = SlotId::of(key).index();
            wanted[slot] && self.going[slot].load(SeqCst)
        };
        store.forget(is_wanted, now);
        let mut known = self.known();
        for slot in slots.iter().map(|slot| usize::from(*slot)) {
            if self.going[slot].swap(false, SeqCst) {
                known.slots[slot] = Has::Nothing;
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known<F>> {
        // Nothing in here is left half done by a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Known<F> {
    fn start(&mut self, slots: &[u16], going: &[AtomicBool]) {
        for slot in slots {
            going[usize::from(*slot)].store(true, SeqCst);
            self.ended.remove(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{Algorithm, Charge, Cost, Limit, Mode, RuleId, StoreConfig};

    use super::*;

    const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

    struct World {
        left: Leftovers<u64>,
        store: Store,
        charge: Charge,
        slot: usize,
    }

    impl World {
        fn new() -> Self {
            let key = KeyHash::from_raw(0x9e37_79b9_7f4a_7c14);
            let limit = Limit::parse("10/1d", None, Algorithm::TokenBucket).unwrap();
            let charge = Charge {
                key,
                rule: RuleId::INLINE,
                limit,
                cost: Cost::ONE,
                mode: Mode::Enforce,
                floor: None,
            };
            let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 16 }, NOW);
            Self { left: Leftovers::default(), store, charge, slot: SlotId::of(key).index() }
        }

        /// What the bucket has left after one charge.
        fn charged(&self) -> u64 {
            self.store.check(&self.charge, NOW).remaining
        }

        fn prepare(&self, filling: u64) -> Ready {
            self.left.prepare([(self.slot as u16, filling)])
        }
    }

    #[test]
    fn a_slot_is_filled_only_when_nothing_is_left_of_another_filling_or_of_a_tenure() {
        let world = World::new();
        let slot = world.slot as u16;
        assert_eq!(world.prepare(1), Ready::Yes);
        assert_eq!(world.charged(), 9);
        assert_eq!(world.prepare(1), Ready::Yes, "the same again");
        assert_eq!(world.charged(), 8);
        // The move was refused, and is tried again.
        assert_eq!(world.prepare(2), Ready::After(vec![slot]));
        assert_eq!(world.prepare(2), Ready::After(vec![]), "once");
        world.left.forget(&[slot], &world.store, NOW);
        assert_eq!(world.prepare(2), Ready::Yes);
        assert_eq!(world.charged(), 9);
        // It is installed, and goes away again.
        world.left.begin(world.slot);
        assert_eq!(world.prepare(3), Ready::After(vec![slot]));
        world.left.forget(&[slot], &world.store, NOW);
        assert_eq!((world.charged(), world.prepare(3)), (9, Ready::Yes));
    }

    #[test]
    fn what_a_tenure_leaves_goes_unless_the_next_one_begins_first() {
        let world = World::new();
        let slot = world.slot as u16;
        world.left.end(world.slot);
        assert!(world.left.ended().is_empty(), "there was nothing");
        world.left.begin(world.slot);
        world.charged();
        world.left.end(world.slot);
        world.left.begin(world.slot);
        assert!(world.left.ended().is_empty());
        world.left.end(world.slot);
        assert_eq!(world.left.ended(), [slot]);
        assert!(world.left.ended().is_empty());
        world.left.begin(world.slot);
        world.left.forget(&[slot], &world.store, NOW);
        assert_eq!(world.charged(), 8, "a new tenure keeps what it has");
        world.left.end(world.slot);
        let ended = world.left.ended();
        world.left.forget(&ended, &world.store, NOW);
        assert!(world.left.left_of(&[world.slot]).is_empty());
        assert_eq!((world.charged(), world.prepare(7)), (9, Ready::Yes));
    }
}
