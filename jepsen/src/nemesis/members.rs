//! What is done to members and to the room on their disks.

use std::{thread::JoinHandle, time::Duration};

use rustix::process::Signal;

use super::{
    Fault, Kind, actions,
    driver::Driver,
    progress::BETWEEN_LOOKS,
    state::{Active, State},
};
use crate::{
    node::{Node, signal},
    ports::port_apart,
    workload::flood::Flood,
};

/// Of 4,096 slots: who is being drained has far fewer than its part.
const FEW_SLOTS: u64 = 600;
/// How long a node that is flooded may take to say what became of it.
const PATIENCE: Duration = Duration::from_millis(400);
/// A flood ends by itself after so long, whatever else happens.
const FLOOD_LASTS: u64 = 60_000_000_000;

impl Driver<'_> {
    /// `None`: it cannot be done to this node.
    pub(super) fn begin_members(&mut self, kind: Kind, target: &str, fault: &mut Fault) -> Option<State> {
        match kind {
            Kind::FullDisk => {
                let disk = self.disks.get(target)?;
                fault.what = format!("no room on the disk of {target} ({} MiB taken)", disk.fill() >> 20);
            }
            Kind::Flood => {
                let until = fault.begun + FLOOD_LASTS;
                let mut nodes: Vec<_> = self.cluster.running().map(Node::place).collect();
                let own = self.cluster.node(target).place();
                // Most of it comes to the node that is short of memory; the keys of others go on from there.
                nodes.extend([own.clone(), own]);
                let name = format!("f{}", fault.begun);
                self.floods.insert(target.to_owned(), Flood::begin(nodes, name, until));
                fault.what = format!("keys of one rule, more than {target} has memory for");
            }
            Kind::Drain => fault.what = format!("{target} is drained, and takes slots again"),
            Kind::StalledLog => fault.what = format!("nobody reads the log of {target}"),
            _ => {
                let target = format!("n{}", self.nodes + 1);
                fault.targets = vec![target.clone()];
                fault.roles.clear();
                fault.what = format!("{target} joins and leaves");
                self.start_joining(&target);
            }
        }
        Some(State::On)
    }

    pub(super) fn start_joining(&mut self, name: &str) {
        if self.cluster.nodes.iter().any(|node| node.name == name) {
            actions::empty(self.cluster, name);
            self.cluster.restart(name);
        } else {
            let ports: Vec<u16> = (1..=self.nodes).map(port_apart).collect();
            self.cluster.spawn_as(name, port_apart(actions::number(name)), &ports, &[]);
        }
    }

    /// Looks whether it hits, and goes on with what takes several attempts.
    pub(super) fn look_at_members(&mut self, active: &mut Active) -> Option<String> {
        let target = &active.target.clone();
        match active.kind {
            Kind::FullDisk => {
                if active.errand.as_ref().is_none_or(JoinHandle::is_finished) {
                    active.errand = Some(actions::write_large_rules(self.cluster, target, active.looked));
                }
                let trouble = self.seen.get(target).and_then(|seen| seen.trouble.clone());
                trouble.map(|trouble| format!("the node says: {trouble}"))
            }
            Kind::Flood => {
                let asked = self.floods.get(target).map_or(0, Flood::asked);
                let folded = self.folded(target)?;
                (folded > 0)
                    .then(|| format!("{asked} keys; {folded} buckets had no room of their own any more"))
            }
            Kind::StalledLog => self
                .cluster
                .node(target)
                .log_is_full()
                .then(|| "its log took nothing any more, and it went on".to_owned()),
            Kind::Drain => {
                let path = format!("/v1/cluster/drain/{target}");
                if self.faults[active.fault].evidence.is_none() {
                    self.errand(active, "POST", &path);
                }
                let slots = self.slots_of(target).filter(|slots| *slots < FEW_SLOTS);
                slots.map(|slots| format!("its slots fell to {slots}"))
            }
            _ => {
                self.slots_of(target).filter(|slots| *slots > 0).map(|slots| format!("it took {slots} slots"))
            }
        }
    }

    /// Nobody reads what a node says, and it says something. Another process of the node may have begun meanwhile, which takes signals
    /// when it is ready.
    pub(super) fn make_it_log(&self, name: &str) {
        let node = self.cluster.node(name);
        node.leave_log_unread(true);
        if let Some(pid) = node.pid().filter(|_| self.is_ready(name, 0)) {
            signal(pid, Signal::USR1);
        }
    }

    /// How many buckets a node had no room for. Not asked while its process is in somebody's hand: all other faults would wait.
    fn folded(&self, name: &str) -> Option<u64> {
        if self.in_hand.iter().any(|one| one == name) {
            return None;
        }
        let page = self.cluster.node(name).client(PATIENCE).get("/metrics").ok()?.text();
        let line = page.lines().find_map(|line| line.strip_prefix("tidegate_buckets_folded_total "))?;
        line.trim().parse::<f64>().ok().map(|count| count as u64)
    }

    /// How many slots a node owns, as another one said last.
    pub(super) fn slots_of(&self, name: &str) -> Option<u64> {
        let others = self.seen.iter().filter(|(other, _)| *other != name);
        others.max_by_key(|(_, seen)| seen.at).and_then(|(_, seen)| seen.slots.get(name).copied())
    }

    /// Whether it is undone; else it goes on.
    pub(super) fn undo_members(&mut self, active: &mut Active, now: u64) -> bool {
        match active.kind {
            Kind::FullDisk => {
                if let Some(disk) = self.disks.get(&active.target) {
                    disk.free();
                }
            }
            Kind::Flood => {
                if let Some(flood) = self.floods.get(&active.target) {
                    flood.stop();
                }
            }
            Kind::StalledLog => self.cluster.node(&active.target).leave_log_unread(false),
            // What was asked last is not waited for: it is undone after that.
            Kind::Drain => active.errand = None,
            // It may have been killed meanwhile by another fault; that one starts it again.
            // And one that another fault is about to start again, or has just started, has to be there before it can leave.
            _ if self.cluster.node(&active.target).pid().is_none()
                || self.in_hand.contains(&active.target)
                || !self.can_leave(active, &active.target, now) =>
            {
                active.state = State::On;
                active.until = now + BETWEEN_LOOKS;
                return false;
            }
            _ => {
                self.cluster.ask_to_stop(&active.target);
                self.in_hand.push(active.target.clone());
                active.state = State::Stopping { since: now };
                return false;
            }
        }
        true
    }
}
