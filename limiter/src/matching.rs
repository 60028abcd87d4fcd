//! Whether a rule is about a request, and from the request's key to its bucket.

use crate::{
    Attributes, KeyHash, Limit, LimitRef, Nanos, Rule,
    address::Address,
    condition::{Condition, Pattern, Test, without_end_slashes},
    key::KeyBytes,
    limits::LimitId,
    pattern::is_like,
    rule::KeyPart,
};

/// A rule that is about a request.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// The limit for this request; `None`: unlimited.
    pub limit: Option<&'r Limit>,
    /// Its bucket.
    pub key: KeyHash,
    /// Which of the rule's limits that is.
    pub limit_ref: LimitRef,
}

impl Matched<'_> {
    /// When the limit stops being the one for this request; `None`: not by itself. Which one, if any, is in force after that, it does not
    /// say.
    #[inline]
    pub fn until(&self) -> Option<Nanos> {
        let rule = self.rule.span.end();
        match self.limit_ref.place().checked_sub(1) {
            Some(special) => match (rule, self.rule.overrides[special as usize].span.end()) {
                (Some(rule), Some(special)) => Some(rule.min(special)),
                (rule, special) => rule.or(special),
            },
            None => rule,
        }
    }
}

impl Condition {
    #[cfg(test)]
    pub(crate) fn holds<A: Attributes + ?Sized>(&self, attributes: &A) -> bool {
        self.holds_from(0, attributes)
    }

    /// Whether it holds, when it is known that the first `done` tests do.
    #[inline]
    pub(crate) fn holds_from<A: Attributes + ?Sized>(&self, done: usize, attributes: &A) -> bool {
        self.tests[done..].iter().all(|test| test.holds(attributes))
    }
}

impl Test {
    /// A missing attribute fits no pattern: `!gold` holds for it, `gold` and `*` do not.
    pub(crate) fn holds<A: Attributes + ?Sized>(&self, attributes: &A) -> bool {
        let value = attributes.get(&self.attribute);
        let address = || attributes.address(&self.attribute);
        let fits = |pattern: &Pattern| value.is_some_and(|value| pattern.fits(value, address));
        (self.any_of.is_empty() || self.any_of.iter().any(fits)) && !self.none_of.iter().any(fits)
    }
}

impl Pattern {
    /// `address`: the value as one, if it is one. Behind a NAT64 it is more than its text.
    fn fits(&self, value: &str, address: impl FnOnce() -> Option<Address>) -> bool {
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Network(network) | Self::Hosts { network, .. } => {
                address().is_some_and(|address| address.is_in(network))
            }
            Self::Path(path) => without_end_slashes(path) == without_end_slashes(value),
            Self::Present => true,
            Self::Like(pattern) => is_like(pattern, value),
            Self::LikePath(pattern) => is_like(pattern, without_end_slashes(value)),
        }
    }
}

impl Rule {
    /// The limit in force, by the place of the override that fits.
    pub(crate) fn limit_at(&self, special: Option<usize>) -> Option<&Limit> {
        match (&self.carved, special) {
            (Some(carved), Some(place)) => carved.overrides[place].as_ref(),
            (Some(carved), None) => carved.limit.as_ref(),
            (None, Some(place)) => self.overrides[place].limit.as_ref(),
            (None, None) => self.limit.as_ref(),
        }
    }

    /// All of its limits, those of overrides too, as its owner gives them, and what tells the buckets of each apart.
    pub(crate) fn numbered_limits(&self) -> impl Iterator<Item = (u64, &Limit)> {
        let places = [None].into_iter().chain((0..self.overrides.len()).map(Some));
        places.filter_map(|place| Some((self.limit_id_at(place).number, self.limit_at(place)?)))
    }

    /// As [`Rule::matched`], for a limit that the rule has had there before.
    pub(crate) fn matched_before(
        &self,
        mut key: KeyBytes,
        special: Option<usize>,
        limit: &Limit,
    ) -> Matched<'_> {
        let matched = self.matched(key, special);
        key.number(self.limit_id_at(special).number);
        Matched { key: key.finish_under(limit.bits()), ..matched }
    }

    /// What tells its buckets from those of the others.
    #[inline]
    pub(crate) fn limit_id_at(&self, special: Option<usize>) -> LimitId {
        special.map_or(self.limit_id, |place| self.overrides[place].id)
    }

    /// What the fingerprints of all buckets of the request's key begin with; `None` when the request lacks an attribute of it,
    /// or all parts of it are optional and empty.
    pub(crate) fn key_of<A: Attributes + ?Sized>(&self, attributes: &A) -> Option<KeyBytes> {
        let mut key = self.hasher.key();
        let mut is_empty = !self.key.is_empty();
        for place in &self.key_order {
            let part = &self.key[usize::from(*place)];
            let value = match attributes.get(&part.name) {
                Some(value) => value,
                None if part.optional => "",
                None => return None,
            };
            is_empty &= part.optional && value.is_empty();
            match &*part.name {
                "ip" => match attributes.address(&part.name) {
                    Some(address) => self.ip_prefix.feed(address, &mut key),
                    None => key.text(value),
                },
                "path" => key.text(without_end_slashes(value)),
                _ => key.text(value),
            }
        }
        (!is_empty).then_some(key)
    }

    /// With the limit of the override at that place.
    #[inline]
    pub(crate) fn matched(&self, mut key: KeyBytes, special: Option<usize>) -> Matched<'_> {
        let id = self.limit_id_at(special);
        key.number(id.number);
        let limit_ref = LimitRef::new(self.shape, special.map_or(0, |place| place as u32 + 1));
        Matched { rule: self, limit: self.limit_at(special), key: key.finish_under(id.bits), limit_ref }
    }
}

/// The places of a key's attributes in the order of their names.
pub(crate) fn key_order(key: &[KeyPart]) -> Box<[u8]> {
    // A key has few attributes; one that has too many is an error of the rule.
    let mut places: Vec<u8> = (0..=u8::MAX).take(key.len()).collect();
    places.sort_by_key(|place| &key[usize::from(*place)].name);
    places.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::{PatternForm, PatternText};

    fn holds(patterns: &[&str], value: Option<&str>) -> bool {
        let patterns: Vec<PatternText> = patterns.iter().copied().map(PatternText::from).collect();
        let condition = Condition::new([Test::new("a".into(), &patterns)]);
        let attributes: Vec<(&str, &str)> = value.map(|value| ("a", value)).into_iter().collect();
        condition.holds(&attributes[..])
    }

    #[test]
    fn each_kind_of_pattern_fits_what_it_should() {
        assert!(holds(&["POST"], Some("POST")) && !holds(&["POST"], Some("post")));
        assert!(holds(&["/api/*"], Some("/api/x")) && !holds(&["/api/*"], Some("/ap")));
        assert!(holds(&["10.0.0.0/8"], Some("10.9.8.7")) && !holds(&["10.0.0.0/8"], Some("11.0.0.1")));
        assert!(holds(&["10.0.0.0/8"], Some("::ffff:10.1.2.3")));
        assert!(holds(&["2001:db8::/32"], Some("2001:db8::1")) && !holds(&["10.0.0.0/8"], Some("ten")));
        assert!(holds(&["*"], Some("")) && !holds(&["*"], None));
        assert!(holds(&["a", "b"], Some("b")) && !holds(&["a", "b"], Some("c")));
    }

    #[test]
    fn an_optional_part_of_a_key_may_be_missing_but_not_the_whole_key() {
        let text = "rules:
  - { name: both, key: [ip, 'api_key?'], limit: 1/1s }
  - { name: either, key: ['a?', 'b?'], limit: 1/1s }
  - { name: one, key: [], limit: 1/1s, when: { c: c } }
";
        let rules = crate::Rules::from_yaml(text, &crate::HashSecret::new([1; 16])).unwrap();
        let matched = |attributes: &[(&str, &str)]| {
            let mut found = smallvec::SmallVec::new();
            rules.matching("default", attributes, &mut found);
            found.iter().map(|one| (one.rule.name().to_owned(), one.key)).collect::<Vec<_>>()
        };
        let with = matched(&[("ip", "192.0.2.1"), ("api_key", "k")]);
        let without = matched(&[("ip", "192.0.2.1")]);
        assert_eq!((with.len(), without.len()), (1, 1));
        assert_ne!(with, without);
        // As nginx counts: a header that is empty is as one that is not there.
        assert_eq!(matched(&[("ip", "192.0.2.1"), ("api_key", "")]), without);
        assert_eq!(matched(&[("api_key", "k")]), []);
        assert_eq!(matched(&[("a", "x")]).len(), 1);
        assert_ne!(matched(&[("a", "x")]), matched(&[("b", "x")]));
        assert_eq!(matched(&[("a", ""), ("b", "")]), []);
        assert_eq!(matched(&[("c", "c")]).len(), 1);
        assert_eq!(rules.rules("default")[0].describe().key, ["ip", "api_key?"]);
        let names: Vec<&str> = rules.rules("default")[0].key().collect();
        assert_eq!(names, ["ip", "api_key"]);
        let error = crate::Rules::from_yaml(
            "rules: [{ name: r, key: [a, 'a?', '?'], limit: 1/1s }]",
            &crate::HashSecret::new([1; 16]),
        );
        assert_eq!(error.unwrap_err().len(), 2, "one is twice in the key, one has no name");
    }

    #[test]
    fn slashes_at_the_end_of_a_path_get_past_no_pattern_but_one_that_names_them() {
        let path = |form: PatternForm, value: &str| {
            let condition = Condition::new([Test::new("path".into(), [&PatternText::from(form)])]);
            condition.holds(&[("path", value)][..])
        };
        let like = |text: &str| PatternForm::Like(text.to_owned());
        let not_like = |text: &str| PatternForm::NotLike(text.to_owned());
        let exactly = |text: &str| PatternForm::ExactlyLike(text.to_owned());
        for value in ["/api/x/download", "/api/x/download/", "/api/x/download//"] {
            assert!(
                path(like("/api/*/download"), value) && !path(not_like("/api/*/download"), value),
                "{value}"
            );
            assert!(path(like("*/download"), value) && path(like("/api/x/*"), value), "{value}");
        }
        assert!(path(like("/login"), "/login/") && !path(not_like("/login"), "/login/"));
        assert!(!path(like("/api/*/download"), "/api/x/download/y"));
        // A pattern that ends with a slash means paths that do.
        assert!(path(like("/api/*/"), "/api/x/") && !path(like("/api/*/"), "/api/x"));
        assert!(path(exactly("*.php"), "/a.php") && !path(exactly("*.php"), "/a.php/"));
        assert!(path(PatternForm::NotExactlyLike("*.php".to_owned()), "/a.php/"));
        // Of other attributes a slash is a character.
        let other = Condition::new([Test::new("a".into(), [&PatternText::from(like("x*y"))])]);
        assert!(other.holds(&[("a", "x-y")][..]) && !other.holds(&[("a", "x-y/")][..]));
        // They are described as what they are.
        for form in [
            like("*.php"),
            not_like("*.php"),
            exactly("*.php"),
            PatternForm::NotExactlyLike("*.php".to_owned()),
        ] {
            let text = PatternText::from(form);
            let condition = Condition::new([Test::new("path".into(), [&text])]);
            assert_eq!(condition.describe()["path"], [text]);
        }
    }

    #[test]
    fn an_opposite_holds_for_a_missing_attribute_too() {
        assert!(
            holds(&["!gold"], Some("silver")) && holds(&["!gold"], None) && !holds(&["!gold"], Some("gold"))
        );
        assert!(!holds(&["!gold", "!silver"], Some("silver")));
        assert!(holds(&["*", "!gold"], Some("x")) && !holds(&["*", "!gold"], None));
        assert!(!holds(&["!*"], Some("x")) && holds(&["!*"], None));
    }
}
