//! Things that contain one another or have nothing in common, like the prefixes of texts and networks of addresses: which
//! of them contain this one?
//!
//! They are sorted so that what contains others stands before them, and each knows the smallest other one that contains
//! it. Then all that contain something are found by one binary search, for the last that is not behind it, and from there
//! upwards: between a container and what it contains, in this order, stand only things that it contains too.

use std::collections::BTreeMap;

/// What can contain another of its kind.
pub(crate) trait Prefix: Ord {
    /// What is looked for.
    type Whole: ?Sized + Ord;

    fn as_whole(&self) -> &Self::Whole;

    fn contains(&self, whole: &Self::Whole) -> bool;
}

/// Values by things that may contain one another.
#[derive(Debug, Clone)]
pub(crate) struct PrefixIndex<P, T> {
    entries: Vec<Entry<P, T>>,
}

#[derive(Debug, Clone)]
struct Entry<P, T> {
    prefix: P,
    /// The place of the smallest other one that contains it.
    parent: Option<u32>,
    value: T,
}

impl<P: Prefix, T> Default for PrefixIndex<P, T> {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl<P: Prefix, T> PrefixIndex<P, T> {
    pub(crate) fn new(values: BTreeMap<P, T>) -> Self {
        let mut entries: Vec<Entry<P, T>> = Vec::with_capacity(values.len());
        let mut around: Vec<u32> = Vec::new();
        for (place, (prefix, value)) in (0..).zip(values) {
            let is_around = |at: &u32| entries[*at as usize].prefix.contains(prefix.as_whole());
            while around.last().is_some_and(|at| !is_around(at)) {
                around.pop();
            }
            let parent = around.last().copied();
            entries.push(Entry { prefix, parent, value });
            around.push(place);
        }
        Self { entries }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Calls `found` for each that contains `whole`.
    pub(crate) fn containing(&self, whole: &P::Whole, mut found: impl FnMut(&T)) {
        let behind = self.entries.partition_point(|entry| entry.prefix.as_whole() <= whole);
        let mut at = behind.checked_sub(1);
        while let Some(entry) = at.map(|place| &self.entries[place]) {
            if entry.prefix.contains(whole) {
                found(&entry.value);
            }
            at = entry.parent.map(|place| place as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn all_that_contain_something_are_found(prefixes in vec("[ab]{0,5}", 0..40), whole in "[ab]{0,7}") {
            let mut counts: BTreeMap<Box<str>, usize> = BTreeMap::new();
            for prefix in &prefixes {
                *counts.entry(prefix.as_str().into()).or_default() += 1;
            }
            let index = PrefixIndex::new(counts);
            let mut found = 0;
            index.containing(&whole, |count| found += count);
            prop_assert_eq!(found, prefixes.iter().filter(|prefix| whole.starts_with(&***prefix)).count());
        }
    }
}
