//! What a class has let go of: the latest states, by how far the buckets were in debt. `classes.rs` says what they mean.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::RuleId;

/// Debts are distinguished by powers of the fourth root of two, from 2^`LEAST_DEBT` ticks (67 ms) on.
const LEAST_DEBT: u32 = 28;
const STEPS: usize = 4;
const BINS: usize = (u64::BITS - LEAST_DEBT) as usize * STEPS;

/// What is known of buckets that are not in memory any more: none of them is later than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassMark {
    pub(super) rule: RuleId,
    pub(super) is_of_window: bool,
    pub(super) state: u64,
}

/// The latest state of each bin, of buckets that refill steadily and logs, and of windows. It takes memory only when there is one.
#[derive(Default)]
pub(super) struct Marks([OnceLock<Box<[AtomicU64]>>; 2]);

impl Marks {
    /// A bucket in this state is let go.
    pub(super) fn note(&self, is_of_window: bool, state: u64, now: u64) {
        let marks =
            self.0[usize::from(is_of_window)].get_or_init(|| (0..BINS).map(|_| AtomicU64::new(0)).collect());
        marks[bin(state.saturating_sub(now))].fetch_max(state, Relaxed);
    }

    /// The latest state of buckets that were in debt for no longer than this, or a little more; 0: there is none.
    pub(super) fn latest(&self, is_of_window: bool, debt: u64) -> u64 {
        let marks = self.0[usize::from(is_of_window)].get().map_or(&[][..], |marks| &marks[..=bin(debt)]);
        marks.iter().map(|mark| mark.load(Relaxed)).max().unwrap_or(0)
    }

    /// Each state, and whether it is that of a window.
    pub(super) fn all(&self) -> impl Iterator<Item = (bool, u64)> {
        [false, true].into_iter().flat_map(|is_of_window| {
            let marks = self.0[usize::from(is_of_window)].get().map_or(&[][..], |marks| marks);
            marks.iter().map(move |mark| (is_of_window, mark.load(Relaxed)))
        })
    }

    pub(super) fn forget(&self) {
        for marks in self.0.iter().filter_map(OnceLock::get) {
            marks.iter().for_each(|mark| mark.store(0, Relaxed));
        }
    }
}

/// Grows with the debt.
fn bin(debt: u64) -> usize {
    let Some(power) = debt.checked_ilog2().and_then(|power| power.checked_sub(LEAST_DEBT)) else { return 0 };
    let step = (debt >> (power + LEAST_DEBT - 2)) & 3;
    power as usize * STEPS + step as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bins_grow_with_debts(debt in any::<u64>(), more in any::<u64>()) {
            prop_assert!(bin(debt) <= bin(debt.saturating_add(more)));
            prop_assert!(bin(debt) < BINS);
        }
    }
}
