//! When requests with an id were charged, and how much of that was not given back yet: for refunds that name their charge.
//!
//! The owner of the bucket remembers it, for longer than it remembers the answer: what a request has used is known when it is over. It is
//! bounded, and what is not known any more gives nothing back.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Nanos,
    cluster::{Charge, KeyHash},
};

use super::RequestKey;
use crate::slots::SlotId;

/// How long after it was made a charge can be named.
pub(crate) const REFUNDABLE: Duration = Duration::from_secs(3600);
/// Requests whose charges are known at one time; one more, and the oldest is forgotten.
pub(super) const MAX_CHARGED: usize = 1 << 16;

/// Charges of requests, by the requests' numbers.
#[derive(Debug, Default)]
pub(super) struct Charged {
    known: HashMap<u64, SmallVec<[Taken; 1]>>,
    /// In the order in which they were made, about, each with its instant.
    order: VecDeque<(Nanos, u64)>,
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
        self.add(request.number, taken.map(of), now, most);
    }

    fn add(&mut self, number: u64, taken: impl Iterator<Item = Taken>, at: Nanos, most: usize) {
        while self.order.len() >= most {
            self.forget_first();
        }
        self.known.entry(number).or_default().extend(taken);
        self.order.push_back((at, number));
    }

    /// Takes so many units of what a request was charged of a bucket, of its last charge first: when each part was charged.
    pub(super) fn take(
        &mut self,
        number: u64,
        key: KeyHash,
        mut units: u64,
        now: Nanos,
    ) -> SmallVec<[(Nanos, Cost); 1]> {
        let mut parts = SmallVec::new();
        let known = self.known.get_mut(&number).into_iter().flatten().rev();
        for taken in known.filter(|taken| taken.key == key && !is_over(taken.at, now)) {
            let part = taken.units.min(units);
            (taken.units, units) = (taken.units - part, units - part);
            if let Ok(cost) = Cost::new(part)
                && part > 0
            {
                parts.push((taken.at, cost));
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

    pub(super) fn forget_old(&mut self, now: Nanos) {
        while self.order.front().is_some_and(|(at, _)| is_over(*at, now)) {
            self.forget_first();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn forget_first(&mut self) {
        let Some((at, number)) = self.order.pop_front() else { return };
        if let Some(known) = self.known.get_mut(&number) {
            known.retain(|taken| taken.at > at);
            if known.is_empty() {
                self.known.remove(&number);
            }
        }
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
            self.add(request.number, std::iter::once(taken), at, most);
        }
    }
}

fn is_over(at: Nanos, now: Nanos) -> bool {
    now.saturating_since(at) >= REFUNDABLE
}
