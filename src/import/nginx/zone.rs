//! `limit_req_zone`: by what, and at which rate.

use super::{
    super::imported::Imported,
    key::Key,
    late::{self, Late, Path},
    pattern::{Conditions, Test},
    scope::Way,
    syntax::Directive,
    variables::{self, Case, Part, Variables},
};

/// A zone: for some requests in one way, for others in another.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) line: u64,
    pub(super) keys: Vec<Key>,
    /// As a rule writes it.
    pub(super) rate: String,
    /// Some requests are not counted, because their key is empty.
    may_skip: bool,
    /// Which path a request has where it is limited matters.
    asks_path: bool,
    /// Which method it has there matters.
    asks_method: bool,
}

/// The zones of a configuration, by whether their keys can be told.
#[derive(Debug, Default)]
pub(super) struct Zones {
    pub(super) known: Vec<Zone>,
    /// Names of those that have been reported as lost.
    pub(super) lost: Vec<String>,
}

impl Zones {
    pub(super) fn read(http: &[Directive], variables: &Variables, imported: &mut Imported) -> Self {
        let mut zones = Self::default();
        for one in http.iter().filter(|one| one.name == "limit_req_zone") {
            zones.add(one, variables, imported);
        }
        zones
    }

    fn of<'z>(&'z self, way: &'z Way) -> impl Iterator<Item = &'z Zone> {
        self.known.iter().filter(|zone| zone.name == way.1.zone)
    }

    /// Whether a request may have an empty key in all of these, so that it is not counted.
    pub(super) fn may_skip(&self, uses: &[Way]) -> bool {
        uses.iter().all(|way| self.of(way).any(|zone| zone.may_skip))
    }

    /// Whether the key depends on the path that a request has where it is limited.
    pub(super) fn ask_path(&self, way: &Way) -> bool {
        self.of(way).any(|zone| zone.asks_path)
    }

    /// What the keys of some limits ask of a request.
    pub(super) fn asked_late(&self, uses: &[Way], late: &Late) -> Late {
        let asks = |of: fn(&Zone) -> bool| uses.iter().any(|way| self.of(way).any(of));
        Late {
            path: if asks(|zone| zone.asks_path) { late.path.clone() } else { Path::Asked },
            is_get: late.is_get && asks(|zone| zone.asks_method),
        }
    }

    /// Whether there is none at all.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.lost.is_empty()
    }

    fn add(&mut self, directive: &Directive, variables: &Variables, imported: &mut Imported) {
        let line = directive.line;
        let Some((key, arguments)) = directive.arguments.split_first() else {
            imported.lost(line, "limit_req_zone has no key");
            return;
        };
        let (mut name, mut rate) = (None, None);
        for argument in arguments {
            match argument.split_once('=') {
                // The size of its memory is a setting of the node here.
                Some(("zone", value)) => name = value.split(':').next().map(str::to_owned),
                Some(("rate", value)) => rate = self::rate(value),
                _ if argument == "sync" => {}
                _ => imported.lost(line, format!("limit_req_zone: {argument} is not known")),
            }
        }
        let (Some(name), Some(rate)) = (&name, rate) else {
            imported
                .lost(line, "limit_req_zone has no zone=NAME:SIZE or no rate=NUMBERr/s that could be read");
            self.lost.extend(name);
            return;
        };
        match variables.cases(key, line, imported) {
            Ok(cases) => {
                let by_case: Vec<Vec<Key>> = cases.into_iter().map(keys).collect();
                let may_skip = by_case.iter().any(|keys| keys.iter().all(Key::may_be_empty));
                let keys: Vec<Key> = by_case.into_iter().flatten().collect();
                if keys.iter().any(|key| {
                    key.attributes.is_empty() && !key.by_server && key.when == Conditions::default()
                }) {
                    imported.note(line, "the key has no variable: one bucket for all");
                }
                let is_path = |written: &String| ["path", late::URI].contains(&&**written);
                if keys.iter().any(|key| key.attributes.iter().any(is_path)) {
                    imported.lost(line, "the path is in the key: slashes at its end make no other path here, and nginx counts /a and /a/ apart");
                }
                let asks = |attribute: &str| keys.iter().any(|key| key.asks(attribute));
                let (asks_path, asks_method) = (asks(late::URI), asks(late::METHOD));
                let name = name.clone();
                self.known.push(Zone { name, line, keys, rate, may_skip, asks_path, asks_method });
            }
            Err(why) => {
                imported.lost(line, format!("limit_req_zone: {key}: {why}"));
                self.lost.push(name.clone());
            }
        }
    }
}

fn rate(text: &str) -> Option<String> {
    let (count, period) = match (text.strip_suffix("r/s"), text.strip_suffix("r/m")) {
        (Some(count), _) => (count, "1s"),
        (_, Some(count)) => (count, "1m"),
        // nginx takes a number alone, too.
        _ => (text, "1s"),
    };
    count.parse::<u32>().ok().filter(|count| *count > 0).map(|count| format!("{count}/{period}"))
}

/// The keys of the requests of a case; none: the key is empty, so nginx does not count them.
fn keys(case: Case) -> Vec<Key> {
    let mut key = Key {
        when: case.when,
        attributes: Vec::new(),
        texts: Vec::new(),
        by_server: false,
        needs_name: true,
    };
    let mut optional = Vec::new();
    for part in case.value {
        match part {
            Part::Text(text) => {
                key.needs_name &= text.is_empty();
                key.texts.push(text);
            }
            Part::ServerName => key.by_server = true,
            Part::Attribute { name, optional: is_optional } => {
                key.needs_name &= is_optional;
                let name = if name == variables::BINARY_ADDRESS { "ip".to_owned() } else { name };
                // A part of a key may be empty, and an empty key is not counted: as in a rule.
                let written = if is_optional { format!("{name}?") } else { name.clone() };
                if is_optional {
                    optional.push(name);
                }
                if !key.attributes.contains(&written) {
                    key.attributes.push(written);
                }
            }
        }
    }
    if optional.is_empty() {
        let is_empty = key.needs_name && !key.by_server;
        return if is_empty { Vec::new() } else { vec![key] };
    }
    let has_others = key.attributes.iter().any(|written| !written.ends_with('?'));
    if has_others || key.needs_name && !key.by_server {
        return vec![key];
    }
    // A text is in it, so that it is never empty: those without any of the attributes have one bucket.
    let mut without = Some(key.when.clone());
    for name in &optional {
        without = without.and_then(|when| when.and(&Conditions::of(name, Test::absent())));
    }
    let without = without.map(|when| Key {
        when,
        attributes: Vec::new(),
        texts: key.texts.clone(),
        by_server: key.by_server,
        needs_name: key.needs_name,
    });
    key.needs_name = false;
    if let [name] = &optional[..] {
        // One that is there and empty counts too.
        key.attributes = vec![name.clone()];
    }
    [Some(key), without].into_iter().flatten().collect()
}
