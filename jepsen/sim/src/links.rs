//! What lies between the simulated nodes: each link as the faults want it that are active.

use std::{collections::BTreeMap, time::Duration};

use tidegate_cluster::simulation::network::{self, Trouble};
use turmoil::Sim;

use super::{
    fault::{Aim, Fault, Kind, Nodes},
    shared::{Shared, name},
};

/// What becomes of messages from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Link {
    #[default]
    Open,
    Closed,
    Held,
}

/// The links of a simulated network, as they were set last.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By their nodes, in both directions; those that never were anything but open may be missing.
    known: BTreeMap<(usize, usize), (Link, Link)>,
}

impl Links {
    /// Sets each link between the first `nodes` nodes as these faults want it.
    pub(super) fn set(&mut self, sim: &Sim<'_>, shared: &Shared, nodes: usize, active: &[Fault]) {
        for one in 0..nodes {
            for other in one + 1..nodes {
                let wanted = wanted(shared, active, one, other);
                let known = self.known.insert((one, other), wanted).unwrap_or_default();
                if known == wanted {
                    continue;
                }
                let (a, b) = (name(one), name(other));
                if known.0 == Link::Held {
                    sim.release(&*a, &*b);
                } else {
                    sim.repair(&*a, &*b);
                }
                if wanted.0 == Link::Held {
                    sim.hold(&*a, &*b);
                    continue;
                }
                if wanted.0 == Link::Closed {
                    sim.partition_oneway(&*a, &*b);
                }
                if wanted.1 == Link::Closed {
                    sim.partition_oneway(&*b, &*a);
                }
            }
        }
        for fault in active {
            if let Kind::Slow(side, millis) = fault.kind {
                set_latency(sim, nodes, side, millis);
            }
        }
        network::set(trouble(shared, active));
    }

    /// The links of this node are open: it has crashed.
    pub(super) fn forget(&mut self, node: usize) {
        self.known.retain(|(one, other), _| *one != node && *other != node);
    }
}

/// How long messages between these of the first `nodes` nodes and the others take.
pub(super) fn set_latency(sim: &Sim<'_>, nodes: usize, side: Nodes, millis: u64) {
    for one in 0..nodes {
        for other in one + 1..nodes {
            if (side >> one ^ side >> other) & 1 == 1 {
                sim.set_link_latency(name(one), name(other), Duration::from_millis(millis));
            }
        }
    }
}

/// What befalls single connections, calls and datagrams.
fn trouble(shared: &Shared, active: &[Fault]) -> Trouble {
    let mut trouble = Trouble::default();
    let addresses = shared.addresses.borrow();
    for fault in active {
        match fault.kind {
            Kind::Unreachable { aim: Aim::Node(node), resets } => {
                trouble.unreachable.insert(addresses[node]);
                if resets {
                    trouble.reset.insert(addresses[node]);
                }
            }
            Kind::LostAnswers(rate) => trouble.answers_lost = trouble.answers_lost.max(rate),
            Kind::LateCalls(rate) => trouble.calls_late = trouble.calls_late.max(rate),
            Kind::Datagrams(rate) => trouble.datagrams = trouble.datagrams.max(rate),
            _ => {}
        }
    }
    trouble
}

/// The link of two nodes in both directions, as these faults want it.
fn wanted(shared: &Shared, active: &[Fault], one: usize, other: usize) -> (Link, Link) {
    let paused = |node: usize| shared.nodes[node].borrow().paused;
    if paused(one) || paused(other) {
        return (Link::Held, Link::Held);
    }
    let splits = |side: Nodes| (side >> one ^ side >> other) & 1 == 1;
    let within = |side: Nodes, node: usize| side >> node & 1 == 1;
    let mut link = (Link::Open, Link::Open);
    for fault in active {
        match fault.kind {
            Kind::Hold(side) if splits(side) => return (Link::Held, Link::Held),
            Kind::Partition(side) if splits(side) => link = (Link::Closed, Link::Closed),
            Kind::CutOff(Aim::Node(node)) if splits(1 << node) => link = (Link::Closed, Link::Closed),
            Kind::OneWay(from, to) => {
                if within(from, one) && within(to, other) {
                    link.0 = Link::Closed;
                }
                if within(from, other) && within(to, one) {
                    link.1 = Link::Closed;
                }
            }
            _ => {}
        }
    }
    link
}
