//! Does the faults of a schedule when they are due, and undoes them.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Aim, Fault, Kind, Planned, Track, actions,
    builds::Builds,
    network,
    state::{Active, Ends, Special, State},
    stranger::Stranger,
    targets::Roles,
};
use crate::{
    cluster::Cluster,
    disk::SmallDisk,
    history::monotonic,
    machine::Orders,
    sampler::{Sighting, Watched},
    workload::flood::Flood,
};

/// A fault that is aimed at a node in mid-move waits so long for a move.
const MOVE_WITHIN: u64 = 3_000_000_000;
/// Slots move in batches, some a second.
const MOVES_LAST: u64 = 700_000_000;

/// Breaks a cluster by plan.
#[derive(Debug)]
pub struct Driver<'a> {
    /// The cluster.
    pub cluster: &'a mut Cluster,
    /// What was done so far.
    pub faults: Vec<Fault>,
    /// Which processes ended.
    pub ends: Vec<Ends>,
    pub(super) planned: VecDeque<(u64, Planned)>,
    pub(super) postponed: Vec<(u64, Planned)>,
    /// Nodes whose processes some fault is about to end or to start again: no other one touches them.
    pub(super) in_hand: Vec<String>,
    pub(super) active: Vec<Active>,
    pub(super) disks: BTreeMap<String, SmallDisk>,
    watched: &'a Watched,
    pub(super) seen: BTreeMap<String, Sighting>,
    /// How many slots each node owned when that was last looked at, and when it last was another number than before.
    owned: BTreeMap<String, (u64, u64)>,
    pub(super) nodes: u8,
    /// What the nodes' machines are told.
    pub(super) orders: BTreeMap<String, Orders>,
    pub(super) orders_given: u64,
    pub(super) builds: Builds,
    pub(super) floods: BTreeMap<String, Flood>,
    /// What is special about some nodes.
    pub(super) special: Special,
    /// How often what nobody saw was done again.
    pub(super) repeated: u32,
    pub(super) wanted: Vec<Kind>,
    /// The last byte of the address that was given out last.
    pub(super) last_host: u8,
    /// The cluster of a node that gets a former address.
    pub(super) stranger: Option<Stranger>,
    /// What such nodes have logged.
    pub stranger_logs: Vec<(String, String)>,
    start: u64,
}

impl<'a> Driver<'a> {
    /// Will do what is planned, counted from `start`, to the `nodes` nodes of the cluster.
    pub fn new(
        cluster: &'a mut Cluster,
        disks: BTreeMap<String, SmallDisk>,
        watched: &'a Watched,
        builds: Builds,
        special: Special,
        planned: Vec<Planned>,
        start: u64,
    ) -> Self {
        let mut wanted: Vec<Kind> = planned.iter().map(|one| one.kind).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let due = |one: &Planned| start + one.after.as_nanos() as u64;
        let planned = planned.into_iter().map(|one| (due(&one), one)).collect();
        let nodes = cluster.nodes.len() as u8;
        Self {
            cluster,
            faults: Vec::new(),
            ends: Vec::new(),
            planned,
            postponed: Vec::new(),
            in_hand: Vec::new(),
            active: Vec::new(),
            disks,
            watched,
            seen: BTreeMap::new(),
            owned: BTreeMap::new(),
            nodes,
            orders: BTreeMap::new(),
            orders_given: 0,
            builds,
            floods: BTreeMap::new(),
            special,
            repeated: 0,
            wanted,
            last_host: 0,
            stranger: None,
            stranger_logs: Vec::new(),
            start,
        }
    }

    /// Whether nothing is broken any more, and all who were are ready again.
    pub fn is_healed(&self) -> bool {
        self.active.is_empty()
    }

    /// When the last fault was undone; `None` while one is on.
    pub fn undone(&self) -> Option<u64> {
        let is_on = |active: &Active| !matches!(active.state, State::Recovering { .. } | State::Over);
        if self.active.iter().any(is_on) {
            return None;
        }
        self.faults.iter().filter_map(|fault| fault.ended).max()
    }

    /// The faults that are on.
    pub fn on(&self) -> impl Iterator<Item = &Fault> {
        self.active.iter().map(|active| &self.faults[active.fault])
    }

    /// Forgets what has not begun, and lets what has begun end now.
    pub fn heal(&mut self) {
        self.planned.clear();
        let now = monotonic();
        self.active.iter_mut().for_each(|active| active.until = active.until.min(now));
    }

    /// Does what is due.
    ///
    /// # Panics
    /// When the machine refuses what was possible before.
    pub fn tick(&mut self) {
        self.watched.set(self.cluster);
        self.seen = self.watched.seen();
        self.notice_moves();
        self.notice_ends();
        let mut active = std::mem::take(&mut self.active);
        self.in_hand = active.iter().flat_map(|one| self.has_in_hand(one)).collect();
        for one in &mut active {
            self.go_on(one);
        }
        active.retain(|one| one.state != State::Over);
        self.active = active;
        while self.planned.front().is_some_and(|(due, _)| *due <= monotonic()) {
            let Some((due, planned)) = self.planned.pop_front() else { break };
            self.begin(due, planned);
        }
        // Those whose track is still taken come first the next time.
        for one in self.postponed.drain(..).rev() {
            self.planned.push_front(one);
        }
    }

    /// Who gives or takes slots.
    fn notice_moves(&mut self) {
        let Some(latest) = self.seen.values().max_by_key(|seen| seen.at) else { return };
        for (name, slots) in &latest.slots {
            let known = self.owned.entry(name.clone()).or_insert((*slots, 0));
            if known.0 != *slots {
                *known = (*slots, latest.at);
            }
        }
    }

    /// Whether a node gave or took slots a moment ago, while slots are on their way.
    fn is_moving(&self, name: &str) -> bool {
        let now = monotonic();
        self.owned.get(name).is_some_and(|(_, changed)| now < changed + MOVES_LAST)
            && self.seen.values().any(|seen| seen.moving > 0)
    }

    /// Processes that ended though nobody asked them to.
    fn notice_ends(&mut self) {
        let names: Vec<String> = self.cluster.running().map(|node| node.name.clone()).collect();
        for name in names {
            let asked = self.active.iter().any(|active| match &active.state {
                State::Stopping { .. } => active.target == name,
                State::On => active.kind == Kind::TornWrite && active.target == name,
                State::Rolling { left, stopping } | State::Leaving { left, stopping } => {
                    stopping.is_some() && left.last() == Some(&name)
                }
                State::Ending { .. } => self.faults[active.fault].targets.contains(&name),
                _ => false,
            });
            if asked {
                continue;
            }
            if let Some(code) = self.cluster.take_exit(&name) {
                let may = self.disk_made_it_end(&name, code);
                self.note_end(&name, code, (!may).then(|| "it ended by itself".to_owned()));
                self.cluster.restart(&name);
            }
        }
    }

    /// The nodes whose processes a fault is about to end or to start again.
    fn has_in_hand(&self, active: &Active) -> Vec<String> {
        let targets = &self.faults[active.fault].targets;
        match &active.state {
            State::Rolling { left, .. } => {
                left.last().filter(|name| targets.contains(name)).cloned().into_iter().collect()
            }
            State::Leaving { left, stopping } => {
                left.last().filter(|_| stopping.is_some()).cloned().into_iter().collect()
            }
            State::Stopping { .. } => vec![active.target.clone()],
            State::On if active.kind.track() != Track::Process => Vec::new(),
            State::On | State::Ending { .. } | State::Founding { .. } => targets.clone(),
            State::Beside { .. } | State::Dismissing { .. } => targets.clone(),
            State::Recovering { .. } | State::Over => Vec::new(),
        }
    }

    pub(super) fn note_end(&mut self, name: &str, code: i32, wrong: Option<String>) {
        self.ends.push(Ends { node: name.to_owned(), at: monotonic(), code, wrong });
    }

    fn begin(&mut self, due: u64, planned: Planned) {
        let Planned { kind, mut aim, seed, mut lasts, by, .. } = planned;
        if let Some(by) = by {
            let left = (self.start + by.as_nanos() as u64).saturating_sub(monotonic());
            // It came too late: what is left of the season is for others to recover in.
            if left < lasts.as_nanos() as u64 / 2 {
                return;
            }
            lasts = lasts.min(std::time::Duration::from_nanos(left));
        }
        let mut random = fastrand::Rng::with_seed(seed);
        // What is stopped does not answer, and what is being restarted is not hit again.
        let is_busy = |name: &str| {
            let track = |active: &&Active| active.kind.track() == Track::Process || active.kind == kind;
            let is_target = |active: &Active| self.faults[active.fault].targets.iter().any(|one| one == name);
            self.active.iter().filter(track).any(|active| match &active.state {
                State::Rolling { left, .. } => left.last().is_some_and(|last| last == name),
                _ => is_target(active),
            }) || self.active.iter().any(|active| {
                // Who has come to leave again is left alone once it does.
                (active.kind == Kind::Join && active.state != State::On || active.kind == Kind::Scale)
                    && is_target(active)
            })
        };
        let candidates: Vec<String> = self
            .cluster
            .running()
            .map(|node| node.name.clone())
            .filter(|name| !is_busy(name))
            .filter(|name| actions::number(name) <= self.nodes || kind.track() == Track::Process)
            .filter(|name| self.may_be_hit(kind, name))
            .collect();
        let track_is_taken = self.active.iter().any(|active| {
            let is_on = !matches!(active.state, State::Recovering { .. } | State::Over);
            active.kind == kind || is_on && active.kind.track() == kind.track()
        });
        let roles = Roles::of(&self.seen);
        if track_is_taken
            || aim == Aim::Moving
                && !candidates.iter().any(|name| self.is_moving(name))
                && monotonic() < due + MOVE_WITHIN
        {
            self.postponed.push((due, planned));
            return;
        }
        if candidates.is_empty() {
            return;
        }
        let wanted = match aim {
            Aim::HotOwner => roles.hot_owner.clone(),
            Aim::Leader => roles.leader.clone(),
            Aim::Moving => candidates.iter().find(|name| self.is_moving(name)).cloned(),
            Aim::Random => None,
        };
        let target = wanted.filter(|name| candidates.contains(name)).unwrap_or_else(|| {
            aim = Aim::Random;
            candidates[random.usize(..candidates.len())].clone()
        });
        let in_move = self.is_moving(&target);
        let begun = monotonic();
        let mut fault = Fault {
            kind,
            aim,
            targets: vec![target.clone()],
            roles: roles.of_node(&target, in_move),
            what: String::new(),
            begun,
            ended: None,
            recovered: None,
            evidence: None,
            sides: Vec::new(),
            broke: None,
        };
        let state = match kind {
            Kind::Kill | Kind::Wipe | Kind::Pause | Kind::Restart | Kind::Replace => {
                self.begin_process(kind, &target, lasts, &mut fault)
            }
            Kind::Rolling | Kind::Upgrade => self.begin_rolling(kind, &candidates, &mut random, &mut fault),
            Kind::MoveAddresses => self.begin_move(&target, &candidates, &mut random, &mut fault),
            Kind::ReuseAddress => self.begin_reuse(&target, &mut random, &mut fault),
            Kind::LateDns => self.begin_late_dns(&target, &mut random, &mut fault),
            Kind::Scale => match self.begin_scale(&target, &candidates, &mut random, &mut fault) {
                Some(state) => state,
                None => return,
            },
            kind if kind.needs_orders() => self.begin_on_machine(&planned, &target, &mut random, &mut fault),
            Kind::FullDisk | Kind::Drain | Kind::Join | Kind::Flood | Kind::StalledLog => {
                match self.begin_members(kind, &target, &mut fault) {
                    Some(state) => state,
                    None => return,
                }
            }
            _ => {
                (fault.what, fault.sides) =
                    network::begin(self.cluster.net(), kind, &target, self.nodes, &mut random);
                State::On
            }
        };
        let target = fault.targets.first().cloned().unwrap_or_default();
        let before = match kind {
            Kind::HungFsync => self.machine_report(&target).map_or(0, |report| report.syncs_hung),
            _ => 0,
        };
        self.faults.push(fault);
        let until = begun + lasts.as_nanos() as u64;
        self.active.push(Active {
            fault: self.faults.len() - 1,
            kind,
            target,
            until,
            state,
            looked: 0,
            gained: None,
            errand: None,
            before,
            stopped: false,
        });
    }
    /// Whether there is a fault like that, which is not over.
    pub(super) fn is_on(&self, like: impl Fn(&Active) -> bool) -> bool {
        self.active.iter().any(like)
    }

    /// Whether the process that runs now said so after `since`.
    pub(super) fn is_ready(&self, name: &str, since: u64) -> bool {
        let runs = |pid| self.cluster.node(name).pid() == Some(pid);
        self.seen.get(name).is_some_and(|seen| seen.ready && seen.at > since && runs(seen.pid))
    }
}
