//! The `when` of a rule: which requests it is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    address::{self, Address},
    key::KeyBytes,
    pattern::{PatternForm, PatternText},
};

/// A path without the slashes at its end, which lead to the same place.
pub(crate) fn without_end_slashes(path: &str) -> &str {
    let bare = path.trim_end_matches('/');
    if bare.is_empty() { &path[..path.len().min(1)] } else { bare }
}

/// All attributes that a rule tests; every test must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    pub(crate) tests: Box<[Test]>,
}

/// One attribute with the patterns for its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) attribute: Arc<str>,
    /// At least one of these must fit, if there are any.
    pub(crate) any_of: Box<[Pattern]>,
    /// None of these may fit.
    pub(crate) none_of: Box<[Pattern]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Network(IpNet),
    /// The same, written as an address or, of `ip`, as `10.1.*`.
    Hosts {
        written: Box<str>,
        network: IpNet,
    },
    /// A value of `path`, which a slash at the end makes no other one.
    Path(Box<str>),
    Present,
    /// With a `*` that is not at its end, and no two of them together.
    Like(Box<str>),
    /// The same of `path`, whose values fit with or without slashes at their end.
    LikePath(Box<str>),
}

/// The same in the short form, if that reads so for this attribute: `{ is: a }` is `a`, and `{ is: a* }` stays what it is.
pub fn short_form(attribute: &str, form: &PatternForm) -> PatternText {
    let (pattern, opposite) = Pattern::of_form(attribute, form);
    pattern.described(attribute, opposite)
}

impl Condition {
    pub(crate) fn new(tests: impl IntoIterator<Item = Test>) -> Self {
        Self { tests: tests.into_iter().collect() }
    }

    /// The tests that say what an attribute must be: a value, or in a prefix or network.
    pub(crate) fn insisting(&self) -> impl Iterator<Item = &Test> {
        self.tests.iter().filter(|test| test.is_insisting())
    }

    /// Whether it looks at the attribute.
    pub(crate) fn tests(&self, attribute: &str) -> bool {
        self.tests.iter().any(|test| *test.attribute == *attribute)
    }

    /// Whether it holds only for requests that have some attribute.
    pub(crate) fn requires_any(&self) -> bool {
        self.tests.iter().any(|test| !test.any_of.is_empty())
    }

    /// Makes a test the first one.
    pub(crate) fn put_first(&mut self, attribute: &str) {
        if let Some(place) = self.tests.iter().position(|test| *test.attribute == *attribute) {
            self.tests.swap(0, place);
        }
    }
}

impl Condition {
    /// Puts all of it into a fingerprint, in the order of its tests; in whatever order the patterns of a test were written.
    pub(crate) fn feed(&self, bytes: &mut KeyBytes) {
        bytes.number(self.tests.len() as u64);
        for test in &self.tests {
            bytes.text(&test.attribute);
            for (patterns, opposite) in [(&test.any_of, false), (&test.none_of, true)] {
                let (mut short, mut long) = (BTreeSet::new(), BTreeSet::new());
                for pattern in patterns {
                    match pattern.written(&test.attribute, opposite) {
                        PatternText::Short(_) => _ = short.insert(pattern.to_string()),
                        PatternText::Long(form) => _ = long.insert(form),
                    }
                }
                // Without long forms these are the bytes that versions without them fed.
                bytes.number(short.len() as u64 | (long.len() as u64) << 32);
                short.iter().for_each(|pattern| bytes.text(pattern));
                for (name, text) in long.iter().map(PatternForm::parts) {
                    bytes.text(name);
                    bytes.text(text);
                }
            }
        }
    }

    /// The patterns by attribute, as they were written.
    pub(crate) fn describe(&self) -> BTreeMap<String, Vec<PatternText>> {
        self.tests.iter().map(|test| (test.attribute.to_string(), test.patterns())).collect()
    }
}

impl Test {
    pub(crate) fn patterns(&self) -> Vec<PatternText> {
        let positive = self.any_of.iter().map(|pattern| pattern.described(&self.attribute, false));
        positive.chain(self.none_of.iter().map(|pattern| pattern.described(&self.attribute, true))).collect()
    }

    /// Reads the patterns: an exact value, `prefix*`, a network like `10.0.0.0/8`, `*` for any value, and each of them
    /// with a `!` before it for its opposite; or a form that says how its text is read.
    pub(crate) fn new<'a>(attribute: Arc<str>, patterns: impl IntoIterator<Item = &'a PatternText>) -> Self {
        let (mut any_of, mut none_of) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                PatternText::Short(text) => match text.strip_prefix('!') {
                    Some(negated) => none_of.push(Pattern::of(&attribute, negated)),
                    None => any_of.push(Pattern::of(&attribute, text)),
                },
                PatternText::Long(form) => match Pattern::of_form_for(&attribute, form) {
                    (pattern, false) => any_of.push(pattern),
                    (pattern, true) => none_of.push(pattern),
                },
            }
        }
        Self { attribute, any_of: any_of.into(), none_of: none_of.into() }
    }

    fn is_insisting(&self) -> bool {
        !self.any_of.is_empty() && !self.any_of.contains(&Pattern::Present)
    }

    /// Whether it holds for each value that an index finds it by.
    pub(crate) fn holds_where_found(&self) -> bool {
        // Of a `Like` an index knows only how it begins.
        let is_known = |pattern: &Pattern| !matches!(pattern, Pattern::Like(_) | Pattern::LikePath(_));
        self.none_of.is_empty() && self.any_of.iter().all(is_known)
    }
}

impl Pattern {
    /// Reads a pattern for the values of an attribute: of an address, and of `path`, each way to write one is meant.
    fn of(attribute: &str, text: &str) -> Self {
        let network = match text.strip_suffix('*') {
            Some(beginning) if attribute == "ip" => address::network_of_beginning(beginning),
            Some(_) => None,
            None => Address::parse(text).map(|address| address.host().into()),
        };
        match network {
            Some(network) => Self::Hosts { written: text.into(), network },
            None if attribute == "path" && text.starts_with('/') && !text.ends_with('*') => {
                Self::Path(text.into())
            }
            None => Self::new(text).of_address(attribute),
        }
    }

    /// For `ip`, whose values have small letters only, whoever has written them.
    fn of_address(self, attribute: &str) -> Self {
        match self {
            Self::Prefix(text) if attribute == "ip" => Self::Prefix(text.to_ascii_lowercase().into()),
            Self::Like(text) if attribute == "ip" => Self::Like(text.to_ascii_lowercase().into()),
            pattern => pattern,
        }
    }

    fn new(text: &str) -> Self {
        if text == "*" {
            return Self::Present;
        }
        if let Some(prefix) = text.strip_suffix('*') {
            return Self::Prefix(prefix.into());
        }
        // A path begins with its slash, a network does not.
        if text.contains('/')
            && let Some(network) = address::network(text)
        {
            return Self::Network(network);
        }
        Self::Exact(text.into())
    }

    /// And whether its opposite is meant.
    fn of_form(attribute: &str, form: &PatternForm) -> (Self, bool) {
        match form {
            PatternForm::Is(text) => (Self::Exact(text.as_str().into()), false),
            PatternForm::IsNot(text) => (Self::Exact(text.as_str().into()), true),
            PatternForm::Like(text) => (Self::like_of(attribute, text), false),
            PatternForm::NotLike(text) => (Self::like_of(attribute, text), true),
            PatternForm::ExactlyLike(text) => (Self::like(text), false),
            PatternForm::NotExactlyLike(text) => (Self::like(text), true),
        }
    }

    /// The same of an attribute. An address is one in whichever form the pattern has it: `ip` is compared as nothing else.
    fn of_form_for(attribute: &str, form: &PatternForm) -> (Self, bool) {
        let (pattern, opposite) = Self::of_form(attribute, form);
        match &pattern {
            Self::Exact(text) if attribute == "ip" && Address::parse(text).is_some() => {
                (Self::of(attribute, text), opposite)
            }
            _ => (pattern.of_address(attribute), opposite),
        }
    }

    /// Slashes at the end make no difference to a path, unless the text itself says how the value ends.
    fn like_of(attribute: &str, text: &str) -> Self {
        match Self::like(text) {
            Self::Exact(path) if attribute == "path" && path.starts_with('/') => Self::Path(path),
            Self::Like(text) if attribute == "path" && ends_open(&text) => Self::LikePath(text),
            pattern => pattern,
        }
    }

    /// As one of the others where that says the same.
    fn like(text: &str) -> Self {
        let mut single = String::with_capacity(text.len());
        for character in text.chars() {
            if character != '*' || !single.ends_with('*') {
                single.push(character);
            }
        }
        match single.find('*') {
            None => Self::Exact(single.into()),
            Some(0) if single.len() == 1 => Self::Present,
            Some(place) if place == single.len() - 1 => Self::Prefix(single[..place].into()),
            Some(_) => Self::Like(single.into()),
        }
    }

    /// As a rule file can say it: a text that is no address is one for `ip` only if it says `is`.
    fn described(&self, attribute: &str, opposite: bool) -> PatternText {
        match (self, opposite) {
            (Self::Exact(text), false) if attribute == "ip" => PatternForm::Is(text.to_string()).into(),
            (Self::Exact(text), true) if attribute == "ip" => PatternForm::IsNot(text.to_string()).into(),
            _ => self.written(attribute, opposite),
        }
    }

    /// In the short form, if that reads as this again. (What fingerprints of rules are made of: it stays as it is.)
    fn written(&self, attribute: &str, opposite: bool) -> PatternText {
        let short = self.to_string();
        if (opposite || !short.starts_with('!')) && Self::of(attribute, &short) == *self {
            return PatternText::Short(if opposite { format!("!{short}") } else { short });
        }
        let form = match (self, opposite) {
            (Self::Exact(_), false) => PatternForm::Is,
            (Self::Exact(_), true) => PatternForm::IsNot,
            (Self::Like(text), false) if attribute == "path" && ends_open(text) => PatternForm::ExactlyLike,
            (Self::Like(text), true) if attribute == "path" && ends_open(text) => PatternForm::NotExactlyLike,
            (_, false) => PatternForm::Like,
            (_, true) => PatternForm::NotLike,
        };
        PatternText::Long(form(short))
    }
}

/// Whether a text with stars leaves open how a path that fits it ends: with slashes or without.
fn ends_open(text: &str) -> bool {
    !text.ends_with(['/', '*'])
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text)
            | Self::Path(text)
            | Self::Like(text)
            | Self::LikePath(text)
            | Self::Hosts { written: text, .. } => f.write_str(text),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Network(network) => network.fmt(f),
            Self::Present => f.write_str("*"),
        }
    }
}
