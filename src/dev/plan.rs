//! What a local cluster will be, and whether it can be, before anything is started.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
};

use miette::Diagnostic;
use tidegate_limiter::rules::HashSecret;

use crate::rules_file::{self, RulesFileError};

/// The rules when no file is given.
pub(crate) const DEMO_RULES: &str = include_str!("demo-rules.yaml");

const MAX_NODES: u16 = 20;
/// From one node's ports to the next one's.
const PORT_STEP: u16 = 10;
const PEER_PORT_OFFSET: u16 = 3;

/// What a local cluster will be.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) nodes: Vec<PlannedNode>,
    pub(super) rules: Option<PathBuf>,
    /// What of the nodes' logs is shown; none: only the last lines of a node that fails.
    pub(super) log_level: Option<String>,
}

/// One node of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedNode {
    pub(super) name: String,
    pub(super) http: SocketAddr,
    pub(super) peers: SocketAddr,
}

/// Why there can be no such cluster.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum PlanError {
    #[error("{0} nodes cannot be: from 1 to {MAX_NODES} (--nodes)")]
    Nodes(u16),
    #[error("ports from {first} on do not suffice for {nodes} nodes (--base-port)")]
    Ports { first: u16, nodes: u16 },
}

/// Why it cannot be started now.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum PlanCheckError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rules(#[from] RulesFileError),
    #[error("nothing was started, because these ports are not free:\n{}", list(.0))]
    #[diagnostic(help("another --base-port, or end what uses them"))]
    PortsTaken(Vec<(&'static str, SocketAddr, io::Error)>),
}

impl Plan {
    pub(crate) fn new(
        nodes: u16,
        base_port: u16,
        rules: Option<PathBuf>,
        log_level: Option<String>,
    ) -> Result<Self, PlanError> {
        if !(1..=MAX_NODES).contains(&nodes) {
            return Err(PlanError::Nodes(nodes));
        }
        let last = u32::from(base_port) + u32::from(PORT_STEP * (nodes - 1)) + u32::from(PEER_PORT_OFFSET);
        if base_port == 0 || last > u32::from(u16::MAX) {
            return Err(PlanError::Ports { first: base_port, nodes });
        }
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let nodes = (0..nodes)
            .map(|index| {
                let port = base_port + PORT_STEP * index;
                PlannedNode {
                    name: format!("n{}", index + 1),
                    http: here(port),
                    peers: here(port + PEER_PORT_OFFSET),
                }
            })
            .collect();
        Ok(Self { nodes, rules, log_level })
    }

    /// Looks at the rules and the ports, as the nodes will.
    pub(super) fn check(&self) -> Result<(), PlanCheckError> {
        // Rules are the same with any secret.
        let secret = HashSecret::new([0; 16]);
        match &self.rules {
            Some(path) => drop(rules_file::read(path)?),
            None => drop(rules_file::compile("demo-rules.yaml", DEMO_RULES.to_owned(), &secret)?),
        }
        let mut taken = Vec::new();
        for node in &self.nodes {
            taken.extend(TcpListener::bind(node.http).err().map(|error| ("HTTP", node.http, error)));
            taken.extend(TcpListener::bind(node.peers).err().map(|error| ("peers, TCP", node.peers, error)));
            taken.extend(UdpSocket::bind(node.peers).err().map(|error| ("peers, UDP", node.peers, error)));
        }
        if taken.is_empty() { Ok(()) } else { Err(PlanCheckError::PortsTaken(taken)) }
    }
}

fn list(taken: &[(&'static str, SocketAddr, io::Error)]) -> String {
    let lines: Vec<String> =
        taken.iter().map(|(what, address, error)| format!("  {address} ({what}): {error}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u16, base_port: u16) -> Result<Plan, PlanError> {
        Plan::new(nodes, base_port, None, None)
    }

    #[test]
    fn node_n_has_ports_ten_above_the_one_before() {
        let plan = plan(3, 7800).unwrap();
        let third = &plan.nodes[2];
        assert_eq!((&*third.name, third.http.port(), third.peers.port()), ("n3", 7820, 7823));
    }

    #[test]
    fn a_cluster_that_cannot_be_is_refused() {
        assert!(matches!(plan(0, 7800), Err(PlanError::Nodes(0))));
        assert!(matches!(plan(21, 7800), Err(PlanError::Nodes(21))));
        assert!(matches!(plan(3, 65_520), Err(PlanError::Ports { .. })));
        assert!(matches!(plan(3, 0), Err(PlanError::Ports { .. })));
        assert!(plan(2, 65_522).is_ok());
    }

    #[test]
    fn all_ports_that_are_taken_are_named_at_once() {
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = http.local_addr().unwrap();
        let mut plan = plan(1, 7800).unwrap();
        plan.nodes[0].http = taken;
        plan.nodes[0].peers = taken;
        let fault = plan.check().unwrap_err().to_string();
        assert!(fault.contains("(HTTP)") && fault.contains("(peers, TCP)"), "{fault}");
    }

    #[test]
    fn the_demonstration_rules_are_rules() {
        rules_file::compile("demo-rules.yaml", DEMO_RULES.to_owned(), &HashSecret::new([0; 16])).unwrap();
    }
}
