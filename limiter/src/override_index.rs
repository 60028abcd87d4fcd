//! The first override of a rule that fits a request, without asking each.

use crate::{
    Attributes, Nanos,
    condition::Condition,
    index::{Conditional, Index},
    limits::Override,
};

/// So many overrides are asked one after another: that is no slower than to look them up.
const ASKED: usize = 8;

impl Conditional for Override {
    fn when(&self) -> &Condition {
        &self.when
    }

    fn when_mut(&mut self) -> &mut Condition {
        &mut self.when
    }
}

/// Which overrides of a rule could fit, by what a request's attributes are. Those that say what an attribute must be are found by
/// that, however many there are. Only those that say nothing but what it must not be, or that it must be there, are asked one after
/// another.
#[derive(Debug, Clone)]
pub(crate) struct OverrideIndex(Option<Box<Index>>);

impl OverrideIndex {
    /// Changes the order of the tests in conditions, which nobody sees.
    pub(crate) fn new(overrides: &mut [Override]) -> Self {
        Self((overrides.len() > ASKED).then(|| Box::new(Index::new(overrides))))
    }

    /// The place of the first that fits, as it was written. `at`: only of those that are in force then.
    #[inline]
    pub(crate) fn first<A: Attributes + ?Sized>(
        &self,
        overrides: &[Override],
        attributes: &A,
        at: Option<Nanos>,
    ) -> Option<usize> {
        let fits = |special: &Override, tests_done: usize| {
            at.is_none_or(|now| special.span.has(now)) && special.when.holds_from(tests_done, attributes)
        };
        match &self.0 {
            None => overrides.iter().position(|special| fits(special, 0)),
            Some(index) => {
                index.first(attributes, |found| fits(&overrides[found.place()], found.tests_done()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use smallvec::SmallVec;

    use super::*;
    use crate::{HashSecret, Matched, Rules, index::Candidate};

    fn rules(overrides: &str) -> Rules {
        let text = format!("rules: [{{ name: r, key: [k], limit: 1/1s, overrides: [{overrides}] }}]\n");
        Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap()
    }

    /// The place of the override by which a request is limited, counted from 1; 0: by none.
    fn place(rules: &Rules, attributes: &[(&str, &str)], now: Option<Nanos>) -> u32 {
        let mut found: SmallVec<[Matched<'_>; 4]> = SmallVec::new();
        match now {
            None => rules.matching("default", attributes, &mut found),
            Some(now) => rules.matching_at("default", attributes, now, &mut found),
        };
        assert_eq!(found.len(), 1);
        found[0].limit_ref.place()
    }

    #[test]
    fn what_says_a_value_is_found_by_it_however_many_there_are() {
        let mut written: Vec<String> = (0..5000)
            .map(|user| format!("{{ when: {{ user: u{user} }}, limit: {}/1s }}", user + 2))
            .collect();
        written.push("{ when: { user: 'u4*' }, limit: 9/1m }".to_owned());
        written.push("{ when: { plan: '!free' }, limit: 9/1h }".to_owned());
        written.push("{ when: { user: [u7, special] }, limit: unlimited }".to_owned());
        let rules = rules(&written.join(", "));
        let of = |user: &str| place(&rules, &[("k", "k"), ("user", user), ("plan", "free")], None);
        assert_eq!((of("u0"), of("u4999"), of("u7")), (1, 5000, 8), "the first that fits counts");
        assert_eq!((of("u4x"), of("special"), of("nobody")), (5001, 5003, 0));
        let paying = [("k", "k"), ("user", "special"), ("plan", "gold")];
        assert_eq!(place(&rules, &paying, None), 5002, "what is not indexed keeps its place");

        let rule = &rules.rules("default")[0];
        let index = Index::new(&mut rule.overrides.to_vec());
        let mut asked = 0;
        let request = [("k", "k"), ("user", "u4000"), ("plan", "free")];
        let first = index.first(&request[..], |found: Candidate| {
            asked += 1;
            found.place() == 5001
        });
        assert_eq!((first, asked), (Some(5001), 3), "itself, the prefix, and the one that says no value");
    }

    #[test]
    fn the_attributes_of_all_overrides_are_those_that_the_rule_names() {
        let written: Vec<String> =
            (0..100).map(|n| format!("{{ when: {{ a{}: x, b: '!y' }}, limit: 1/1s }}", n % 3)).collect();
        let rules = rules(&written.join(", "));
        let rule = &rules.rules("default")[0];
        assert!(["k", "a0", "a1", "a2", "b"].iter().all(|name| rule.names(name)));
        assert!(!rule.names("a3") && !rule.names(""));
    }

    fn pattern() -> impl Strategy<Value = &'static str> {
        select(vec!["a", "ab", "a*", "*", "!a", "!a*", "!*", "10.0.0.0/8", "10.1.*", "10.1.2.3", "/p/", "b"])
    }

    fn value() -> impl Strategy<Value = &'static str> {
        select(vec!["a", "ab", "abc", "b", "", "10.1.2.3", "10.9.9.9", "::ffff:10.1.2.3", "/p", "/p/", "x"])
    }

    proptest! {
        /// The index changes nothing about which override is the one.
        #[test]
        fn the_override_that_counts_is_the_first_that_fits(
            overrides in vec(
                (vec((select(vec!["ip", "path", "z"]), vec(pattern(), 1..3)), 1..3), 0..4_u8),
                1..30,
            ),
            values in vec(proptest::option::of(value()), 3),
            at in 0..4_u64,
        ) {
            let written: Vec<String> = overrides.iter().map(|(tests, span)| {
                // What is said of an address must be one.
                let of = |name: &str, pattern: &'static str| match (name, pattern) {
                    ("ip", "a") => "10.1.2.3",
                    ("ip", "ab" | "a*" | "/p/") => "10.1.0.0/16",
                    ("ip", "!a" | "!a*") => "!10.1.2.3",
                    ("ip", "b") => "::1",
                    (_, pattern) => pattern,
                };
                let tests: std::collections::BTreeMap<_, Vec<_>> = tests
                    .iter()
                    .map(|(name, patterns)| (*name, patterns.iter().map(|one| of(name, one)).collect()))
                    .collect();
                let span = match span {
                    0 => ", from: 1970-01-01T00:00:02Z",
                    1 => ", until: 1970-01-01T00:00:02Z",
                    _ => "",
                };
                format!("{{ when: {}, limit: 2/1s{span} }}", serde_json::to_string(&tests).unwrap())
            }).collect();
            let rules = rules(&written.join(", "));
            let mut attributes = vec![("k", "key")];
            attributes.extend(["ip", "path", "z"].into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))));
            let asked = &rules.rules("default")[0].overrides;
            let now = Nanos::new(at * 1_000_000_000);
            for now in [None, Some(now)] {
                let first = asked.iter().position(|special| {
                    now.is_none_or(|now| special.span.has(now)) && special.when.holds(&attributes[..])
                });
                prop_assert_eq!(place(&rules, &attributes, now), first.map_or(0, |place| place as u32 + 1));
            }
        }
    }
}
