//! Checks that say which request they are for: one that is asked again, because its answer was lost, is not charged again.
//!
//! The owner of the slots remembers for two seconds what it has charged under a request's number, and gives a repeated check
//! the same answer, through whatever node it comes. What was denied was not charged, and is decided anew. How much is
//! remembered is bounded: beyond that the oldest are forgotten earlier, of the bucket and the rule that have the most (`fair.rs`), and
//! a check that is asked again then is charged twice, which is stricter. It goes with the slot when that moves by plan; what a node
//! that dies remembers is lost, and then a repeated check is charged twice, too.
//!
//! For refunds that name their charge, it is known for longer when a request was charged (`charged.rs`).
//!
//! A part is locked while the store and the rights are asked, never the other way round, and nobody holds two parts.

mod charged;
mod fair;
mod key;
mod resets;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Decision, Nanos,
    cluster::{Charge, HoldId, KeyHash, Returned},
};

pub(crate) use self::{charged::MovedCharge, fair::Share, key::RequestKey};
use self::{
    charged::{Charged, MAX_CHARGED},
    fair::FairQueue,
    resets::Resets,
};
use crate::{slots::SlotId, stats::Counter};

/// How long it is remembered that a request was charged.
pub(crate) const REMEMBER: Duration = Duration::from_secs(2);
/// Requests that are remembered at one time: 20 MB of them when each charges one bucket.
const MAX_REQUESTS: usize = 1 << 16;
/// Parts that are locked by themselves.
const PARTS: usize = 16;

/// What a node remembers of requests.
#[derive(Debug)]
pub(crate) struct Requests {
    parts: [Mutex<Part>; PARTS],
    /// Not locked together with a part.
    resets: Mutex<Resets>,
    unremembered: Counter,
    repeated: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Part {
    known: HashMap<RequestKey, Known>,
    /// Of each share in the order in which they are forgotten, about; those too that are forgotten already.
    order: FairQueue<(Nanos, RequestKey)>,
    /// Of what is known only until then some was forgotten before its time.
    forgot_until: Nanos,
    charged: Charged,
}

#[derive(Debug, Clone)]
struct Known {
    slot: SlotId,
    until: Nanos,
    decisions: Box<[Decision]>,
    /// Another check was answered by it: what was charged must stay.
    repeated: bool,
}

/// What was charged and can still be undone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) hold: HoldId,
    /// If it is remembered, and until when.
    pub(crate) request: Option<(RequestKey, Nanos)>,
}

/// A request that was charged.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) key: RequestKey,
    /// Of the first charge: it is remembered by the owner of that one.
    pub(crate) slot: SlotId,
    /// For so long.
    pub(crate) rest: Duration,
    pub(crate) decisions: Box<[Decision]>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            resets: Mutex::default(),
            unremembered: Counter::default(),
            repeated: Counter::default(),
        }
    }
}

impl Part {
    /// Makes room for one more.
    fn make_room(&mut self, share: Share, now: Nanos, unremembered: &Counter) {
        let Self { known, order, .. } = self;
        while let Some((until, key)) =
            order.pop_if(share, |(until, key)| *until <= now || !known.contains_key(key))
        {
            forget_entry(known, key, until);
        }
        while order.len() >= MAX_REQUESTS / PARTS
            && let Some((until, key)) = order.pop_of_largest()
        {
            if forget_entry(known, key, until) && now < until {
                unremembered.add(1);
                self.forgot_until = self.forgot_until.max(until);
            }
        }
    }

    /// Forgets what is over.
    fn forget_old(&mut self, now: Nanos) {
        let Self { known, order, .. } = self;
        order.pop_all(|(until, _)| *until <= now, |(until, key)| _ = forget_entry(known, key, until));
    }
}

/// Whether it was known by this entry: it may be known anew, for longer.
fn forget_entry(known: &mut HashMap<RequestKey, Known>, key: RequestKey, until: Nanos) -> bool {
    let is_it = known.get(&key).is_some_and(|known| known.until == until);
    if is_it {
        known.remove(&key);
    }
    is_it
}

impl Requests {
    /// Locks what is known of a request, so that the same one is not charged by two threads at once.
    pub(crate) fn lock(&self, key: RequestKey) -> MutexGuard<'_, Part> {
        locked(self.part(key.number))
    }

    fn part(&self, number: u64) -> &Mutex<Part> {
        &self.parts[(number >> 60) as usize % PARTS]
    }

    /// What was decided when the request was charged.
    pub(crate) fn repeat(&self, part: &mut Part, key: RequestKey, now: Nanos) -> Option<Box<[Decision]>> {
        let known = part.known.get_mut(&key).filter(|known| now < known.until)?;
        known.repeated = true;
        self.repeated.add(1);
        Some(known.decisions.clone())
    }

    /// Remembers what was decided, as part of this share; until when. What is known already stays as it is.
    pub(crate) fn remember(
        &self,
        part: &mut Part,
        share: Share,
        remembered: Remembered,
        now: Nanos,
    ) -> Option<Nanos> {
        part.make_room(share, now, &self.unremembered);
        let Remembered { key, slot, rest, decisions } = remembered;
        if part.known.get(&key).is_some_and(|known| now < known.until) {
            return None;
        }
        let until = now.saturating_add(rest);
        part.order.push(share, (until, key));
        part.known.insert(key, Known { slot, until, decisions, repeated: false });
        Some(until)
    }

    /// A request that is remembered was charged this.
    pub(crate) fn note_charges(&self, part: &mut Part, key: RequestKey, charges: &[Charge], now: Nanos) {
        part.charged.note(key, charges, now, MAX_CHARGED / PARTS);
    }

    /// Takes so many units of what checks with this number's id were charged of a bucket, to be given back.
    /// None of a charge that is not known.
    pub(crate) fn take_charged(
        &self,
        number: u64,
        key: KeyHash,
        units: Cost,
        now: Nanos,
    ) -> SmallVec<[Returned; 1]> {
        let reset = locked(&self.resets).before(key);
        locked(self.part(number)).charged.take(RequestKey::id_of(number), key, units.get(), reset, now)
    }

    /// A bucket is about to be reset: whatever it was charged is not given back any more.
    pub(crate) fn note_reset(&self, key: KeyHash, now: Nanos) {
        locked(&self.resets).note(key, now);
    }

    /// Of these slots another owner knows what requests were charged. What is known here is not true any more: some of it was given back there.
    pub(crate) fn forget_charges(&self, of: impl Fn(SlotId) -> bool) {
        self.parts.iter().for_each(|part| locked(part).charged.forget_slots(&of));
    }

    /// Whether what was charged may be undone: then the request is forgotten. Not if another check was answered by it, nor
    /// when nobody can tell any more whether one was.
    pub(crate) fn forget(&self, key: RequestKey, until: Nanos, now: impl FnOnce() -> Nanos) -> bool {
        let mut part = self.lock(key);
        // Looked at under the lock: nothing is swept between this and that.
        let is_single = match part.known.get(&key) {
            Some(known) => !known.repeated,
            None => part.forgot_until < until,
        };
        let forgets = now() < until && is_single;
        if forgets {
            part.known.remove(&key);
            part.charged.undo(key, Nanos::new(until.get().saturating_sub(REMEMBER.as_nanos() as u64)));
        }
        forgets
    }

    /// Forgets what is over, and gives memory back where nothing is left. For a thread that serves nobody.
    pub(crate) fn sweep(&self, now: Nanos) {
        for part in &self.parts {
            let mut part = locked(part);
            part.forget_old(now);
            part.charged.forget_old(now);
            if part.order.is_empty() && part.charged.is_empty() && part.known.capacity() > 0 {
                *part = Part::default();
            }
        }
        locked(&self.resets).forget_old(now);
    }

    /// What is remembered of slots, for their next owner: at most so many decisions.
    pub(crate) fn of_slots(
        &self,
        wanted: impl Fn(SlotId) -> bool,
        max_decisions: usize,
        now: Nanos,
    ) -> Vec<Remembered> {
        let (mut found, mut room) = (Vec::new(), max_decisions);
        for part in &self.parts {
            let part = locked(part);
            for (key, known) in part.known.iter().filter(|(_, known)| wanted(known.slot) && now < known.until)
            {
                let Some(rest) = room.checked_sub(known.decisions.len()) else { return found };
                room = rest;
                found.push(Remembered {
                    key: *key,
                    slot: known.slot,
                    rest: known.until.saturating_since(now),
                    decisions: known.decisions.clone(),
                });
            }
        }
        found
    }

    /// When requests were charged of the buckets of some slots, for the next owner: the latest, at most so many.
    pub(crate) fn charges_of_slots(
        &self,
        wanted: impl Fn(SlotId) -> bool,
        most: usize,
        now: Nanos,
    ) -> Vec<MovedCharge> {
        let mut found = Vec::new();
        self.parts.iter().for_each(|part| locked(part).charged.of_slots(&wanted, now, &mut found));
        let resets = locked(&self.resets);
        found.retain(|charge| charge.at > resets.before(charge.key));
        drop(resets);
        found.sort_unstable_by_key(|charge| std::cmp::Reverse(charge.at));
        found.truncate(most);
        // In the order in which they were made.
        found.reverse();
        found
    }

    /// Takes over when another owner has charged a request.
    pub(crate) fn take_over_charge(&self, moved: MovedCharge) {
        locked(self.part(moved.request.number)).charged.take_over(moved, MAX_CHARGED / PARTS);
    }

    /// Takes over what another node remembers.
    pub(crate) fn take_over(&self, remembered: Remembered, now: Nanos) {
        let mut part = self.lock(remembered.key);
        let rest = remembered.rest.min(REMEMBER);
        let share = Share::of_slot(remembered.slot);
        self.remember(&mut part, share, Remembered { rest, ..remembered }, now);
    }

    /// Checks that were answered as before.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.get()
    }

    /// Requests that were forgotten before their time, because too many were remembered.
    pub(crate) fn unremembered(&self) -> u64 {
        self.unremembered.get()
    }
}

fn locked<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
