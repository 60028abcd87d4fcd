//! The shape of a rule file: which fields there are and of what kind. What they mean is another matter.

use super::{
    compile::{RawKey, RawPattern, RawTest, Written},
    error::{Place, RuleErrors},
    fields::{Fields, Kind},
    node::{Node, Value},
};
use crate::pattern::{PatternForm, PatternText};

/// Of a `when` or a `key`: as many as a request can have.
const MAX_ATTRIBUTES: usize = 64;

/// One document. What is `None` was left out, or is invalid, which has been reported.
#[derive(Debug)]
pub(super) struct RawFile {
    pub(super) place: Place,
    pub(super) domain: Option<Written>,
    pub(super) unmatched: Option<Written>,
    pub(super) block: Vec<RawBlocked>,
    pub(super) all_or_nothing: Option<Written>,
    pub(super) timezone: Option<Written>,
    pub(super) rules: Vec<RawRule>,
}

/// An entry of the block list.
#[derive(Debug)]
pub(super) struct RawBlocked {
    pub(super) place: Place,
    pub(super) name: Option<Written>,
    pub(super) when: Vec<RawTest>,
    pub(super) until: Option<Written>,
}

#[derive(Debug)]
pub(super) struct RawRule {
    pub(super) name: Option<Written>,
    pub(super) when: Vec<RawTest>,
    pub(super) span: RawSpan,
    pub(super) key: Option<RawKey>,
    pub(super) ip_prefix: RawIpPrefix,
    pub(super) limit: RawLimit,
    pub(super) placing: RawPlacing,
    pub(super) algorithm: Option<Written>,
    pub(super) cost: Option<Written>,
    pub(super) mode: Option<Written>,
    pub(super) ban: Option<RawBan>,
    pub(super) consistency: Option<Written>,
    pub(super) on_owner_loss: Option<Written>,
    pub(super) carved: Option<Written>,
    pub(super) takeover: Option<Written>,
    pub(super) on_total_loss: Option<Written>,
    pub(super) on_memory_full: Option<Written>,
    pub(super) overrides: Vec<RawOverride>,
}

/// When something is in force.
#[derive(Debug)]
pub(super) struct RawSpan {
    pub(super) from: Option<Written>,
    pub(super) until: Option<Written>,
}

/// For how long keys are banned.
#[derive(Debug)]
pub(super) struct RawBan {
    pub(super) place: Place,
    pub(super) first: Written,
    pub(super) longest: Option<Written>,
}

/// Bits of an address, and where they stand.
#[derive(Debug, Default)]
pub(super) struct RawIpPrefix {
    pub(super) v4: Option<(u8, Place)>,
    pub(super) v6: Option<(u8, Place)>,
}

#[derive(Debug)]
pub(super) struct RawLimit {
    pub(super) limit: Option<Written>,
    pub(super) burst: Option<(u64, Place)>,
}

/// Where windows lie.
#[derive(Debug)]
pub(super) struct RawPlacing {
    pub(super) timezone: Option<Written>,
    pub(super) starts: Option<Written>,
}

#[derive(Debug)]
pub(super) struct RawOverride {
    pub(super) when: Vec<RawTest>,
    pub(super) span: RawSpan,
    pub(super) limit: RawLimit,
    pub(super) placing: RawPlacing,
}

const FILE: Kind = Kind {
    name: "a rule file",
    fields: &[
        ("domain", "`domain: default`"),
        ("unmatched", "`unmatched: allow`"),
        ("block", "`block: [{ when: { ip: 203.0.113.7 }, until: 2026-12-31T00:00:00Z }]`"),
        ("all_or_nothing", "`all_or_nothing: true`"),
        ("timezone", "`timezone: Europe/Paris`"),
        ("rules", "`rules: []`, or a list with a rule each"),
    ],
    example: "`rules: [{ name: per-ip, key: [ip], limit: 5/1m }]`",
};

const BLOCKED: Kind = Kind {
    name: "an entry of `block`",
    fields: &[
        ("when", "`when: { ip: 203.0.113.7 }`"),
        ("until", "`until: 2026-12-31T00:00:00Z`"),
        ("name", "`name: scrapers`"),
    ],
    example: "`- { when: { ip: 203.0.113.7 }, until: 2026-12-31T00:00:00Z }`",
};

const RULE: Kind = Kind {
    name: "a rule",
    fields: &[
        ("name", "`name: login-per-ip`"),
        ("when", "`when: { path: /login }`"),
        ("key", "`key: [ip]`, or `key: []` for one bucket for the whole rule"),
        ("limit", "`limit: 5/1m`"),
        ("burst", "`burst: 10`"),
        ("algorithm", "`algorithm: token_bucket`"),
        ("timezone", "`timezone: Europe/Paris`"),
        ("starts", "`starts: 2026-03-17`"),
        ("cost", "`cost: 5`, or `cost: tokens`"),
        ("mode", "`mode: enforce`"),
        ("ban", "`ban: 15m`, or `ban: { for: 15m, max: 1d }`"),
        ("consistency", "`consistency: available`"),
        ("on_owner_loss", "`on_owner_loss: share`"),
        ("carved", "`carved: true`"),
        ("takeover", "`takeover: reserve`"),
        ("on_total_loss", "`on_total_loss: full`"),
        ("on_memory_full", "`on_memory_full: strict`"),
        ("ip_prefix", "`ip_prefix: { v4: 24, v6: 56 }`"),
        ("from", "`from: 2026-11-27T00:00:00Z`"),
        ("until", "`until: 2026-12-31T00:00:00Z`"),
        ("overrides", "`overrides: [{ when: { tier: gold }, limit: 50/1m }]`"),
    ],
    example: "`- { name: per-ip, key: [ip], limit: 5/1m }`",
};

const BAN: Kind = Kind {
    name: "`ban`",
    fields: &[("for", "`for: 15m`"), ("max", "`max: 1d`")],
    example: "`ban: 15m`, or `ban: { for: 15m, max: 1d }`",
};

const IP_PREFIX: Kind = Kind {
    name: "`ip_prefix`",
    fields: &[("v4", "`v4: 24`"), ("v6", "`v6: 56`")],
    example: "`ip_prefix: { v4: 24, v6: 56 }`",
};

const OVERRIDE: Kind = Kind {
    name: "an override",
    fields: &[
        ("when", "`when: { tier: gold }`"),
        ("limit", "`limit: 50/1m`, or `limit: unlimited`, or `limit: deny`"),
        ("burst", "`burst: 100`"),
        ("timezone", "`timezone: Europe/Paris`"),
        ("starts", "`starts: 2026-03-17`"),
        ("from", "`from: 2026-11-27T00:00:00Z`"),
        ("until", "`until: 2026-12-31T00:00:00Z`"),
    ],
    example: "`- { when: { tier: gold }, limit: 50/1m }`",
};

const FORM: Kind = Kind {
    name: "a value in `when` that is a map",
    fields: &[
        ("is", "`path: { is: \"/a*\" }`"),
        ("is_not", "`path: { is_not: \"/a*\" }`"),
        ("like", "`path: { like: \"/a/*/b\" }`"),
        ("not_like", "`path: { not_like: \"/a/*/b\" }`"),
        ("exactly_like", "`path: { exactly_like: \"*.php\" }`"),
        ("not_exactly_like", "`path: { not_exactly_like: \"*.php\" }`"),
    ],
    example: "`path: { is: \"/a*\" }`",
};

/// Reads a document. `None`: it is no map, which has been reported.
pub(super) fn file(node: Node, errors: &mut RuleErrors<'_>) -> Option<RawFile> {
    let place = node.shown();
    let mut fields = Fields::of(node, &FILE, errors)?;
    let domain = fields.text("domain");
    let unmatched = fields.text("unmatched");
    let all_or_nothing = fields.text("all_or_nothing");
    let timezone = fields.text("timezone");
    let block = fields.take("block");
    let block = block.map_or_else(Vec::new, |node| list(&mut fields, "block", "a list of entries", node));
    let block = block.into_iter().filter_map(|node| blocked(node, fields.errors)).collect();
    let rules = fields.need("rules");
    let rules = rules.map_or_else(Vec::new, |node| list(&mut fields, "rules", "a list of rules", node));
    let rules = rules.into_iter().filter_map(|node| rule(node, fields.errors)).collect();
    Some(RawFile { place, domain, unmatched, block, all_or_nothing, timezone, rules })
}

fn blocked(node: Node, errors: &mut RuleErrors<'_>) -> Option<RawBlocked> {
    let place = node.shown();
    let before = errors.count();
    let mut fields = Fields::of(node, &BLOCKED, errors)?;
    let name = fields.text("name");
    let until = fields.text("until");
    let when = fields.need("when").map(|node| condition(&mut fields, node));
    // What is wrong with `when` may have left nothing of it.
    (errors.count() == before).then(|| RawBlocked { place, name, when: when.unwrap_or_default(), until })
}

fn rule(node: Node, errors: &mut RuleErrors<'_>) -> Option<RawRule> {
    let mut fields = Fields::of(node, &RULE, errors)?;
    Some(RawRule {
        name: fields.needed_text("name"),
        when: fields.take("when").map_or_else(Vec::new, |node| condition(&mut fields, node)),
        span: span(&mut fields),
        key: fields.need("key").map(|node| key(&mut fields, node)),
        ip_prefix: ip_prefix(&mut fields),
        limit: limit(&mut fields),
        placing: placing(&mut fields),
        algorithm: fields.text("algorithm"),
        cost: fields.text("cost"),
        mode: fields.text("mode"),
        ban: fields.take("ban").and_then(|node| ban(node, fields.errors)),
        consistency: fields.text("consistency"),
        on_owner_loss: fields.text("on_owner_loss"),
        carved: fields.text("carved"),
        takeover: fields.text("takeover"),
        on_total_loss: fields.text("on_total_loss"),
        on_memory_full: fields.text("on_memory_full"),
        overrides: overrides(&mut fields),
    })
}

fn overrides(fields: &mut Fields<'_, '_>) -> Vec<RawOverride> {
    let Some(node) = fields.take("overrides") else { return Vec::new() };
    let nodes = list(fields, "overrides", "a list of overrides", node);
    nodes.into_iter().filter_map(|node| special(node, fields.errors)).collect()
}

fn special(node: Node, errors: &mut RuleErrors<'_>) -> Option<RawOverride> {
    let mut fields = Fields::of(node, &OVERRIDE, errors)?;
    let when = fields.need("when");
    let when = when.map_or_else(Vec::new, |node| condition(&mut fields, node));
    let span = span(&mut fields);
    Some(RawOverride { when, span, limit: limit(&mut fields), placing: placing(&mut fields) })
}

fn span(fields: &mut Fields<'_, '_>) -> RawSpan {
    RawSpan { from: fields.text("from"), until: fields.text("until") }
}

fn limit(fields: &mut Fields<'_, '_>) -> RawLimit {
    let limit = fields.needed_text("limit");
    let burst = fields.take("burst").and_then(|node| match node.value {
        Value::Whole(burst) => Some((burst, node.place)),
        _ => {
            fields.mistaken("burst", "a whole number", &node);
            None
        }
    });
    RawLimit { limit, burst }
}

fn placing(fields: &mut Fields<'_, '_>) -> RawPlacing {
    RawPlacing { timezone: fields.text("timezone"), starts: fields.text("starts") }
}

fn ip_prefix(fields: &mut Fields<'_, '_>) -> RawIpPrefix {
    let Some(node) = fields.take("ip_prefix") else { return RawIpPrefix::default() };
    let Some(mut fields) = Fields::of(node, &IP_PREFIX, fields.errors) else { return RawIpPrefix::default() };
    let mut bits = |family| {
        let node = fields.take(family)?;
        match node.value {
            // What is too large for a byte is too large for an address.
            Value::Whole(bits) => Some((u8::try_from(bits).unwrap_or(u8::MAX), node.place)),
            _ => {
                fields.mistaken(family, "a whole number", &node);
                None
            }
        }
    };
    RawIpPrefix { v4: bits("v4"), v6: bits("v6") }
}

/// A time, or a map.
fn ban(node: Node, errors: &mut RuleErrors<'_>) -> Option<RawBan> {
    let place = node.shown();
    if !matches!(node.value, Value::Map(_)) {
        let first = word(errors, "`ban`", node)?;
        return Some(RawBan { place, first, longest: None });
    }
    let before = errors.count();
    let mut fields = Fields::of(node, &BAN, errors)?;
    let (first, longest) = (fields.needed_text("for"), fields.text("max"));
    let first = first.filter(|_| errors.count() == before)?;
    Some(RawBan { place, first, longest })
}

fn key(fields: &mut Fields<'_, '_>, node: Node) -> RawKey {
    let place = node.shown();
    let parts = list(fields, "key", "a list of attributes", node);
    if parts.len() > MAX_ATTRIBUTES {
        let message = format!("`key` has {} attributes, at most {MAX_ATTRIBUTES} can be", parts.len());
        fields.errors.add(place, message, "no request has more attributes than that");
        return RawKey { parts: Vec::new(), place };
    }
    let parts = parts.into_iter().filter_map(|part| word(fields.errors, "an attribute of `key`", part));
    RawKey { parts: parts.collect(), place }
}

/// An attribute each, with one pattern or a list of them.
fn condition(fields: &mut Fields<'_, '_>, node: Node) -> Vec<RawTest> {
    let Value::Map(entries) = node.value else {
        fields.mistaken("when", "a map of attributes", &node);
        return Vec::new();
    };
    if entries.len() > MAX_ATTRIBUTES {
        let message = format!("`when` tests {} attributes, at most {MAX_ATTRIBUTES} can be", entries.len());
        fields.errors.add(node.place, message, "no request has more attributes than that");
        return Vec::new();
    }
    let mut tests: Vec<RawTest> = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let Some(attribute) = word(fields.errors, "the name of an attribute", name) else { continue };
        if tests.iter().any(|test| test.attribute.text == attribute.text) {
            let message = format!("the attribute {:?} is there twice in `when`", attribute.text);
            fields.errors.add(attribute.place, message, "write all its values as one list: [a, b]");
            continue;
        }
        let place = value.shown();
        let values = match value.value {
            Value::List(values) => values,
            _ => vec![value],
        };
        let count = values.len();
        let patterns: Vec<RawPattern> =
            values.into_iter().filter_map(|value| pattern(fields.errors, value)).collect();
        // One that is invalid has been reported; without it the list may seem empty.
        if patterns.len() == count {
            tests.push(RawTest { attribute, patterns, place });
        }
    }
    tests
}

/// A text, or a map that says how its text is read.
fn pattern(errors: &mut RuleErrors<'_>, node: Node) -> Option<RawPattern> {
    if !matches!(node.value, Value::Map(_)) {
        let Written { text, place } = word(errors, "a value in `when`", node)?;
        return Some(RawPattern { pattern: PatternText::Short(text), place });
    }
    let (place, before) = (node.shown(), errors.count());
    let mut fields = Fields::of(node, &FORM, errors)?;
    type Form = (&'static str, fn(String) -> PatternForm);
    let forms: [Form; 6] = [
        ("is", PatternForm::Is),
        ("is_not", PatternForm::IsNot),
        ("like", PatternForm::Like),
        ("not_like", PatternForm::NotLike),
        ("exactly_like", PatternForm::ExactlyLike),
        ("not_exactly_like", PatternForm::NotExactlyLike),
    ];
    let mut found: Vec<PatternForm> =
        forms.into_iter().filter_map(|(name, form)| Some(form(fields.text(name)?.text))).collect();
    if found.len() != 1 && errors.count() == before {
        let message = match found.len() {
            0 => format!("{} says nothing", FORM.name),
            _ => format!("{} says more than one thing", FORM.name),
        };
        errors.add(
            place,
            message,
            "write one of is, is_not, like, not_like, exactly_like, not_exactly_like, with a text; several maps in a list",
        );
    }
    let form = found.pop().filter(|_| errors.count() == before)?;
    Some(RawPattern { pattern: PatternText::Long(form), place })
}

fn list(fields: &mut Fields<'_, '_>, field: &str, expected: &str, node: Node) -> Vec<Node> {
    match node.value {
        Value::List(nodes) => nodes,
        _ => {
            fields.mistaken(field, expected, &node);
            Vec::new()
        }
    }
}

fn word(errors: &mut RuleErrors<'_>, what: &str, node: Node) -> Option<Written> {
    let place = node.place;
    match node.into_text(errors.text()) {
        Ok(text) => Some(Written { text, place }),
        Err(node) => {
            let help = match node.value {
                Value::Nothing => "write \"\" for the empty text",
                _ => "write single words: [a, b]",
            };
            errors.add(node.shown(), format!("{what} must be a text, here is {}", node.kind()), help);
            None
        }
    }
}
