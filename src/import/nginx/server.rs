//! Which server answers a request: by the port that it comes to, then by the name of its host. What no name fits is answered by
//! the default server of that port.

use super::{
    super::imported::Imported,
    location::{Locations, Outer},
    pattern::Pattern,
    regex,
    space::{Cell, Space},
    syntax::Directive,
};

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) line: u64,
    names: Vec<Name>,
    /// Its `$server_name`.
    pub(super) first_name: String,
    listens: Vec<Listen>,
    pub(super) locations: Locations,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Exact(String),
    /// It ends so, with a dot before.
    Suffix(String),
    /// It begins so, with a dot behind.
    Prefix(String),
    Regex(Vec<Pattern>),
}

#[derive(Debug)]
struct Listen {
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
    servers: Vec<usize>,
    default: usize,
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
                "listen" => server.listens.extend(listen(&one.arguments, has_ssl)),
                _ => {}
            }
        }
        if server.listens.is_empty() {
            server.listens.extend(listen(&["80".to_owned()], has_ssl));
        }
        server.first_name = texts.into_iter().next().unwrap_or_default().to_lowercase();
        server
    }

    fn add_name(&mut self, name: &str, line: u64, imported: &mut Imported) {
        if let Some(regex) = name.strip_prefix('~') {
            match regex::patterns(regex) {
                Some(patterns) => self.names.push(Name::Regex(patterns)),
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
            self.names.push(Name::Exact(bare.to_owned()));
            self.names.push(Name::Suffix(name.clone()));
        } else if let Some(start) = name.strip_suffix('*') {
            self.names.push(Name::Prefix(start.to_owned()));
        } else if name == "$hostname" {
            imported.lost(line, "server_name $hostname: the name of that machine is not known here");
        } else if !name.is_empty() && name != "_" {
            self.names.push(Name::Exact(name));
        }
    }

    /// The patterns of its hosts.
    pub(super) fn hosts(&self) -> impl Iterator<Item = Pattern> {
        self.names.iter().flat_map(|name| match name {
            Name::Exact(host) => vec![Pattern::Exact(host.clone())],
            Name::Suffix(end) => vec![Pattern::suffix(end.clone())],
            Name::Prefix(start) => vec![Pattern::prefix(start.clone())],
            Name::Regex(patterns) => patterns.clone(),
        })
    }

    /// How well its names fit: less is better.
    fn rank(&self, host: &Cell<'_>) -> Option<(u8, usize)> {
        let rank = |name: &Name| match name {
            Name::Exact(own) => matches!(host.node(), Pattern::Exact(host) if host == own).then_some((0, 0)),
            Name::Suffix(end) => {
                host.fits(&Pattern::suffix(end.clone())).then(|| (1, usize::MAX - end.len()))
            }
            Name::Prefix(start) => {
                host.fits(&Pattern::prefix(start.clone())).then(|| (2, usize::MAX - start.len()))
            }
            Name::Regex(patterns) => patterns.iter().any(|one| host.fits(one)).then_some((3, 0)),
        };
        self.names.iter().filter_map(rank).min()
    }
}

/// `[address:]port parameters`; `None`: no connections come there.
fn listen(arguments: &[String], has_ssl: bool) -> Option<Listen> {
    let (place, parameters) = arguments.split_first()?;
    let (address, port) = match place.rsplit_once(':') {
        _ if place.starts_with("unix:") => (String::new(), place.clone()),
        _ if place.ends_with(']') => (place.clone(), "80".to_owned()),
        Some((address, port)) => (address.to_owned(), port.to_owned()),
        None if place.bytes().all(|byte| byte.is_ascii_digit()) => (String::new(), place.clone()),
        None => (place.clone(), "80".to_owned()),
    };
    let address =
        if address == "*" || address == "0.0.0.0" || address == "[::]" { String::new() } else { address };
    let has = |name: &str| parameters.iter().any(|one| one == name);
    Some(Listen {
        address,
        port,
        ssl: has_ssl || has("ssl") || has("quic"),
        is_default: has("default_server") || has("default"),
    })
}

/// What listens where. Addresses are not told apart: hosts are.
pub(super) fn ports(servers: &[Server], imported: &mut Imported) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (place, server) in servers.iter().enumerate() {
        for listen in &server.listens {
            let known = ports.iter_mut().find(|port| port.name == listen.port);
            let Some(port) = known else {
                let name = listen.port.clone();
                ports.push(Port { name, ssl: listen.ssl, servers: vec![place], default: place });
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
        let default = listens()
            .filter(|(_, listen)| listen.is_default)
            .min_by_key(|(_, listen)| !listen.address.is_empty());
        let of_all = listens().find(|(_, listen)| listen.address.is_empty());
        let Some((default, _)) = default.or(of_all).or_else(|| listens().next()) else { continue };
        port.default = default;
        let mut addresses: Vec<&String> = listens().map(|(_, listen)| &listen.address).collect();
        addresses.sort();
        addresses.dedup();
        for address in addresses {
            let of_address = || listens().filter(|(_, listen)| listen.address == *address);
            let own = of_address().find(|(_, listen)| listen.is_default).or_else(|| of_address().next());
            if let Some((own, _)) = own.filter(|(own, _)| *own != default) {
                imported.lost(
                    servers[own].line,
                    format!("port {}: which address a request comes to is not told apart; a host that no name fits has the limits of one default server", port.name),
                );
            }
        }
    }
    ports
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
