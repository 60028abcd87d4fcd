//! Which server answers a request: by the port that it comes to, then by the name of its host. What no name fits is answered by
//! the default server of that port.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    super::imported::Imported,
    location::{Locations, Outer},
    pattern::Pattern,
    regex,
    space::{Cell, Space},
    syntax::Directive,
};

/// Ports that one `listen` names.
const MAX_RANGE: usize = 100;

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) line: u64,
    names: Vec<Name>,
    /// It answers requests without a host.
    pub(super) without_host: bool,
    /// Its `$server_name`.
    pub(super) first_name: String,
    listens: Vec<Listen>,
    pub(super) locations: Locations,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Exact(String),
    /// This, and what ends so with a dot before: `.a.test`.
    Dotted(String),
    /// It ends so, with a dot before.
    Suffix(String),
    /// It begins so, with a dot behind.
    Prefix(String),
    Regex(Vec<Pattern>),
}

#[derive(Debug, Clone)]
struct Listen {
    line: u64,
    /// Empty: all of IPv4.
    address: String,
    port: String,
    ssl: bool,
    is_default: bool,
}

/// What listens on one port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) ssl: bool,
    pub(super) servers: Vec<usize>,
    pub(super) default: usize,
    /// Where one of its servers listens, if other servers answer on one address than on another one.
    pub(super) by_address: Option<u64>,
}

/// The server that answers some requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) server: usize,
    /// Rather than as the default.
    pub(super) by_name: bool,
}

impl Server {
    pub(super) fn read(directive: &Directive, outer: &Outer, imported: &mut Imported) -> Self {
        let mut server = Self {
            line: directive.line,
            names: Vec::new(),
            without_host: false,
            first_name: String::new(),
            listens: Vec::new(),
            locations: Locations::read(directive, outer, imported),
        };
        let has_ssl = directive.inside().iter().any(|one| one.name == "ssl" && one.arguments == ["on"]);
        let mut texts = Vec::new();
        for one in directive.inside() {
            match &*one.name {
                "server_name" => {
                    texts.extend(one.arguments.clone());
                    one.arguments.iter().for_each(|name| server.add_name(name, one.line, imported));
                }
                "listen" => server.add_listen(&one.arguments, one.line, has_ssl, imported),
                _ => {}
            }
        }
        if server.listens.is_empty() {
            server.listens.extend(listen(&["80".to_owned()], directive.line, has_ssl));
        }
        // A server without any name has the empty one.
        server.without_host |= texts.is_empty();
        server.first_name = texts.into_iter().next().unwrap_or_default().to_lowercase();
        server
    }

    fn add_listen(&mut self, arguments: &[String], line: u64, has_ssl: bool, imported: &mut Imported) {
        let Some(listen) = listen(arguments, line, has_ssl) else { return };
        let ends = listen.port.split_once('-').filter(|_| !listen.port.starts_with("unix:"));
        let Some((first, last)) = ends else {
            self.listens.push(listen);
            return;
        };
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if (first..=last).len() <= MAX_RANGE => {
                let ports = (first..=last).map(|port| Listen { port: port.to_string(), ..listen.clone() });
                self.listens.extend(ports);
            }
            _ => imported.lost(
                line,
                format!(
                    "listen: {}: a range of more than {MAX_RANGE} ports is not carried over",
                    listen.port
                ),
            ),
        }
    }

    fn add_name(&mut self, name: &str, line: u64, imported: &mut Imported) {
        if let Some(regex) = name.strip_prefix('~') {
            match regex::patterns(regex) {
                // nginx compares them without case, and hosts come in lower case.
                Some(patterns) => {
                    let lower = patterns.iter().map(|one| one.map(str::to_ascii_lowercase)).collect();
                    self.names.push(Name::Regex(lower));
                }
                None => imported.lost(
                    line,
                    format!("server_name {name}: rules know no such regular expression; its hosts are treated as those of no name"),
                ),
            }
            return;
        }
        let name = name.to_lowercase();
        if let Some(end) = name.strip_prefix('*') {
            self.names.push(Name::Suffix(end.to_owned()));
        } else if let Some(bare) = name.strip_prefix('.') {
            self.names.push(Name::Dotted(bare.to_owned()));
        } else if let Some(start) = name.strip_suffix('*') {
            self.names.push(Name::Prefix(start.to_owned()));
        } else if name == "$hostname" {
            imported.lost(line, "server_name $hostname: the name of that machine is not known here");
        } else if name.is_empty() {
            self.without_host = true;
        } else if name != "_" {
            self.names.push(Name::Exact(name));
        }
    }

    /// The patterns of its hosts.
    pub(super) fn hosts(&self) -> impl Iterator<Item = Pattern> {
        self.names.iter().flat_map(|name| match name {
            Name::Exact(host) => vec![Pattern::Exact(host.clone())],
            Name::Dotted(bare) => vec![Pattern::Exact(bare.clone()), Pattern::suffix(format!(".{bare}"))],
            Name::Suffix(end) => vec![Pattern::suffix(end.clone())],
            Name::Prefix(start) => vec![Pattern::prefix(start.clone())],
            Name::Regex(patterns) => patterns.clone(),
        })
    }

    /// How well its names fit: less is better.
    fn rank(&self, host: &Cell<'_>) -> Option<(u8, usize)> {
        let exact =
            |own: &String| matches!(host.node(), Pattern::Exact(host) if host == own).then_some((0, 0));
        let suffix = |end: &str| host.fits(&Pattern::suffix(end)).then(|| (1, usize::MAX - end.len()));
        let rank = |name: &Name| match name {
            Name::Exact(own) => exact(own),
            Name::Dotted(bare) => exact(bare).or_else(|| suffix(&format!(".{bare}"))),
            Name::Suffix(end) => suffix(end),
            Name::Prefix(start) => {
                host.fits(&Pattern::prefix(start.clone())).then(|| (2, usize::MAX - start.len()))
            }
            Name::Regex(patterns) => patterns.iter().any(|one| host.fits(one)).then_some((3, 0)),
        };
        self.names.iter().filter_map(rank).min()
    }
}

/// `[address:]port parameters`; `None`: no connections come there.
fn listen(arguments: &[String], line: u64, has_ssl: bool) -> Option<Listen> {
    let (place, parameters) = arguments.split_first()?;
    let (address, port) = match place.rsplit_once(':') {
        _ if place.starts_with("unix:") => (String::new(), place.clone()),
        _ if place.ends_with(']') => (place.clone(), "80".to_owned()),
        Some((address, port)) => (address.to_owned(), port.to_owned()),
        None if place.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
            (String::new(), place.clone())
        }
        None => (place.clone(), "80".to_owned()),
    };
    let bare = address.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(&address);
    let address = match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => String::new(),
        Ok(one) => one.to_string(),
        Err(_) if address == "*" => String::new(),
        Err(_) => address.to_ascii_lowercase(),
    };
    let has = |name: &str| parameters.iter().any(|one| one == name);
    Some(Listen {
        line,
        address,
        port,
        ssl: has_ssl || has("ssl") || has("quic"),
        is_default: has("default_server") || has("default"),
    })
}

impl Listen {
    fn is_for_all(&self) -> bool {
        self.address.is_empty() || self.address == "::"
    }
}

/// What listens where. Addresses are not told apart: hosts are.
pub(super) fn ports(servers: &[Server]) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (place, server) in servers.iter().enumerate() {
        for listen in &server.listens {
            let known = ports.iter_mut().find(|port| port.name == listen.port);
            let Some(port) = known else {
                let name = listen.port.clone();
                let (servers, by_address) = (vec![place], None);
                ports.push(Port { name, ssl: listen.ssl, servers, default: place, by_address });
                continue;
            };
            port.ssl |= listen.ssl;
            if !port.servers.contains(&place) {
                port.servers.push(place);
            }
        }
    }
    for port in &mut ports {
        let listens = || {
            servers.iter().enumerate().flat_map(|(place, server)| {
                server
                    .listens
                    .iter()
                    .filter(|listen| listen.port == port.name)
                    .map(move |listen| (place, listen))
            })
        };
        // That of all addresses, if there is one.
        let default =
            listens().filter(|(_, listen)| listen.is_default).min_by_key(|(_, listen)| !listen.is_for_all());
        let of_all = listens().find(|(_, listen)| listen.is_for_all());
        let Some((default, _)) = default.or(of_all).or_else(|| listens().next()) else { continue };
        port.default = default;
        // A request to an address on which some listen is answered by one of these.
        let mut addresses: Vec<&String> = listens().map(|(_, listen)| &listen.address).collect();
        addresses.sort();
        addresses.dedup();
        let of_address = |address: &String| {
            let own: Vec<(usize, &Listen)> =
                listens().filter(|(_, listen)| listen.address == *address).collect();
            let default = own.iter().find(|(_, listen)| listen.is_default).or(own.first());
            let default = default.map(|(place, _)| *place);
            let mut places: Vec<usize> = own.iter().map(|(place, _)| *place).collect();
            places.dedup();
            (places, default)
        };
        let is_other = |address: &&String| of_address(address) != (port.servers.clone(), Some(default));
        let other = addresses.into_iter().find(is_other);
        port.by_address = other
            .and_then(|address| listens().find(|(_, listen)| listen.address == *address))
            .map(|(_, listen)| listen.line);
    }
    ports
}

/// nginx warns of a name that another one of the port has before, and ignores it: `.a.test` altogether, even if only one of the hosts
/// that it is for has another name.
pub(super) fn tell_conflicts(servers: &[Server], ports: &[Port], imported: &mut Imported) {
    for port in ports {
        let (mut exact, mut suffixes) = (HashSet::new(), HashSet::new());
        let of_port = || port.servers.iter().map(|place| &servers[*place]);
        for (server, name) in of_port().flat_map(|server| server.names.iter().map(move |name| (server, name)))
        {
            match name {
                Name::Exact(host) => _ = exact.insert(host.clone()),
                Name::Suffix(end) => _ = suffixes.insert(end.clone()),
                Name::Dotted(bare) => {
                    let is_new = exact.insert(bare.clone());
                    if !(suffixes.insert(format!(".{bare}")) && is_new) {
                        imported.lost(
                            server.line,
                            format!("server_name .{bare}: another server_name of port {} has some of its hosts, so nginx ignores it (conflicting server name); here it counts", port.name),
                        );
                    }
                }
                Name::Prefix(_) | Name::Regex(_) => {}
            }
        }
    }
}

impl Port {
    /// The server that answers requests for some hosts.
    pub(super) fn choose(&self, servers: &[Server], host: &Cell<'_>) -> Chosen {
        let ranked = self.servers.iter().filter_map(|place| Some((servers[*place].rank(host)?, *place)));
        match ranked.min() {
            Some((_, server)) => Chosen { server, by_name: true },
            None => Chosen { server: self.default, by_name: false },
        }
    }
}

/// All patterns of hosts; `None`: too many.
pub(super) fn hosts(servers: &[Server]) -> Option<Space> {
    let patterns: Vec<Pattern> = servers.iter().flat_map(Server::hosts).collect();
    Space::new(&patterns)
}
