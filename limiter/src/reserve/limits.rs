//! The limits of a rule with floors, as they are remembered when it has others.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{Limit, limit_bits::mix};

/// Of a rule with more limits than that it is not known later which it had.
const MAX_LIMITS: usize = 16;
/// And of one with more overrides that have limits not whose they were.
const MAX_NUMBERED: usize = 64;
/// Whose limit it is, where that is not known.
const ANY: u64 = u64::MAX;

/// The limits of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RuleLimits {
    /// Each with the number of its override, or of the rule itself; none if those are more than are kept.
    few: Vec<(u64, Limit)>,
    /// Of all of them.
    number: u64,
}

impl RuleLimits {
    pub(super) fn of<'l>(limits: impl IntoIterator<Item = (u64, &'l Limit)>) -> Self {
        let (mut numbered, mut each, mut numbers) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut text = String::new();
        // What denies takes nothing.
        for (number, limit) in limits.into_iter().filter(|(_, limit)| !limit.denies()) {
            text.clear();
            write!(text, "{limit:#}").expect("a string takes all");
            numbers.insert(text.bytes().fold(mix(0, number), |bits, byte| mix(bits, byte.into())));
            if numbered.len() <= MAX_NUMBERED && !numbered.contains(&(number, *limit)) {
                numbered.push((number, *limit));
            }
            if each.len() <= MAX_LIMITS && !each.contains(limit) {
                each.push(*limit);
            }
        }
        let number = numbers.into_iter().fold(0, mix);
        let few = match (each.len(), numbered.len()) {
            (0..=MAX_LIMITS, 0..=MAX_NUMBERED) => numbered,
            (0..=MAX_LIMITS, _) => each.into_iter().map(|limit| (ANY, limit)).collect(),
            _ => Vec::new(),
        };
        Self { few, number }
    }

    /// Those that are kept.
    pub(super) fn few(&self) -> &[(u64, Limit)] {
        &self.few
    }

    /// Whether it is one of them; of more than are kept any may be.
    pub(super) fn has(&self, limit: &Limit) -> bool {
        self.few.is_empty() || self.few.iter().any(|(_, known)| known == limit)
    }

    /// A number that differs where the limits differ.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}
