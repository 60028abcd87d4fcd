//! What is known of a bucket beyond its state while charges of it may be undone.
//!
//! Undoing must leave exactly the bucket that would be there had the charge never been made, and subtracting its cost
//! from the state is not that: where the bucket ran full in between, the cost is forgotten already. For the algorithms
//! of which a charge is `state -> max(state, at_least) + add` ([`Raise`]) a chain of charges is always
//! `state -> max(state + add, floor)`, two numbers however long it is. So the journal keeps the state before the oldest
//! open charge, the open charges, and the chain after each of them: leaving a charge out and applying the rest is exact.
//!
//! The counts of the other algorithms only add up: taking the cost out of the window or the entry where it was
//! counted is exact, as long as it still counts. A sliding window also knows when its last unit was, so each open charge knows
//! when the last one before it was, and whether one that stays came after it.

use std::collections::VecDeque;

use crate::{
    Cost, Limit,
    algorithm::{Counted, Raise, is_same_window, without_place},
};

/// Open charges of one bucket. One more closes the oldest, which can then not be undone: stricter.
const MAX_OPEN: usize = 1024;

/// A chain of charges: `state -> max(state + add, floor)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Chain {
    add: u64,
    floor: u64,
}

impl Chain {
    fn then(self, raise: Raise) -> Self {
        Self {
            add: self.add.saturating_add(raise.add),
            floor: self.floor.max(raise.at_least).saturating_add(raise.add),
        }
    }

    fn then_chain(self, next: Self) -> Self {
        Self {
            add: self.add.saturating_add(next.add),
            floor: self.floor.saturating_add(next.add).max(next.floor),
        }
    }

    fn apply(self, state: u64) -> u64 {
        state.saturating_add(self.add).max(self.floor)
    }
}

/// What a charge did.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChargeEffect {
    Raised(Raise),
    /// It was counted in a window, or at an instant.
    Counted {
        limit: Limit,
        counted: Counted,
        cost: Cost,
    },
}

#[derive(Debug)]
struct Open {
    hold: u64,
    raise: Raise,
    after: Chain,
}

#[derive(Debug)]
struct OpenCount {
    hold: u64,
    limit: Limit,
    counted: Counted,
    cost: Cost,
    /// A charge of its window that stays came after it, and before the next open one; or others have been told of it.
    is_followed: bool,
}

/// The open charges of one bucket.
#[derive(Debug)]
pub(super) enum Journal {
    Raises(Raises),
    Counts(Counts),
}

/// Those of a token bucket, leaky bucket or fixed window.
#[derive(Debug)]
pub(super) struct Raises {
    /// The state before the oldest open charge.
    base: u64,
    open: VecDeque<Open>,
}

/// Those of a sliding window or log.
#[derive(Debug, Default)]
pub(super) struct Counts {
    open: VecDeque<OpenCount>,
}

/// How to undo a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    /// This is the state without it.
    State(u64),
    /// It was counted there, and nothing after it if it is the last.
    Count { limit: Limit, counted: Counted, cost: Cost, is_last: bool },
}

impl Journal {
    /// Begins with a charge of a bucket that was in `state`.
    pub(super) fn begin(state: u64, hold: u64, effect: ChargeEffect) -> Self {
        let mut journal = match effect {
            ChargeEffect::Raised(_) => Self::Raises(Raises { base: state, open: VecDeque::with_capacity(1) }),
            ChargeEffect::Counted { .. } => Self::Counts(Counts::default()),
        };
        journal.note(Some(hold), effect);
        journal
    }

    /// Notes a charge that was made; with `hold` it may be undone. False if the bucket has become another one, whose
    /// charges this journal cannot hold.
    pub(super) fn note(&mut self, hold: Option<u64>, effect: ChargeEffect) -> bool {
        match (self, effect) {
            (Self::Raises(raises), ChargeEffect::Raised(raise)) => {
                match hold {
                    Some(hold) => raises.open.push_back(Open { hold, raise, after: Chain::default() }),
                    None => raises.follow(raises.open.len(), Chain::default().then(raise)),
                }
                if raises.open.len() > MAX_OPEN {
                    raises.close(0);
                }
                true
            }
            (Self::Counts(counts), ChargeEffect::Counted { limit, counted, cost }) => {
                // Another limit counts in other units.
                let same = counts.open.back().is_none_or(|open| open.limit == limit);
                match hold {
                    _ if !same => {}
                    None => counts.follow(counts.open.len(), counted),
                    Some(hold) => {
                        counts.open.push_back(OpenCount { hold, limit, counted, cost, is_followed: false });
                        if counts.open.len() > MAX_OPEN {
                            counts.open.pop_front();
                        }
                    }
                }
                same
            }
            _ => false,
        }
    }

    /// Takes all charges of `hold` out. `None`: there are none any more.
    pub(super) fn undo(&mut self, hold: u64) -> Option<Undo> {
        match self {
            Self::Raises(raises) => {
                let place = raises.open.iter().position(|open| open.hold == hold)?;
                let undone = raises.open.remove(place)?;
                raises.follow(place, undone.after);
                Some(Undo::State(raises.state()))
            }
            Self::Counts(counts) => counts.undo(hold),
        }
    }

    /// The charges of `hold` are permanent.
    pub(super) fn close(&mut self, hold: u64) {
        match self {
            Self::Raises(raises) => {
                while let Some(place) = raises.open.iter().position(|open| open.hold == hold) {
                    raises.close(place);
                }
            }
            Self::Counts(counts) => {
                while let Some(place) = counts.open.iter().position(|open| open.hold == hold) {
                    counts.close(place);
                }
            }
        }
    }

    /// Others are told of the bucket with all of its charges, in this state; returns the one to tell, which it is from now on. When one
    /// is undone after that, the last unit of its window stays where it was: what they were told has more units, and must not be
    /// the less strict for it.
    pub(super) fn tell(&mut self, state: u64) -> u64 {
        let Self::Counts(counts) = self else { return state };
        counts.open.iter_mut().for_each(|open| open.is_followed = true);
        counts.open.back().map_or(state, |open| without_place(&open.limit, state))
    }

    /// Nothing can be undone any more.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Raises(raises) => raises.open.is_empty(),
            Self::Counts(counts) => counts.open.is_empty(),
        }
    }
}

impl Raises {
    /// Lets `chain` follow the open charge before `place`.
    fn follow(&mut self, place: usize, chain: Chain) {
        match place.checked_sub(1).and_then(|before| self.open.get_mut(before)) {
            Some(before) => before.after = before.after.then_chain(chain),
            None => self.base = chain.apply(self.base),
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(closed) = self.open.remove(place) {
            self.follow(place, Chain::default().then(closed.raise).then_chain(closed.after));
        }
    }

    fn state(&self) -> u64 {
        let step = |state, open: &Open| open.after.apply(Chain::default().then(open.raise).apply(state));
        self.open.iter().fold(self.base, step)
    }
}

impl Counts {
    /// A charge that stays follows the open one before `place`.
    fn follow(&mut self, place: usize, counted: Counted) {
        if let Some(before) = place.checked_sub(1).and_then(|before| self.open.get_mut(before)) {
            before.is_followed |= is_same_window(&before.limit, before.counted, counted);
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(closed) = self.open.remove(place) {
            self.follow(place, closed.counted);
        }
    }

    fn undo(&mut self, hold: u64) -> Option<Undo> {
        let place = self.open.iter().position(|open| open.hold == hold)?;
        let OpenCount { limit, counted, cost, is_followed, .. } = self.open.remove(place)?;
        if is_followed {
            self.follow(place, counted);
        }
        let next = self.open.get_mut(place);
        let next = next.filter(|next| is_same_window(&limit, counted, next.counted));
        let is_last = next.is_none() && !is_followed;
        if let Some(next) = next.filter(|_| !is_followed) {
            next.counted.before = counted.before;
        }
        Some(Undo::Count { limit, counted, cost, is_last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_bucket_so_many_charges_can_be_undone_and_the_one_before_them_stays() {
        let charge = ChargeEffect::Raised(Raise { at_least: 0, add: 1 });
        let mut journal = Journal::begin(0, 0, charge);
        assert!((1..=1024).all(|hold| journal.note(Some(hold), charge)));
        assert_eq!(journal.undo(0), None, "1,025 charges were open");
        assert_eq!(journal.undo(1), Some(Undo::State(1024)), "the unit of the first stays");
        for hold in 2..=1024 {
            assert_eq!(journal.undo(hold), Some(Undo::State(1025 - hold)));
        }
        assert!(journal.is_empty());
    }
}
