//! From the text of a rule file to compiled rules, or to all that is wrong with it, with places.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use crate::{
    Algorithm, Consistency, HashSecret, Limit, LimitError, Mode, OnOwnerLoss, Rule, Rules,
    condition::{Condition, Test},
    key::KeyHasher,
    rule::Domain,
};

/// The domain of rules that name none.
pub const DEFAULT_DOMAIN: &str = "default";
/// Longest name of a rule, a domain or an attribute, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Most attributes in one key.
pub const MAX_KEY_PARTS: usize = 8;
/// Attributes that calls use for themselves.
const RESERVED: [&str; 2] = ["domain", "cost"];
/// Values, lists and maps of a rule file: about a hundred thousand rules. What else a file may have (depth, aliases) is
/// what the parser thinks enough.
const MAX_NODES: usize = 2_000_000;
/// Faults that are told at once.
const MAX_FAULTS: usize = 100;

/// One fault in a rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The line, from 1; 0 when the fault has no place.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// Where in the text it begins, in bytes.
    pub offset: usize,
    /// How many bytes of the text it is about.
    pub length: usize,
}

impl std::fmt::Display for RuleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RuleError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    domain: Option<Spanned<String>>,
    unmatched: Option<Spanned<String>>,
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Spanned<String>,
    #[serde(default)]
    when: HashMap<String, Spanned<OneOrMany>>,
    key: Spanned<Vec<Spanned<String>>>,
    limit: Spanned<String>,
    burst: Option<Spanned<u64>>,
    algorithm: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    consistency: Option<Spanned<String>>,
    on_owner_loss: Option<Spanned<String>>,
    #[serde(default)]
    overrides: Vec<RawOverride>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOverride {
    when: HashMap<String, Spanned<OneOrMany>>,
    limit: Spanned<String>,
    burst: Option<Spanned<u64>>,
}

/// What an attribute may be.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Rules {
    /// Reads a rule file: one YAML document (or JSON, which is YAML) for each domain.
    ///
    /// # Errors
    /// All faults that could be found. A file whose structure is wrong (an unknown field, say) is told by its first.
    pub fn from_yaml(text: &str, secret: &HashSecret) -> Result<Self, Vec<RuleError>> {
        let files = parse(text)?;
        let mut compiler = Compiler { text, secret, faults: Vec::new() };
        let mut domains = HashMap::new();
        for file in files {
            let name = file.domain.as_ref().map_or(DEFAULT_DOMAIN, |name| &*name.value);
            if let Some(place) = &file.domain {
                compiler.check_name("domain", place);
            }
            if domains.contains_key(name) {
                let place = file.domain.as_ref().map(|name| name.referenced);
                compiler.fault(
                    place,
                    format!("the domain {name:?} is there twice"),
                    "put its rules into one document",
                );
            }
            let domain = compiler.domain(name, &file);
            domains.insert(name.into(), Arc::new(domain));
        }
        if compiler.faults.is_empty() {
            Ok(Self::of_domains(secret, domains))
        } else {
            Err(compiler.sorted_faults())
        }
    }
}

impl Rules {
    /// These rules with those of one domain replaced. The text is one document, and need not name the domain.
    ///
    /// # Errors
    /// All faults that could be found in the text; or that it is about another domain, or several.
    pub fn with_domain(&self, name: &str, text: &str, secret: &HashSecret) -> Result<Self, Vec<RuleError>> {
        let fault = |message: String, help: &str| {
            let help = Some(help.to_owned());
            vec![RuleError { message, help, line: 0, column: 0, offset: 0, length: 0 }]
        };
        let files = parse(text)?;
        let [file] = &files[..] else {
            let message = format!("{} documents, where the rules of one domain are expected", files.len());
            return Err(fault(message, "write each domain by itself"));
        };
        let mut compiler = Compiler { text, secret, faults: Vec::new() };
        if let Some(place) = &file.domain
            && place.value != name
        {
            let message = format!("these are the rules of the domain {:?}, not of {name:?}", place.value);
            compiler.fault(Some(place.referenced), message, "leave `domain` out, or write the other one");
        }
        let domain = compiler.domain(name, file);
        if !compiler.faults.is_empty() {
            return Err(compiler.sorted_faults());
        }
        let mut all = self.clone();
        all.domains.insert(name.into(), Arc::new(domain));
        Ok(all)
    }
}

/// Makes rules, and collects what is wrong with them.
pub(crate) struct Compiler<'t> {
    pub(crate) text: &'t str,
    pub(crate) secret: &'t HashSecret,
    pub(crate) faults: Vec<RuleError>,
}

/// Whether a text can name a rule or a domain: 1 to [`MAX_NAME_BYTES`] letters, digits and `- _ . / :`.
pub fn is_valid_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.chars().all(good)
}

fn parse(text: &str) -> Result<Vec<RawFile>, Vec<RuleError>> {
    let budget = serde_saphyr::budget! { max_events: MAX_NODES * 2, max_nodes: MAX_NODES };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| vec![structural(text, &error)])
}

impl Compiler<'_> {
    fn sorted_faults(mut self) -> Vec<RuleError> {
        self.faults.sort_by_key(|fault| fault.offset);
        self.faults.truncate(MAX_FAULTS);
        self.faults
    }

    fn domain(&mut self, name: &str, file: &RawFile) -> Domain {
        let mut seen = HashSet::new();
        let mut rules = Vec::with_capacity(file.rules.len());
        for raw in &file.rules {
            self.check_name("rule", &raw.name);
            if !seen.insert(&*raw.name.value) {
                let message =
                    format!("the rule name {:?} is there twice in the domain {name:?}", raw.name.value);
                self.fault(Some(raw.name.referenced), message, "give each rule a name of its own");
            }
            rules.extend(self.rule(name, raw));
        }
        let allow_unmatched =
            self.word("unmatched", file.unmatched.as_ref(), &[("allow", true), ("deny", false)]);
        Domain::new(rules, allow_unmatched)
    }

    /// `None` if there is a fault in it.
    fn rule(&mut self, domain: &str, raw: &RawRule) -> Option<Rule> {
        let before = self.faults.len();
        let algorithm = match &raw.algorithm {
            None => Algorithm::TokenBucket,
            Some(name) => self.algorithm(name)?,
        };
        let limit = self.limit(&raw.limit, raw.burst.as_ref(), algorithm);
        let when = self.condition(&raw.when);
        let key = self.key(&raw.key);
        let overrides = raw
            .overrides
            .iter()
            .map(|special| {
                let limit = self.limit(&special.limit, special.burst.as_ref(), algorithm);
                (self.condition(&special.when), limit.flatten())
            })
            .collect();
        let mode =
            self.word("mode", raw.mode.as_ref(), &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)]);
        let consistency = self.word(
            "consistency",
            raw.consistency.as_ref(),
            &[("available", Consistency::Available), ("strict", Consistency::Strict)],
        );
        if let (Consistency::Strict, Some(place)) = (consistency, &raw.consistency) {
            self.fault(
                Some(place.referenced),
                "consistency: strict needs owner sessions, which this version does not have".to_owned(),
                "leave it out, or write available",
            );
        }
        let on_owner_loss = self.word(
            "on_owner_loss",
            raw.on_owner_loss.as_ref(),
            &[("share", OnOwnerLoss::Share), ("deny", OnOwnerLoss::Deny), ("allow", OnOwnerLoss::Allow)],
        );
        (self.faults.len() == before).then(|| Rule {
            domain: domain.into(),
            name: raw.name.value.as_str().into(),
            hasher: KeyHasher::of_rule(self.secret, domain, &raw.name.value),
            when,
            key,
            limit: limit.flatten(),
            overrides,
            mode,
            consistency,
            on_owner_loss,
        })
    }

    fn algorithm(&mut self, name: &Spanned<String>) -> Option<Algorithm> {
        let found = Algorithm::from_name(&name.value);
        if found.is_none() {
            let known: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
            let message = format!("{:?} is no algorithm of this version", name.value);
            self.fault(Some(name.referenced), message, &format!("write one of: {}", known.join(", ")));
        }
        found
    }

    /// `None`: faulty. `Some(None)`: unlimited.
    fn limit(
        &mut self,
        text: &Spanned<String>,
        burst: Option<&Spanned<u64>>,
        algorithm: Algorithm,
    ) -> Option<Option<Limit>> {
        if text.value == "unlimited" {
            return Some(None);
        }
        match Limit::parse(&text.value, burst.map(|burst| burst.value), algorithm) {
            Ok(limit) => Some(Some(limit)),
            Err(error) => {
                let place = match (&error, burst) {
                    (LimitError::ZeroBurst | LimitError::Refill { .. }, Some(burst)) => burst.referenced,
                    (LimitError::TooLarge(number), Some(burst)) if *number == burst.value => burst.referenced,
                    _ => text.referenced,
                };
                self.fault(Some(place), error.to_string(), "");
                None
            }
        }
    }

    pub(crate) fn condition(&mut self, when: &HashMap<String, Spanned<OneOrMany>>) -> Condition {
        let mut tests: Vec<Test> = Vec::with_capacity(when.len());
        for (attribute, patterns) in when {
            let place = Some(patterns.referenced);
            self.check_attribute(attribute, place);
            let patterns = patterns.value.as_slice();
            if patterns.is_empty() {
                let message = format!("the list for {attribute:?} is empty: no request could match");
                self.fault(place, message, "name at least one value, or leave the attribute out");
            }
            for pattern in patterns {
                let bare = pattern.strip_prefix('!').unwrap_or(pattern);
                if attribute == "ip" && bare.contains('/') && bare.parse::<ipnet::IpNet>().is_err() {
                    self.fault(
                        place,
                        format!("{bare:?} is no network"),
                        "write e.g. 10.0.0.0/8 or 2001:db8::/32",
                    );
                }
            }
            tests.push(Test::new(attribute, patterns.iter().map(String::as_str)));
        }
        // The same rule must compile to the same thing, whatever order a map has.
        tests.sort_by(|a, b| a.attribute.cmp(&b.attribute));
        Condition::new(tests)
    }

    pub(crate) fn key(&mut self, key: &Spanned<Vec<Spanned<String>>>) -> Box<[Box<str>]> {
        if key.value.len() > MAX_KEY_PARTS {
            let message =
                format!("a key of {} attributes, at most {MAX_KEY_PARTS} are possible", key.value.len());
            self.fault(Some(key.referenced), message, "");
        }
        let mut seen = HashSet::new();
        for part in &key.value {
            self.check_attribute(&part.value, Some(part.referenced));
            if !seen.insert(&*part.value) {
                self.fault(
                    Some(part.referenced),
                    format!("{:?} is twice in the key", part.value),
                    "name it once",
                );
            }
        }
        key.value.iter().map(|part| part.value.as_str().into()).collect()
    }

    fn check_attribute(&mut self, name: &str, place: Option<Location>) {
        if RESERVED.contains(&name) {
            let message = format!("{name:?} can not be an attribute: calls use that name for something else");
            self.fault(place, message, "choose another name");
        } else if name.is_empty() || name.len() > MAX_NAME_BYTES {
            self.fault(place, format!("an attribute needs a name of 1 to {MAX_NAME_BYTES} bytes"), "");
        }
    }

    pub(crate) fn check_name(&mut self, what: &str, name: &Spanned<String>) {
        let text = &name.value;
        if !is_valid_name(text) {
            let message = format!("{text:?} can not name a {what}");
            let help = format!("use 1 to {MAX_NAME_BYTES} letters, digits and - _ . / :");
            self.fault(Some(name.referenced), message, &help);
        }
    }

    /// The first word of the list is the default.
    fn word<T: Copy>(&mut self, field: &str, given: Option<&Spanned<String>>, words: &[(&str, T)]) -> T {
        let Some(given) = given else { return words[0].1 };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == given.value) {
            return *value;
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("{:?} is no value for {field}", given.value);
        self.fault(Some(given.referenced), message, &format!("write one of: {}", known.join(", ")));
        words[0].1
    }

    pub(crate) fn fault(&mut self, place: Option<Location>, message: String, help: &str) {
        self.faults.push(locate(self.text, place, message, (!help.is_empty()).then(|| help.to_owned())));
    }
}

fn structural(text: &str, error: &serde_saphyr::Error) -> RuleError {
    let mut message = error.without_snippet().to_string();
    // The place is told by itself.
    if let Some(end) = message.find(" at line ") {
        message.truncate(end);
    }
    locate(text, error.location(), message, None)
}

fn locate(text: &str, place: Option<Location>, message: String, help: Option<String>) -> RuleError {
    let Some(place) = place else {
        return RuleError { message, help, line: 0, column: 0, offset: 0, length: 0 };
    };
    let span = place.span();
    let clamp =
        |bytes: u64| text.floor_char_boundary(usize::try_from(bytes).unwrap_or(usize::MAX).min(text.len()));
    let offset = clamp(span.byte_offset().unwrap_or(0));
    let end = clamp(span.byte_offset().unwrap_or(0).saturating_add(span.byte_len().unwrap_or(1)));
    RuleError {
        message,
        help,
        line: place.line() as usize,
        column: place.column() as usize,
        offset,
        length: end.saturating_sub(offset),
    }
}

#[cfg(test)]
mod tests;
