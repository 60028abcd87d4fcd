//! Finds the rules that a request could match, without asking each.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::{Attributes, Rule};

/// The places of some rules in their domain.
pub(crate) type Places = SmallVec<[u32; 16]>;

type ByValue = HashMap<Box<str>, Vec<u32>>;

/// Rules by the values of an attribute that they insist on.
///
/// A rule that can only hold for some exact values of an attribute is found by these; all others are always candidates.
/// So a request looks at the rules for its own path, say, however many other paths have rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    by_attribute: Vec<(Box<str>, ByValue)>,
    others: Vec<u32>,
}

impl Index {
    pub(crate) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (place, rule) in (0..).zip(rules) {
            let Some((attribute, values)) = rule.when.only() else {
                index.others.push(place);
                continue;
            };
            let known = index.by_attribute.iter().position(|(known, _)| **known == *attribute);
            let known = known.unwrap_or_else(|| {
                index.by_attribute.push((attribute.into(), ByValue::new()));
                index.by_attribute.len() - 1
            });
            for value in values {
                let places = index.by_attribute[known].1.entry(value.into()).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        index
    }

    /// The rules that could hold, in their order, each once.
    pub(crate) fn candidates<A: Attributes + ?Sized>(&self, attributes: &A) -> Places {
        let mut places = Places::from_slice(&self.others);
        for (attribute, by_value) in &self.by_attribute {
            let found = attributes.get(attribute).and_then(|value| by_value.get(value));
            places.extend_from_slice(found.map_or(&[], |found| found));
        }
        places.sort_unstable();
        places
    }
}
