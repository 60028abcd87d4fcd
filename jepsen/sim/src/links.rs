//! What lies between the simulated nodes: each link as the faults want it that are active.

use std::time::Duration;

use tidegate_cluster::simulation::network::{self, Trouble};

use super::{
    node::name,
    plan::{Aim, Kind},
    world::World,
};

/// What becomes of messages from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Way {
    #[default]
    Open,
    Closed,
    Held,
}

impl World {
    /// Sets each link as the faults want it that are active.
    pub(super) fn set_ways(&mut self) {
        for one in 0..self.there {
            for other in one + 1..self.there {
                let wanted = self.wanted(one, other);
                let known = self.ways.insert((one, other), wanted).unwrap_or_default();
                if known == wanted {
                    continue;
                }
                let (a, b) = (name(one), name(other));
                if known.0 == Way::Held {
                    self.sim.release(&*a, &*b);
                } else {
                    self.sim.repair(&*a, &*b);
                }
                if wanted.0 == Way::Held {
                    self.sim.hold(&*a, &*b);
                    continue;
                }
                if wanted.0 == Way::Closed {
                    self.sim.partition_oneway(&*a, &*b);
                }
                if wanted.1 == Way::Closed {
                    self.sim.partition_oneway(&*b, &*a);
                }
            }
        }
        let slow: Vec<(u64, u64)> = self
            .active
            .iter()
            .filter_map(|fault| match fault.kind {
                Kind::Slow(side, millis) => Some((side, millis)),
                _ => None,
            })
            .collect();
        slow.into_iter().for_each(|(side, millis)| self.set_latency(side, millis));
        network::set(self.trouble());
    }

    /// What befalls single connections, calls and datagrams.
    fn trouble(&self) -> Trouble {
        let mut trouble = Trouble::default();
        let addresses = self.shared.addresses.borrow();
        for fault in &self.active {
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

    pub(super) fn set_latency(&mut self, side: u64, millis: u64) {
        for one in 0..self.there {
            for other in one + 1..self.there {
                if (side >> one ^ side >> other) & 1 == 1 {
                    self.sim.set_link_latency(name(one), name(other), Duration::from_millis(millis));
                }
            }
        }
    }

    fn wanted(&self, one: usize, other: usize) -> (Way, Way) {
        let paused = |node: usize| self.shared.nodes[node].borrow().paused;
        if paused(one) || paused(other) {
            return (Way::Held, Way::Held);
        }
        let splits = |side: u64| (side >> one ^ side >> other) & 1 == 1;
        let within = |side: u64, node: usize| side >> node & 1 == 1;
        let mut ways = (Way::Open, Way::Open);
        for fault in &self.active {
            match fault.kind {
                Kind::Hold(side) if splits(side) => return (Way::Held, Way::Held),
                Kind::Partition(side) if splits(side) => ways = (Way::Closed, Way::Closed),
                Kind::CutOff(Aim::Node(node)) if splits(1 << node) => ways = (Way::Closed, Way::Closed),
                Kind::OneWay(from, to) => {
                    if within(from, one) && within(to, other) {
                        ways.0 = Way::Closed;
                    }
                    if within(from, other) && within(to, one) {
                        ways.1 = Way::Closed;
                    }
                }
                _ => {}
            }
        }
        ways
    }
}
