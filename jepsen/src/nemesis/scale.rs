//! Fewer nodes for a while, or more: by plan, one after the other, as whoever runs them scales.

use super::{
    Fault, actions,
    driver::Driver,
    progress::STOP_WITHIN,
    state::{Active, State},
};

/// From when on a node is asked to leave that never was ready.
const STARTS_WITHIN: u64 = 30_000_000_000;
/// By so many a cluster grows.
const MORE: u8 = 2;
/// By so many it shrinks: a majority is left.
const fn fewer_by(nodes: u8) -> usize {
    (nodes as usize).saturating_sub(1) / 2
}

impl Driver<'_> {
    /// `None`: it cannot be done now.
    pub(super) fn begin_scale(
        &mut self,
        target: &str,
        candidates: &[String],
        random: &mut fastrand::Rng,
        fault: &mut Fault,
    ) -> Option<State> {
        if random.bool() {
            // The number after the nodes' is the one of who joins.
            let first = self.nodes + 2;
            fault.targets = (first..first + MORE).map(|number| format!("n{number}")).collect();
            fault.roles.clear();
            fault.what = format!("{} come, and leave one after the other", fault.targets.join(", "));
            for name in fault.targets.clone() {
                self.start_joining(&name);
            }
            return Some(State::On);
        }
        let mut others: Vec<String> = candidates
            .iter()
            .filter(|name| *name != target && !self.in_hand.contains(name))
            .cloned()
            .collect();
        random.shuffle(&mut others);
        let wanted = fewer_by(self.nodes);
        if others.len() < wanted {
            // Others are down already: to leave is for when there is a choice.
            return None;
        }
        fault.targets.extend(others.into_iter().take(wanted - 1));
        fault.what =
            format!("{} leave by plan, one after the other, and come back", fault.targets.join(", "));
        let left = fault.targets.iter().rev().cloned().collect();
        Some(State::Leaving { left, stopping: None })
    }

    /// Whether those that are not one of the nodes are the ones that were asked to come.
    fn grows(&self, active: &Active) -> bool {
        self.faults[active.fault].targets.iter().all(|name| actions::number(name) > self.nodes)
    }

    pub(super) fn leave_one_by_one(&mut self, active: &mut Active, now: u64) {
        let State::Leaving { left, stopping } = &mut active.state else { return };
        let Some(name) = left.last().cloned() else {
            active.state = State::On;
            active.until = active.until.max(now);
            if self.grows(active) {
                self.finish(active, now);
                active.state = State::Recovering { since: now };
            }
            return;
        };
        let Some(since) = *stopping else {
            // It may have been ended by another fault, or be in its hand: then it is the next one's turn, or it is waited for.
            if self.cluster.node(&name).pid().is_none() {
                left.pop();
            } else if !self.in_hand.contains(&name) && self.can_leave(active, &name, now) {
                self.cluster.ask_to_stop(&name);
                self.in_hand.push(name);
                if let State::Leaving { stopping, .. } = &mut active.state {
                    *stopping = Some(now);
                }
            }
            return;
        };
        let wrong = match self.cluster.take_exit(&name) {
            Some(code) => (code, (code != 0).then(|| "SIGTERM should end it with 0".to_owned())),
            None if now > since + STOP_WITHIN => {
                self.cluster.kill(&name);
                (-1, Some("it did not stop within 20 s of SIGTERM".to_owned()))
            }
            None => return,
        };
        left.pop();
        *stopping = None;
        self.note_end(&name, wrong.0, wrong.1);
    }

    /// Whether SIGTERM finds a node that knows what to do: one that has just been started does not yet.
    pub(super) fn can_leave(&self, active: &Active, name: &str, now: u64) -> bool {
        self.is_ready(name, 0) || now > self.faults[active.fault].begun + STARTS_WITHIN
    }

    /// What is seen of more nodes, or of fewer.
    pub(super) fn look_at_scale(&self, active: &Active) -> Option<String> {
        let targets = &self.faults[active.fault].targets;
        if self.grows(active) {
            let owned: Vec<u64> = targets.iter().filter_map(|name| self.slots_of(name)).collect();
            let all = owned.len() == targets.len() && owned.iter().all(|slots| *slots > 0);
            return all.then(|| format!("they took {} slots", owned.iter().sum::<u64>()));
        }
        let others = self.seen.iter().filter(|(name, _)| !targets.contains(name));
        let (_, seen) = others.max_by_key(|(_, seen)| seen.at)?;
        let left_nothing = targets.iter().all(|name| seen.slots.get(name).is_none_or(|slots| *slots == 0));
        let tolerated = seen.tolerated?;
        (left_nothing && seen.at > self.faults[active.fault].begun).then(|| {
            format!(
                "they own nothing; {} vote, and {tolerated} more may be lost ({})",
                seen.voters.len(),
                seen.voters.join(", ")
            )
        })
    }

    /// Whether it is undone; else it goes on.
    pub(super) fn undo_scale(&mut self, active: &mut Active, now: u64) -> bool {
        if self.grows(active) {
            let left = self.faults[active.fault].targets.iter().rev().cloned().collect();
            active.state = State::Leaving { left, stopping: None };
            return false;
        }
        self.restart_all(active);
        active.state = State::Recovering { since: now };
        true
    }
}
