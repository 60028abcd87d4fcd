//! The fields of a configuration. What that server's decoder takes for true, for a number or for nothing is the same here.

use super::{
    super::{
        imported::{Imported, NotRead},
        tree::{At, Tree},
    },
    Config,
};

/// What is looked for at one level of the tree.
#[derive(Debug)]
pub(super) struct Descriptor<'t> {
    pub(super) line: u64,
    pub(super) key: &'t str,
    /// Empty: any.
    pub(super) value: &'t str,
    pub(super) limit: Option<Limit<'t>>,
    pub(super) shadow: bool,
    /// All values that fit a pattern share one counter.
    pub(super) shares: bool,
    pub(super) children: Vec<Descriptor<'t>>,
}

#[derive(Debug)]
pub(super) struct Limit<'t> {
    pub(super) line: u64,
    pub(super) name: &'t str,
    pub(super) rate: Rate,
    /// Names of other limits, with their lines.
    pub(super) replaces: Vec<(u64, &'t str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    Unlimited,
    /// So many in a window of this length.
    Per(u32, &'static str),
}

impl Descriptor<'_> {
    /// What that server knows it by among its siblings.
    pub(super) fn final_key(&self) -> String {
        if self.value.is_empty() { self.key.to_owned() } else { format!("{}_{}", self.key, self.value) }
    }

    pub(super) fn is_pattern(&self) -> bool {
        self.value.contains('*')
    }
}

/// All fields that a configuration may have, anywhere: where one has no meaning it is read over.
const KNOWN: [&str; 16] = [
    "domain",
    "key",
    "value",
    "descriptors",
    "rate_limit",
    "unit",
    "requests_per_unit",
    "unlimited",
    "shadow_mode",
    "quota_mode",
    "name",
    "replaces",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
    "metadata",
];

fn not_read(line: u64, message: impl Into<String>) -> NotRead {
    NotRead { line, message: message.into() }
}

fn other_field(name: &str, place: &str, field: &At, imported: &mut Imported) {
    if KNOWN.contains(&name) {
        imported.note(field.line, format!("{name} in {place} means nothing, for envoyproxy/ratelimit neither"));
    } else {
        imported.lost(field.line, format!("the field {name} is not known; envoyproxy/ratelimit refuses it"));
    }
}

/// A document.
pub(super) fn config<'t>(document: &'t At, imported: &mut Imported) -> Result<Config<'t>, NotRead> {
    let Some(fields) = document.fields() else {
        let message =
            "this is no configuration of envoyproxy/ratelimit: it is a map with domain and descriptors";
        return Err(not_read(document.line, message));
    };
    let mut config = Config { domain: "", line: document.line, descriptors: Vec::new() };
    for (name, field) in fields {
        match &**name {
            "domain" => (config.domain, config.line) = (text(name, field)?, field.line),
            "descriptors" => config.descriptors = list(field, imported)?,
            // Envoy Gateway names a configuration.
            "name" => {}
            other => other_field(other, "a configuration", field, imported),
        }
    }
    if config.domain.is_empty() {
        let message = "there is no domain; a configuration of envoyproxy/ratelimit has one";
        return Err(not_read(document.line, message));
    }
    Ok(config)
}

fn list<'t>(field: &'t At, imported: &mut Imported) -> Result<Vec<Descriptor<'t>>, NotRead> {
    items("descriptors", field)?.iter().map(|item| descriptor(item, imported)).collect()
}

fn descriptor<'t>(at: &'t At, imported: &mut Imported) -> Result<Descriptor<'t>, NotRead> {
    let Some(fields) = at.fields() else {
        return Err(not_read(at.line, "a descriptor is a map with a key"));
    };
    let mut read = Descriptor {
        line: at.line,
        key: "",
        value: "",
        limit: None,
        shadow: false,
        shares: false,
        children: Vec::new(),
    };
    let (mut quota, mut shares) = (None, None);
    for (name, field) in fields {
        match &**name {
            "key" => read.key = text(name, field)?,
            "value" => read.value = text(name, field)?,
            "rate_limit" => read.limit = limit(field, imported)?,
            "descriptors" => read.children = list(field, imported)?,
            "shadow_mode" => read.shadow = flag(name, field)?,
            "share_threshold" => shares = flag(name, field)?.then_some(field.line),
            "quota_mode" => quota = flag(name, field)?.then_some(field.line),
            "detailed_metric" | "value_to_metric" => {
                if flag(name, field)? {
                    imported
                        .note(field.line, format!("{name} is left out: keys are no labels of metrics here"));
                }
            }
            "metadata" => {
                if !(field.is_nothing() || field.fields().is_some_and(<[_]>::is_empty)) {
                    imported.note(field.line, "metadata is left out: answers have no dynamic metadata here");
                }
            }
            other => other_field(other, "a descriptor", field, imported),
        }
    }
    if read.key.is_empty() {
        return Err(not_read(at.line, "a descriptor has no key"));
    }
    if let Some(line) = shares {
        read.shares = read.is_pattern();
        if !read.shares {
            imported.lost(
                line,
                "share_threshold belongs to a value with a *; envoyproxy/ratelimit refuses it elsewhere",
            );
        }
    }
    if let (Some(line), Some(Limit { rate: Rate::Per(..), .. })) = (quota, &read.limit) {
        imported.lost(
            line,
            "quota_mode: here each limit denies by itself, there a request passes as long as one of its quotas has something left",
        );
    }
    Ok(read)
}

/// `None`: there is none, or it could not be carried over, which was said.
fn limit<'t>(at: &'t At, imported: &mut Imported) -> Result<Option<Limit<'t>>, NotRead> {
    if at.is_nothing() {
        return Ok(None);
    }
    let Some(fields) = at.fields() else {
        return Err(not_read(at.line, "a rate_limit is a map with unit and requests_per_unit"));
    };
    let (mut unit, mut count, mut unlimited) = ("", "", false);
    let mut limit = Limit { line: at.line, name: "", rate: Rate::Unlimited, replaces: Vec::new() };
    for (name, field) in fields {
        match &**name {
            "unit" => unit = text(name, field)?,
            "requests_per_unit" => count = text(name, field)?,
            "unlimited" => unlimited = flag(name, field)?,
            "name" => limit.name = text(name, field)?,
            "replaces" => {
                for item in items("replaces", field)? {
                    let name = item.field("name").map_or(Ok(""), |name| text("name", name))?;
                    limit.replaces.push((item.line, name));
                }
            }
            other => other_field(other, "a rate_limit", field, imported),
        }
    }
    let period = match unit.to_ascii_lowercase().as_str() {
        "second" => Some("1s"),
        "minute" => Some("1m"),
        "hour" => Some("1h"),
        "day" => Some("1d"),
        "week" => Some("7d"),
        // Thirty days from 1970 on, not a month of the calendar; and so on.
        "month" => Some("30d"),
        "year" => Some("365d"),
        _ => None,
    };
    match (period, unlimited, number(count)) {
        (None, true, _) => return Ok(Some(limit)),
        (Some(_), true, _) => {
            imported.lost(at.line, format!("a rate_limit is unlimited and has the unit {unit}; envoyproxy/ratelimit refuses that"));
        }
        (None, false, _) => {
            imported.lost(at.line, format!("a rate_limit with the unit {unit:?}: it is one of second, minute, hour, day, week, month, year"));
        }
        (Some(_), false, None) => {
            imported.lost(at.line, format!("requests_per_unit is {count}, which is no whole number below 2^32"));
        }
        (Some(period), false, Some(count)) => {
            limit.rate = Rate::Per(count, period);
            return Ok(Some(limit));
        }
    }
    Ok(None)
}

fn items<'t>(name: &str, field: &'t At) -> Result<&'t [At], NotRead> {
    match &field.tree {
        Tree::Nothing => Ok(&[]),
        Tree::List(items) => Ok(items),
        Tree::Text(_) | Tree::Map(_) => Err(not_read(field.line, format!("{name} must be a list"))),
    }
}

/// Nothing is the empty text.
fn text<'t>(name: &str, field: &'t At) -> Result<&'t str, NotRead> {
    match &field.tree {
        Tree::Nothing => Ok(""),
        Tree::Text(text) => Ok(text),
        Tree::List(_) | Tree::Map(_) => Err(not_read(field.line, format!("{name} must be a text"))),
    }
}

/// The words of YAML 1.1.
fn flag(name: &str, field: &At) -> Result<bool, NotRead> {
    match text(name, field)? {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Ok(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" | "" => Ok(false),
        other => Err(not_read(field.line, format!("{name} is true or false, here is {other}"))),
    }
}

/// A whole number as Go writes it: `1_000`, `0x10`, and `010` is eight. Nothing is 0.
fn number(text: &str) -> Option<u32> {
    if text.is_empty() {
        return Some(0);
    }
    let plain = text.replace('_', "");
    let digits = plain.strip_prefix('+').unwrap_or(&plain);
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&*lower, 10),
    };
    // A second sign is none.
    if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("5", Some(5)),
            ("", Some(0)),
            ("0", Some(0)),
            ("1_000", Some(1_000)),
            ("010", Some(8)),
            ("0x10", Some(16)),
            ("0o17", Some(15)),
            ("0b11", Some(3)),
            ("+7", Some(7)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("-1", None),
            ("++1", None),
            ("1.5", None),
            ("1e3", None),
            ("09", None),
            ("five", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
