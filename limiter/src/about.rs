//! Why rules are, or are not, about a request: for people who ask. Checks find theirs by the indices of `rule_set`; here each rule
//! is looked at, and that both find the same is a property of the tests.

use crate::{
    Attributes, Matched, Nanos, Rule, Rules,
    condition::{Condition, Test},
    describe::OverrideDescription,
    pattern::PatternText,
};

/// What a domain's rules make of a request at an instant.
#[derive(Debug)]
pub struct Findings<'r> {
    /// The entry of the block list that denies it: then no rule is asked.
    pub blocked_by: Option<&'r str>,
    /// Each rule, in the order in which they were written.
    pub rules: Vec<Finding<'r>>,
}

/// What a rule has to do with a request.
#[derive(Debug)]
pub struct Finding<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// Its bucket, or why it is not about the request.
    pub about: Result<About<'r>, NotAbout<'r>>,
}

/// The bucket that a rule keeps for a request.
#[derive(Debug)]
pub struct About<'r> {
    /// With the limit in force.
    pub matched: Matched<'r>,
    /// The override that this limit comes from; none: it is the rule's own.
    pub special: Option<OverrideDescription>,
}

/// Why a rule is not about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAbout<'r> {
    /// It is not in force at that instant.
    NotInForce {
        /// From when on it is, as RFC 3339.
        from: Option<String>,
        /// Until when.
        until: Option<String>,
    },
    /// An attribute is not what the rule's condition wants.
    Condition {
        /// Which.
        attribute: &'r str,
        /// What is wanted of it.
        wants: Wants<'r>,
    },
    /// The rule does not look at an attribute of the request, which is only meant for rules that look at all of them.
    OtherAttributes,
    /// The request lacks an attribute of the rule's key.
    NoKey {
        /// Which.
        attribute: &'r str,
    },
    /// All parts of the rule's key are optional, and the request has none of them.
    EmptyKey,
}

/// What a condition wants of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants<'r>(&'r Test);

impl Wants<'_> {
    /// One of those without a `!` has to fit, if there are any, and none of the others. Written out only where somebody reads it: of
    /// thousands of rules nobody reads each.
    pub fn patterns(self) -> Vec<PatternText> {
        self.0.patterns()
    }
}

impl Rules {
    /// What the rules of a domain make of a request at this instant; `None`: there is no such domain.
    ///
    /// It looks at every rule. What is found is not counted as touched.
    pub fn findings<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        now: Nanos,
    ) -> Option<Findings<'r>> {
        let domain = self.domains.get(domain)?;
        let blocked = domain.block().and_then(|block| block.find(attributes, now));
        let about = |(place, rule): (usize, &'r Rule)| Finding {
            rule,
            about: rule.about(attributes, now, || domain.override_of(place, attributes, now)),
        };
        let rules = domain.rules().iter().enumerate().map(about).collect();
        Some(Findings { blocked_by: blocked.map(Rule::name), rules })
    }
}

impl Rule {
    fn about<A: Attributes + ?Sized>(
        &self,
        attributes: &A,
        now: Nanos,
        special: impl FnOnce() -> Option<usize>,
    ) -> Result<About<'_>, NotAbout<'_>> {
        if !self.span.has(now) {
            let (from, until) = self.span.texts();
            return Err(NotAbout::NotInForce { from, until });
        }
        if let Some(test) = self.when.fails(attributes) {
            return Err(NotAbout::Condition { attribute: &test.attribute, wants: Wants(test) });
        }
        if !attributes.may_match(self) {
            return Err(NotAbout::OtherAttributes);
        }
        let Some(key) = self.key_of(attributes) else {
            let lacks = |name: &&str| attributes.get(name).is_none();
            let mut required = self.key.iter().filter(|part| !part.optional).map(|part| &*part.name);
            return Err(match required.find(lacks) {
                Some(attribute) => NotAbout::NoKey { attribute },
                None => NotAbout::EmptyKey,
            });
        };
        let special = special();
        Ok(About {
            matched: self.matched(key, special),
            special: special.map(|at| self.overrides[at].describe()),
        })
    }
}

impl Condition {
    /// The first test that does not hold.
    fn fails<A: Attributes + ?Sized>(&self, attributes: &A) -> Option<&Test> {
        self.tests.iter().find(|test| !test.holds(attributes))
    }
}

#[cfg(all(test, feature = "yaml"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};
    use smallvec::SmallVec;

    use super::*;
    use crate::{HashSecret, describe::conditions_text};

    const RULES: &str = "
rules:
  - { name: per-user, key: [user], limit: 10/1m, overrides: [{ when: { tier: gold }, limit: 100/1m }, { when: { user: b }, limit: unlimited }] }
  - { name: logins, when: { path: /a, tier: '!gold' }, key: [ip], limit: 5/1m }
  - { name: old, key: [user], limit: 1/1s, until: 2026-01-01T00:00:00Z }
  - { name: either, key: ['user?', 'tier?'], limit: 3/1s }
  - { name: all, key: [], limit: 1000/1s, mode: shadow }
  - { name: prefixed, when: { path: '/a*', user: ['a', '!b'] }, key: [user, path], limit: 2/1s }
block:
  - { when: { ip: 192.0.2.9 }, name: banned-host }
";
    const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

    fn rules() -> Rules {
        Rules::from_yaml(RULES, &HashSecret::new([3; 16])).unwrap()
    }

    #[test]
    fn each_rule_says_why_it_is_not_about_a_request() {
        let rules = rules();
        let why = |attributes: &[(&str, &str)]| {
            let found = rules.findings("default", attributes, NOW).unwrap();
            found.rules.into_iter().map(|one| (one.rule.name().to_owned(), one.about)).collect::<Vec<_>>()
        };
        let found = why(&[("path", "/b"), ("tier", "gold")]);
        let of =
            |name: &str| found.iter().find(|(known, _)| known == name).unwrap().1.as_ref().err().cloned();
        assert_eq!(of("per-user"), Some(NotAbout::NoKey { attribute: "user" }));
        assert!(matches!(of("logins"), Some(NotAbout::Condition { .. })));
        let until = Some("2026-01-01T00:00:00Z".to_owned());
        assert_eq!(of("old"), Some(NotAbout::NotInForce { from: None, until }));
        assert_eq!((of("either"), of("all")), (None, None));
        let found = why(&[]);
        assert_eq!(found[3].1.as_ref().err(), Some(&NotAbout::EmptyKey));
        let found = why(&[("path", "/ab"), ("user", "b")]);
        let Some(NotAbout::Condition { attribute: "user", wants }) = found[5].1.as_ref().err() else {
            panic!("{found:?}");
        };
        assert_eq!(wants.patterns(), ["a", "!b"].map(PatternText::from));
    }

    #[test]
    fn the_override_that_counts_is_named_and_a_block_list_comes_before_all() {
        let rules = rules();
        let about = |attributes: &[(&str, &str)]| {
            let mut found = rules.findings("default", attributes, NOW).unwrap();
            (found.blocked_by, found.rules.remove(0).about.unwrap())
        };
        let (blocked, gold) = about(&[("user", "b"), ("tier", "gold"), ("ip", "192.0.2.9")]);
        assert_eq!(blocked, Some("banned-host"));
        assert_eq!(gold.matched.limit.unwrap().to_string(), "100/1m");
        assert_eq!(conditions_text(&gold.special.unwrap().when), "tier=gold");
        let (_, unlimited) = about(&[("user", "b")]);
        assert!(unlimited.matched.limit.is_none() && unlimited.special.is_some());
        let (blocked, plain) = about(&[("user", "c")]);
        assert!(blocked.is_none() && plain.special.is_none());
        assert!(rules.findings("elsewhere", &[("user", "c")][..], NOW).is_none());
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_check_finds(
            values in vec(option::of(select(vec!["a", "b", "gold", "/a", "/ab", "/b", "", "192.0.2.9"])), 4),
        ) {
            let rules = rules();
            let names = ["user", "tier", "path", "ip"];
            let attributes: Vec<(&str, &str)> =
                names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
            let mut matched = SmallVec::new();
            rules.matching_unblocked_at("default", &attributes[..], NOW, &mut matched);
            let told = |one: &Matched<'_>| (one.rule.name().to_owned(), one.key, one.limit.copied());
            let found = rules.findings("default", &attributes[..], NOW).unwrap();
            let found: Vec<_> =
                found.rules.iter().filter_map(|one| Some(told(&one.about.as_ref().ok()?.matched))).collect();
            prop_assert_eq!(found, matched.iter().map(told).collect::<Vec<_>>());
        }
    }
}
