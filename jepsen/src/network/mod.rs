//! What lies between the nodes of a cluster, so that it can be broken. There are two forms of it: each node in a network
//! namespace of its own ([`namespaces`]), where the kernel drops packets; or all on loopback addresses, with proxies between
//! them, where that is not possible. Who breaks a cluster need not know which it is.

pub mod namespaces;

use std::{fmt, net::IpAddr, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use self::namespaces::Namespaces;

/// How a network is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A network namespace for each node, on a bridge; nftables drops packets. Needs root, of a user namespace at least.
    #[default]
    Namespaces,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "network namespaces",
        })
    }
}

/// Which form is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The best that is possible here.
    #[default]
    Auto,
    /// This one or none.
    Only(Form),
}

impl Choice {
    /// Settles on a form that is possible here, and tells why it is not the best one, if it is not. A plain user becomes root
    /// of a user namespace where that is needed: this program is started again for that, so that this is the first thing to
    /// do.
    ///
    /// # Errors
    /// Why there can be no network of the form that was asked for.
    pub fn settle(self) -> Result<Form, String> {
        let impossible = if namespaces::is_root() {
            namespaces::are_possible().err()
        } else {
            Some(namespaces::enter_user_namespace())
        };
        match (self, impossible) {
            (_, None) => Ok(Form::Namespaces),
            (_, Some(reason)) => Err(reason),
        }
    }
}

impl Form {
    /// Makes a network for so many nodes, numbered from 1.
    ///
    /// # Errors
    /// Why that can not be done here.
    pub fn create(self, nodes: u8) -> Result<Network, String> {
        match self {
            Self::Namespaces => Namespaces::create(nodes).map(Network::Namespaces),
        }
    }
}

/// A network between nodes that are numbered from 1. A fault stays until [`Network::heal`]. What goes between a node and the
/// test is never touched.
#[derive(Debug)]
pub enum Network {
    /// Of namespaces.
    Namespaces(Namespaces),
}

impl Network {
    /// Where a node listens.
    pub fn address(&self, node: u8) -> IpAddr {
        match self {
            Self::Namespaces(net) => net.address(node).into(),
        }
    }

    /// Where other nodes find a node.
    pub fn address_for_peers(&self, node: u8) -> IpAddr {
        match self {
            Self::Namespaces(net) => net.address(node).into(),
        }
    }

    /// How to start a program as a node. It is the process that is started, not a child of it.
    pub(crate) fn command(&self, node: u8, program: &Path) -> Command {
        match self {
            Self::Namespaces(net) => net.command(node, program),
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

    /// Loses so many of a hundred packets from the first of each pair to the second, by chance.
    ///
    /// # Panics
    /// When that fails.
    pub fn lose(&self, pairs: &[(u8, u8)], percent: u8) {
        match self {
            Self::Namespaces(net) => net.lose(pairs, percent),
        }
    }

    /// Delivers what goes from the first of each pair to the second twice.
    ///
    /// # Panics
    /// When that fails.
    pub fn double(&self, pairs: &[(u8, u8)]) {
        match self {
            Self::Namespaces(net) => net.double(pairs),
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
        }
    }

    /// How many packets the faults that are on have hit.
    pub fn packets_hit(&self) -> u64 {
        match self {
            Self::Namespaces(net) => net.packets_hit(),
        }
    }

    /// Lets all through again.
    ///
    /// # Panics
    /// When that fails.
    pub fn heal(&self) {
        match self {
            Self::Namespaces(net) => net.heal(),
        }
    }
}
