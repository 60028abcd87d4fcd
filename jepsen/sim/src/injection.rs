//! The faults of a plan, done to a simulated world and undone again.

use tidegate_cluster::simulation::{clock, disk};

use super::{
    fault::{Aim, Fault, Kind},
    links,
    moves::is_of,
    shared::{Command, Inside, name},
    workload::{Floors, Mode, hot_key},
    world::World,
};

impl World {
    pub(super) fn begin(&mut self, mut fault: Fault) {
        if let Some(aim) = fault.kind.aim() {
            fault.kind = fault.kind.at(self.node_at(aim));
        }
        tracing::info!("begins: {fault}");
        let at = match fault.kind.aim() {
            Some(Aim::Node(node)) => node,
            _ => 0,
        };
        match fault.kind {
            Kind::Crash { silent, forgets, .. } if self.runs(at) => {
                self.crash(at, silent, forgets);
                self.down.insert(at, fault.ends_ms());
            }
            Kind::Restart(node) if self.runs(node) => {
                self.command(node, Command::Leave);
                self.down.insert(node, fault.ends_ms());
            }
            Kind::MoveAddresses { nodes, crash } => {
                (0..self.started)
                    .filter(|node| is_of(nodes, *node))
                    .for_each(|node| self.move_away(node, crash, fault.ends_ms()));
            }
            Kind::ReuseAddress { node, crash } => {
                let former = self.shared.nodes[node].borrow().moves;
                self.move_away(node, crash, fault.ends_ms());
                self.shared.nodes[node].borrow_mut().stranger = Some(former);
            }
            Kind::Scale(nodes) => {
                let those = (0..self.started).filter(|node| is_of(nodes, *node));
                self.leaving = those.map(|node| (node, fault.ends_ms())).collect();
            }
            Kind::RollingRestart => {
                self.rolling = (0..self.started).rev().collect();
                self.rolls_at = self.now;
            }
            Kind::Drain(node) => self.drain(node, true),
            Kind::Pause(_) | Kind::Stun(_) if self.runs(at) => self.pause(at, true),
            Kind::Disk(_) => self.fill_disk(at, true),
            Kind::HungSync(_) => disk::hang(&self.shared.disk(at), true),
            Kind::Lowered => self.want(Mode { lowered: true, ..self.wanted }),
            Kind::NoFloors { shadow, .. } => {
                self.want(Mode { floors: if shadow { Floors::Shadow } else { Floors::Zero }, ..self.wanted });
            }
            Kind::Flood => self.shared.floods.set(true),
            _ => {}
        }
        self.begun.push(fault);
        self.active.push(fault);
        self.set_links();
    }

    pub(super) fn end(&mut self, fault: Fault) {
        tracing::info!("is over: {fault}");
        let at = match fault.kind.aim() {
            Some(Aim::Node(node)) => node,
            _ => 0,
        };
        match fault.kind {
            Kind::Drain(node) => self.drain(node, false),
            Kind::Pause(_) => self.pause(at, false),
            Kind::Stun(_) => {
                clock::resume(self.shared.clocks[at]);
                self.pause(at, false);
            }
            Kind::Disk(_) => self.fill_disk(at, false),
            Kind::HungSync(_) => disk::hang(&self.shared.disk(at), false),
            Kind::RollingRestart => self.rolling.clear(),
            Kind::Scale(_) => self.leaving.clear(),
            Kind::Slow(side, _) => {
                // The least that it can be set to again: always the same.
                let least = self.shared.plan.latency_ms.0;
                links::set_latency(&self.sim, self.started, side, least);
            }
            Kind::Lowered => self.want(Mode { lowered: false, ..self.wanted }),
            Kind::NoFloors { crash, .. } => {
                self.want(Mode { floors: Floors::Replicated, ..self.wanted });
                self.crashes_then = crash;
            }
            Kind::Flood => self.shared.floods.set(false),
            _ => {}
        }
        self.set_links();
    }

    /// A node ends, and is elsewhere when it starts again.
    fn move_away(&mut self, node: usize, crash: bool, back_at: u64) {
        if self.runs(node) {
            if crash {
                self.crash(node, true, false);
            } else {
                self.command(node, Command::Leave);
            }
            self.down.insert(node, back_at);
        }
        self.shared.nodes[node].borrow_mut().moves += 1;
    }

    /// The next one leaves when the one before has.
    pub(super) fn leave_one_by_one(&mut self) {
        if self.leaves.is_some_and(|node| self.sim.is_host_running(name(node))) {
            return;
        }
        self.leaves = None;
        let Some((node, back_at)) = self.leaving.pop() else { return };
        if self.runs(node) && !self.down.contains_key(&node) {
            self.command(node, Command::Leave);
            self.down.insert(node, back_at);
            self.leaves = Some(node);
        }
    }

    /// The node that is aimed at now.
    fn node_at(&mut self, aim: Aim) -> usize {
        let started = self.started.max(1);
        let found = |world: &Self, wanted: &dyn Fn(&Inside) -> bool| {
            (0..world.started)
                .find(|node| world.shared.nodes[*node].borrow().inside.as_ref().is_some_and(wanted))
        };
        let owner = |world: &Self, family: usize| {
            let key = hot_key(family, world.now);
            let hash = *world.shared.hashes.borrow().get(&key)?;
            found(world, &|inside| inside.probe.decides_strictly(hash))
        };
        let leader = |world: &Self| found(world, &|inside| inside.probe.leads());
        let any = self.dice.usize(..started);
        match aim {
            Aim::Node(node) => node,
            Aim::Owner(family) => owner(self, family).unwrap_or(any),
            Aim::Leader => leader(self).unwrap_or(any),
            Aim::Bystander(family) => {
                let not = [owner(self, family), leader(self)];
                (0..started).find(|node| !not.contains(&Some(*node))).unwrap_or(any)
            }
            Aim::Follower => {
                let leads = leader(self);
                let is_hit =
                    |node: usize| self.active.iter().any(|fault| fault.kind.aim() == Some(Aim::Node(node)));
                (0..started).find(|node| leads != Some(*node) && !is_hit(*node)).unwrap_or(any)
            }
        }
    }

    pub(super) fn crash(&mut self, node: usize, silent: bool, forgets: bool) {
        let path = self.shared.disk(node);
        let dice = &mut self.dice;
        // What a process has written is with the system when it dies; when the power goes, only what was synced is safe.
        disk::power_off(&path, || !silent || dice.bool());
        if silent {
            for other in (0..self.started).filter(|other| *other != node) {
                self.sim.partition(name(node), name(other));
            }
        }
        self.shared.nodes[node].borrow_mut().inside = None;
        self.sim.crash(name(node));
        if silent {
            self.links.forget(node);
            for other in (0..self.started).filter(|other| *other != node) {
                self.sim.repair(name(node), name(other));
            }
        }
        if forgets {
            self.shared.nodes[node].borrow_mut().disk += 1;
        }
    }

    fn fill_disk(&self, node: usize, full: bool) {
        disk::fail(&self.shared.disk(node), full);
        self.shared.nodes[node].borrow_mut().full = full;
    }

    /// By a node that can be asked.
    fn drain(&mut self, node: usize, on: bool) {
        let can = |other: &usize| self.runs(*other) && !self.shared.nodes[*other].borrow().paused;
        if let Some(other) = (0..self.started).rev().find(can) {
            self.command(other, Command::Drain(name(node), on));
        }
    }

    fn pause(&mut self, node: usize, paused: bool) {
        self.shared.nodes[node].borrow_mut().paused = paused;
        clock::freeze(self.shared.clocks[node], paused);
    }
}
