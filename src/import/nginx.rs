//! nginx: `limit_req_zone` says by what, at which rate; `limit_req` says where, with which burst.
//!
//! A zone with a burst of b admits b + 1 requests at once and then its rate: a token bucket, or without `nodelay` a leaky
//! bucket, whose requests wait for their turn. Where it applies becomes the rule's condition: of all locations of a server
//! the one with the longest prefix decides, so each excludes those that are longer.

use tidegate_limiter::Algorithm;

use super::{
    imported::{Domain, Imported, NewRule, NotRead, as_written, name_of, no_pattern},
    nginx_syntax::{self, Directive},
    sources::Sources,
};

struct Zone {
    name: String,
    line: u64,
    key: Vec<String>,
    /// As a rule writes it.
    rate: String,
}

/// A use of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Use {
    zone: String,
    burst: u64,
    delays: bool,
    shadow: bool,
}

/// What holds in a place, unless something deeper says otherwise.
#[derive(Debug, Clone, Default)]
struct Scope {
    uses: Vec<(u64, Use)>,
    dry_run: bool,
}

struct Server {
    names: Vec<String>,
    locations: Vec<Location>,
}

#[derive(Debug)]
struct Location {
    path: Path,
    scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Path {
    Exact(String),
    Prefix(String),
}

impl Path {
    fn pattern(&self) -> String {
        match self {
            Self::Exact(path) => path.clone(),
            Self::Prefix(path) => format!("{path}*"),
        }
    }

    /// Whether it decides where the other one would do so without it.
    fn goes_before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(own), Self::Prefix(other)) => own.starts_with(other),
            (Self::Prefix(own), Self::Prefix(other)) => own != other && own.starts_with(other),
            (_, Self::Exact(_)) => false,
        }
    }
}

/// Reads a configuration, or a part of one.
pub(crate) fn read(sources: &mut Sources) -> Result<Imported, NotRead> {
    let mut imported = Imported::default();
    let mut directives = Vec::new();
    for source in sources.iter() {
        directives.extend(nginx_syntax::read(&source.lossy(), source.before)?);
    }
    // A file of `sites-enabled` has no block for http.
    let http = directives.iter().find(|directive| directive.name == "http");
    let inside = http.map_or(&directives, |http| &http.block);
    let zones: Vec<Zone> = inside
        .iter()
        .filter(|one| one.name == "limit_req_zone")
        .filter_map(|one| zone(one, &mut imported))
        .collect();
    let outer = scope(inside, &Scope::default(), &mut imported);
    let servers: Vec<Server> = inside
        .iter()
        .filter(|one| one.name == "server" && !one.block.is_empty())
        .map(|one| server(one, &outer, &mut imported))
        .collect();
    let mut rules = Vec::new();
    for zone in &zones {
        rules_of(zone, &servers, &mut rules, &mut imported);
    }
    for (line, used) in servers.iter().flat_map(|server| &server.locations).flat_map(|one| &one.scope.uses) {
        if zones.iter().all(|zone| zone.name != used.zone) {
            imported.lost(
                *line,
                format!("limit_req: there is no zone {}; is its limit_req_zone in another file?", used.zone),
            );
        }
    }
    if zones.is_empty() && servers.is_empty() {
        imported.lost(0, "there is neither limit_req_zone nor a server in this file");
    }
    imported.domains.push(Domain { name: "default".to_owned(), rules });
    imported.sort();
    Ok(imported)
}

fn zone(directive: &Directive, imported: &mut Imported) -> Option<Zone> {
    let line = directive.line;
    let mut arguments = directive.arguments.iter();
    let key = attributes(arguments.next()?, line, imported);
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
    match (name, rate, key) {
        (Some(name), Some(rate), Some(key)) => Some(Zone { name, line, key, rate }),
        (_, _, None) => None,
        _ => {
            imported
                .lost(line, "limit_req_zone has no zone=NAME:SIZE or no rate=NUMBERr/s that could be read");
            None
        }
    }
}

fn rate(text: &str) -> Option<String> {
    let (count, period) = match (text.strip_suffix("r/s"), text.strip_suffix("r/m")) {
        (Some(count), _) => (count, "1s"),
        (_, Some(count)) => (count, "1m"),
        _ => return None,
    };
    count.parse::<u32>().ok().filter(|count| *count > 0).map(|count| format!("{count}/{period}"))
}

/// The attributes that stand for the variables of a key.
fn attributes(key: &str, line: u64, imported: &mut Imported) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = key;
    while let Some(start) = rest.find('$') {
        let after = &rest[start + 1..];
        let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let (name, after) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|character: char| !is_name(character)).unwrap_or(after.len())),
        };
        rest = after;
        let attribute = match name {
            "binary_remote_addr" | "remote_addr" => "ip".to_owned(),
            "host" | "http_host" | "server_name" => "host".to_owned(),
            "uri" | "document_uri" => "path".to_owned(),
            "request_uri" => {
                imported.note(line, "$request_uri: the path is counted without its query");
                "path".to_owned()
            }
            "request_method" => "method".to_owned(),
            "scheme" => "scheme".to_owned(),
            "server_port" | "server_addr" | "request" | "args" | "query_string" => {
                imported.lost(line, format!("limit_req_zone: ${name} is no attribute that /v1/auth knows"));
                return None;
            }
            _ => match name.strip_prefix("http_").map(|header| header.replace('_', "-")) {
                Some(header) => {
                    imported.note(
                        line,
                        format!(
                            "${name}: ask with /v1/auth?header={header}, then the header is an attribute"
                        ),
                    );
                    header
                }
                None => {
                    imported.lost(
                        line,
                        format!("limit_req_zone: ${name} is a variable of this configuration (map, geo, set, a cookie, an argument); write what it says as conditions or overrides"),
                    );
                    return None;
                }
            },
        };
        if !found.contains(&attribute) {
            found.push(attribute);
        }
    }
    if found.is_empty() {
        imported.note(line, "the key has no variable: one bucket for all");
    }
    Some(found)
}

/// What a block says of limits, on top of what is around it: its own `limit_req` replace all from outside.
fn scope(block: &[Directive], outer: &Scope, imported: &mut Imported) -> Scope {
    let mut scope = Scope { dry_run: outer.dry_run, uses: Vec::new() };
    if let Some(dry_run) = block.iter().find(|one| one.name == "limit_req_dry_run") {
        scope.dry_run = dry_run.arguments.iter().any(|argument| argument == "on");
    }
    for one in block {
        match &*one.name {
            "limit_req" => {
                if let Some(found) = used(one, scope.dry_run, imported) {
                    scope.uses.push((one.line, found));
                }
            }
            "limit_conn" | "limit_conn_zone" | "limit_rate" => {
                imported.lost(one.line, format!("{}: connections and bytes are not limited here", one.name));
            }
            "limit_req_status" if one.arguments != ["429"] => {
                let status = one.arguments.join(" ");
                imported.note(one.line, format!("limit_req_status {status}: a denial is answered 429 (?deny_status= of /v1/auth says another)"));
            }
            "include" if !one.arguments.iter().all(|name| is_harmless(name)) => {
                imported
                    .note(one.line, format!("include {}: that file was not read", one.arguments.join(" ")));
            }
            _ => {}
        }
    }
    if scope.uses.is_empty() {
        scope.uses = outer.uses.clone();
        for (_, used) in &mut scope.uses {
            used.shadow = scope.dry_run;
        }
    }
    scope
}

/// Files that come with nginx and limit nothing.
fn is_harmless(name: &str) -> bool {
    [
        "mime.types",
        "fastcgi_params",
        "fastcgi.conf",
        "proxy_params",
        "uwsgi_params",
        "scgi_params",
        "modules-enabled/*.conf",
    ]
    .iter()
    .any(|known| name.ends_with(known))
}

fn used(directive: &Directive, shadow: bool, imported: &mut Imported) -> Option<Use> {
    let mut found = Use { zone: String::new(), burst: 0, delays: true, shadow };
    for argument in &directive.arguments {
        match argument.split_once('=') {
            Some(("zone", zone)) => found.zone = zone.to_owned(),
            Some(("burst", burst)) => found.burst = burst.parse().ok()?,
            Some(("delay", _)) => {
                imported.note(
                    directive.line,
                    format!("limit_req: {argument}: as many are admitted, but none of them waits"),
                );
                found.delays = false;
            }
            _ if argument == "nodelay" => found.delays = false,
            _ => imported.lost(directive.line, format!("limit_req: {argument} is not known")),
        }
    }
    if found.burst == 0 {
        found.delays = false;
    }
    if found.delays {
        imported.note(
            directive.line,
            "limit_req without nodelay: requests that exceed the rate wait in nginx; here delay_ms says how long they should, and /v1/auth lets them through at once",
        );
    }
    Some(found)
}

fn server(directive: &Directive, outer: &Scope, imported: &mut Imported) -> Server {
    let scope = scope(&directive.block, outer, imported);
    let mut names = Vec::new();
    for one in directive.block.iter().filter(|one| one.name == "server_name") {
        for name in one.arguments.iter().filter(|name| !["_", ""].contains(&name.as_str())) {
            if name.contains('*') || name.starts_with(['~', '.']) {
                imported.lost(one.line, format!("server_name {name}: a host is named whole in a rule"));
            } else {
                names.push(name.to_lowercase());
            }
        }
    }
    let mut locations = Vec::new();
    collect(&directive.block, &scope, &mut locations, imported);
    if locations.iter().all(|location| location.path != Path::Prefix("/".to_owned())) {
        locations.push(Location { path: Path::Prefix("/".to_owned()), scope });
    }
    Server { names, locations }
}

fn collect(block: &[Directive], outer: &Scope, locations: &mut Vec<Location>, imported: &mut Imported) {
    for one in block.iter().filter(|one| one.name == "location") {
        let scope = scope(&one.block, outer, imported);
        let path = match &one.arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["=", path] => Some(Path::Exact((*path).to_owned())),
            ["^~", path] => Some(Path::Prefix((*path).to_owned())),
            [path] if path.starts_with('=') => Some(Path::Exact(path[1..].to_owned())),
            [path] if path.starts_with('/') => Some(Path::Prefix((*path).to_owned())),
            [path] if path.starts_with('@') => None,
            _ => {
                let path = one.arguments.join(" ");
                if scope.uses.is_empty() && outer.uses.is_empty() {
                    imported.note(one.line, format!("location {path}: rules know no regular expressions; what the prefixes around it say holds for it too"));
                } else {
                    imported.lost(one.line, format!("location {path}: rules know no regular expressions; what the prefixes around it say holds for it too"));
                }
                None
            }
        };
        if let Some(Path::Exact(text) | Path::Prefix(text)) = &path
            && let Some(why) = no_pattern(text)
        {
            imported.lost(one.line, format!("location {text}: {why}"));
        } else if let Some(path) = path {
            locations.push(Location { path, scope: scope.clone() });
        }
        collect(&one.block, &scope, locations, imported);
    }
}

/// A rule for each way in which a zone is used.
fn rules_of(zone: &Zone, servers: &[Server], rules: &mut Vec<NewRule>, imported: &mut Imported) {
    let mut ways: Vec<(u64, Use)> = Vec::new();
    for (line, used) in servers.iter().flat_map(|server| &server.locations).flat_map(|one| &one.scope.uses) {
        if used.zone == zone.name && ways.iter().all(|(_, known)| known != used) {
            ways.push((*line, used.clone()));
        }
    }
    if ways.is_empty() {
        imported
            .note(zone.line, format!("limit_req_zone: the zone {} is used nowhere in this file", zone.name));
    }
    let before = rules.len();
    for (line, way) in ways {
        let uses = |location: &&Location| location.scope.uses.iter().any(|(_, used)| *used == way);
        let everywhere = servers.iter().all(|server| server.locations.iter().all(|location| uses(&location)));
        if everywhere {
            add(zone, &way, line, Vec::new(), rules);
            continue;
        }
        for server in servers {
            let (inside, outside): (Vec<&Location>, Vec<&Location>) = server.locations.iter().partition(uses);
            if inside.is_empty() {
                continue;
            }
            let host = host_of(server, servers);
            for patterns in paths(&inside, &outside) {
                let mut when = host.clone();
                if !patterns.is_empty() {
                    when.push(("path".to_owned(), patterns));
                }
                add(zone, &way, line, when, rules);
            }
        }
    }
    if rules.len() > before + 1 {
        imported.note(
            zone.line,
            format!(
                "the zone {} became {} rules: nginx counts them together, here each counts for itself",
                zone.name,
                rules.len() - before
            ),
        );
    }
}

/// Which hosts are a server's, if there are several servers. The first one has all that no other one has.
fn host_of(server: &Server, servers: &[Server]) -> Vec<(String, Vec<String>)> {
    if servers.len() == 1 {
        return Vec::new();
    }
    let patterns: Vec<String> = if server.names.is_empty() || std::ptr::eq(server, &servers[0]) {
        let others = servers.iter().filter(|other| !std::ptr::eq(*other, server));
        others.flat_map(|other| &other.names).map(|name| format!("!{name}")).collect()
    } else {
        server.names.clone()
    };
    if patterns.is_empty() { Vec::new() } else { vec![("host".to_owned(), patterns)] }
}

/// The patterns of one rule for all these locations, or of one for each where one rule could not say it.
fn paths(inside: &[&Location], outside: &[&Location]) -> Vec<Vec<String>> {
    let longer = |path: &Path, than: &[&Location]| -> Vec<Path> {
        than.iter().map(|other| other.path.clone()).filter(|other| other.goes_before(path)).collect()
    };
    let mut excluded: Vec<Path> = Vec::new();
    for location in inside {
        for path in longer(&location.path, outside) {
            if !excluded.contains(&path) {
                excluded.push(path);
            }
        }
    }
    let clash = |excluded: &Path| inside.iter().any(|location| location.path.goes_before(excluded));
    let root = Path::Prefix("/".to_owned());
    let patterns = |paths: &[&Location], excluded: &[Path]| -> Vec<String> {
        let all = paths.iter().any(|location| location.path == root);
        let positive = paths.iter().filter(|_| !all).map(|location| location.path.pattern());
        positive.chain(excluded.iter().map(|path| format!("!{}", path.pattern()))).collect()
    };
    if !excluded.iter().any(clash) {
        return vec![patterns(inside, &excluded)];
    }
    let all: Vec<&Location> = inside.iter().chain(outside).copied().collect();
    inside.iter().map(|location| patterns(&[*location], &longer(&location.path, &all))).collect()
}

fn add(zone: &Zone, way: &Use, line: u64, when: Vec<(String, Vec<String>)>, rules: &mut Vec<NewRule>) {
    rules.push(NewRule {
        name: name_of(&zone.name, rules),
        line,
        when: as_written(when),
        key: zone.key.clone(),
        limit: zone.rate.clone(),
        burst: Some(way.burst.saturating_add(1)),
        algorithm: if way.delays { Algorithm::LeakyBucket } else { Algorithm::TokenBucket },
        shadow: way.shadow,
    });
}
