//! How a fault that is on goes on: it is looked at, undone when its time has come, and its target waited for.

use super::{
    Kind, actions,
    driver::Driver,
    state::{Active, State},
};
use crate::history::monotonic;

/// A process that was asked to stop is killed after so long: that is a violation.
pub(super) const STOP_WITHIN: u64 = 20_000_000_000;
/// A node that does not become ready again is no longer waited for after so long.
const READY_WITHIN: u64 = 30_000_000_000;
/// A node gives a change of its members up after so long, and whoever asked may have given up before.
const WRITE_LASTS: u64 = 5_500_000_000;
pub(super) const BETWEEN_LOOKS: u64 = 250_000_000;

impl Driver<'_> {
    pub(super) fn go_on(&mut self, active: &mut Active) {
        let now = monotonic();
        let target = active.target.clone();
        if now >= active.looked + BETWEEN_LOOKS {
            active.looked = now;
            self.look(active);
        }
        let may_hit_yet = self.waits_for_a_sync(active, now) || self.waits_for_a_flood(active, now);
        match &mut active.state {
            State::On if active.kind == Kind::VmStop && !active.stopped => self.stop_machine(active, now),
            State::On if active.kind == Kind::TornWrite && self.await_power_cut(active.fault, &target) => {}
            State::On if active.kind == Kind::StalledLog && now < active.until => self.make_it_log(&target),
            State::On if now >= active.until && !may_hit_yet => self.undo(active),
            State::On | State::Over => {}
            State::Ending { .. } => self.await_ends(active, now),
            State::Founding { .. } | State::Beside { .. } | State::Dismissing { .. } => {
                self.go_on_beside(active, now);
            }
            State::Leaving { .. } => self.leave_one_by_one(active, now),
            State::Stopping { since } => {
                let since = *since;
                let Some(code) = self.cluster.take_exit(&target) else {
                    if now > since + STOP_WITHIN {
                        self.cluster.kill(&target);
                        self.note_end(&target, -1, Some("it did not stop within 20 s of SIGTERM".to_owned()));
                        active.state = State::Over;
                        if active.kind != Kind::Join {
                            self.cluster.restart(&target);
                        }
                    }
                    return;
                };
                let wrong = (code != 0).then(|| "SIGTERM should end it with 0".to_owned());
                self.note_end(&target, code, wrong);
                if active.kind == Kind::Join {
                    self.finish(active, now);
                    active.errand = None;
                    active.state = State::Recovering { since: now };
                } else {
                    if active.kind == Kind::Replace {
                        actions::empty(self.cluster, &target);
                    }
                    if matches!(active.kind, Kind::Restart | Kind::Replace) {
                        self.faults[active.fault].evidence = Some(format!("it ended with {code}"));
                    }
                    active.state = State::On;
                    active.until = active.until.max(now);
                }
            }
            State::Rolling { .. } => self.roll(active, now),
            State::Recovering { since } => {
                let since = *since;
                let is_back = match active.kind {
                    // It has left permanently once it is no member.
                    Kind::Join => self.errand(active, "POST", &format!("/v1/cluster/remove/{target}")),
                    // A question that was given up may still be carried out: it is undone again after that.
                    Kind::Drain => {
                        let path = format!("/v1/cluster/drain/{target}?undo=true");
                        self.errand(active, "POST", &path) && now > since + WRITE_LASTS
                    }
                    // What its clock did is told a moment after it goes on.
                    Kind::VmStop
                        if self.faults[active.fault].evidence.is_none() && now < since + 2_000_000_000 =>
                    {
                        false
                    }
                    // A node that has left meanwhile will not be ready.
                    _ => self.faults[active.fault].targets.iter().all(|target| {
                        self.is_ready(target, since) || self.cluster.node(target).pid().is_none()
                    }),
                };
                if is_back || now > since + READY_WITHIN {
                    if is_back {
                        self.look_at_addresses(active);
                    }
                    self.look(active);
                    if active.kind == Kind::VmStop {
                        self.let_clock_run(&target);
                    }
                    self.faults[active.fault].recovered = is_back.then(monotonic);
                    active.state = State::Over;
                }
            }
        }
    }

    /// Asks some node, and asks again until one answers with 200; whether one has.
    pub(super) fn errand(&self, active: &mut Active, method: &'static str, path: &str) -> bool {
        match active.errand.take() {
            Some(errand) if errand.is_finished() => {
                if errand.join().is_ok_and(|done| done) {
                    return true;
                }
            }
            under_way @ Some(_) => active.errand = under_way,
            None => {
                active.errand = Some(actions::ask_any(self.cluster, &active.target, method, path.to_owned()))
            }
        }
        false
    }

    pub(super) fn finish(&mut self, active: &Active, now: u64) {
        self.faults[active.fault].ended.get_or_insert(now);
    }

    /// Looks whether the fault hits anything.
    fn look(&mut self, active: &mut Active) {
        let seen = match (active.kind, &active.state) {
            (Kind::Pause, State::On) => self.look_at_process(&active.target),
            (Kind::LateDns, State::On) => self.look_at_name(&active.target),
            (Kind::Scale, State::On) => self.look_at_scale(active),
            (Kind::ReuseAddress, State::Beside { .. }) => self.look_at_stranger(active),
            (Kind::FullDisk | Kind::Drain | Kind::Join | Kind::Flood | Kind::StalledLog, State::On) => {
                self.look_at_members(active)
            }
            (kind, _) if kind.needs_orders() => self.look_at_machine(active),
            _ => return,
        };
        if let Some(seen) = seen {
            self.faults[active.fault].evidence = Some(seen);
        }
    }

    fn undo(&mut self, active: &mut Active) {
        let now = monotonic();
        active.state = State::Recovering { since: now };
        match active.kind {
            Kind::Kill | Kind::Restart | Kind::Replace | Kind::Wipe => self.cluster.restart(&active.target),
            Kind::Pause => {
                if let Some(seen) = self.look_at_process(&active.target) {
                    self.faults[active.fault].evidence = Some(seen);
                }
                self.resume(&active.target);
            }
            Kind::FullDisk | Kind::Drain | Kind::Join | Kind::Flood | Kind::StalledLog => {
                if !self.undo_members(active, now) {
                    return;
                }
            }
            Kind::Rolling | Kind::Upgrade => {}
            Kind::MoveAddresses | Kind::ReuseAddress => self.restart_all(active),
            Kind::LateDns => self.show_name(active),
            Kind::Scale => {
                if !self.undo_scale(active, now) {
                    return;
                }
            }
            kind if kind.needs_orders() => self.undo_on_machine(active),
            _ => {
                let hit = self.cluster.net().packets_hit();
                self.cluster.net().heal();
                if hit > 0 {
                    self.faults[active.fault].evidence = Some(format!("{hit} packets hit"));
                }
                active.state = State::Over;
            }
        }
        self.finish(active, monotonic());
    }
}
