//! Finds the rules that a request could match, without asking each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::{
    Attributes, Rule,
    address::Address,
    condition::{Condition, Pattern, Test, without_end_slashes},
    prefix_index::{Prefix, PrefixIndex},
};

/// Rules that could hold.
pub(crate) type Candidates = SmallVec<[Candidate; 16]>;

/// A rule that could hold: its place among those that were indexed, and whether it is known that its first test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate(u32);

impl Candidate {
    const FIRST_HOLDS: u32 = 1 << 31;

    fn asked(place: u32) -> Self {
        Self(place)
    }

    /// By its first test.
    fn by(test: &Test, place: u32) -> Self {
        Self(if test.holds_where_found() { place | Self::FIRST_HOLDS } else { place })
    }

    #[inline]
    pub(crate) fn place(self) -> usize {
        (self.0 & !Self::FIRST_HOLDS) as usize
    }

    /// How many of its tests need not be asked.
    #[inline]
    pub(crate) fn tests_done(self) -> usize {
        (self.0 / Self::FIRST_HOLDS) as usize
    }
}

/// What holds under a condition.
pub(crate) trait Conditional {
    fn when(&self) -> &Condition;

    fn when_mut(&mut self) -> &mut Condition;
}

impl Conditional for Rule {
    fn when(&self) -> &Condition {
        &self.when
    }

    fn when_mut(&mut self) -> &mut Condition {
        &mut self.when
    }
}

/// Most have one.
type Few = SmallVec<[Candidate; 4]>;

/// Rules by what an attribute must be for them to hold.
///
/// A rule with a test that says what its attribute must be (a value, a prefix, a network, or some of these) is found by
/// that; all others are always candidates. Where a rule has several such tests, the one that it shares with the fewest
/// other rules finds it: a thousand rules for `POST`, each for another path, are found by their paths. So a request looks
/// at the rules for its own path or network, say, however many others have rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    attributes: Vec<(Arc<str>, ByPattern)>,
    others: Vec<Candidate>,
}

/// Candidates by what one attribute is.
#[derive(Debug, Clone, Default)]
struct ByPattern {
    values: HashMap<Box<str>, Few>,
    prefixes: PrefixIndex<Box<str>, Few>,
    networks: PrefixIndex<IpNet, Few>,
    /// By paths without the slashes at their ends.
    paths: HashMap<Box<str>, Few>,
}

impl Index {
    /// Puts the test that finds a rule first among its tests.
    pub(crate) fn new<C: Conditional>(rules: &mut [C]) -> Self {
        let finding = finding_tests(rules);
        let mut index = Self::default();
        let mut drafts: Vec<(Arc<str>, Draft)> = Vec::new();
        for ((place, rule), attribute) in (0..).zip(rules).zip(finding) {
            let Some(attribute) = attribute else {
                index.others.push(Candidate::asked(place));
                continue;
            };
            rule.when_mut().put_first(&attribute);
            let known = drafts.iter().position(|(known, _)| *known == attribute);
            let known = known.unwrap_or_else(|| {
                drafts.push((attribute, Draft::default()));
                drafts.len() - 1
            });
            let test = rule.when().insisting().next().expect("the first test is the one that finds it");
            drafts[known].1.add(test, Candidate::by(test, place));
        }
        index.attributes = drafts.into_iter().map(|(attribute, draft)| (attribute, draft.into())).collect();
        index
    }

    /// The rules that could hold, in their order, each once.
    pub(crate) fn candidates<A: Attributes + ?Sized>(&self, attributes: &A) -> Candidates {
        self.with_found(Candidates::from_slice(&self.others), attributes)
    }

    /// The place of the first rule that does hold. Those that no value finds are looked at where they lie.
    pub(crate) fn first<A: Attributes + ?Sized>(
        &self,
        attributes: &A,
        mut holds: impl FnMut(Candidate) -> bool,
    ) -> Option<usize> {
        let mut found = self.with_found(Candidates::new(), attributes).into_iter().peekable();
        let mut others = self.others.iter().copied().peekable();
        loop {
            let next = match (found.peek(), others.peek()) {
                (Some(one), Some(other)) if one.place() > other.place() => others.next(),
                (Some(_), _) => found.next(),
                (None, _) => others.next(),
            }?;
            if holds(next) {
                return Some(next.place());
            }
        }
    }

    fn with_found<A: Attributes + ?Sized>(&self, mut places: Candidates, attributes: &A) -> Candidates {
        for (attribute, by_pattern) in &self.attributes {
            if let Some(value) = attributes.get(attribute) {
                by_pattern.find(value, || attributes.address(attribute), &mut places);
            }
        }
        places.sort_unstable_by_key(|found| found.place());
        // A rule with several patterns may be found by more than one.
        places.dedup();
        places
    }
}

/// The attribute of the test that finds each rule.
fn finding_tests<C: Conditional>(rules: &[C]) -> Vec<Option<Arc<str>>> {
    let mut shared: HashMap<(&str, &Pattern), u32> = HashMap::new();
    for (test, pattern) in rules.iter().flat_map(|rule| rule.when().insisting()).flat_map(with_patterns) {
        *shared.entry((&test.attribute, pattern)).or_default() += 1;
    }
    let crowd = |test: &&Test| -> u32 {
        with_patterns(test).map(|(test, pattern)| shared[&(&*test.attribute, pattern)]).sum()
    };
    let finding =
        |rule: &C| rule.when().insisting().min_by_key(crowd).map(|test| Arc::clone(&test.attribute));
    rules.iter().map(finding).collect()
}

fn with_patterns(test: &Test) -> impl Iterator<Item = (&Test, &Pattern)> {
    test.any_of.iter().map(move |pattern| (test, pattern))
}

/// What becomes a [`ByPattern`].
#[derive(Default)]
struct Draft {
    values: HashMap<Box<str>, Few>,
    prefixes: BTreeMap<Box<str>, Few>,
    networks: BTreeMap<IpNet, Few>,
    paths: HashMap<Box<str>, Few>,
}

impl Draft {
    fn add(&mut self, test: &Test, found: Candidate) {
        for (_, pattern) in with_patterns(test) {
            let places = match pattern {
                Pattern::Exact(value) => self.values.entry(value.clone()).or_default(),
                Pattern::Prefix(prefix) => self.prefixes.entry(prefix.clone()).or_default(),
                Pattern::Like(pattern) | Pattern::LikePath(pattern) => {
                    let start = pattern.split('*').next().unwrap_or_default();
                    self.prefixes.entry(start.into()).or_default()
                }
                Pattern::Network(network) | Pattern::Hosts { network, .. } => {
                    self.networks.entry(*network).or_default()
                }
                Pattern::Path(path) => self.paths.entry(without_end_slashes(path).into()).or_default(),
                // Such a test insists on nothing.
                Pattern::Present => continue,
            };
            places.push(found);
        }
    }
}

impl From<Draft> for ByPattern {
    fn from(draft: Draft) -> Self {
        let Draft { values, prefixes, networks, paths } = draft;
        Self { values, prefixes: PrefixIndex::new(prefixes), networks: PrefixIndex::new(networks), paths }
    }
}

impl ByPattern {
    fn find(&self, value: &str, address: impl FnOnce() -> Option<Address>, places: &mut Candidates) {
        if let Some(found) = self.values.get(value) {
            places.extend_from_slice(found);
        }
        self.prefixes.containing(value, |found| places.extend_from_slice(found));
        if !self.paths.is_empty()
            && let Some(found) = self.paths.get(without_end_slashes(value))
        {
            places.extend_from_slice(found);
        }
        if !self.networks.is_empty()
            && let Some(address) = address()
        {
            for address in [Some(address.host()), address.translated()].into_iter().flatten() {
                self.networks.containing(&address.into(), |found| places.extend_from_slice(found));
            }
        }
    }
}

impl Prefix for Box<str> {
    type Whole = str;

    fn as_whole(&self) -> &str {
        self
    }

    fn contains(&self, whole: &str) -> bool {
        whole.starts_with(&**self)
    }
}

/// Networks are ordered by their first address, and where that is the same the larger one comes first.
impl Prefix for IpNet {
    type Whole = Self;

    fn as_whole(&self) -> &Self {
        self
    }

    fn contains(&self, whole: &Self) -> bool {
        Self::contains(self, whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use smallvec::SmallVec;

    use crate::{HashSecret, Rules};

    fn pattern() -> impl Strategy<Value = &'static str> {
        select(vec![
            "/a",
            "/a/b",
            "/a/*",
            "/a/",
            "/a/b*",
            "/*",
            "/b/*",
            "*",
            "!/a",
            "!/a/*",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3/32",
            "10.1.2.3",
            "10.1.*",
            "10.1*",
            "64:ff9b::/96",
            "::ffff:10.0.0.0/104",
            "2001:DB8:0::1",
            "::/0",
            "2001:db8::/32",
            "POST",
            "like /*/b",
            "like /a*c",
            "like *",
            "exactly_like /*/b",
            "not_exactly_like /*/b",
            "not_like */b*",
            "is 10.0.0.0/8",
            "is /a/*",
        ])
    }

    /// As JSON, with its form where it says one.
    fn json(pattern: &str) -> serde_json::Value {
        match pattern.split_once(' ') {
            Some((form, text)) => serde_json::json!({ form: text }),
            None => pattern.into(),
        }
    }

    fn value() -> impl Strategy<Value = &'static str> {
        select(vec![
            "/a",
            "/a/",
            "/a/b",
            "/a/bc",
            "/b",
            "/",
            "",
            "10.1.2.3",
            "10.1.9.9",
            "10.9.9.9",
            "11.0.0.1",
            "::ffff:10.1.2.3",
            "64:ff9b::a01:203",
            "10.1.2.3:80",
            "[2001:db8::1]:80",
            "/a//",
            "/a/b/",
            "/a/b//",
            "2001:db8::1",
            "POST",
            "/a/*",
            "10.0.0.0/8",
        ])
    }

    proptest! {
        /// The index leaves out nothing that asking each rule would find, and changes no order.
        #[test]
        fn what_the_index_finds_is_what_asking_each_rule_finds(
            rules in vec(vec((select(vec!["x", "path", "z"]), vec(pattern(), 1..4)), 0..3), 1..12),
            values in vec(proptest::option::of(value()), 3),
        ) {
            let mut text = "rules:\n".to_owned();
            for (number, tests) in rules.iter().enumerate() {
                let json = |patterns: &Vec<&str>| patterns.iter().copied().map(json).collect::<Vec<_>>();
                let tests: std::collections::BTreeMap<_, _> =
                    tests.iter().map(|(name, patterns)| (*name, json(patterns))).collect();
                text += &format!("  - {{ name: r{number}, key: [k], limit: 1/1s, when: {} }}\n", serde_json::to_string(&tests).unwrap());
            }
            let rules = Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap();
            let mut attributes = vec![("k", "key")];
            attributes.extend(["x", "path", "z"].into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))));
            let mut found = SmallVec::new();
            rules.matching("default", &attributes[..], &mut found);
            let found: Vec<&str> = found.iter().map(|one| one.rule.name()).collect();
            let asked = rules.rules("default").iter().filter(|rule| rule.when.holds(&attributes[..]));
            let asked: Vec<&str> = asked.map(|rule| rule.name()).collect();
            prop_assert_eq!(found, asked);
        }
    }
}
