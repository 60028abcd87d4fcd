//! The condition of an `if`.

use super::{
    super::imported::Imported,
    late::Late,
    pattern::{Conditions, Pattern, Test},
    regex,
    syntax::Directive,
    variables,
};

/// What must be so.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// The path fits one of these, or none of them.
    Path { paths: Vec<Pattern>, negated: bool },
    /// An attribute fits one of these, or none of them.
    Attribute { name: String, values: Vec<Pattern>, negated: bool },
    /// No rule says it.
    Unknown,
}

impl Condition {
    /// Of a directive `if`.
    pub(super) fn read(directive: &Directive, imported: &mut Imported) -> Self {
        let mut words: Vec<&str> = directive.arguments.iter().map(String::as_str).collect();
        if let Some(first) = words.first_mut() {
            *first = first.strip_prefix('(').unwrap_or(first);
        }
        if let Some(last) = words.last_mut() {
            *last = last.strip_suffix(')').unwrap_or(last);
        }
        if words.first() == Some(&"") {
            words.remove(0);
        }
        // An empty text in quotes is a word too, before the bracket.
        if words.len() > 3 && words.last() == Some(&"") {
            words.pop();
        }
        match words[..] {
            [variable, operator, value] => {
                compared(variable, operator, value, directive.line, imported).unwrap_or(Self::Unknown)
            }
            _ => Self::Unknown,
        }
    }

    /// The patterns of paths in it.
    pub(super) fn paths(&self) -> &[Pattern] {
        match self {
            Self::Path { paths, .. } => paths,
            Self::Attribute { .. } | Self::Unknown => &[],
        }
    }
}

/// Where an attribute has some values, and where it has not; `None`: nowhere.
pub(super) fn either(
    name: &str,
    values: &[Pattern],
    negated: bool,
    late: &Late,
) -> (Option<Conditions>, Option<Conditions>) {
    let some = Test { any_of: values.to_vec(), none_of: Vec::new() };
    let none = Test { any_of: Vec::new(), none_of: values.to_vec() };
    let conditions = |test: Test| match name {
        "method" => late.method(&test),
        _ => Some(Conditions::of(name, test)),
    };
    let (some, none) = (conditions(some), conditions(none));
    if negated { (none, some) } else { (some, none) }
}

fn compared(
    variable: &str,
    operator: &str,
    value: &str,
    line: u64,
    imported: &mut Imported,
) -> Option<Condition> {
    let variable = variable.strip_prefix('$')?;
    let variable = variable.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(variable);
    // nginx compares names of variables without case.
    let (attribute, note) = match &*variable.to_ascii_lowercase() {
        "host" => ("host".to_owned(), None),
        "request_method" => ("method".to_owned(), None),
        "scheme" => ("scheme".to_owned(), None),
        "uri" | "document_uri" => ("path".to_owned(), None),
        "remote_addr" => ("ip".to_owned(), None),
        "server_port" => ("server_port".to_owned(), Some(variables::PORT.to_owned())),
        // As the client writes it, with a port and in any case.
        "http_host" => return None,
        other => variables::header(other).map(|(attribute, note)| (attribute, Some(note)))?,
    };
    let told = variables::told_case(&attribute);
    let (negated, bare) = match operator.strip_prefix('!') {
        Some(bare) => (true, bare),
        None => (false, operator),
    };
    let values = match bare {
        "=" if attribute == "ip" => vec![Pattern::Network(value.parse::<std::net::IpAddr>().ok()?.into())],
        "=" if !value.contains('$') => vec![Pattern::Exact(value.to_owned())],
        "~" if attribute != "ip" => regex::patterns(value)?,
        "~*" if attribute != "ip" => {
            let patterns = regex::patterns(value)?;
            match told {
                Some(change) => patterns.iter().map(|one| one.map(change)).collect(),
                None if value.chars().any(char::is_alphabetic) => return None,
                None => patterns,
            }
        }
        _ => return None,
    };
    // A header that is not there is an empty text to nginx, and fits no pattern of a rule.
    let empty = Pattern::Exact(String::new());
    if note.is_some() && values.iter().any(|one| one.contains(&empty)) {
        return None;
    }
    if attribute == "path" {
        return Some(Condition::Path { paths: values, negated });
    }
    if let Some(note) = note {
        imported.note(line, note);
    }
    Some(Condition::Attribute { name: attribute, values, negated })
}
