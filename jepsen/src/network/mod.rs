//! What lies between the nodes of a cluster, so that it can be broken. There are two forms of it: each node in a network
//! namespace of its own ([`namespaces`]), where the kernel drops packets; or all on loopback addresses, with proxies between
//! them ([`proxies`]), where that is not possible. Who breaks a cluster need not know which it is.

pub mod namespaces;
pub mod proxies;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::{namespaces::Namespaces, proxies::Proxies};
use crate::ports::{BASE_PORT_APART, PEER_PORT_OFFSET};

/// How a network is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A network namespace for each node, on a bridge; nftables drops packets. Needs root, of a user namespace at least.
    #[default]
    Namespaces,
    /// Loopback addresses, with proxies between them. Needs nothing.
    Proxies,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "network namespaces",
            Self::Proxies => "loopback addresses behind proxies",
        })
    }
}

/// Which form is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Namespaces where they are possible, else proxies.
    #[default]
    Auto,
    /// This one or none.
    Only(Form),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "namespaces" => Ok(Self::Only(Form::Namespaces)),
            "proxies" => Ok(Self::Only(Form::Proxies)),
            _ => Err(format!("{text:?} is none of auto, namespaces, proxies")),
        }
    }
}

impl Choice {
    /// Settles on a form, and tells why it is not namespaces if those were wanted and are not possible here. A plain user
    /// becomes root of a user namespace where that is needed: this program is started again for that, so that this is the
    /// first thing to do.
    ///
    /// # Errors
    /// Why there can be no network of the only form that was asked for.
    pub fn settle(self) -> Result<(Form, Option<String>), String> {
        if self == Self::Only(Form::Proxies) {
            return Ok((Form::Proxies, None));
        }
        let impossible = if namespaces::is_root() {
            namespaces::are_possible().err()
        } else {
            Some(namespaces::enter_user_namespace())
        };
        match (self, impossible) {
            (_, None) => Ok((Form::Namespaces, None)),
            (Self::Auto, Some(reason)) => Ok((Form::Proxies, Some(reason))),
            (Self::Only(_), Some(reason)) => Err(reason),
        }
    }
}

impl Form {
    /// Makes a network for so many nodes, numbered from 1.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn create(self, nodes: u8) -> Result<Network, String> {
        match self {
            Self::Namespaces => Namespaces::create(nodes).map(Network::Namespaces),
            Self::Proxies => Proxies::create(nodes).map(Network::Proxies),
        }
    }
}

/// The last bytes of addresses that nobody has in the beginning.
const FRESH_HOSTS: std::ops::Range<u8> = 40..240;

/// A network between nodes that are numbered from 1. A fault stays until [`Network::heal`]. What goes between a node and the
/// test is never touched.
#[derive(Debug)]
pub enum Network {
    /// Of namespaces.
    Namespaces(Namespaces),
    /// Of proxies.
    Proxies(Proxies),
}

impl Network {
    /// Where a node listens.
    pub fn address(&self, node: u8) -> IpAddr {
        match self {
            Self::Namespaces(net) => net.address(node).into(),
            Self::Proxies(net) => net.address(node).into(),
        }
    }

    /// Where other nodes find a node.
    pub fn address_for_peers(&self, node: u8) -> IpAddr {
        match self {
            Self::Namespaces(net) => net.address(node).into(),
            Self::Proxies(net) => net.address_for_peers(node).into(),
        }
    }

    /// The same with the port.
    pub fn peer(&self, node: u8) -> SocketAddr {
        (self.address_for_peers(node), BASE_PORT_APART + PEER_PORT_OFFSET).into()
    }

    /// The last byte of the address at which other nodes find a node.
    pub(crate) fn host(&self, node: u8) -> u8 {
        match self {
            Self::Namespaces(net) => net.host(node),
            Self::Proxies(net) => net.host(node),
        }
    }

    /// A last byte that no node has now, of those after `last`.
    pub(crate) fn fresh_host(&self, last: u8, nodes: u8) -> u8 {
        let mut host = last;
        loop {
            host = if (FRESH_HOSTS.start..FRESH_HOSTS.end - 1).contains(&host) {
                host + 1
            } else {
                FRESH_HOSTS.start
            };
            if (1..=nodes).all(|node| self.host(node) != host) {
                return host;
            }
        }
    }

    /// Gives nodes that do not run other addresses: each the one with this last byte. Faults that are on go with them.
    ///
    /// # Panics
    /// When that fails.
    pub(crate) fn move_to(&self, moves: &[(u8, u8)]) {
        match self {
            Self::Namespaces(net) => net.move_to(moves),
            Self::Proxies(net) => net.move_to(moves).map_err(|error| error.to_string()),
        }
        .expect("nodes can get other addresses");
    }

    /// How to start a program as a node. It is the process that is started, not a child of it.
    pub(crate) fn command(&self, node: u8, program: &Path) -> Command {
        match self {
            Self::Namespaces(net) => net.command(node, program),
            Self::Proxies(_) => Command::new(program),
        }
    }

    /// From now on this process is that node.
    pub(crate) fn started(&self, node: u8, pid: u32) {
        match self {
            // What comes from its namespace is the node's.
            Self::Namespaces(_) => {}
            Self::Proxies(net) => net.started(node, pid),
        }
    }

    /// Drops what goes from one node to another from now on.
    ///
    /// # Panics
    /// When that fails.
    pub fn cut(&self, from: u8, to: u8) {
        self.cut_all(&[(from, to)]);
    }

    /// Drops what goes from the first of each pair to the second.
    ///
    /// # Panics
    /// When that fails.
    pub fn cut_all(&self, pairs: &[(u8, u8)]) {
        match self {
            Self::Namespaces(net) => net.cut_all(pairs),
            Self::Proxies(net) => net.set(pairs, |link| link.cut = true),
        }
    }

    /// Ends the streams that other nodes have opened to this port of a node, and refuses new ones. Those that the node opens
    /// itself stay, and so do datagrams.
    ///
    /// # Panics
    /// When that fails; with proxies, which cannot tell who has opened a stream.
    pub fn refuse_streams_to(&self, node: u8, port: u16) {
        match self {
            Self::Namespaces(net) => net.refuse_streams_to(node, port),
            Self::Proxies(_) => panic!("only namespaces can refuse streams in one direction"),
        }
    }

    /// Drops what goes between the nodes of different groups.
    ///
    /// # Panics
    /// When that fails.
    pub fn split(&self, groups: &[&[u8]]) {
        let mut pairs = Vec::new();
        for (place, group) in groups.iter().enumerate() {
            for other in groups.iter().enumerate().filter(|(other, _)| *other != place).flat_map(|(_, g)| *g)
            {
                pairs.extend(group.iter().map(|node| (*node, *other)));
            }
        }
        self.cut_all(&pairs);
    }

    /// Loses so many of a hundred packets from the first of each pair to the second, by chance. A stream waits for such a packet
    /// to be sent again.
    ///
    /// # Panics
    /// When that fails.
    pub fn lose(&self, pairs: &[(u8, u8)], percent: u8) {
        if percent >= 100 {
            return self.cut_all(pairs);
        }
        match self {
            Self::Namespaces(net) => net.lose(pairs, percent),
            Self::Proxies(net) => net.set(pairs, |link| link.loss = percent),
        }
    }

    /// Delivers what goes from the first of each pair to the second twice. Of a stream nobody sees that.
    ///
    /// # Panics
    /// When that fails.
    pub fn double(&self, pairs: &[(u8, u8)]) {
        match self {
            Self::Namespaces(net) => net.double(pairs),
            Self::Proxies(net) => net.set(pairs, |link| link.doubled = true),
        }
    }

    /// Squeezes what a node sends to other nodes through a link of so many kilobits a second. What waits there waits for
    /// 400 ms at most.
    ///
    /// # Panics
    /// When that fails.
    pub fn slow(&self, node: u8, kilobits: u32) {
        match self {
            Self::Namespaces(net) => net.slow(node, kilobits),
            Self::Proxies(net) => net.set_all_from(node, |link| link.kilobits = Some(kilobits)),
        }
    }

    /// Delivers what goes from the first of each pair to the second later: by `delay`, and by chance by up to `jitter` more.
    ///
    /// # Panics
    /// In namespaces: nftables cannot do it.
    pub fn delay(&self, pairs: &[(u8, u8)], delay: Duration, jitter: Duration) {
        self.proxies("late").set(pairs, |link| (link.delay, link.jitter) = (delay, jitter));
    }

    /// Delivers so many of a hundred packets from the first of each pair to the second so late that later ones overtake them.
    /// A stream keeps its order, but another one overtakes it.
    ///
    /// # Panics
    /// In namespaces: nftables cannot do it.
    pub fn reorder(&self, pairs: &[(u8, u8)], percent: u8) {
        self.proxies("out of order").set(pairs, |link| link.disorder = percent);
    }

    /// Lets no new connection from another node come to be at this one. Those that there are live, and so do those that it makes.
    ///
    /// # Panics
    /// When that fails.
    pub fn refuse_connections(&self, node: u8) {
        match self {
            Self::Namespaces(net) => net.refuse_connections(node),
            Self::Proxies(net) => net.set_all_to(node, |link| link.refuses = true),
        }
    }

    /// Loses so many of a hundred answers from the first of each pair to the second, each with the stream that it would come on.
    ///
    /// # Panics
    /// In namespaces: nftables knows no answers.
    pub fn lose_answers(&self, pairs: &[(u8, u8)], percent: u8) {
        self.proxies("no answers").set(pairs, |link| link.lost_answers = percent);
    }

    fn proxies(&self, what: &str) -> &Proxies {
        match self {
            Self::Namespaces(_) => panic!("only proxies can deliver {what}"),
            Self::Proxies(net) => net,
        }
    }

    /// How many packets the faults that are on have hit; with proxies: datagrams, and parts of streams.
    pub fn packets_hit(&self) -> u64 {
        match self {
            Self::Namespaces(net) => net.packets_hit(),
            Self::Proxies(net) => net.hits(),
        }
    }

    /// Lets all through again.
    ///
    /// # Panics
    /// When that fails.
    pub fn heal(&self) {
        match self {
            Self::Namespaces(net) => net.heal(),
            Self::Proxies(net) => net.heal(),
        }
    }
}
