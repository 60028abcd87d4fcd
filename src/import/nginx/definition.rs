//! `map` and `geo`, as they are written.

use ipnet::IpNet;

use super::{super::imported::Imported, pattern::Pattern, regex, syntax::Directive};

/// What a directive says of a variable.
#[derive(Debug)]
pub(super) enum Definition {
    Map {
        source: String,
        entries: Vec<Entry>,
        default: Entry,
    },
    Geo {
        source: Option<String>,
        entries: Vec<(Vec<IpNet>, String)>,
        default: String,
    },
    /// Another directive says what it is.
    Unknown(&'static str),
}

/// What a map says for some values.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) line: u64,
    /// The values that it is for.
    pub(super) fits: Vec<Pattern>,
    /// How these are written, where letters in other case are meant too.
    pub(super) any_case: Option<String>,
    pub(super) value: String,
}

impl Definition {
    /// The variable that a directive defines, if it does.
    pub(super) fn read<'d>(directive: &'d Directive, imported: &mut Imported) -> Option<(&'d str, Self)> {
        match (&*directive.name, &directive.arguments[..]) {
            ("map", [source, variable]) => Some((variable, map(directive, source, imported))),
            ("geo", [variable]) => Some((variable, geo(directive, None, imported))),
            ("geo", [source, variable]) => Some((variable, geo(directive, Some(source), imported))),
            ("split_clients", [_, variable]) => Some((variable, Self::Unknown("split_clients"))),
            _ => None,
        }
    }
}

fn map(directive: &Directive, source: &str, imported: &mut Imported) -> Definition {
    let (mut exact, mut wild, mut regexes) = (Vec::new(), Vec::new(), Vec::new());
    let mut default = Entry { line: directive.line, ..Entry::default() };
    let has_hosts = directive.inside().iter().any(|one| one.name == "hostnames" && one.arguments.is_empty());
    for one in directive.inside() {
        let Some(value) = one.arguments.first().cloned() else { continue };
        let line = one.line;
        if one.name.contains('\u{fffd}') {
            imported.lost(line, format!("map {source}: {}: no pattern says these bytes; what they fit is treated as what no entry fits", one.name));
            continue;
        }
        let any_case = (!one.name.starts_with('~') || one.name.starts_with("~*")).then(|| one.name.clone());
        let entry = |fits| Entry { line, fits, any_case: any_case.clone(), value: value.clone() };
        match &*one.name {
            "default" => default = entry(Vec::new()),
            regex if regex.starts_with('~') => {
                let text = regex.trim_start_matches('~').trim_start_matches('*');
                match regex::patterns(text) {
                    Some(fits) => regexes.push(entry(fits)),
                    None => imported.lost(line, format!("map {source}: {regex}: rules know no such regular expression; what it fits is treated as what no entry fits")),
                }
            }
            name if has_hosts && name.starts_with('.') => {
                exact.push(entry(vec![Pattern::Exact(name[1..].to_owned())]));
                wild.push(entry(vec![Pattern::suffix(name)]));
            }
            name if has_hosts && name.starts_with("*.") => {
                wild.push(entry(vec![Pattern::suffix(&name[1..])]))
            }
            name if has_hosts && name.ends_with(".*") => {
                wild.push(entry(vec![Pattern::prefix(&name[..name.len() - 1])]));
            }
            name => {
                let text = name.strip_prefix('\\').unwrap_or(name);
                exact.push(entry(vec![Pattern::Exact(text.to_owned())]));
            }
        }
    }
    // The longest ending, then the longest beginning.
    let order = |entry: &Entry| match entry.fits.first() {
        Some(Pattern::Like { start, end }) => (end.is_empty(), usize::MAX - start.len() - end.len()),
        _ => (false, 0),
    };
    wild.sort_by_key(order);
    exact.extend(wild);
    exact.extend(regexes);
    Definition::Map { source: source.to_owned(), entries: exact, default }
}

fn geo(directive: &Directive, source: Option<&String>, imported: &mut Imported) -> Definition {
    let (mut entries, mut default): (Vec<(Vec<IpNet>, String)>, _) = (Vec::new(), String::new());
    for one in directive.inside() {
        let line = one.line;
        match (&*one.name, &one.arguments[..]) {
            ("default", [value]) => default = value.clone(),
            ("ranges", []) => {}
            ("proxy" | "proxy_recursive", _) => {
                imported.note(line, "geo: proxy: which proxies are trusted is said by --trusted-proxies");
            }
            ("delete", [network]) => {
                let gone = networks(network).unwrap_or_default();
                entries.iter_mut().for_each(|(nets, _)| nets.retain(|net| !gone.contains(net)));
            }
            (network, [value]) => match networks(network) {
                Some(nets) => {
                    entries.iter_mut().for_each(|(known, _)| known.retain(|net| !nets.contains(net)));
                    entries.push((nets, value.clone()));
                }
                None => imported.lost(line, format!("geo: {network} is no address, network or range")),
            },
            (name, _) => imported.lost(line, format!("geo: {name} is not known")),
        }
    }
    Definition::Geo { source: source.cloned(), entries, default }
}

/// `10.0.0.0/8`, an address, or a range of them.
fn networks(text: &str) -> Option<Vec<IpNet>> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(vec![net.trunc()]);
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(vec![IpNet::from(address)]);
    }
    let (first, last) = text.split_once('-')?;
    let nets: Vec<IpNet> = match (first.parse().ok()?, last.parse().ok()?) {
        (std::net::IpAddr::V4(first), std::net::IpAddr::V4(last)) => {
            ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
        }
        (std::net::IpAddr::V6(first), std::net::IpAddr::V6(last)) => {
            ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
        }
        _ => return None,
    };
    Some(nets)
}
