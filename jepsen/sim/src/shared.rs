//! What the nodes, their clients and the world around them share.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    rc::Rc,
};

use tidegate_cluster::{Clock, Cluster, ids::ClusterId, simulation::Probe};
use tidegate_limiter::cluster::KeyHash;
use tokio::sync::mpsc;

use super::{plan::Plan, workload::Mode};
use tidegate_jepsen::{
    check::{ledger::WriteOutcome, linear::Act},
    history::{Operation, Refund},
};

/// Domains whose rules are written and read.
pub(super) const DOMAINS: usize = 2;

/// A write or a read of the rules of a domain.
#[derive(Debug, Clone)]
pub(super) struct RuleOperation {
    pub(super) domain: usize,
    pub(super) called: u64,
    pub(super) answered: Option<u64>,
    pub(super) did: Did,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Did {
    /// It wrote this value; what came of it.
    Write(u64, WriteOutcome),
    /// It read this; `None` within: there was nothing. Not answered: nothing is known.
    Read(Option<u64>),
}

impl RuleOperation {
    pub(super) fn act(&self) -> Act {
        match self.did {
            Did::Write(value, _) => Act::Write(value),
            Did::Read(value) => Act::Read(value),
        }
    }
}

/// What a node is asked for from outside.
#[derive(Debug)]
pub(super) enum Command {
    /// To end, so that nobody notices.
    Leave,
    /// To have this node's slots given to others, or back.
    Drain(String, bool),
    /// To write these rules.
    Rules(Mode),
}

/// A change of the rules that are limited by.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangeOfRules {
    pub(super) to: Mode,
    /// When it was asked for first, and when it was acknowledged.
    pub(super) called: u64,
    pub(super) answered: Option<u64>,
}

/// What is known of a node from outside.
#[derive(Default)]
pub(super) struct State {
    /// While it runs.
    pub(super) inside: Option<Inside>,
    /// How often its disk was lost.
    pub(super) disk: u32,
    /// Its disk takes nothing.
    pub(super) full: bool,
    /// How often it was started.
    pub(super) starts: u64,
    /// Its clients wait.
    pub(super) paused: bool,
    /// How often it got another address: the port for peers is another one.
    pub(super) moves: u16,
    /// At which of its former addresses a node of another cluster is.
    pub(super) stranger: Option<u16>,
}

/// A node that runs.
pub(super) struct Inside {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) probe: Probe,
    pub(super) cluster: Rc<Cluster>,
}

/// What all nodes and the world around them share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) addresses: RefCell<Vec<IpAddr>>,
    pub(super) clocks: Vec<Clock>,
    pub(super) nodes: Vec<RefCell<State>>,
    pub(super) operations: RefCell<Vec<Operation>>,
    pub(super) refunds: RefCell<Vec<Refund>>,
    pub(super) rule_operations: RefCell<Vec<RuleOperation>>,
    pub(super) hashes: RefCell<BTreeMap<u32, KeyHash>>,
    pub(super) next_value: Cell<u64>,
    /// Changes of the rules that are limited by; the last one is the one that is wanted.
    pub(super) changes: RefCell<Vec<ChangeOfRules>>,
    /// Keys that nobody had asked about before and that were denied for longer than their limit needs to refill.
    pub(super) locked_out: RefCell<Vec<String>>,
    /// A rule is flooded.
    pub(super) floods: Cell<bool>,
    /// What other clusters were founded as, and their nodes, each by the node whose former address it has.
    pub(super) strangers: RefCell<BTreeMap<usize, (ClusterId, Probe)>>,
}

/// The first port for peers.
const PEER_PORT: u16 = 7803;
/// From one port of a node to the next one.
const PORT_STEP: u16 = 10;

/// The port for peers after so many moves.
pub(super) fn port_after(moves: u16) -> u16 {
    PEER_PORT + PORT_STEP * moves
}

pub(super) fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

impl Shared {
    /// Where a node is now: a machine has one address here, so that a node that moves gets another port.
    pub(super) fn peer(&self, node: usize) -> SocketAddr {
        (self.addresses.borrow()[node], port_after(self.nodes[node].borrow().moves)).into()
    }

    /// Where the disk of the node of another cluster is that has a former address of this one.
    pub(super) fn stranger_disk(&self, node: usize) -> PathBuf {
        PathBuf::from(format!("/sim/stranger-of-{}", name(node)))
    }

    /// Where a node's disk is.
    pub(super) fn disk(&self, node: usize) -> PathBuf {
        PathBuf::from(format!("/sim/{}/{}", name(node), self.nodes[node].borrow().disk))
    }
}
