//! A node gets another address, and a node of another cluster gets its former one. Neither cluster may take notice of the other, but for
//! saying that it is there.

use super::{
    Fault, actions,
    addresses::signal_name,
    driver::Driver,
    progress::STOP_WITHIN,
    state::{Active, State},
    stranger::Stranger,
};
use crate::{cluster::Settings, ports::port_apart};

/// How long it may take to found the other cluster.
const FOUNDED_WITHIN: u64 = 20_000_000_000;
/// How long the node that has got the address may take to be ready there, after the other one has come back.
const READY_WITHIN: u64 = 20_000_000_000;
/// When the one that had the address starts again, from then on, in milliseconds.
const RETURNS_AFTER_MS: std::ops::Range<u64> = 0..3_000;
/// Logs that are kept.
const MAX_LOGS: usize = 20;
const RULES: &str = "rules:\n  - { name: of-another-cluster, key: [user], limit: 10/1h }\n";

impl Driver<'_> {
    /// Two nodes found a cluster of their own, elsewhere.
    pub(super) fn begin_reuse(
        &mut self,
        target: &str,
        random: &mut fastrand::Rng,
        fault: &mut Fault,
    ) -> State {
        let numbers = [self.nodes + super::GUESTS - 1, self.nodes + super::GUESTS];
        let (shares_key, shares_name, kills) = (random.bool(), random.u8(..4) == 0, random.bool());
        // Nobody looks for anybody there.
        for number in numbers {
            let host = self.next_host();
            self.cluster.net().move_to(&[(number, host)]);
        }
        let settings = self.cluster.settings();
        let key =
            if shares_key { settings.key.clone() } else { Some("the key of another cluster".to_owned()) };
        let settings = Settings { rules: RULES.to_owned(), key, ..settings.clone() };
        let mut cluster = self.cluster.empty_beside(settings);
        let [companion, number] = numbers;
        let name = if shares_name { target.to_owned() } else { format!("s{number}") };
        let ports = numbers.map(port_apart);
        let expect = ["--bootstrap-expect", "2"].map(str::to_owned);
        cluster.spawn_as(&format!("s{companion}"), ports[0], &ports, &expect);
        cluster.spawn_as(&name, ports[1], &ports, &expect);
        fault.what = format!(
            "{} to {target}, which gets another address; its former one goes to {}, of another cluster with {}",
            signal_name(kills),
            if shares_name { "a node of the same name".to_owned() } else { name.clone() },
            if shares_key { "the same key" } else { "another key" }
        );
        let returns_after = random.u64(RETURNS_AFTER_MS) * 1_000_000;
        let id = String::new();
        self.stranger = Some(Stranger { cluster, name, id, shares_key, was_ready: false, returns_after });
        State::Founding { since: fault.begun, kills }
    }

    /// The node of the other cluster gets the address.
    pub(super) fn put_stranger_at(&mut self, host: u8, now: u64) -> State {
        let Some(Stranger { cluster, name, returns_after, .. }) = &mut self.stranger else {
            return State::On;
        };
        cluster.move_to(&[(name.clone(), host)]);
        cluster.restart(name);
        State::Beside { returns: now + *returns_after }
    }

    pub(super) fn go_on_beside(&mut self, active: &mut Active, now: u64) {
        match active.state {
            State::Founding { since, kills } => {
                let founded = self.stranger.as_ref().and_then(Stranger::founded);
                let Some(id) = founded else {
                    if now > since + FOUNDED_WITHIN {
                        self.dismiss();
                        self.finish(active, now);
                        active.state = State::Over;
                    }
                    return;
                };
                if let Some(stranger) = &mut self.stranger {
                    stranger.id = id;
                    stranger.cluster.kill(&stranger.name);
                }
                if self.cluster.node(&active.target).pid().is_none() {
                    // It has ended by itself meanwhile, which is noted.
                    self.cluster.restart(&active.target);
                }
                let homes = vec![(active.target.clone(), self.next_host())];
                self.end(std::slice::from_ref(&active.target), kills);
                active.state = State::Ending { since: now, homes, forgets: false };
            }
            State::Beside { returns } if now >= returns => {
                self.restart_all(active);
                // However short the fault was planned to be, it has the time that it needs.
                let is_settled = self.stranger.as_ref().is_none_or(|stranger| stranger.was_ready)
                    || now >= returns + READY_WITHIN;
                if now >= active.until && is_settled {
                    if let Some(Stranger { cluster, .. }) = &self.stranger {
                        cluster.running().for_each(|node| cluster.ask_to_stop(&node.name));
                    }
                    active.state = State::Dismissing { since: now };
                }
            }
            State::Dismissing { since } => {
                let Some(stranger) = &mut self.stranger else { return };
                let names: Vec<String> = stranger.cluster.running().map(|node| node.name.clone()).collect();
                let (mut broke, mut is_waited_for) = (Vec::new(), false);
                for name in names {
                    match stranger.cluster.take_exit(&name) {
                        Some(0) => {}
                        Some(code) => {
                            broke.push(format!("{name} of the other cluster ended with {code} on SIGTERM"))
                        }
                        None if now > since + STOP_WITHIN => {
                            stranger.cluster.kill(&name);
                            broke.push(format!(
                                "{name} of the other cluster did not stop within 20 s of SIGTERM"
                            ));
                        }
                        None => is_waited_for = true,
                    }
                }
                if !is_waited_for && !stranger.was_ready {
                    broke.push("the node of the other cluster was never ready there".to_owned());
                }
                self.note_broken(active, broke.into_iter().next());
                if is_waited_for {
                    return;
                }
                self.dismiss();
                self.finish(active, now);
                active.state = State::Recovering { since: now };
            }
            _ => {}
        }
    }

    /// Looks whether the clusters have met, and whether one of them takes more notice of the other than it should.
    pub(super) fn look_at_stranger(&mut self, active: &Active) -> Option<String> {
        let complaint = self.stranger.as_mut().and_then(Stranger::complaint);
        let stranger = self.stranger.as_ref()?;
        let name = &stranger.name;
        let lists = self.seen.iter().find(|(node, seen)| *node != name && seen.slots.contains_key(name));
        let listed = lists
            .filter(|_| actions::number(name) > self.nodes)
            .map(|(node, _)| format!("{node} lists {name}, which is of another cluster"));
        let met = stranger.has_met();
        self.note_broken(active, complaint.or(listed));
        met
    }

    fn note_broken(&mut self, active: &Active, what: Option<String>) {
        if let Some(what) = what {
            self.faults[active.fault].broke.get_or_insert(what);
        }
    }

    /// The other cluster is gone.
    fn dismiss(&mut self) {
        if let Some(stranger) = self.stranger.take()
            && self.stranger_logs.len() < MAX_LOGS
        {
            let number = self.stranger_logs.len() / 2 + 1;
            let logs = stranger.cluster.nodes.iter().zip(["companion", "stranger"]);
            self.stranger_logs.extend(logs.map(|(node, place)| (format!("{place}-{number}"), node.log())));
        }
    }
}
