//! What the parts of a rule mean: from texts to conditions and keys, or to all that is wrong with them.

use std::{collections::HashSet, sync::Arc};

use super::{
    MAX_KEY_PARTS, MAX_NAME_BYTES,
    error::{Place, RuleError, RuleErrors, shortened},
};
use crate::{
    HashSecret,
    condition::{Condition, Test},
    pattern::PatternText,
    rule::KeyPart,
};

/// Attributes that calls use for themselves.
const RESERVED: [&str; 3] = ["domain", "cost", "request_id"];

/// A text, and where it stands in the file.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) place: Place,
}

impl Written {
    /// Not of a file.
    pub(crate) fn nowhere(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: Place::NOWHERE }
    }
}

/// An attribute of a condition.
#[derive(Debug)]
pub(crate) struct RawTest {
    pub(crate) attribute: Written,
    pub(crate) patterns: Vec<RawPattern>,
    /// Of all patterns together.
    pub(crate) place: Place,
}

/// A value of a condition.
#[derive(Debug)]
pub(crate) struct RawPattern {
    pub(crate) pattern: PatternText,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct RawKey {
    pub(crate) parts: Vec<Written>,
    pub(crate) place: Place,
}

/// Makes rules, and collects what is wrong with them.
pub(crate) struct Compiler<'t> {
    pub(crate) secret: &'t HashSecret,
    pub(super) errors: RuleErrors<'t>,
    /// Names that many rules share are there once.
    names: HashSet<Arc<str>>,
}

impl<'t> Compiler<'t> {
    pub(crate) fn new(text: &'t str, secret: &'t HashSecret) -> Self {
        Self { secret, errors: RuleErrors::new(text), names: HashSet::new() }
    }

    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.errors.add(place, message, help);
    }

    pub(crate) fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.count()
    }

    /// What was made may be used if this is `Ok`.
    pub(crate) fn finish(self) -> Result<(), Vec<RuleError>> {
        self.errors.into_result()
    }

    pub(crate) fn condition(&mut self, when: &[RawTest]) -> Condition {
        let mut tests: Vec<Test> = Vec::with_capacity(when.len());
        for RawTest { attribute, patterns, place } in when {
            self.check_attribute(attribute);
            if patterns.is_empty() {
                let message = format!("the list for {:?} is empty: no request could match", attribute.text);
                self.error(*place, message, "name at least one value, or leave the attribute out");
            }
            for RawPattern { pattern, place } in patterns {
                let PatternText::Short(text) = pattern else { continue };
                let bare = text.strip_prefix('!').unwrap_or(text);
                if attribute.text == "ip" && bare.contains('/') && bare.parse::<ipnet::IpNet>().is_err() {
                    self.error(
                        *place,
                        format!("{:?} is no network", shortened(bare)),
                        "write e.g. 10.0.0.0/8 or 2001:db8::/32",
                    );
                }
            }
            let name = self.shared(&attribute.text);
            tests.push(Test::new(name, patterns.iter().map(|one| &one.pattern)));
        }
        // The same rule must compile to the same thing, whatever order its attributes have.
        tests.sort_by(|a, b| a.attribute.cmp(&b.attribute));
        Condition::new(tests)
    }

    /// `name`, or `name?` for an attribute that a request may lack.
    pub(crate) fn key(&mut self, key: &RawKey) -> Box<[KeyPart]> {
        if key.parts.len() > MAX_KEY_PARTS {
            let message =
                format!("a key of {} attributes, at most {MAX_KEY_PARTS} are possible", key.parts.len());
            self.error(key.place, message, "");
        }
        let mut seen = HashSet::new();
        let mut parts = Vec::with_capacity(key.parts.len());
        for part in &key.parts {
            let (name, optional) = match part.text.strip_suffix('?') {
                Some(name) => (name, true),
                None => (part.text.as_str(), false),
            };
            self.check_attribute(&Written { text: name.to_owned(), place: part.place });
            if !seen.insert(name) {
                self.error(part.place, format!("{name:?} is twice in the key"), "name it once");
            }
            parts.push(KeyPart { name: self.shared(name), optional, written: self.shared(&part.text) });
        }
        parts.into()
    }

    fn check_attribute(&mut self, name: &Written) {
        if RESERVED.contains(&&*name.text) {
            let message =
                format!("{:?} cannot be an attribute: calls use that name for something else", name.text);
            self.error(name.place, message, "choose another name");
        } else if name.text.is_empty() || name.text.len() > MAX_NAME_BYTES {
            self.error(name.place, format!("an attribute needs a name of 1 to {MAX_NAME_BYTES} bytes"), "");
        }
    }

    pub(crate) fn check_name(&mut self, what: &str, name: &Written) {
        let text = &name.text;
        if !super::is_valid_name(text) {
            let message = format!("{:?} cannot name a {what}", shortened(text));
            self.error(
                name.place,
                message,
                format!("use 1 to {MAX_NAME_BYTES} letters, digits and - _ . / :"),
            );
        }
    }
}
