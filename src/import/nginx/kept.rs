//! nginx asks a `map` once for each request and keeps what it says. A map of `$uri` that a server asks before it rewrites the path
//! says the limit what it said of the old path.

use std::collections::HashSet;

use super::{super::imported::Imported, definition::Definition, syntax::Directive, variables::Variables};

/// What the block of `http` asks too early.
pub(super) fn tell(http: &[Directive], variables: &Variables, imported: &mut Imported) {
    let mut in_keys = HashSet::new();
    for zone in http.iter().filter(|one| one.name == "limit_req_zone") {
        zone.arguments.first().iter().for_each(|key| add(key, variables, &mut in_keys));
    }
    in_keys.retain(|name| changes(name, variables));
    if !in_keys.is_empty() {
        http.iter().filter(|one| one.name == "server").for_each(|one| tell_in(one, &in_keys, imported));
    }
}

fn tell_in(block: &Directive, kept: &HashSet<String>, imported: &mut Imported) {
    for one in block.inside() {
        if ["if", "rewrite", "set", "return"].contains(&&*one.name) {
            let mut asked = one.arguments.iter().flat_map(|text| names(text));
            if let Some(name) = asked.find(|name| kept.contains(name)) {
                imported.lost(
                    one.line,
                    format!("{}: ${name} is in the key of a limit, and nginx keeps what it says here, whatever becomes of the path or the method before the limit", one.name),
                );
            }
        }
        tell_in(one, kept, imported);
    }
}

/// The maps that a text is made of.
fn add(text: &str, variables: &Variables, found: &mut HashSet<String>) {
    for name in names(text) {
        if let Some(Definition::Map { source, entries, default }) = variables.get(&name)
            && found.insert(name)
        {
            add(source, variables, found);
            entries.iter().chain([default]).for_each(|entry| add(&entry.value, variables, found));
        }
    }
}

/// Whether what a map says can change while a request is handled.
fn changes(map: &str, variables: &Variables) -> bool {
    let mut all = HashSet::new();
    add(&format!("${map}"), variables, &mut all);
    let is_late = |text: &str| {
        names(text).iter().any(|name| ["uri", "document_uri", "request_method"].contains(&&**name))
    };
    all.iter().any(|name| match variables.get(name) {
        Some(Definition::Map { source, entries, default }) => {
            is_late(source) || entries.iter().chain([default]).any(|entry| is_late(&entry.value))
        }
        _ => false,
    })
}

/// The variables in a text.
fn names(text: &str) -> Vec<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let after = text.split('$').skip(1).map(|after| after.strip_prefix('{').unwrap_or(after));
    after
        .map(|after| after.split(|letter| !is_name(letter)).next().unwrap_or_default().to_ascii_lowercase())
        .collect()
}
