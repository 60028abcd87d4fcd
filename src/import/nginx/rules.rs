//! Rules for the limits of all servers: for each zone, and each way in which it is used, which ports, hosts and paths that
//! are.

use std::collections::{BTreeSet, HashSet};

use super::{
    super::imported::{Imported, Names, NewRule},
    flow::Walk,
    key::Key,
    late::{KeyAsked, Late},
    pattern::{Conditions, Pattern, Test},
    reached::{Doubt, Limited, Reached},
    scope::{Use, Way},
    server::{self, Chosen, Port, Server},
    space::{Cell, Space},
    variables::PORT,
    written,
    zone::{Zone, Zones},
};

/// Rules of one configuration.
const MAX_RULES: usize = 10_000;
/// Conditions that one rule has for requests that are counted together; more become a rule each.
const MAX_ALTERNATIVES: usize = 100;

/// The server that tells buckets apart, the attributes that do, and the texts between them.
type Bucket<'c> = (Option<&'c str>, Vec<String>, Vec<String>);

/// A condition of requests, and what they are where they are limited.
type Part = (Conditions, Late);

/// The requests of one server that are limited in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Region<'c> {
    /// One of these must hold: what the path must be, with what else decides.
    paths: Vec<Part>,
    /// The `$server_name`, where that tells buckets apart.
    server: Option<&'c str>,
}

/// What says that a request came to one of some ports: one of these.
type PortConditions = Vec<Conditions>;

/// Whether requests of a port are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    No,
    Yes,
    /// By default, while a server of another port has the name: only where the port is told.
    IfTold,
}

pub(super) struct Rules<'c> {
    zones: &'c Zones,
    servers: &'c [Server],
    ports: &'c [Port],
    hosts: &'c Space,
    /// The server of each port, by the places of hosts.
    chosen: Vec<Vec<Chosen>>,
    /// The paths of each server.
    paths: &'c [Space],
    /// The limits of each server, by the places of paths.
    reached: Vec<Vec<Reached<'c>>>,
}

impl<'c> Rules<'c> {
    pub(super) fn new(
        zones: &'c Zones,
        servers: &'c [Server],
        ports: &'c [Port],
        hosts: &'c Space,
        paths: &'c [Space],
    ) -> Self {
        let choose = |host: Option<Cell<'_>>| {
            host.map_or_else(Vec::new, |host| ports.iter().map(|port| port.choose(servers, &host)).collect())
        };
        let chosen: Vec<Vec<Chosen>> = hosts.places().map(choose).collect();
        let mut is_reached = vec![false; servers.len()];
        chosen.iter().flatten().for_each(|one| is_reached[one.server] = true);
        let root = Pattern::prefix("/");
        let limits = |place: usize| -> Vec<Reached<'c>> {
            let limits = |path: Option<Cell<'_>>| match path {
                Some(path) if is_reached[place] => {
                    // Each path begins with a slash.
                    let fits = |pattern: &Pattern| *pattern == root || path.fits(pattern);
                    Walk::new(&servers[place].locations, &fits, zones).reached()
                }
                _ => Reached::default(),
            };
            paths[place].places().map(limits).collect()
        };
        let reached = (0..servers.len()).map(limits).collect();
        Self { zones, servers, ports, hosts, chosen, paths, reached }
    }

    pub(super) fn make(&self, imported: &mut Imported) -> Vec<NewRule> {
        let (mut rules, mut names) = (Vec::new(), Names::default());
        for zone in &self.zones.known {
            let ways = self.ways(&zone.name);
            if !self.all_uses().any(|(_, used)| used.zone == zone.name) {
                imported.note(zone.line, format!("limit_req_zone: the zone {} is used nowhere", zone.name));
            }
            let mut buckets = Vec::new();
            for way in &ways {
                buckets.extend(self.of_way(zone, way, (&mut rules, &mut names), imported));
            }
            if buckets.len() > 1 {
                let message = format!("the zone {} became {} rules", zone.name, buckets.len());
                // Different keys are counted apart in nginx, too.
                if buckets.iter().collect::<HashSet<_>>().len() == buckets.len() {
                    imported.note(zone.line, format!("{message}, each with a key of its own"));
                } else {
                    imported.lost(
                        zone.line,
                        format!("{message}: nginx counts them together, here each counts for itself"),
                    );
                }
            }
        }
        self.tell(imported);
        rules
    }

    /// Where the address that a request comes to decides about its limits, or that it has no host.
    fn tell_servers(&self, imported: &mut Imported) {
        for port in self.ports {
            let without_host = port.servers.iter().find(|place| self.servers[**place].without_host);
            if let Some(place) = without_host.filter(|place| **place != port.default) {
                let (own, default) = (self.only_limits(*place), self.only_limits(port.default));
                if own.is_none() || own != default {
                    imported.lost(
                        self.servers[*place].line,
                        format!("server without a name: a request without a host has the limits of the default server of port {} here", port.name),
                    );
                }
            }
            let Some(line) = port.by_address else { continue };
            let mut all = port.servers.iter().map(|server| self.only_limits(*server));
            let first = all.next().flatten();
            let is_same = first.is_some() && all.all(|one| one == first);
            let asks_name = self.zones.known.iter().any(|zone| zone.keys.iter().any(|key| key.by_server));
            if !is_same || asks_name {
                imported.lost(
                    line,
                    format!(
                        "listen: port {} has other servers, or another default, on one address than on another; which address a request comes to is not told apart, so it has the limits of the server of its host, or of one default server",
                        port.name
                    ),
                );
            }
        }
    }

    /// The limits of a server, if all of its requests have the same.
    fn only_limits(&self, server: usize) -> Option<Vec<&Use>> {
        if !self.chosen.iter().flatten().any(|one| one.server == server) {
            let has_none = self.servers[server].locations.uses().next().is_none();
            return has_none.then(Vec::new);
        }
        let mut all = self.reached[server]
            .iter()
            .zip(self.paths[server].places())
            .filter_map(|(reached, place)| place.map(|_| reached));
        let first = all.next()?;
        let is_plain = |one: &Limited<'_>| one.when == Conditions::default() && one.late == Late::default();
        let is_only = first.ways.iter().all(is_plain) && all.all(|one| one.is_as(first));
        is_only.then(|| first.uses().map(|(_, used)| used).collect())
    }

    /// What no rule says.
    fn tell(&self, imported: &mut Imported) {
        self.tell_servers(imported);
        let mut limiting: HashSet<&Way> = HashSet::new();
        let mut doubts: BTreeSet<(u64, Doubt)> = BTreeSet::new();
        for reached in self.reached.iter().flatten() {
            limiting.extend(reached.uses());
            doubts.extend(&reached.doubts);
        }
        for (line, doubt) in doubts {
            imported.lost(line, doubt.message());
        }
        let mut hidden: HashSet<&Way> =
            self.servers.iter().flat_map(|server| server.locations.hidden_uses()).collect();
        for (place, server) in self.servers.iter().enumerate() {
            if !self.chosen.iter().flatten().any(|one| one.server == place) {
                hidden.extend(server.locations.uses());
            }
        }
        for way in self.all_uses() {
            let (line, used) = way;
            if self.zones.known.iter().all(|zone| zone.name != used.zone) {
                let message = if self.zones.lost.contains(&used.zone) {
                    format!("limit_req: the zone {} could not be carried over", used.zone)
                } else {
                    format!(
                        "limit_req: there is no zone {}; is its limit_req_zone in another file?",
                        used.zone
                    )
                };
                imported.lost(*line, message);
            } else if limiting.contains(way) {
                continue;
            } else if hidden.contains(way) {
                imported.lost(*line, "limit_req: no host and path that a rule could name leads here (a server or location that is reached by an error, a variable, a regular expression, or not at all)");
            } else {
                imported.note(*line, "limit_req: no request is limited by it, in nginx too: other locations are in front of it, or an answer comes first");
            }
        }
    }

    fn all_uses(&self) -> impl Iterator<Item = &Way> {
        self.servers.iter().flat_map(|server| server.locations.uses())
    }

    fn ways(&self, zone: &str) -> Vec<Way> {
        let mut ways: Vec<Way> = Vec::new();
        for (line, used) in self.reached.iter().flatten().flat_map(Reached::uses) {
            if used.zone != zone {
                continue;
            }
            match ways.iter_mut().find(|(_, known)| known == used) {
                Some((first, _)) => *first = (*first).min(*line),
                None => ways.push((*line, used.clone())),
            }
        }
        ways.sort_by_key(|(line, _)| *line);
        ways
    }

    /// With what tells the buckets of each rule apart.
    fn of_way<'z>(
        &'z self,
        zone: &'z Zone,
        way: &Way,
        (rules, names): (&mut Vec<NewRule>, &mut Names),
        imported: &mut Imported,
    ) -> Vec<Bucket<'z>> {
        let mut buckets = Vec::new();
        // By what tells buckets apart: all such requests are counted together.
        let mut together: Vec<(Bucket<'_>, Vec<Conditions>)> = Vec::new();
        for by_server in [false, true] {
            let keys: Vec<&Key> = zone.keys.iter().filter(|key| key.by_server == by_server).collect();
            if keys.is_empty() {
                continue;
            }
            let regions: Vec<Option<Region<'_>>> =
                (0..self.servers.len()).map(|place| self.region(place, &way.1, by_server)).collect();
            let mut distinct: Vec<&Region<'_>> = Vec::new();
            for region in regions.iter().flatten() {
                if !distinct.contains(&region) {
                    distinct.push(region);
                }
            }
            for region in distinct {
                let is_in = |chosen: &Chosen| regions[chosen.server].as_ref() == Some(region);
                let all = self.conditions(zone.line, region, &is_in, imported);
                for key in &keys {
                    let needs_name = key.by_server && key.needs_name && key.attributes.is_empty();
                    if needs_name && region.server == Some("") {
                        continue;
                    }
                    for (when, late) in &all {
                        let Some(KeyAsked { when: of_key, attributes, texts, lost }) = late.key(key) else {
                            continue;
                        };
                        if let Some(message) = lost {
                            imported.lost(way.0, message);
                        }
                        let Some(when) = when.and(&of_key) else { continue };
                        let bucket: Bucket<'_> = (region.server, attributes, texts);
                        match together.iter_mut().find(|(known, _)| *known == bucket) {
                            Some((_, conditions)) => conditions.push(when),
                            None => together.push((bucket, vec![when])),
                        }
                    }
                }
            }
        }
        let patterns = together.iter().flat_map(|(_, conditions)| conditions).flat_map(Conditions::patterns);
        for pattern in patterns.filter(|one| !one.can_be_written()).collect::<BTreeSet<_>>() {
            imported.lost(way.0, format!("limit_req: no rule can say where it holds: {pattern:?} has a *"));
        }
        for ((server, attributes, texts), conditions) in together {
            if let Some(fault) = written::rule("a".to_owned(), zone, way, &attributes, &[]).fault() {
                imported.lost(zone.line, format!("limit_req_zone: the zone {}: {fault}", zone.name));
                continue;
            }
            // A rule looks at them one by one.
            let at_once = if conditions.len() <= MAX_ALTERNATIVES { conditions.len().max(1) } else { 1 };
            for conditions in conditions.chunks(at_once) {
                if rules.len() == MAX_RULES {
                    imported.lost(zone.line, format!("there are more than {MAX_RULES} rules"));
                    return buckets;
                }
                rules.push(written::rule(names.take(&zone.name), zone, way, &attributes, conditions));
                buckets.push((server, attributes.clone(), texts.clone()));
            }
        }
        buckets
    }

    /// Which paths of a server are limited in this way; `None`: none.
    fn region(&self, place: usize, way: &Use, by_server: bool) -> Option<Region<'_>> {
        let server = &self.servers[place];
        let parts = |place_of_path: usize| -> Vec<(&Conditions, &Late)> {
            let is_limited = |one: &&Limited<'_>| one.uses.iter().any(|(_, used)| used == way);
            let limited = self.reached[place][place_of_path].ways.iter().filter(is_limited);
            limited.map(|one| (&one.when, &one.late)).collect()
        };
        let mut distinct: Vec<(&Conditions, &Late)> = Vec::new();
        for part in (0..self.reached[place].len()).flat_map(parts) {
            if !distinct.contains(&part) {
                distinct.push(part);
            }
        }
        let mut paths = Vec::new();
        for (when, late) in distinct {
            let split = self.paths[place].split(|path| parts(path.place()).contains(&(when, late)));
            let limited =
                split.into_iter().filter(|(is_limited, _)| *is_limited).flat_map(|(_, tests)| tests);
            let whens = limited.filter_map(|path| Conditions::of("path", path).and(when));
            paths.extend(whens.map(|when| (when, late.clone())));
        }
        if paths.is_empty() {
            return None;
        }
        Some(Region { paths, server: by_server.then_some(&*server.first_name) })
    }

    /// All conditions of a region: each request of it fits one.
    fn conditions(
        &self,
        line: u64,
        region: &Region<'_>,
        is_in: &impl Fn(&Chosen) -> bool,
        imported: &mut Imported,
    ) -> Vec<Part> {
        let by_host = self.hosts.split(|host| -> PortConditions {
            let chosen = &self.chosen[host.place()];
            let is_named = chosen.iter().any(|one| one.by_name);
            let member = |one: &Chosen| match is_in(one) {
                false => Member::No,
                true if one.by_name || !is_named => Member::Yes,
                true => Member::IfTold,
            };
            self.ports_of(&chosen.iter().map(member).collect::<Vec<_>>())
        });
        let mut all = Vec::new();
        for (ports, hosts) in by_host {
            for port in &ports {
                if port.iter().any(|(attribute, _)| attribute == "server_port") {
                    imported.note(line, PORT);
                }
                for (host, (path, late)) in
                    hosts.iter().flat_map(|host| region.paths.iter().map(move |path| (host, path)))
                {
                    let host = Conditions::of("host", host.clone());
                    let when = host.and(path).and_then(|one| one.and(port));
                    all.extend(when.map(|when| (when, late.clone())));
                }
            }
        }
        all
    }

    /// Conditions for some of the ports. Where the port is not told, those hold that only exclude others.
    fn ports_of(&self, members: &[Member]) -> PortConditions {
        let these = |wanted: Member| -> Vec<&Port> {
            self.ports
                .iter()
                .zip(members)
                .filter(|(_, member)| **member == wanted)
                .map(|(port, _)| port)
                .collect()
        };
        if these(Member::No).is_empty() {
            return vec![Conditions::default()];
        }
        let mut conditions = Vec::new();
        let firm = these(Member::Yes);
        if !firm.is_empty() {
            let others: Vec<&Port> =
                self.ports.iter().filter(|port| firm.iter().all(|own| own.name != port.name)).collect();
            let none_of = |patterns| Test { any_of: Vec::new(), none_of: patterns };
            conditions.push(told_apart(&others, &firm, none_of));
        }
        let if_told = these(Member::IfTold);
        if !if_told.is_empty() {
            let others: Vec<&Port> =
                self.ports.iter().filter(|port| if_told.iter().all(|own| own.name != port.name)).collect();
            conditions.push(told_apart(&if_told, &others, |any_of| Test { any_of, none_of: Vec::new() }));
        }
        conditions
    }
}

/// By the scheme, where that tells the ones from the others.
fn told_apart(these: &[&Port], others: &[&Port], test: impl Fn(Vec<Pattern>) -> Test) -> Conditions {
    let ssl = these[0].ssl;
    if these.iter().all(|port| port.ssl == ssl) && others.iter().all(|port| port.ssl != ssl) {
        let scheme = if ssl { "https" } else { "http" };
        return Conditions::of("scheme", test(vec![Pattern::Exact(scheme.to_owned())]));
    }
    let ports = these.iter().map(|port| Pattern::Exact(port.name.clone())).collect();
    Conditions::of("server_port", test(ports))
}

/// The spaces of all servers; `None`: one has too many locations.
pub(super) fn spaces(servers: &[Server]) -> Option<(Space, Vec<Space>)> {
    let paths = servers.iter().map(|server| server.locations.space()).collect::<Option<Vec<_>>>()?;
    Some((server::hosts(servers)?, paths))
}
