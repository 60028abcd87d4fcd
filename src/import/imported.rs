//! What is made of a configuration: rules, as a node takes them, and remarks on what they do not say.

use std::{collections::HashMap, fmt::Write as _};

use tidegate_limiter::{
    Algorithm,
    cluster::Rules,
    rules::{HashSecret, PatternText, RuleError},
};

pub(crate) use super::sources::NotRead;
use super::sources::Sources;

/// What was made of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    pub(crate) domains: Vec<Domain>,
    /// By line.
    pub(crate) remarks: Vec<Remark>,
}

/// The rules of a domain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) rules: Vec<NewRule>,
}

/// Attributes and the patterns of their values.
pub(crate) type When = Vec<(String, Vec<PatternText>)>;

/// A rule, as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewRule {
    pub(crate) name: String,
    /// The line that it comes from, among those of all [`Sources`].
    pub(crate) line: u64,
    pub(crate) when: When,
    /// Where there are any, it is only about requests that fit one of them besides; all have one bucket.
    pub(crate) alternatives: Vec<When>,
    pub(crate) key: Vec<String>,
    /// How many bits of an IPv6 address count, where not as many as a node says.
    pub(crate) ipv6_prefix: Option<u8>,
    /// `unlimited`, or a count in a period.
    pub(crate) limit: String,
    pub(crate) burst: Option<u64>,
    pub(crate) algorithm: Algorithm,
    pub(crate) shadow: bool,
}

/// Something of the configuration that the rules do not say, or say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    /// Among those of all [`Sources`].
    pub(crate) line: u64,
    /// Whether it is missing, rather than only another way to say it.
    pub(crate) lost: bool,
    pub(crate) message: String,
}

impl Imported {
    pub(super) fn lost(&mut self, line: u64, message: impl Into<String>) {
        self.remarks.push(Remark { line, lost: true, message: message.into() });
    }

    pub(super) fn note(&mut self, line: u64, message: impl Into<String>) {
        self.remarks.push(Remark { line, lost: false, message: message.into() });
    }

    /// In the order of their lines, each once.
    pub(super) fn sort(&mut self) {
        self.remarks.sort_by(|a, b| (a.line, &a.message).cmp(&(b.line, &b.message)));
        self.remarks.dedup();
    }

    /// Whether something is missing.
    pub(crate) fn has_lost(&self) -> bool {
        self.remarks.iter().any(|remark| remark.lost)
    }

    /// The rule file: a document for each domain.
    pub(crate) fn to_yaml(&self, sources: &Sources) -> String {
        let mut yaml = String::new();
        // Whether rules come from other texts than the first one, too.
        let first = sources.iter().next().map(|source| &*source.name);
        let mut lines = self.domains.iter().flat_map(|domain| &domain.rules).map(|rule| rule.line);
        let several = lines.any(|line| Some(sources.place(line).name) != first);
        for (place, domain) in self.domains.iter().enumerate() {
            if place > 0 {
                yaml.push_str("---\n");
            }
            let end = if domain.rules.is_empty() { " []" } else { "" };
            // Writing into a String cannot fail.
            let _ = writeln!(yaml, "domain: {}\nrules:{end}", word(&domain.name));
            domain.rules.iter().for_each(|rule| rule.write(&mut yaml, sources, several));
        }
        yaml
    }

    /// Looks whether a node takes the rules.
    pub(crate) fn check(&self, sources: &Sources) -> Result<(), Vec<RuleError>> {
        Rules::from_yaml(&self.to_yaml(sources), &HashSecret::new([0; 16])).map(|_| ())
    }
}

impl NewRule {
    /// Why no node takes it.
    pub(super) fn fault(&self) -> Option<String> {
        let mut yaml = "rules:\n".to_owned();
        self.write(&mut yaml, &Sources::default(), false);
        let faults = Rules::from_yaml(&yaml, &HashSecret::new([0; 16])).err()?;
        faults.into_iter().next().map(|fault| fault.message)
    }

    fn write(&self, yaml: &mut String, sources: &Sources, several: bool) {
        let place = sources.place(self.line);
        let from = match several {
            false => format!("line {}", place.line),
            // A name may hold anything, and a comment is one line.
            true => format!("{}:{}", place.name.replace(char::is_control, "?"), place.line),
        };
        let _ = writeln!(yaml, "  - name: {} # {from}", word(&self.name));
        if !self.when.is_empty() {
            let _ = writeln!(yaml, "    when: {{ {} }}", condition(&self.when));
        }
        let _ = writeln!(yaml, "    key: [{}]\n    limit: {}", words(&self.key), self.limit);
        if let Some(bits) = self.ipv6_prefix {
            let _ = writeln!(yaml, "    ip_prefix: {{ v6: {bits} }}");
        }
        if let Some(burst) = self.burst {
            let _ = writeln!(yaml, "    burst: {burst}");
        }
        if self.algorithm != Algorithm::TokenBucket {
            let _ = writeln!(yaml, "    algorithm: {}", self.algorithm.as_str());
        }
        if self.shadow {
            let _ = writeln!(yaml, "    mode: shadow");
        }
        if !self.alternatives.is_empty() {
            // An override that says the limit of its rule has the rule's bucket.
            let burst = self.burst.map_or(String::new(), |burst| format!(", burst: {burst}"));
            let _ = writeln!(yaml, "    overrides:");
            for when in &self.alternatives {
                let when = condition(when);
                let _ = writeln!(yaml, "      - {{ when: {{ {when} }}, limit: {}{burst} }}", self.limit);
            }
            let _ = writeln!(yaml, "      - {{ when: {{}}, limit: unlimited }}");
        }
    }
}

fn condition(when: &When) -> String {
    let tests: Vec<String> = when
        .iter()
        .map(|(attribute, patterns)| match &patterns[..] {
            [one] => format!("{}: {}", word(attribute), pattern(one)),
            several => {
                let several: Vec<String> = several.iter().map(pattern).collect();
                format!("{}: [{}]", word(attribute), several.join(", "))
            }
        })
        .collect();
    tests.join(", ")
}

fn pattern(pattern: &PatternText) -> String {
    match pattern {
        PatternText::Short(text) => word(text),
        PatternText::Long(form) => {
            let (name, text) = form.parts();
            format!("{{ {name}: {} }}", word(text))
        }
    }
}

fn words(texts: &[String]) -> String {
    texts.iter().map(|text| word(text)).collect::<Vec<_>>().join(", ")
}

/// A text as YAML, bare where that is surely a text. JSON's strings are YAML's.
fn word(text: &str) -> String {
    let bare = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if bare { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The names of rules of which there may be many.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// With the number that was last put behind it.
    taken: HashMap<String, u32>,
}

impl Names {
    /// A name of a rule made of any text, different from those that are taken.
    pub(super) fn take(&mut self, text: &str) -> String {
        let name = spelt(text);
        let mut number = self.taken.get(&name).copied().unwrap_or(0);
        let mut free = name.clone();
        while self.taken.contains_key(&free) {
            number += 1;
            free = format!("{name}-{number}");
        }
        self.taken.insert(name, number.max(1));
        self.taken.entry(free.clone()).or_insert(1);
        free
    }
}

/// With only such characters as a name can have.
fn spelt(text: &str) -> String {
    const MAX: usize = 100;
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_./:".contains(character);
    let name: String =
        text.chars().map(|character| if allowed(character) { character } else { '-' }).take(MAX).collect();
    if name.is_empty() { "rule".to_owned() } else { name }
}
