//! The block list of a domain: what is denied before any rule is asked, each entry until an instant of its own.
//!
//! Entries are found as rules are, by what an attribute of the request is ([`Index`]): a list of ten thousand addresses costs
//! a request what a list of ten does, but for the depth of a binary search. An entry that is over stays in the list, and finds
//! nothing.

use crate::{
    Attributes, Nanos, Rule,
    condition::Condition,
    index::{Conditional, Index},
};

/// What a domain blocks.
#[derive(Debug, Clone)]
pub(crate) struct BlockList {
    entries: Vec<Blocked>,
    index: Index,
    /// One that denies for each name that entries have.
    rules: Vec<Rule>,
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Blocked {
    pub(crate) when: Condition,
    /// `None`: it does not end.
    pub(crate) until: Option<Nanos>,
    /// By its place.
    pub(crate) rule: usize,
}

impl BlockList {
    pub(crate) fn new(mut entries: Vec<Blocked>, rules: Vec<Rule>) -> Self {
        Self { index: Index::new(&mut entries), entries, rules }
    }

    /// The rule that denies a request; the first entry that fits and is not over says which.
    #[inline]
    pub(crate) fn find<A: Attributes + ?Sized>(&self, attributes: &A, now: Nanos) -> Option<&Rule> {
        let candidates = self.index.candidates(attributes);
        let entries = candidates.into_iter().map(|found| (found, &self.entries[found.place()]));
        let mut entries = entries.filter(|(_, entry)| entry.until.is_none_or(|until| now < until));
        let (_, entry) =
            entries.find(|(found, entry)| entry.when.holds_from(found.tests_done(), attributes))?;
        Some(&self.rules[entry.rule])
    }

    /// Each entry, with its name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Blocked, &str)> {
        self.entries.iter().map(|entry| (entry, self.rules[entry.rule].name()))
    }
}

impl Conditional for Blocked {
    fn when(&self) -> &Condition {
        &self.when
    }

    fn when_mut(&mut self) -> &mut Condition {
        &mut self.when
    }
}

#[cfg(all(test, feature = "yaml"))]
mod tests;
