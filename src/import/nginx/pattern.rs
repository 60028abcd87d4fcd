//! What an attribute must be: patterns, tests of one attribute, and conditions, which are tests of several.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// A set of values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Pattern {
    Exact(String),
    /// All that begin and end so; both can be empty.
    Like {
        start: String,
        end: String,
    },
    Network(IpNet),
}

impl Pattern {
    pub(super) fn prefix(text: impl Into<String>) -> Self {
        Self::Like { start: text.into(), end: String::new() }
    }

    pub(super) fn suffix(text: impl Into<String>) -> Self {
        Self::Like { start: String::new(), end: text.into() }
    }

    pub(super) fn any() -> Self {
        Self::prefix("")
    }

    /// Whether all values of the other one are values of this.
    pub(super) fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Exact(_), _) => false,
            (Self::Like { start, end }, Self::Exact(other)) => {
                other.len() >= start.len() + end.len() && other.starts_with(start) && other.ends_with(end)
            }
            (Self::Like { start, end }, Self::Like { start: other, end: other_end }) => {
                other.starts_with(start) && other_end.ends_with(end)
            }
            (Self::Network(own), Self::Network(other)) => own.contains(other),
            (Self::Like { start, end }, Self::Network(_)) => start.is_empty() && end.is_empty(),
            (Self::Network(_), _) => false,
        }
    }

    /// Whether a path can fit: each begins with a slash.
    pub(super) fn can_be_path(&self) -> bool {
        match self {
            Self::Exact(text) => text.starts_with('/'),
            Self::Like { start, .. } => start.is_empty() || start.starts_with('/'),
            Self::Network(_) => false,
        }
    }

    /// Whether a rule can say it: a star is a wildcard there.
    pub(super) fn can_be_written(&self) -> bool {
        match self {
            Self::Like { start, end } => !start.contains('*') && !end.contains('*'),
            Self::Exact(_) | Self::Network(_) => true,
        }
    }

    /// With its texts changed.
    pub(super) fn map(&self, change: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Exact(text) => Self::Exact(change(text)),
            Self::Like { start, end } => Self::Like { start: change(start), end: change(end) },
            Self::Network(net) => Self::Network(*net),
        }
    }

    /// Whether a value is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        !self.meet(other).is_empty()
    }

    /// What is in both.
    fn meet(&self, other: &Self) -> Vec<Self> {
        if self.contains(other) {
            return vec![other.clone()];
        }
        if other.contains(self) {
            return vec![self.clone()];
        }
        let (Self::Like { start, end }, Self::Like { start: other_start, end: other_end }) = (self, other)
        else {
            return Vec::new();
        };
        let longer = |a: &String, b: &String| if a.len() >= b.len() { a.clone() } else { b.clone() };
        if !(start.starts_with(other_start) || other_start.starts_with(start))
            || !(end.ends_with(other_end) || other_end.ends_with(end))
        {
            return Vec::new();
        }
        let (start, end) = (longer(start, other_start), longer(end, other_end));
        // Values in which the beginning and the ending overlap: too short for a pattern of both.
        let overlaps = end.char_indices().skip(1).map(|(place, _)| place).chain([end.len()]);
        let short = overlaps
            .filter(|place| *place > 0 && start.ends_with(&end[..*place]))
            .map(|place| Self::Exact(format!("{start}{}", &end[place..])))
            .filter(|value| self.contains(value) && other.contains(value));
        let mut both: Vec<Self> = short.collect();
        both.push(Self::Like { start, end });
        both
    }
}

/// What an attribute must be for a condition to hold: as in `when`, where an attribute that is missing fits no pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    /// At least one of these must fit, if there are any.
    pub(super) any_of: Vec<Pattern>,
    pub(super) none_of: Vec<Pattern>,
}

impl Test {
    /// Holds for all that have the attribute.
    pub(super) fn present() -> Self {
        Self { any_of: vec![Pattern::any()], none_of: Vec::new() }
    }

    pub(super) fn absent() -> Self {
        Self { any_of: Vec::new(), none_of: vec![Pattern::any()] }
    }

    /// Whether a value fits.
    pub(super) fn fits(&self, value: &str) -> bool {
        let value = Pattern::Exact(value.to_owned());
        let fits = |one: &Pattern| one.contains(&value);
        (self.any_of.is_empty() || self.any_of.iter().any(fits)) && !self.none_of.iter().any(fits)
    }

    /// `None`: nothing fits both.
    fn and(&self, other: &Self) -> Option<Self> {
        let mut none_of = self.none_of.clone();
        none_of.extend(other.none_of.iter().filter(|one| !self.none_of.contains(one)).cloned());
        let any_of: Vec<Pattern> = match (&self.any_of[..], &other.any_of[..]) {
            ([], any_of) | (any_of, []) => any_of.to_vec(),
            (own, other) => {
                own.iter().flat_map(|one| other.iter().flat_map(|other| one.meet(other))).collect()
            }
        };
        let is_possible = |one: &Pattern| none_of.iter().all(|none| !none.contains(one));
        let possible: Vec<Pattern> = any_of.iter().filter(|one| is_possible(one)).cloned().collect();
        let insists = !(self.any_of.is_empty() && other.any_of.is_empty());
        if insists && possible.is_empty() {
            return None;
        }
        // What excludes nothing of what is left need not be said.
        let matters = |none: &Pattern| !insists || possible.iter().any(|one| one.meets(none));
        none_of.retain(matters);
        Some(Self { any_of: possible, none_of })
    }
}

impl Test {
    /// A test for all values that fit one of the two, whose values differ; `None`: no test says that.
    pub(super) fn or(&self, other: &Self) -> Option<Self> {
        let spares = |one: &Self, other: &Self| {
            one.none_of.iter().all(|none| other.any_of.iter().all(|any| !none.meets(any)))
        };
        let insist = !self.any_of.is_empty() && !other.any_of.is_empty();
        (insist && spares(self, other) && spares(other, self)).then(|| Self {
            any_of: [&self.any_of[..], &other.any_of[..]].concat(),
            none_of: [&self.none_of[..], &other.none_of[..]].concat(),
        })
    }
}

/// Tests of attributes, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conditions(BTreeMap<String, Test>);

impl Conditions {
    pub(super) fn of(attribute: &str, test: Test) -> Self {
        let mut conditions = Self::default();
        if test != Test::default() {
            conditions.0.insert(attribute.to_owned(), test);
        }
        conditions
    }

    /// `None`: both never hold.
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        for (attribute, test) in &other.0 {
            let joined = match both.0.get(attribute) {
                Some(own) => own.and(test)?,
                None => test.clone(),
            };
            both.0.insert(attribute.clone(), joined);
        }
        Some(both)
    }

    /// The tests that all of them have.
    pub(super) fn common(all: &[Self]) -> Self {
        let Some((first, others)) = all.split_first() else { return Self::default() };
        let is_common = |(attribute, test): &(&String, &Test)| {
            others.iter().all(|other| other.0.get(*attribute) == Some(*test))
        };
        let common = first.0.iter().filter(is_common);
        Self(common.map(|(attribute, test)| (attribute.clone(), test.clone())).collect())
    }

    /// Without the tests that others have.
    pub(super) fn without(&self, others: &Self) -> Self {
        let own = self.0.iter().filter(|(attribute, _)| !others.0.contains_key(*attribute));
        Self(own.map(|(attribute, test)| (attribute.clone(), test.clone())).collect())
    }

    /// The other tests, and the one of an attribute.
    pub(super) fn split(&self, attribute: &str) -> (Self, Test) {
        let mut others = self.clone();
        let test = others.0.remove(attribute).unwrap_or_default();
        (others, test)
    }

    /// Whether there is a test of an attribute.
    pub(super) fn ask(&self, attribute: &str) -> bool {
        self.0.contains_key(attribute)
    }

    /// All that the tests ask for.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.0.values().flat_map(|test| test.any_of.iter().chain(&test.none_of))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Test)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn fits(test: &Test, value: Option<&str>) -> bool {
        let fits = |one: &Pattern| value.is_some_and(|value| one.contains(&Pattern::Exact(value.to_owned())));
        (test.any_of.is_empty() || test.any_of.iter().any(fits)) && !test.none_of.iter().any(fits)
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            "[ab]{0,3}".prop_map(Pattern::Exact),
            "[ab]{0,3}".prop_map(Pattern::prefix),
            "[abc]{0,3}".prop_map(Pattern::suffix),
            ("[ab]{1,2}", "[ab]{1,2}").prop_map(|(start, end)| Pattern::Like { start, end }),
        ]
    }

    proptest! {
        #[test]
        fn both_hold_where_each_of_them_holds(
            one in (vec(pattern(), 0..3), vec(pattern(), 0..3)),
            two in (vec(pattern(), 0..3), vec(pattern(), 0..3)),
            value in proptest::option::of("[abc]{0,4}"),
        ) {
            let [one, two] = [one, two].map(|(any_of, none_of)| Test { any_of, none_of });
            let expected = fits(&one, value.as_deref()) && fits(&two, value.as_deref());
            let both = one.and(&two);
            prop_assert_eq!(both.is_some_and(|both| fits(&both, value.as_deref())), expected);
        }
    }
}
