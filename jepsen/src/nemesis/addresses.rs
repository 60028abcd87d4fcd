//! Nodes that end and start again elsewhere, or without knowing where the others are.

use super::{
    Fault, Kind, actions,
    driver::Driver,
    progress::STOP_WITHIN,
    state::{Active, State},
};
use crate::names::Hidden;

impl Driver<'_> {
    /// One, some or all nodes end at the same time.
    pub(super) fn begin_move(
        &mut self,
        target: &str,
        candidates: &[String],
        random: &mut fastrand::Rng,
        fault: &mut Fault,
    ) -> State {
        let is_other = |name: &&String| *name != target && actions::number(name) <= self.nodes;
        let mut others: Vec<String> = candidates.iter().filter(is_other).cloned().collect();
        random.shuffle(&mut others);
        let (how_many, count) = match random.u8(..3) {
            _ if others.is_empty() => ("one", 0),
            0 => ("one", 0),
            1 => ("some", random.usize(1..=others.len().div_ceil(2))),
            _ => ("all", others.len()),
        };
        fault.targets.extend(others.into_iter().take(count));
        let targets = fault.targets.clone();
        let among_themselves = targets.len() > 1 && random.u8(..3) == 0;
        let homes = if among_themselves {
            // Each gets the one of the next.
            let host = |name: &String| self.cluster.net().host(actions::number(name));
            let next = targets.iter().cycle().skip(1);
            targets.iter().zip(next).map(|(name, next)| (name.clone(), host(next))).collect()
        } else {
            targets.iter().map(|name| (name.clone(), self.next_host())).collect()
        };
        let kills = random.bool();
        fault.what = format!(
            "{} to {how_many} ({}), and started again at {}",
            signal_name(kills),
            targets.join(", "),
            if among_themselves { "the addresses of each other" } else { "other addresses" }
        );
        self.end(&targets, kills);
        State::Ending { since: fault.begun, homes, forgets: false }
    }

    /// The target starts again, and nobody tells it yet where the others are.
    pub(super) fn begin_late_dns(
        &mut self,
        target: &str,
        random: &mut fastrand::Rng,
        fault: &mut Fault,
    ) -> State {
        let (kills, is_unknown) = (random.bool(), random.bool());
        let forgets = random.u8(..3) == 0 && self.may_be_hit(Kind::Wipe, target);
        let how = if is_unknown { Hidden::Unknown } else { Hidden::Unanswered };
        if let Some(names) = self.cluster.names() {
            names.hide(actions::number(target), how);
        }
        let loses = if forgets { ", and its data is gone" } else { "" };
        fault.what = format!(
            "{} to {target}{loses}; when it starts again, the name of the others {}",
            signal_name(kills),
            if is_unknown { "is unknown" } else { "is asked for in vain" }
        );
        self.end(&[target.to_owned()], kills);
        State::Ending { since: fault.begun, homes: Vec::new(), forgets }
    }

    /// An address that nobody has.
    pub(super) fn next_host(&mut self) -> u8 {
        self.last_host = self.cluster.net().fresh_host(self.last_host, self.nodes + super::GUESTS);
        self.last_host
    }

    /// Ends nodes at once, or asks them to.
    pub(super) fn end(&mut self, names: &[String], kills: bool) {
        for name in names {
            if kills {
                self.cluster.kill(name);
            } else {
                self.cluster.ask_to_stop(name);
            }
        }
        self.in_hand.extend(names.iter().cloned());
    }

    /// Waits until all targets have ended, and gives each its next address.
    pub(super) fn await_ends(&mut self, active: &mut Active, now: u64) {
        let State::Ending { since, homes, forgets } = &active.state else { return };
        let (since, homes, forgets) = (*since, homes.clone(), *forgets);
        let targets = self.faults[active.fault].targets.clone();
        let mut all_ended = true;
        for name in &targets {
            if self.cluster.node(name).pid().is_none() {
                continue;
            }
            match self.cluster.take_exit(name) {
                Some(code) => {
                    self.note_end(name, code, (code != 0).then(|| "SIGTERM should end it with 0".to_owned()));
                }
                None if now > since + STOP_WITHIN => {
                    self.cluster.kill(name);
                    self.note_end(name, -1, Some("it did not stop within 20 s of SIGTERM".to_owned()));
                }
                None => all_ended = false,
            }
        }
        if !all_ended {
            return;
        }
        let lasts = active.until.saturating_sub(self.faults[active.fault].begun);
        active.until = active.until.max(now);
        active.state = State::On;
        match active.kind {
            Kind::ReuseAddress => {
                let former = self.cluster.net().host(actions::number(&active.target));
                self.cluster.move_to(&homes);
                active.until = now + lasts;
                active.state = self.put_stranger_at(former, now);
            }
            Kind::LateDns => {
                if forgets {
                    actions::empty(self.cluster, &active.target);
                }
                active.until = now + lasts;
                self.restart_all(active);
            }
            _ => self.cluster.move_to(&homes),
        }
    }

    /// Starts all targets that do not run.
    pub(super) fn restart_all(&mut self, active: &Active) {
        for name in self.faults[active.fault].targets.clone() {
            if self.cluster.node(&name).pid().is_none() {
                self.cluster.restart(&name);
            }
        }
    }

    /// All targets are ready: those that should be elsewhere are.
    pub(super) fn look_at_addresses(&mut self, active: &Active) {
        if active.kind != Kind::MoveAddresses {
            return;
        }
        let targets = &self.faults[active.fault].targets;
        let at = |name: &String| {
            let node = self.cluster.node(name);
            node.pid()
                .map(|_| format!("{name} is ready at {}", self.cluster.net().peer(actions::number(name))))
        };
        let ready: Vec<String> = targets.iter().filter_map(at).collect();
        if !ready.is_empty() {
            self.faults[active.fault].evidence = Some(ready.join(", "));
        }
    }

    /// Whether a node has asked for the name of the others in vain.
    pub(super) fn look_at_name(&self, target: &str) -> Option<String> {
        let asked = self.cluster.names()?.asked_in_vain(actions::number(target));
        (asked > 0).then(|| format!("it has asked for the name {asked} times in vain"))
    }

    pub(super) fn show_name(&mut self, active: &Active) {
        let seen = self.look_at_name(&active.target);
        if let Some(names) = self.cluster.names() {
            names.show(actions::number(&active.target));
        }
        if seen.is_some() {
            self.faults[active.fault].evidence = seen;
        }
    }
}

pub(super) fn signal_name(kills: bool) -> &'static str {
    if kills { "SIGKILL" } else { "SIGTERM" }
}
