//! What the variables of a key are: attributes of a request, or what `map` and `geo` say about some. So a key has cases: each
//! with a condition, and what the key is then.

use std::collections::HashMap;

use ipnet::IpNet;

use super::{
    super::imported::Imported,
    definition::{Definition, Entry},
    late,
    pattern::{Conditions, Pattern, Test},
    space::Space,
    syntax::Directive,
};

/// Cases of a key; more make no rules.
const MAX_CASES: usize = 1_000;
/// Variables that are made of others.
const MAX_DEPTH: usize = 10;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// With whether a request can be without it.
    Attribute {
        name: String,
        optional: bool,
    },
    /// The first name of the server that answers.
    ServerName,
}

/// What a text is for some requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) when: Conditions,
    pub(super) value: Vec<Part>,
}

/// The variables that a configuration defines.
#[derive(Debug, Default)]
pub(super) struct Variables(HashMap<String, Definition>);

impl Variables {
    /// Of the directives in the block of `http`.
    pub(super) fn read(http: &[Directive], imported: &mut Imported) -> Self {
        let mut variables = HashMap::new();
        for one in http {
            if let Some((variable, definition)) = Definition::read(one, imported) {
                // nginx compares names of variables without case.
                variables.insert(variable.trim_start_matches('$').to_ascii_lowercase(), definition);
            }
        }
        Self(variables)
    }

    /// By its name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&Definition> {
        self.0.get(name)
    }

    /// The cases of a text; each request is in one of them.
    pub(super) fn cases(&self, text: &str, line: u64, imported: &mut Imported) -> Result<Vec<Case>, String> {
        self.cases_within(text, line, 0, imported)
    }

    fn cases_within(
        &self,
        text: &str,
        line: u64,
        depth: usize,
        imported: &mut Imported,
    ) -> Result<Vec<Case>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} variables are made of each other"));
        }
        let mut cases = vec![Case { when: Conditions::default(), value: Vec::new() }];
        let mut rest = text;
        while !rest.is_empty() {
            let (plain, after) = rest.split_once('$').unwrap_or((rest, ""));
            if !plain.is_empty() {
                cases.iter_mut().for_each(|case| case.value.push(Part::Text(plain.to_owned())));
            }
            if plain.len() == rest.len() {
                break;
            }
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let (name, after) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
                Some(braced) => braced,
                None => after.split_at(after.find(|letter| !is_name(letter)).unwrap_or(after.len())),
            };
            rest = after;
            let found = self.variable(&name.to_ascii_lowercase(), line, depth, imported)?;
            let mut joined = Vec::new();
            for (case, more) in cases.iter().flat_map(|case| found.iter().map(move |more| (case, more))) {
                if let Some(when) = case.when.and(&more.when) {
                    joined.push(Case { when, value: [&case.value[..], &more.value].concat() });
                }
            }
            if joined.len() > MAX_CASES {
                return Err(format!("it has more than {MAX_CASES} cases"));
            }
            cases = joined;
        }
        Ok(cases)
    }

    fn variable(
        &self,
        name: &str,
        line: u64,
        depth: usize,
        imported: &mut Imported,
    ) -> Result<Vec<Case>, String> {
        match self.0.get(name) {
            Some(Definition::Map { source, entries, default }) => {
                self.map_cases(source, entries, default, depth, imported)
            }
            Some(Definition::Geo { source, entries, default }) => {
                geo_cases(source.as_deref(), entries, default, line, imported)
            }
            Some(Definition::Unknown(directive)) => Err(format!("${name} comes from {directive}")),
            None => builtin(name, line, imported)
                .map(|part| vec![Case { when: Conditions::default(), value: vec![part] }]),
        }
    }

    fn map_cases(
        &self,
        source: &str,
        entries: &[Entry],
        default: &Entry,
        depth: usize,
        imported: &mut Imported,
    ) -> Result<Vec<Case>, String> {
        let mut cases = Vec::new();
        for case in self.cases_within(source, default.line, depth + 1, imported)? {
            let chosen: Vec<(Conditions, &Entry)> = match &case.value[..] {
                [Part::Attribute { name, .. }] if name == BINARY_ADDRESS => {
                    tell_binary(source, entries, default.line, imported);
                    vec![(Conditions::default(), default)]
                }
                [Part::Attribute { name, optional }] => {
                    tell_case(source, name, entries, imported);
                    by_attribute(name, *optional, entries, default)?
                }
                parts => {
                    let mut text = String::new();
                    for part in parts {
                        let Part::Text(part) = part else {
                            return Err(format!("map {source}: several attributes of a request together"));
                        };
                        text.push_str(part);
                    }
                    let (value, lower) =
                        (Pattern::Exact(text.clone()), Pattern::Exact(text.to_ascii_lowercase()));
                    let fits = |entry: &&Entry| match entry.any_case {
                        Some(_) => {
                            entry.fits.iter().any(|one| one.map(str::to_ascii_lowercase).contains(&lower))
                        }
                        None => entry.fits.iter().any(|one| one.contains(&value)),
                    };
                    vec![(Conditions::default(), entries.iter().find(fits).unwrap_or(default))]
                }
            };
            for (when, entry) in chosen {
                let Some(when) = case.when.and(&when) else { continue };
                match self.cases_within(&entry.value, entry.line, depth + 1, imported) {
                    Ok(values) => {
                        cases.extend(values.into_iter().filter_map(|value| {
                            Some(Case { when: when.and(&value.when)?, value: value.value })
                        }))
                    }
                    Err(why) => imported.lost(entry.line, format!("map {source}: {}: {why}", entry.value)),
                }
            }
            if cases.len() > MAX_CASES {
                return Err(format!("map {source} has more than {MAX_CASES} cases"));
            }
        }
        Ok(cases)
    }
}

/// The case in which an attribute is told, whatever the client wrote; `None`: as it was written.
pub(super) fn told_case(attribute: &str) -> Option<fn(&str) -> String> {
    match attribute {
        "method" | late::METHOD => Some(str::to_ascii_uppercase),
        // An address is compared as one.
        "host" | "scheme" | "ip" => Some(str::to_ascii_lowercase),
        _ => None,
    }
}

/// nginx ignores the case of what a map compares; patterns of rules do not.
fn tell_case(source: &str, attribute: &str, entries: &[Entry], imported: &mut Imported) {
    if told_case(attribute).is_some() {
        return;
    }
    for entry in entries {
        if let Some(written) = &entry.any_case
            && entry
                .fits
                .iter()
                .any(|one| one.map(str::to_ascii_lowercase) != one.map(str::to_ascii_uppercase))
        {
            let message =
                format!("map {source}: {written}: only as it is written; nginx takes it in other case, too");
            imported.lost(entry.line, message);
        }
    }
}

/// Which entry of a map is for which values of an attribute: the first that fits.
fn by_attribute<'e>(
    name: &str,
    optional: bool,
    entries: &'e [Entry],
    default: &'e Entry,
) -> Result<Vec<(Conditions, &'e Entry)>, String> {
    let cased = |entry: &'e Entry| match told_case(name) {
        Some(change) if entry.any_case.is_some() => entry.fits.iter().map(|one| one.map(change)).collect(),
        _ => entry.fits.clone(),
    };
    let mut entries: Vec<(Vec<Pattern>, &Entry)> =
        entries.iter().map(|entry| (cased(entry), entry)).collect();
    if ["path", late::URI].contains(&name) {
        entries.iter_mut().for_each(|(fits, _)| fits.retain(Pattern::can_be_path));
    }
    let space = Space::new(entries.iter().flat_map(|(fits, _)| fits))
        .ok_or_else(|| "the map has too many entries".to_owned())?;
    let choose = |fits: &dyn Fn(&Pattern) -> bool| {
        entries.iter().find(|(patterns, _)| patterns.iter().any(fits)).map_or(default, |(_, entry)| *entry)
    };
    let empty = Pattern::Exact(String::new());
    let of_absent = &choose(&|pattern| pattern.contains(&empty)).value;
    let mut chosen = Vec::new();
    for (value, tests) in space.split(|cell| &choose(&|pattern| cell.fits(pattern)).value) {
        let Some(entry) =
            entries.iter().map(|(_, entry)| *entry).chain([default]).find(|one| one.value == *value)
        else {
            continue;
        };
        let holds_for_absent = tests.iter().any(|test| test.any_of.is_empty());
        for mut test in tests {
            // What only excludes values holds for a request without the attribute, too.
            if optional && test.any_of.is_empty() && value != of_absent {
                test.any_of = Test::present().any_of;
            }
            chosen.push((Conditions::of(name, test), entry));
        }
        if optional && value == of_absent && !holds_for_absent {
            chosen.push((Conditions::of(name, Test::absent()), entry));
        }
    }
    Ok(chosen)
}

fn geo_cases(
    source: Option<&str>,
    entries: &[(Vec<IpNet>, String)],
    default: &str,
    line: u64,
    imported: &mut Imported,
) -> Result<Vec<Case>, String> {
    let text = |value: &str| if value.is_empty() { Vec::new() } else { vec![Part::Text(value.to_owned())] };
    match source.map(str::to_ascii_lowercase).as_deref() {
        None | Some("$remote_addr") => {}
        Some("$binary_remote_addr") => {
            // What is no address is this one to nginx.
            let none = IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::BROADCAST));
            let nets = entries.iter().flat_map(|(nets, value)| nets.iter().map(move |net| (net, &**value)));
            let around = nets.filter(|(net, _)| net.contains(&none));
            let value = around.max_by_key(|(net, _)| net.prefix_len()).map_or(default, |(_, value)| value);
            imported.note(
                line,
                "geo $binary_remote_addr: its bytes are not the text of an address, so to nginx no client is in any network here",
            );
            return Ok(vec![Case { when: Conditions::default(), value: text(value) }]);
        }
        Some(other) => return Err(format!("geo {other}: only the address of the client is known")),
    }
    let networks: Vec<(Pattern, &str)> = entries
        .iter()
        .flat_map(|(nets, value)| nets.iter().map(move |net| (Pattern::Network(*net), &**value)))
        .collect();
    let space = Space::new(networks.iter().map(|(pattern, _)| pattern))
        .ok_or_else(|| "the geo has too many networks".to_owned())?;
    let by_network: HashMap<&Pattern, &str> =
        networks.iter().map(|(pattern, value)| (pattern, *value)).collect();
    // The cell of a network is what no network within it has.
    let split = space.split(|cell| by_network.get(cell.node()).copied().unwrap_or(default));
    let mut cases = Vec::new();
    for (value, tests) in split {
        for test in tests {
            cases.push(Case { when: Conditions::of("ip", test), value: text(value) });
        }
    }
    Ok(cases)
}

/// What stands for a variable of nginx itself.
fn builtin(name: &str, line: u64, imported: &mut Imported) -> Result<Part, String> {
    let always = |name: &str| Ok(Part::Attribute { name: name.to_owned(), optional: false });
    match name {
        "binary_remote_addr" => always(BINARY_ADDRESS),
        "remote_addr" => always("ip"),
        "proxy_protocol_addr" => {
            imported.note(
                line,
                "$proxy_protocol_addr: the address of the client is ip, if the proxy that asks says so",
            );
            always("ip")
        }
        "host" => always("host"),
        "http_host" => {
            imported.lost(
                line,
                "$http_host: rules see the host without its port and in lower case; nginx takes the text that the client sent",
            );
            always("host")
        }
        "server_name" => Ok(Part::ServerName),
        "uri" | "document_uri" => always(late::URI),
        "request_uri" => {
            imported.lost(
                line,
                "$request_uri: rules see the path without its query and in one spelling; nginx takes the text that the client sent",
            );
            always("path")
        }
        "request_method" => always(late::METHOD),
        "scheme" => always("scheme"),
        "server_port" => {
            imported.note(line, PORT);
            Ok(Part::Attribute { name: "server_port".to_owned(), optional: true })
        }
        // The same for all requests.
        "hostname" | "nginx_version" => Ok(Part::Text(name.to_owned())),
        "" => Err("$ without a name".to_owned()),
        _ => match header(name) {
            Some((attribute, note)) => {
                imported.note(line, note);
                Ok(Part::Attribute { name: attribute, optional: true })
            }
            None => Err(format!(
                "${name} is no attribute that /v1/auth knows, and no map or geo of this configuration says what it is"
            )),
        },
    }
}

/// In keys, the address of the client as bytes: it tells buckets apart as its text does, and no `map` or `geo` knows it.
pub(super) const BINARY_ADDRESS: &str = "$binary_remote_addr";

/// nginx compares the four or sixteen bytes of an address with texts.
fn tell_binary(source: &str, entries: &[Entry], line: u64, imported: &mut Imported) {
    let can_fit = |one: &Pattern| !matches!(one, Pattern::Exact(text) if ![4, 16].contains(&text.len()));
    for entry in entries.iter().filter(|entry| entry.fits.iter().any(can_fit)) {
        imported.lost(
            entry.line,
            format!("map {source}: $binary_remote_addr is bytes, which this could fit by chance; here it fits no address"),
        );
    }
    imported.note(
        line,
        format!("map {source}: $binary_remote_addr is bytes and not the text of an address, so only the default holds; $remote_addr is the text"),
    );
}

/// The attribute for the header of a variable `$http_...`, with what to ask with; `None`: it is no such variable.
pub(super) fn header(variable: &str) -> Option<(String, String)> {
    /// What these are called in a call is something else.
    const TAKEN: [&str; 9] = ["domain", "cost", "costs", "ip", "address", "method", "path", "host", "scheme"];
    /// Longer names are none of attributes.
    const MAX_BYTES: usize = 100;
    let is_name = |name: &&str| (1..=MAX_BYTES).contains(&name.len());
    let header = variable.strip_prefix("http_").filter(is_name)?.replace('_', "-");
    let (attribute, asked) = match TAKEN.contains(&&*header) {
        // No header has this name: its own would have a hyphen.
        true => (format!("http_{header}"), format!("{header}:http_{header}")),
        false => (header.clone(), header),
    };
    let note = format!("${variable}: ask with /v1/auth?header={asked}, then the header is an attribute");
    Some((attribute, note))
}

/// What has to be asked for where ports matter.
pub(super) const PORT: &str =
    "ports matter here: ask with /v1/auth?server_port=$server_port, then the port is an attribute";
