//! envoyproxy/ratelimit: a tree of descriptors. At each level the entry of the request is looked for with its value, then
//! among the prefixes in their order, then without value; and only what is found at the depth of the last entry limits it.
//!
//! A way through the tree becomes a rule: its attributes are the keys on the way, and what goes before it at each level is
//! excluded. Counters are fixed windows.

use tidegate_limiter::Algorithm;

use super::{
    imported::{Domain, Imported, NewRule, NotRead, name_of, no_pattern},
    sources::Sources,
    tree::{self, At, Tree},
};

struct Descriptor<'t> {
    line: u64,
    key: &'t str,
    value: Option<&'t str>,
    limit: Option<Limit<'t>>,
    shadow: bool,
    /// All values of a prefix share one counter.
    shares: bool,
    children: Vec<Descriptor<'t>>,
}

struct Limit<'t> {
    line: u64,
    name: Option<&'t str>,
    /// None: unlimited.
    rate: Option<(&'t str, &'t str)>,
}

/// One step on the way to a limit.
#[derive(Clone)]
struct Step {
    attribute: String,
    patterns: Vec<String>,
    /// Each value has a counter of its own.
    is_key: bool,
    name: String,
}

/// Reads the files of a configuration, as documents.
pub(crate) fn read(sources: &mut Sources) -> Result<Imported, NotRead> {
    let mut imported = Imported::default();
    let mut documents = Vec::new();
    for source in sources.iter() {
        documents.extend(tree::read(source.text()?, source.before)?);
    }
    for document in &documents {
        let Tree::Map(fields) = &document.tree else {
            let message =
                "this is no configuration of envoyproxy/ratelimit: it is a map with domain and descriptors";
            return Err(NotRead { line: document.line, message: message.to_owned() });
        };
        let domain = fields.iter().find(|(name, _)| name == "domain").and_then(|(_, domain)| domain.text());
        let Some(domain) = domain else {
            let message = "there is no domain; a configuration of envoyproxy/ratelimit has one";
            return Err(NotRead { line: document.line, message: message.to_owned() });
        };
        let mut descriptors = Vec::new();
        for (name, field) in fields {
            match &**name {
                "domain" => {}
                "descriptors" => descriptors = list(field, &mut imported)?,
                other => imported.lost(field.line, format!("the field {other} is not known")),
            }
        }
        let mut rules = Vec::new();
        walk(&descriptors, &[], &mut rules, &mut imported);
        if imported.domains.iter().any(|known| known.name == domain) {
            let message = format!("the domain {domain} is there twice");
            return Err(NotRead { line: document.line, message });
        }
        imported.domains.push(Domain { name: domain.to_owned(), rules });
    }
    imported.sort();
    Ok(imported)
}

fn list<'t>(field: &'t At, imported: &mut Imported) -> Result<Vec<Descriptor<'t>>, NotRead> {
    match &field.tree {
        Tree::Nothing => Ok(Vec::new()),
        Tree::List(items) => items.iter().map(|item| descriptor(item, imported)).collect(),
        _ => Err(NotRead { line: field.line, message: "descriptors are a list".to_owned() }),
    }
}

fn descriptor<'t>(at: &'t At, imported: &mut Imported) -> Result<Descriptor<'t>, NotRead> {
    let fault = |line, message: &str| NotRead { line, message: message.to_owned() };
    let Tree::Map(fields) = &at.tree else { return Err(fault(at.line, "a descriptor is a map with a key")) };
    let mut read = Descriptor {
        line: at.line,
        key: "",
        value: None,
        limit: None,
        shadow: false,
        shares: false,
        children: Vec::new(),
    };
    for (name, field) in fields {
        match &**name {
            "key" => read.key = field.text().ok_or_else(|| fault(field.line, "a key is a text"))?,
            "value" => read.value = field.text().filter(|value| !value.is_empty()),
            "rate_limit" => read.limit = limit(field, imported)?,
            "descriptors" => read.children = list(field, imported)?,
            "shadow_mode" => read.shadow = field.is_true(),
            "share_threshold" => read.shares = field.is_true(),
            "quota_mode" if field.is_true() => {
                imported.lost(field.line, "quota_mode: a rule either denies, or only counts (mode: shadow)");
            }
            "detailed_metric" | "value_to_metric" if field.is_true() => {
                imported.note(field.line, format!("{name} is left out: keys are no labels of metrics here"))
            }
            "quota_mode" | "detailed_metric" | "value_to_metric" => {}
            other => imported.lost(field.line, format!("the field {other} is not known")),
        }
    }
    if read.key.is_empty() {
        return Err(fault(at.line, "a descriptor has no key"));
    }
    Ok(read)
}

fn limit<'t>(at: &'t At, imported: &mut Imported) -> Result<Option<Limit<'t>>, NotRead> {
    let Tree::Map(fields) = &at.tree else {
        return Err(NotRead {
            line: at.line,
            message: "a rate_limit is a map with unit and requests_per_unit".to_owned(),
        });
    };
    let (mut unit, mut count, mut unlimited) = (None, None, false);
    let mut limit = Limit { line: at.line, name: None, rate: None };
    for (name, field) in fields {
        match &**name {
            "unit" => unit = field.text(),
            "requests_per_unit" => count = field.text(),
            "unlimited" => unlimited = field.is_true(),
            "name" => limit.name = field.text(),
            "replaces" => imported.lost(
                field.line,
                "replaces: rules do not take each other's place; all that match must allow (overrides can say another limit)",
            ),
            other => imported.lost(field.line, format!("the field {other} is not known")),
        }
    }
    if !unlimited {
        let (Some(unit), Some(count)) = (unit, count) else {
            return Err(NotRead {
                line: at.line,
                message: "a rate_limit has unit and requests_per_unit, or unlimited".to_owned(),
            });
        };
        limit.rate = Some((count, unit));
    }
    Ok(Some(limit))
}

fn walk(siblings: &[Descriptor<'_>], way: &[Step], rules: &mut Vec<NewRule>, imported: &mut Imported) {
    for (place, one) in siblings.iter().enumerate() {
        if siblings[..place].iter().any(|other| (other.key, other.value) == (one.key, one.value)) {
            imported
                .lost(one.line, "the same key and value stand here twice; envoyproxy/ratelimit refuses that");
            continue;
        }
        let Some(step) = step(siblings, place, way, imported) else { continue };
        let mut way = way.to_vec();
        way.push(step);
        if let Some(limit) = &one.limit
            && let Some(rule) = rule(one, limit, &way, rules, imported)
        {
            rules.push(rule);
        }
        walk(&one.children, &way, rules, imported);
    }
}

/// How one of the siblings is chosen: which values it has, without those of the siblings that go before it.
fn step(siblings: &[Descriptor<'_>], place: usize, way: &[Step], imported: &mut Imported) -> Option<Step> {
    let one = &siblings[place];
    // As the front end for Envoy names a key that comes again.
    let comes_again = |name: &str| way.iter().any(|step| step.attribute == name);
    let attribute = if comes_again(one.key) {
        (2..).map(|number| format!("{}.{number}", one.key)).find(|name| !comes_again(name))?
    } else {
        one.key.to_owned()
    };
    let others = || siblings.iter().filter(move |other| other.key == one.key);
    let prefix = |value: &Option<&str>| value.and_then(|value| value.strip_suffix('*')).map(str::to_owned);
    let mut patterns = Vec::new();
    let mut is_key = true;
    match (one.value, prefix(&one.value)) {
        (None, _) => {
            patterns.extend(others().filter_map(|other| other.value).map(|value| format!("!{value}")));
        }
        (Some(value), Some(start)) => {
            if let Some(why) = no_pattern(&start) {
                imported.lost(one.line, format!("{}: {value}: {why}", one.key));
                return None;
            }
            patterns.push(value.to_owned());
            for other in others() {
                let Some(value) = other.value else { continue };
                match prefix(&other.value) {
                    None if value.starts_with(&start) => patterns.push(format!("!{value}")),
                    Some(earlier)
                        if other.line < one.line
                            && (earlier.starts_with(&start) || start.starts_with(&earlier)) =>
                    {
                        patterns.push(format!("!{value}"));
                    }
                    _ => {}
                }
            }
            is_key = !one.shares;
        }
        (Some(value), None) => {
            if let Some(why) = no_pattern(value) {
                imported.lost(one.line, format!("{}: {value}: {why}", one.key));
                return None;
            }
            patterns.push(value.to_owned());
            is_key = false;
        }
    }
    // Those that could not be said anywhere cannot be excluded either.
    let sayable = |pattern: &String| {
        let value = pattern.strip_prefix('!').unwrap_or(pattern);
        no_pattern(value.strip_suffix('*').unwrap_or(value)).is_none()
    };
    patterns.retain(sayable);
    let name = match one.value {
        Some(value) => format!("{}:{}", one.key, value.trim_end_matches('*')),
        None => one.key.to_owned(),
    };
    Some(Step { attribute, patterns, is_key, name })
}

fn rule(
    one: &Descriptor<'_>,
    limit: &Limit<'_>,
    way: &[Step],
    rules: &[NewRule],
    imported: &mut Imported,
) -> Option<NewRule> {
    let written = match limit.rate {
        None => "unlimited".to_owned(),
        Some((count, unit)) => {
            let period = match unit.to_ascii_lowercase().as_str() {
                "second" => "1s",
                "minute" => "1m",
                "hour" => "1h",
                "day" => "1d",
                "week" => "7d",
                // Thirty days from 1970 on, not that of the calendar.
                "month" => "30d",
                "year" => {
                    imported.lost(limit.line, "a limit by the year: the longest period is 31 days");
                    return None;
                }
                other => {
                    imported.lost(limit.line, format!("the unit {other} is not known"));
                    return None;
                }
            };
            match count.parse::<u32>() {
                Ok(0) => {
                    imported.lost(limit.line, "0 requests: no rule denies everything; take unmatched: deny, or let the proxy deny it");
                    return None;
                }
                Ok(count) => format!("{count}/{period}"),
                Err(_) => {
                    imported
                        .lost(limit.line, format!("requests_per_unit is {count}, which is no whole number"));
                    return None;
                }
            }
        }
    };
    let mut when: Vec<(String, Vec<String>)> = way
        .iter()
        .filter(|step| !step.patterns.is_empty())
        .map(|step| (step.attribute.clone(), step.patterns.clone()))
        .collect();
    // A request that goes on deeper is not limited here.
    for deeper in deeper(one, way) {
        when.push((deeper, vec!["!*".to_owned()]));
    }
    let name = limit.name.filter(|name| !name.is_empty()).map_or_else(
        || way.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join("."),
        str::to_owned,
    );
    Some(NewRule {
        name: name_of(&name, rules),
        line: limit.line,
        when,
        key: way.iter().filter(|step| step.is_key).map(|step| step.attribute.clone()).collect(),
        limit: written,
        burst: None,
        algorithm: Algorithm::FixedWindow,
        shadow: one.shadow,
    })
}

/// The attributes of the next level.
fn deeper(one: &Descriptor<'_>, way: &[Step]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for child in &one.children {
        let comes_again = way.iter().filter(|step| {
            step.attribute == child.key
                || step.attribute.strip_prefix(child.key).is_some_and(|rest| rest.starts_with('.'))
        });
        let name = match comes_again.count() {
            0 => child.key.to_owned(),
            times => format!("{}.{}", child.key, times + 1),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
