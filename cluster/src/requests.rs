//! Checks that say which request they are for: one that is asked again, because its answer was lost, is not charged again.
//!
//! The owner of the slots remembers for two seconds what it has charged under a request's number, and gives a repeated check
//! the same answer, through whatever node it comes. What was denied was not charged, and is decided anew. How much is
//! remembered is bounded: beyond that a check is charged as if it had no id, which is stricter. It goes with the slot when
//! that moves by plan; what a node that dies remembers is lost, and then a repeated check is charged twice.
//!
//! For refunds that name their charge, it is known for longer when a request was charged (`charged.rs`).
//!
//! A part is locked while the store and the rights are asked, never the other way round, and nobody holds two parts.

mod charged;
mod key;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Decision, Nanos,
    cluster::{Charge, HoldId, KeyHash, Returned},
};

use self::charged::{Charged, MAX_CHARGED};
pub(crate) use self::{charged::MovedCharge, key::RequestKey};
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
    unremembered: Counter,
    repeated: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Part {
    known: HashMap<RequestKey, Known>,
    /// In the order in which they are forgotten, about; those too that are forgotten already.
    order: VecDeque<(Nanos, RequestKey)>,
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
            unremembered: Counter::default(),
            repeated: Counter::default(),
        }
    }
}

impl Part {
    /// Forgets what is over.
    fn forget_old(&mut self, now: Nanos) {
        while let Some((until, key)) = self.order.front().copied()
            && (until <= now || !self.known.contains_key(&key))
        {
            self.order.pop_front();
            // It may be known anew, for longer.
            if self.known.get(&key).is_some_and(|known| known.until <= now) {
                self.known.remove(&key);
            }
        }
    }
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

    /// Remembers what was decided, if there is room; until when. What is known already stays as it is.
    pub(crate) fn remember(&self, part: &mut Part, remembered: Remembered, now: Nanos) -> Option<Nanos> {
        part.forget_old(now);
        let Remembered { key, slot, rest, decisions } = remembered;
        if part.known.get(&key).is_some_and(|known| now < known.until) {
            return None;
        }
        if part.order.len() >= MAX_REQUESTS / PARTS {
            self.unremembered.add(1);
            return None;
        }
        let until = now.saturating_add(rest);
        part.order.push_back((until, key));
        part.known.insert(key, Known { slot, until, decisions, repeated: false });
        Some(until)
    }

    /// A request that is remembered was charged this.
    pub(crate) fn note_charges(&self, part: &mut Part, key: RequestKey, charges: &[Charge], now: Nanos) {
        part.charged.note(key, charges, now, MAX_CHARGED / PARTS);
    }

    /// Takes so many units of what the request with this number was charged of a bucket, to be given back.
    /// None of a charge that is not known.
    pub(crate) fn take_charged(
        &self,
        number: u64,
        key: KeyHash,
        units: Cost,
        now: Nanos,
    ) -> SmallVec<[Returned; 1]> {
        locked(self.part(number)).charged.take(number, key, units.get(), now)
    }

    /// Whether what was charged may be undone: then the request is forgotten. Not if another check was answered by it, nor
    /// when nobody can tell any more whether one was.
    pub(crate) fn forget(&self, key: RequestKey, until: Nanos, now: impl FnOnce() -> Nanos) -> bool {
        let mut part = self.lock(key);
        // Looked at under the lock: nothing is swept between this and that.
        let forgets = now() < until && part.known.get(&key).is_none_or(|known| !known.repeated);
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
        self.remember(&mut part, Remembered { rest, ..remembered }, now);
    }

    /// Checks that were answered as before.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.get()
    }

    /// Checks whose id was ignored, because too many were remembered.
    pub(crate) fn unremembered(&self) -> u64 {
        self.unremembered.get()
    }
}

fn locked(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> RequestKey {
        RequestKey { number, charges: 7 }
    }

    fn at(millis: u64) -> Nanos {
        Nanos::new(1_000_000_000 + millis * 1_000_000)
    }

    fn remember(requests: &Requests, number: u64, now: Nanos) {
        let slot = SlotId::all().next().unwrap();
        let remembered = Remembered { key: key(number), slot, rest: REMEMBER, decisions: Box::default() };
        requests.remember(&mut requests.lock(key(number)), remembered, now);
    }

    fn is_known(requests: &Requests, number: u64, now: Nanos) -> bool {
        requests.repeat(&mut requests.lock(key(number)), key(number), now).is_some()
    }

    /// As who undoes it in time.
    fn forget(requests: &Requests, number: u64, now: Nanos) -> bool {
        requests.forget(key(number), now.saturating_add(Duration::from_millis(1)), || now)
    }

    #[test]
    fn a_request_is_known_for_two_seconds_and_another_charge_is_another_request() {
        let requests = Requests::default();
        remember(&requests, 1, at(0));
        assert!(is_known(&requests, 1, at(1999)));
        assert!(!is_known(&requests, 1, at(2000)) && !is_known(&requests, 2, at(0)));
        let other = RequestKey { charges: 8, ..key(1) };
        assert!(requests.repeat(&mut requests.lock(other), other, at(0)).is_none());
    }

    #[test]
    fn what_is_undone_is_forgotten_unless_it_was_repeated() {
        let requests = Requests::default();
        remember(&requests, 1, at(0));
        assert!(forget(&requests, 1, at(1)) && !is_known(&requests, 1, at(1)));
        remember(&requests, 1, at(2));
        assert!(is_known(&requests, 1, at(3)) && !forget(&requests, 1, at(4)));
        remember(&requests, 2, at(10));
        assert!(!requests.forget(key(2), at(2010), || at(2010)), "nobody can tell whether it was repeated");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_room_comes_back() {
        let requests = Requests::default();
        let many = (MAX_REQUESTS / PARTS) as u64;
        (0..many + 5).for_each(|number| remember(&requests, number, at(0)));
        assert_eq!(requests.unremembered(), 5);
        assert!(is_known(&requests, many - 1, at(1)) && !is_known(&requests, many, at(1)));
        remember(&requests, many, at(2000));
        assert!(is_known(&requests, many, at(2001)));
        assert_eq!(requests.of_slots(|_| true, 9, at(2001)).len(), 1);
    }

    #[test]
    fn what_is_taken_over_twice_is_one_request_and_what_is_known_here_stays() {
        let (from, to) = (Requests::default(), Requests::default());
        remember(&from, 1, at(0));
        remember(&to, 2, at(0));
        assert!(is_known(&to, 2, at(1)));
        remember(&from, 2, at(1));
        for _ in 0..2 {
            for one in from.of_slots(|_| true, 9, at(500)) {
                to.take_over(one, at(500));
            }
        }
        assert!(is_known(&to, 1, at(1999)) && !is_known(&to, 1, at(2000)), "not for longer than there");
        assert!(!forget(&to, 2, at(600)), "another check was answered by it");
    }

    #[test]
    fn a_hand_over_has_a_bound_in_decisions() {
        let requests = Requests::default();
        let slot = SlotId::all().next().unwrap();
        let decision = Decision {
            allowed: true,
            limit: 1,
            remaining: 0,
            reset_after: Duration::ZERO,
            retry_after: None,
            delay: Duration::ZERO,
            assumed: false,
            banned: false,
        };
        for number in 0..10 {
            let remembered =
                Remembered { key: key(number), slot, rest: REMEMBER, decisions: [decision; 3].into() };
            requests.remember(&mut requests.lock(key(number)), remembered, at(0));
        }
        assert_eq!(requests.of_slots(|_| true, 10, at(1)).len(), 3);
    }

    #[test]
    fn what_was_undone_takes_no_room_for_ever_and_a_sweep_gives_memory_back() {
        let requests = Requests::default();
        let many = (MAX_REQUESTS / PARTS) as u64;
        for round in 0..4 {
            for number in 0..many {
                remember(&requests, number, at(round * 2000));
                assert!(forget(&requests, number, at(round * 2000 + 1)));
            }
        }
        assert_eq!(requests.unremembered(), 0);
        remember(&requests, 1, at(8000));
        requests.sweep(at(9999));
        assert!(is_known(&requests, 1, at(9999)));
        requests.sweep(at(10_000));
        let part = requests.lock(key(1));
        assert_eq!((part.known.capacity(), part.order.capacity()), (0, 0));
    }
}
