//! What is done to processes: killed, stopped, restarted, one or all in turn.

use std::time::Duration;

use rustix::process::Signal;

use super::{
    Fault, Kind, actions,
    driver::Driver,
    progress::STOP_WITHIN,
    state::{Active, State},
};
use crate::{machine::program_of, node::signal};

impl Driver<'_> {
    pub(super) fn begin_process(
        &mut self,
        kind: Kind,
        target: &str,
        lasts: Duration,
        fault: &mut Fault,
    ) -> State {
        match kind {
            Kind::Pause => {
                self.cluster.node(target).pause();
                fault.what = format!("SIGSTOP to {target} for {:.1} s", lasts.as_secs_f64());
                State::On
            }
            Kind::Restart | Kind::Replace => {
                self.cluster.ask_to_stop(target);
                fault.what = match kind {
                    Kind::Restart => format!("SIGTERM to {target}, and started again"),
                    _ => format!("SIGTERM to {target}, and another machine takes its place"),
                };
                State::Stopping { since: fault.begun }
            }
            _ => {
                let pid = self.cluster.node(target).pid().unwrap_or(0);
                self.cluster.kill(target);
                fault.what = match kind {
                    Kind::Kill => format!("SIGKILL to {target}"),
                    _ => format!("SIGKILL to {target}, and its data is gone"),
                };
                fault.evidence = Some(format!("process {pid} ended by the signal"));
                if kind == Kind::Wipe {
                    actions::empty(self.cluster, target);
                }
                State::On
            }
        }
    }

    pub(super) fn begin_rolling(
        &mut self,
        kind: Kind,
        candidates: &[String],
        random: &mut fastrand::Rng,
        fault: &mut Fault,
    ) -> State {
        let mut left: Vec<String> = (1..=self.nodes).map(|node| format!("n{node}")).collect();
        random.shuffle(&mut left);
        left.retain(|name| candidates.contains(name));
        fault.what = "all nodes restarted, one after the other".to_owned();
        if kind == Kind::Upgrade {
            self.builds.change();
            let file = self.builds.wanted().display().to_string();
            fault.what = format!("all nodes restarted, one after the other, and each runs {file} now");
        }
        fault.targets.clear();
        State::Rolling { left, stopping: None }
    }

    /// Whether a process is stopped.
    pub(super) fn look_at_process(&self, target: &str) -> Option<String> {
        let pid = self.cluster.node(target).pid().filter(|pid| actions::is_stopped(*pid))?;
        Some(format!("process {pid} was stopped"))
    }

    pub(super) fn resume(&mut self, target: &str) {
        if let Some(pid) = self.cluster.node(target).pid() {
            signal(pid, Signal::CONT);
        }
    }

    pub(super) fn roll(&mut self, active: &mut Active, now: u64) {
        let State::Rolling { left, stopping } = &mut active.state else { return };
        let Some(name) = left.last().cloned() else {
            active.state = State::Over;
            self.finish(active, now);
            return;
        };
        let begun = self.faults[active.fault].targets.contains(&name);
        if !begun {
            if now >= active.until {
                // As many as there was time for.
                left.clear();
                return;
            }
            if self.cluster.node(&name).pid().is_none() || self.in_hand.contains(&name) {
                left.pop();
                return;
            }
            *stopping = Some(now);
            self.cluster.ask_to_stop(&name);
            self.in_hand.push(name.clone());
            self.faults[active.fault].targets.push(name);
            return;
        }
        if let Some(since) = *stopping {
            let code = self.cluster.take_exit(&name);
            let wrong = match code {
                Some(0) => None,
                Some(_) => Some("SIGTERM should end it with 0".to_owned()),
                None if now > since + STOP_WITHIN => {
                    self.cluster.kill(&name);
                    Some("it did not stop within 20 s of SIGTERM".to_owned())
                }
                None => return,
            };
            *stopping = Some(now);
            let State::Rolling { stopping, .. } = &mut active.state else { return };
            *stopping = None;
            self.note_end(&name, code.unwrap_or(-1), wrong);
            if active.kind == Kind::Upgrade {
                self.cluster.set_binary(&name, self.builds.wanted());
            }
            self.cluster.restart(&name);
            return;
        }
        if self.is_ready(&name, 0) {
            let State::Rolling { left, .. } = &mut active.state else { return };
            left.pop();
            let done = self.faults[active.fault].targets.len();
            let pid = self.cluster.node(&name).pid();
            if active.kind != Kind::Upgrade {
                self.faults[active.fault].evidence = Some(format!("{done} nodes restarted"));
            } else if pid.and_then(program_of).as_ref() == Some(self.builds.wanted()) {
                self.faults[active.fault].evidence = Some(format!("{done} nodes run the other build"));
            }
        }
    }
}
