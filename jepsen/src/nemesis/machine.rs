//! What is done to the machine under a node: its wall clock jumps, its clock runs too fast or too slow, its disk fails at a
//! sync, its power goes in the middle of writes. The node's build does it to itself, as it is told ([`crate::machine`]).

use super::{
    Fault, Kind, Planned,
    driver::Driver,
    network,
    state::{Active, State},
};
use crate::machine::{self, MachineReport, Orders};

/// How far a wall clock jumps, either way, in milliseconds: so far at least that it is seen, and an hour at most.
const JUMP_MS: (f64, f64) = (5_000.0, 3_600_000.0);
/// A node tells what its clock says a few times a second, and this program reads it a little later.
const TOLD_LATE_MS: i64 = 2_000;
/// Within what is promised: a thousandth.
const DRIFT_PPM: std::ops::RangeInclusive<i64> = 300..=500;
/// Far beyond: a control, of which the checkers must find something.
const RUNAWAY_PPM: i64 = 50_000;
/// A fault of the disk waits so much longer for a sync that it can hit: longer than a node is cut off.
const SYNCS_WITHIN: u64 = 7_000_000_000;
/// A flood goes on for so much longer if nothing is seen of it.
const FILLS_WITHIN: u64 = 15_000_000_000;
/// What a clock must have gained or lost to be seen.
const SEEN_NS: i64 = 50_000;
/// For how long a clock must have stood still.
const VM_HELD_NS: u64 = 300_000_000;
/// A node follows its orders some fifty times a second.
const OBEYS_WITHIN: u64 = 80_000_000;

impl Driver<'_> {
    pub(super) fn begin_on_machine(
        &mut self,
        planned: &Planned,
        target: &str,
        random: &mut fastrand::Rng,
        fault: &mut Fault,
    ) -> State {
        self.orders_given += 1;
        let number = self.orders_given;
        let mut orders = self.orders_of(target);
        let mut state = State::On;
        match planned.kind {
            Kind::ClockJump => {
                let far = JUMP_MS.0 * (JUMP_MS.1 / JUMP_MS.0).powf(random.f64());
                orders.wall_ahead_ms = if random.bool() { far as i64 } else { -far as i64 };
                let kills = random.bool();
                fault.what = format!(
                    "the wall clock of {target} is {} while it runs; {}, and started again",
                    ahead(orders.wall_ahead_ms),
                    if kills { "SIGKILL" } else { "SIGTERM" }
                );
                self.order(target, orders);
                if kills {
                    self.cluster.kill(target);
                } else {
                    self.cluster.ask_to_stop(target);
                    state = State::Stopping { since: fault.begun };
                }
                return state;
            }
            Kind::FailedFsync => {
                let count = random.u32(1..=4);
                orders.fail_syncs = Some((number, count));
                fault.what = format!("the next {count} syncs of {target}'s disk fail");
            }
            Kind::HungFsync => {
                orders.hang_syncs = true;
                fault.what = format!("syncs of {target}'s disk do not come back");
                fault.sides = network::alone(target, self.nodes);
            }
            Kind::VmStop => {
                // The clock has to know before it is stopped.
                orders.hold_clock = true;
                let long = planned.lasts.as_secs_f64();
                fault.what = format!("the machine of {target} is stopped for {long:.1} s, its clock as well");
            }
            Kind::TornWrite => {
                orders.power_cut = Some((number, planned.seed));
                fault.what = format!("the power of {target} goes at its next sync");
            }
            kind => {
                let ppm = if kind == Kind::ClockRunaway { RUNAWAY_PPM } else { random.i64(DRIFT_PPM) };
                // A runaway that is slow would only admit too little.
                orders.rate_ppm = if kind == Kind::ClockRunaway || random.bool() { ppm } else { -ppm };
                fault.what = format!("the clock of {target} runs {} ppm too fast", orders.rate_ppm);
            }
        }
        self.order(target, orders);
        state
    }

    /// Stops a machine whose clock knows that it is going to be.
    pub(super) fn stop_machine(&mut self, active: &mut Active, now: u64) {
        let begun = self.faults[active.fault].begun;
        if active.stopped || now < begun + OBEYS_WITHIN {
            return;
        }
        active.stopped = true;
        active.before = self.machine_report(&active.target).map_or(0, |report| report.held_ns);
        active.until += now - begun;
        self.cluster.node(&active.target).pause();
    }

    /// The clocks of machines that were stopped are like others again.
    pub(super) fn let_clock_run(&mut self, target: &str) {
        let mut orders = self.orders_of(target);
        orders.hold_clock = false;
        self.order(target, orders);
    }

    /// What was told to a node's machine last.
    fn orders_of(&self, name: &str) -> Orders {
        self.orders.get(name).copied().unwrap_or_default()
    }

    fn order(&mut self, name: &str, orders: Orders) {
        self.orders.insert(name.to_owned(), orders);
        self.cluster.order(name, &orders);
    }

    /// What the process that runs now tells.
    pub(super) fn machine_report(&self, name: &str) -> Option<MachineReport> {
        let pid = self.cluster.node(name).pid();
        self.cluster.machine_report(name).filter(|report| Some(report.pid) == pid)
    }

    /// Looks whether it hits.
    pub(super) fn look_at_machine(&self, active: &mut Active) -> Option<String> {
        let report = self.machine_report(&active.target)?;
        match (active.kind, &active.state) {
            (Kind::ClockJump, State::Recovering { .. }) => {
                let (is, should) =
                    (report.clock_ms - machine::wall_ms(), self.orders_of(&active.target).wall_ahead_ms);
                (is.abs_diff(should) < TOLD_LATE_MS as u64)
                    .then(|| format!("started again, its clock is {}", ahead(is)))
            }
            (Kind::ClockDrift | Kind::ClockRunaway, State::On) => {
                // Another process begins anew.
                let first = active.gained.filter(|(pid, _)| *pid == report.pid);
                let (_, before) = *active.gained.insert(first.unwrap_or((report.pid, report.gained_ns)));
                let gained = report.gained_ns - before;
                (gained.abs() >= SEEN_NS)
                    .then(|| format!("its clock has gained {:.3} ms", gained as f64 / 1e6))
            }
            (Kind::HungFsync, State::On | State::Recovering { .. }) if report.syncs_hung > active.before => {
                let says = self.seen.get(&active.target).and_then(|seen| seen.trouble.as_ref());
                let says = says.map_or(String::new(), |trouble| format!(", and the node says: {trouble}"));
                let known = self.faults[active.fault].evidence.as_ref();
                let is_better = known.is_none_or(|known| !known.contains("says") || !says.is_empty());
                is_better.then(|| format!("{} syncs hung{says}", report.syncs_hung - active.before))
            }
            (Kind::VmStop, State::Recovering { .. }) => {
                let held = report.held_ns.saturating_sub(active.before);
                (held > VM_HELD_NS).then(|| format!("its clock stood still for {:.3} s", held as f64 / 1e9))
            }
            (Kind::FailedFsync, State::On | State::Recovering { .. }) if report.syncs_failed > 0 => {
                let says = self.seen.get(&active.target).and_then(|seen| seen.trouble.as_ref());
                let says = says.map_or(String::new(), |trouble| format!(", and the node says: {trouble}"));
                let known = self.faults[active.fault].evidence.as_ref();
                // What it says is worth more than what it says no more.
                let is_better = known.is_none_or(|known| !known.contains("says") || !says.is_empty());
                is_better.then(|| format!("{} syncs failed{says}", report.syncs_failed))
            }
            _ => None,
        }
    }

    /// Whether a fault of the disk is still to hit: a node that is cut off syncs nothing.
    pub(super) fn waits_for_a_sync(&self, active: &Active, now: u64) -> bool {
        matches!(active.kind, Kind::FailedFsync | Kind::TornWrite)
            && self.faults[active.fault].evidence.is_none()
            && self.cluster.node(&active.target).pid().is_some()
            && now < active.until + SYNCS_WITHIN
    }

    /// Whether a flood is still to fill the target's memory: how fast it is depends on the node's build.
    pub(super) fn waits_for_a_flood(&self, active: &Active, now: u64) -> bool {
        active.kind == Kind::Flood
            && self.faults[active.fault].evidence.is_none()
            && now < active.until + FILLS_WITHIN
    }

    /// Waits for a machine's power to go. Whether it has.
    pub(super) fn await_power_cut(&mut self, fault: usize, target: &str) -> bool {
        let Some(code) = self.cluster.take_exit(target) else { return false };
        match self.cluster.machine_report(target).and_then(|report| report.power_cut) {
            Some(what) => self.faults[fault].evidence = Some(format!("the power went {what}")),
            None => self.note_end(target, code, Some("it ended by itself".to_owned())),
        }
        true
    }

    /// The machine is as it should be again; of a jump the wall clock keeps what it has.
    pub(super) fn undo_on_machine(&mut self, active: &mut Active) {
        let target = active.target.clone();
        if let Some(seen) = self.look_at_machine(active) {
            self.faults[active.fault].evidence = Some(seen);
        }
        // Another fault may be on at the same machine.
        let mut orders = self.orders_of(&target);
        match active.kind {
            Kind::FailedFsync => orders.fail_syncs = None,
            Kind::TornWrite => orders.power_cut = None,
            Kind::HungFsync => orders.hang_syncs = false,
            // It is let go on first; its clock may know of it for a while longer.
            Kind::VmStop => self.resume(&target),
            Kind::ClockDrift | Kind::ClockRunaway => orders.rate_ppm = 0,
            _ => {}
        }
        self.order(&target, orders);
        match active.kind {
            Kind::ClockJump => self.cluster.restart(&target),
            Kind::TornWrite => {
                // It may have synced nothing: nothing hit then.
                if self.cluster.node(&target).pid().is_some() && !self.await_power_cut(active.fault, &target)
                {
                    self.cluster.kill(&target);
                }
                self.cluster.restart(&target);
            }
            Kind::FailedFsync | Kind::HungFsync | Kind::VmStop => {}
            _ => active.state = State::Over,
        }
    }

    /// Whether a node that ended by itself had a reason: its disk fails, and it has said so.
    pub(super) fn disk_made_it_end(&self, name: &str, code: i32) -> bool {
        let fails = |active: &Active| active.kind == Kind::FailedFsync && active.target == name;
        let says = || {
            let log = self.cluster.node(name).log();
            log.lines().rev().take(LAST_LINES).any(|line| FILES.iter().any(|file| line.contains(file)))
        };
        code == 1 && self.is_on(fails) && says()
    }
}

/// The message that a node ends with names the file that could not be written. It may be broken into several lines.
const FILES: [&str; 3] = ["raft.redb", "raft.snapshot", "saved.buckets"];
const LAST_LINES: usize = 20;

fn ahead(ms: i64) -> String {
    let seconds = ms.unsigned_abs() as f64 / 1e3;
    format!("{seconds:.1} s {}", if ms < 0 { "behind" } else { "ahead" })
}
