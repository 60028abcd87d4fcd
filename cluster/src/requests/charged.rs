//! When requests with an id were charged, and how much of that was not given back yet: for refunds that name their charge.
//!
//! The owner of the bucket remembers it, for longer than it remembers the answer: what a request has used is known when it is over. It is
//! bounded, and what is not known any more gives nothing back.

use std::{collections::HashMap, time::Duration};

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Nanos,
    cluster::{Charge, KeyHash, Returned},
};

use super::{
    fair::{FairQueue, Share},
    key::RequestKey,
};
use crate::slots::SlotId;

/// How long after it was made a charge can be named.
pub(crate) const REFUNDABLE: Duration = Duration::from_secs(3600);
/// Requests whose charges are known at one time; one more, and the oldest is forgotten, of the bucket and the rule that have the most.
pub(super) const MAX_CHARGED: usize = 1 << 16;

/// Charges that are known of one number; one more, and the oldest is forgotten. Each check with the number looks at all of them, under the lock
/// of its part.
const MAX_OF_NUMBER: usize = 64;

/// Charges of requests, by the requests' numbers.
#[derive(Debug, Default)]
pub(super) struct Charged {
    known: HashMap<u64, SmallVec<[Taken; 1]>>,
    /// Of each share in the order in which they were made, about, each with its instant.
    order: FairQueue<(Nanos, RequestKey)>,
}

/// What a request has taken of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// With what else it was charged.
    charges: u64,
    key: KeyHash,
    at: Nanos,
    /// Not given back.
    units: u64,
}

/// The same, for the bucket's next owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MovedCharge {
    pub(crate) request: RequestKey,
    pub(crate) key: KeyHash,
    pub(crate) at: Nanos,
    pub(crate) units: u64,
}

impl Charged {
    /// A request was charged.
    pub(super) fn note(&mut self, request: RequestKey, charges: &[Charge], now: Nanos, most: usize) {
        let taken = charges.iter().filter(|charge| charge.cost != Cost::PEEK);
        let of = |charge: &Charge| Taken {
            charges: request.charges,
            key: charge.key,
            at: now,
            units: charge.cost.get(),
        };
        self.add(request, Share::of(charges), taken.map(of), now, most);
    }

    fn add(
        &mut self,
        request: RequestKey,
        share: Share,
        taken: impl Iterator<Item = Taken>,
        at: Nanos,
        most: usize,
    ) {
        while self.order.len() >= most
            && let Some((at, request)) = self.order.pop_of_largest()
        {
            forget(&mut self.known, at, request);
        }
        let known = self.known.entry(request.number).or_default();
        let before = known.len();
        known.extend(taken);
        // What has just been charged stays, though it is more: a check has no more charges than the rules that match it.
        let most = MAX_OF_NUMBER.max(known.len() - before);
        known.drain(..known.len().saturating_sub(most));
        self.order.push(share, (at, request));
    }

    /// Takes so many units of what a request was charged of a bucket, of its last charge first. What was charged until the bucket was `reset`
    /// does not weigh there.
    pub(super) fn take(
        &mut self,
        number: u64,
        key: KeyHash,
        mut units: u64,
        reset: Nanos,
        now: Nanos,
    ) -> SmallVec<[Returned; 1]> {
        let mut parts = SmallVec::new();
        let known = self.known.get_mut(&number).into_iter().flatten().rev();
        for taken in known.filter(|taken| taken.key == key && taken.at > reset && !is_over(taken.at, now)) {
            let part = taken.units.min(units);
            (taken.units, units) = (taken.units - part, units - part);
            if let (1.., Ok(units), Ok(kept)) = (part, Cost::new(part), Cost::new(taken.units)) {
                parts.push(Returned { units, kept, charged: taken.at });
            }
        }
        parts
    }

    /// What was charged at this instant, or later, was not charged after all.
    pub(super) fn undo(&mut self, request: RequestKey, since: Nanos) {
        if let Some(known) = self.known.get_mut(&request.number) {
            known.retain(|taken| taken.charges != request.charges || taken.at < since);
        }
    }

    /// Forgets what was charged of the buckets of some slots.
    pub(super) fn forget_slots(&mut self, of: impl Fn(SlotId) -> bool) {
        self.known.values_mut().for_each(|known| known.retain(|taken| !of(SlotId::of(taken.key))));
    }

    pub(super) fn forget_old(&mut self, now: Nanos) {
        let Self { known, order } = self;
        order.pop_all(|(at, _)| is_over(*at, now), |(at, request)| forget(known, at, request));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What is known of the buckets of some slots.
    pub(super) fn of_slots(&self, wanted: impl Fn(SlotId) -> bool, now: Nanos, found: &mut Vec<MovedCharge>) {
        for (number, known) in &self.known {
            for taken in known.iter().filter(|taken| taken.units > 0 && !is_over(taken.at, now)) {
                if wanted(SlotId::of(taken.key)) {
                    let Taken { charges, key, at, units } = *taken;
                    found.push(MovedCharge {
                        request: RequestKey { number: *number, charges },
                        key,
                        at,
                        units,
                    });
                }
            }
        }
    }

    /// Takes over what another owner knows. What is known here already stays as it is: some of it may have been given back.
    pub(super) fn take_over(&mut self, moved: MovedCharge, most: usize) {
        let MovedCharge { request, key, at, units } = moved;
        let taken = Taken { charges: request.charges, key, at, units };
        let known = self.known.get(&request.number);
        let is_known = |known: &SmallVec<[Taken; 1]>| {
            known.iter().any(|one| one.key == key && one.charges == taken.charges)
        };
        if !known.is_some_and(is_known) {
            self.add(request, Share::of_bucket(key), std::iter::once(taken), at, most);
        }
    }
}

/// What a request was charged at this instant, or before.
fn forget(known: &mut HashMap<u64, SmallVec<[Taken; 1]>>, at: Nanos, request: RequestKey) {
    if let Some(all) = known.get_mut(&request.number) {
        all.retain(|taken| taken.charges != request.charges || taken.at > at);
        if all.is_empty() {
            known.remove(&request.number);
        }
    }
}

pub(super) fn is_over(at: Nanos, now: Nanos) -> bool {
    now.saturating_since(at) >= REFUNDABLE
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{Limit, cluster::RuleId, rules::Mode};

    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos::new(1_800_000_000_000_000_000 + seconds * 1_000_000_000)
    }

    fn charge(key: u64, cost: u64) -> Charge {
        Charge {
            key: KeyHash::from_raw(key),
            rule: RuleId::from_raw(8),
            limit: Limit::per_minute(10),
            cost: Cost::new(cost).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        }
    }

    fn request(number: u64, charges: u64) -> RequestKey {
        RequestKey { number, charges }
    }

    fn take(charged: &mut Charged, number: u64, key: u64, units: u64, now: u64) -> Vec<(Nanos, u64)> {
        let parts = charged.take(number, KeyHash::from_raw(key), units, Nanos::new(0), at(now));
        parts.into_iter().map(|part| (part.charged, part.units.get())).collect()
    }

    #[test]
    fn no_unit_of_a_charge_is_given_back_twice_and_none_of_another_bucket_or_request() {
        let mut charged = Charged::default();
        charged.note(request(1, 1), &[charge(2, 5), charge(4, 7), charge(6, 0)], at(0), 9);
        charged.note(request(1, 1), &[charge(2, 3)], at(3), 9);
        assert_eq!(take(&mut charged, 1, 2, 4, 10), [(at(3), 3), (at(0), 1)], "of the last one first");
        assert_eq!(take(&mut charged, 1, 2, 100, 10), [(at(0), 4)]);
        assert!(take(&mut charged, 1, 2, 1, 10).is_empty() && take(&mut charged, 1, 6, 1, 10).is_empty());
        assert!(take(&mut charged, 2, 4, 7, 10).is_empty(), "another request");
        assert_eq!(take(&mut charged, 1, 4, 7, 10), [(at(0), 7)]);
    }

    #[test]
    fn what_was_not_charged_after_all_or_is_long_ago_is_not_known_and_the_oldest_makes_room() {
        let mut charged = Charged::default();
        charged.note(request(1, 1), &[charge(2, 5)], at(0), 2);
        charged.note(request(1, 1), &[charge(2, 5)], at(9), 2);
        charged.undo(request(1, 2), at(0));
        charged.undo(request(1, 1), at(9));
        assert_eq!(take(&mut charged, 1, 2, 100, 10), [(at(0), 5)]);
        charged.note(request(2, 1), &[charge(2, 5)], at(20), 2);
        charged.note(request(3, 1), &[charge(2, 5)], at(21), 2);
        assert_eq!(charged.known.len(), 2);
        assert!(take(&mut charged, 3, 2, 1, 3_700).is_empty(), "an hour later");
        assert_eq!(take(&mut charged, 3, 2, 1, 3_600), [(at(21), 1)]);
        charged.forget_old(at(3_621));
        assert!(charged.is_empty() && charged.known.is_empty());
    }

    #[test]
    fn a_flood_under_one_key_pushes_out_no_charges_of_the_others() {
        let mut charged = Charged::default();
        let key = |bucket: u64| bucket << 44 | 2;
        (0..100).for_each(|bucket| charged.note(request(bucket, 1), &[charge(key(bucket), 5)], at(0), 1000));
        (0..10_000).for_each(|id| charged.note(request(1000 + id, 1), &[charge(key(999), 5)], at(1), 1000));
        assert_eq!(charged.order.len(), 1000);
        let known = (0..100).filter(|bucket| !take(&mut charged, *bucket, key(*bucket), 5, 2).is_empty());
        assert!(known.count() >= 90);
    }

    #[test]
    fn one_number_with_many_costs_is_bounded_work_and_its_last_charges_are_known() {
        let mut charged = Charged::default();
        let many = 10 * MAX_OF_NUMBER as u64;
        (0..many).for_each(|cost| charged.note(request(1, cost), &[charge(2, 1)], at(cost), 100_000));
        assert_eq!(charged.known[&1].len(), MAX_OF_NUMBER);
        let parts = take(&mut charged, 1, 2, many, many);
        assert_eq!((parts.len(), parts[0]), (MAX_OF_NUMBER, (at(many - 1), 1)));
        let wide: Vec<Charge> = (0..2 * MAX_OF_NUMBER as u64).map(|key| charge(key << 44, 1)).collect();
        charged.note(request(1, many), &wide, at(many), 100_000);
        assert_eq!(charged.known[&1].len(), wide.len(), "all of one check");
        charged.forget_old(at(many + 3600));
        assert!(charged.is_empty() && charged.known.is_empty());
    }

    #[test]
    fn what_was_charged_before_a_reset_or_of_a_slot_that_was_elsewhere_since_is_not_given_back() {
        let mut charged = Charged::default();
        let (key, other) = (KeyHash::from_raw(2), KeyHash::from_raw(7 << 50));
        charged.note(request(1, 1), &[charge(2, 5)], at(0), 9);
        charged.note(request(1, 2), &[charge(2, 3), charge(other.get(), 4)], at(2), 9);
        let parts = charged.take(1, key, 100, at(1), at(3));
        assert_eq!(parts.iter().map(|part| part.units.get()).collect::<Vec<_>>(), [3]);
        assert!(charged.take(1, key, 100, at(1), at(3)).is_empty());
        assert_ne!(SlotId::of(key), SlotId::of(other));
        charged.forget_slots(|slot| slot == SlotId::of(key));
        assert!(take(&mut charged, 1, 2, 100, 3).is_empty());
        assert_eq!(take(&mut charged, 1, other.get(), 100, 3), [(at(2), 4)]);
    }

    #[test]
    fn the_next_owner_knows_what_is_left_once_however_often_it_is_told() {
        let (mut from, mut to) = (Charged::default(), Charged::default());
        from.note(request(1, 1), &[charge(2, 5), charge(4, 7)], at(0), 9);
        assert_eq!(take(&mut from, 1, 2, 2, 1).len(), 1);
        let mut moved = Vec::new();
        let slot = SlotId::of(KeyHash::from_raw(2));
        from.of_slots(|wanted| wanted == slot, at(1), &mut moved);
        moved.iter().for_each(|one| to.take_over(*one, 9));
        let of_slot = if SlotId::of(KeyHash::from_raw(4)) == slot { 2 } else { 1 };
        assert_eq!(moved.len(), of_slot);
        assert_eq!(take(&mut to, 1, 2, 1, 2), [(at(0), 1)]);
        moved.iter().for_each(|one| to.take_over(*one, 9));
        assert_eq!(take(&mut to, 1, 2, 100, 2), [(at(0), 2)]);
    }
}
