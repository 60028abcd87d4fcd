//! What the parts of a rule mean: from texts to conditions and keys, or to all that is wrong with them.

use std::{collections::HashSet, sync::Arc};

use super::{
    MAX_KEY_PARTS, MAX_NAME_BYTES,
    error::{Place, RuleError, RuleErrors, shortened},
};
use crate::{
    Cost, HashSecret, Limit,
    address::{self, Address, IpPrefix, OwnIpPrefix},
    condition::{Condition, Test},
    pattern::PatternText,
    price::Price,
    rule::KeyPart,
};

/// Attributes that calls use for themselves.
const RESERVED: [&str; 4] = ["domain", "cost", "costs", "request_id"];

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
    /// The text was taken by a version of Tidegate, maybe an earlier one, so what that took is taken.
    pub(super) is_stored: bool,
    /// Of rules that say none.
    pub(crate) ip_prefix: IpPrefix,
    pub(super) errors: RuleErrors<'t>,
    /// Names that many rules share are there once.
    names: HashSet<Arc<str>>,
}

impl<'t> Compiler<'t> {
    pub(crate) fn new(text: &'t str, secret: &'t HashSecret) -> Self {
        let (ip_prefix, errors) = (IpPrefix::default(), RuleErrors::new(text));
        Self { secret, is_stored: false, ip_prefix, errors, names: HashSet::new() }
    }

    /// Of a text that was written before.
    pub(crate) fn of_stored(text: &'t str, secret: &'t HashSecret) -> Self {
        Self { is_stored: true, ..Self::new(text, secret) }
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
                if attribute.text == "ip" {
                    self.check_ip_pattern(text.strip_prefix('!').unwrap_or(text), *place);
                }
            }
            let name = self.shared(&attribute.text);
            tests.push(Test::new(name, patterns.iter().map(|one| &one.pattern)));
        }
        // The same rule must compile to the same thing, whatever order its attributes have.
        tests.sort_by(|a, b| a.attribute.cmp(&b.attribute));
        Condition::new(tests)
    }

    /// What no address can be fits nobody: a block list would be open without a word.
    fn check_ip_pattern(&mut self, bare: &str, place: Place) {
        let shown = shortened(bare);
        if bare.contains('/') {
            if address::network(bare).is_none() {
                let help = "write e.g. 10.0.0.0/8 or 2001:db8::/32";
                self.error(place, format!("{shown:?} is no network"), help);
            }
            return;
        }
        // Versions before took the rest, and a rule that is in force stays so.
        let can_be = match bare.strip_suffix('*') {
            Some(beginning) => address::can_begin(beginning),
            None => Address::parse(bare).is_some(),
        };
        if self.is_stored || can_be {
            return;
        }
        let message = if bare.ends_with('*') {
            format!("no address begins as {shown:?} says")
        } else {
            format!("{shown:?} is no address")
        };
        let help = "write an address (numbers without leading zeros), a network such as 203.0.113.0/24 (several for a \
                    range), or 10.1.*; an attribute that may be another text needs another name";
        self.error(place, message, help);
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

    /// `places` are those of the two numbers.
    pub(crate) fn check_ip_prefix(&mut self, own: OwnIpPrefix, places: [Place; 2], key: &[KeyPart]) {
        if !own.says_nothing() && !key.iter().any(|part| *part.name == *"ip") {
            let message = "ip_prefix says how much of `ip` counts in the key, which has no `ip`";
            self.error(places[0], message, "add ip to the key, or leave ip_prefix out");
        }
        for ((family, bits, max), place) in [("v4", own.v4, 32), ("v6", own.v6, 128)].into_iter().zip(places)
        {
            if bits.is_some_and(|bits| !(1..=max).contains(&bits)) {
                self.error(place, format!("{family} addresses have a prefix of 1 to {max} bits"), "");
            }
        }
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

    /// What the text says; the usual where it is wrong, which is reported.
    pub(crate) fn price<'l>(
        &mut self,
        given: Option<&Written>,
        limits: impl Iterator<Item = &'l Limit>,
    ) -> Price {
        let Some(Written { text, place }) = given else { return Price::ONE };
        let (text, place) = (text.as_str(), *place);
        let help = "write a whole number from 1, as in `cost: 5`, or a name for `costs` of checks, as in `cost: tokens`";
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let units = text.parse().ok().filter(|units| (1..=Cost::MAX.get()).contains(units));
            let Some(units) = units else {
                self.error(place, format!("a cost of {text} is not from 1 to 2^53"), help);
                return Price::ONE;
            };
            let least = limits.map(Limit::burst_size).filter(|most| *most > 0).min();
            if let Some(most) = least.filter(|most| units > *most) {
                let message =
                    format!("no request could pass: it takes {units}, and a limit of the rule holds {most}");
                self.error(place, message, "lower the cost, or raise the limit or its burst");
            }
            return Price::Times(units);
        }
        if !super::is_valid_name(text) || !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            self.error(place, format!("{:?} is no cost", shortened(text)), help);
            return Price::ONE;
        }
        Price::Named(text.into())
    }
}
