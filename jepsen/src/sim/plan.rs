//! What a seed means: how many nodes, which network, which load, which faults and when.

use std::fmt;

use fastrand::Rng;

/// The nodes of a plan, as bits: node 1 is the lowest.
pub type Nodes = u64;

/// What is given beside the seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes; by default the seed says.
    pub nodes: Option<usize>,
    /// How long the part with faults is, in milliseconds; by default the seed says.
    pub faults_ms: Option<u64>,
}

/// Which faults of a plan happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// All.
    #[default]
    All,
    /// Those at these places.
    Only(Vec<usize>),
}

/// A run before it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it came from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// Those that are there from the beginning; the others join.
    pub founders: usize,
    /// How long a message takes at least and at most, in milliseconds.
    pub latency_ms: (u64, u64),
    /// The pause of a client between two checks, in milliseconds, on the average.
    pub pause_ms: u64,
    /// Clients at each node.
    pub clients: usize,
    /// Clients that write and read rules.
    pub writers: usize,
    /// By how many nanoseconds each machine's clock is ahead, and by how many millionths it is too fast.
    pub clocks: Vec<(i64, i64)>,
    /// The simulation is looked at and goes on in steps of so many milliseconds.
    pub tick_ms: u64,
    /// What happens.
    pub faults: Vec<Fault>,
    /// When the last fault is over at the latest.
    pub healed_ms: u64,
    /// The end.
    pub end_ms: u64,
}

/// Something that happens to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its place in the plan.
    pub place: usize,
    /// When it begins.
    pub at_ms: u64,
    /// For how long.
    pub lasts_ms: u64,
    /// What it is.
    pub kind: Kind,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No message between these nodes and the others.
    Partition(Nodes),
    /// No message from these nodes to those.
    OneWay(Nodes, Nodes),
    /// Messages between these nodes and the others arrive when it is over.
    Hold(Nodes),
    /// Messages from and to these nodes take so many milliseconds.
    Slow(Nodes, u64),
    /// The node's process ends at once, and starts again when it is over. `silent`: the others are not told, as when the
    /// power goes. `forgets`: it comes back with an empty disk.
    Crash {
        /// Which.
        node: usize,
        /// Nobody is told.
        silent: bool,
        /// With an empty disk.
        forgets: bool,
    },
    /// The node is asked to end, does so, and starts again.
    Restart(usize),
    /// One node after the other, as for an upgrade.
    RollingRestart,
    /// The node gives its slots to others, and gets them back when it is over.
    Drain(usize),
    /// The node's process is stopped.
    Pause(usize),
    /// The node's disk takes nothing.
    Disk(usize),
}

impl Kind {
    /// Whether nodes can not reach each other, or most voters may be gone: what rules that are `available` say of themselves
    /// for a partition.
    pub fn cuts(&self) -> bool {
        matches!(self, Self::Partition(_) | Self::OneWay(..) | Self::Hold(_) | Self::Slow(..) | Self::Disk(_))
    }
}

/// How long a cluster may take until all of its nodes are there.
const STARTED_MS: u64 = 6_000;
/// How long a stream may be silent before it is given up, and a little.
const STREAM_IS_SILENT_MS: u64 = 4_000;
/// How long after the last fault the cluster must be whole again.
const HEALS_MS: u64 = 14_000;

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, shape: Shape) -> Self {
        let mut dice = Rng::with_seed(seed);
        // Small clusters more often: they are quick, and most of what can go wrong needs three.
        let of_seed = [3, 3, 3, 5, 1, 2, 4, 5, 3, 7, 3, 9][dice.usize(..12)];
        let nodes = shape.nodes.unwrap_or(of_seed);
        let late = if nodes >= 4 { dice.usize(..=1) } else { 0 };
        let longest = [3, 5, 10, 20][dice.usize(..4)];
        let clocks = (0..nodes)
            .map(|_| (dice.i64(-3_600_000_000_000..3_600_000_000_000), dice.i64(-500..=500)))
            .collect();
        let (length, founders) = (shape.faults_ms.unwrap_or_else(|| dice.u64(8_000..16_000)), nodes - late);
        let healed_ms = STARTED_MS + length;
        let mut plan = Self {
            seed,
            nodes,
            founders,
            latency_ms: (1, longest),
            pause_ms: dice.u64(20..120),
            clients: 1 + dice.usize(..2),
            writers: 1 + dice.usize(..3),
            clocks,
            tick_ms: 1,
            faults: Vec::new(),
            healed_ms,
            end_ms: healed_ms + HEALS_MS,
        };
        plan.add_faults(&mut dice, length);
        plan
    }

    /// The same plan with some of its faults only.
    #[must_use]
    pub fn with(&self, choice: &Choice) -> Self {
        let mut plan = self.clone();
        if let Choice::Only(places) = choice {
            plan.faults.retain(|fault| places.contains(&fault.place));
        }
        plan
    }

    /// From when on the cluster may be whole again. The simulated network loses what was sent during a cut for good, where TCP
    /// would send it again: until the nodes give such a stream up, it is silent.
    pub fn settled_ms(&self) -> u64 {
        self.faults.iter().map(Fault::ends_ms).max().map_or(0, |last| last + STREAM_IS_SILENT_MS)
    }

    /// Whether something happens in which nodes can not reach each other.
    pub fn cuts(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind.cuts())
    }

    /// Into how many sides the nodes may fall apart at one time, so that each has its own idea of who owns a slot: what is cut
    /// while something else is, or is not forgotten yet, may split each side once more.
    pub fn sides(&self) -> u64 {
        let cuts: Vec<&Fault> = self.faults.iter().filter(|fault| fault.kind.cuts()).collect();
        let at_once = cuts.iter().map(|one| {
            let is_on = |other: &&&Fault| {
                other.at_ms <= one.at_ms && one.at_ms < other.ends_ms() + STREAM_IS_SILENT_MS
            };
            cuts.iter().filter(is_on).count() as u32
        });
        let most = at_once.max().unwrap_or(0);
        2_u64.saturating_pow(most).min(self.nodes as u64)
    }

    fn add_faults(&mut self, dice: &mut Rng, length: u64) {
        // One in four has no cuts: there the rules that are `available` promise more.
        let gentle = dice.u8(..4) == 0;
        let wanted = 1 + dice.usize(..7);
        let mut forgot = false;
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..wanted * 4 {
            if faults.len() == wanted {
                break;
            }
            let kind = self.any_fault(dice, gentle);
            if matches!(kind, Kind::Crash { forgets: true, .. }) && std::mem::replace(&mut forgot, true) {
                // More than one voter that forgets what it promised is more than Raft can bear.
                continue;
            }
            let lasts_ms = match kind {
                Kind::RollingRestart => length,
                Kind::Pause(_) | Kind::Hold(_) => dice.u64(200..6_000),
                Kind::Crash { .. } | Kind::Restart(_) => dice.u64(50..5_000),
                _ => dice.u64(500..8_000),
            };
            let at_ms = STARTED_MS + dice.u64(..length);
            let lasts_ms = lasts_ms.min(self.healed_ms - at_ms).max(50);
            let fault = Fault { place: 0, at_ms, lasts_ms, kind };
            if faults.iter().all(|other| fault.goes_with(other)) {
                faults.push(fault);
            }
        }
        faults.sort_by_key(|fault| fault.at_ms);
        for (place, fault) in faults.iter_mut().enumerate() {
            fault.place = place;
        }
        self.faults = faults;
    }

    fn any_fault(&self, dice: &mut Rng, gentle: bool) -> Kind {
        let all: Nodes = (1 << self.nodes) - 1;
        let node = dice.usize(..self.nodes);
        let some = |dice: &mut Rng| loop {
            let side = dice.u64(1..=all);
            if side != all || self.nodes == 1 {
                return side;
            }
        };
        loop {
            let kind = match dice.u8(..20) {
                0..2 => Kind::Partition(some(dice)),
                2 => Kind::Partition(1 << node),
                3..5 => Kind::OneWay(1 << node, all & !(1 << node)),
                5 => Kind::OneWay(some(dice), some(dice)),
                6 => Kind::OneWay(all & !(1 << node), 1 << node),
                7 => Kind::Hold(some(dice)),
                8 => Kind::Slow(some(dice), dice.u64(20..400)),
                9..13 => {
                    let forgets = self.nodes >= 3 && dice.u8(..6) == 0;
                    Kind::Crash { node, silent: dice.bool(), forgets }
                }
                13..15 => Kind::Restart(node),
                15 => Kind::RollingRestart,
                16 => Kind::Drain(node),
                17..19 => Kind::Pause(node),
                _ => Kind::Disk(node),
            };
            if gentle && kind.cuts() {
                continue;
            }
            return kind;
        }
    }
}

impl Fault {
    /// When it is over.
    pub fn ends_ms(&self) -> u64 {
        self.at_ms + self.lasts_ms
    }

    /// The node whose process or disk it is about.
    fn node(&self) -> Option<usize> {
        match self.kind {
            Kind::Crash { node, .. }
            | Kind::Restart(node)
            | Kind::Drain(node)
            | Kind::Pause(node)
            | Kind::Disk(node) => Some(node),
            _ => None,
        }
    }

    /// Whether both can happen at the same time, or do not.
    fn goes_with(&self, other: &Self) -> bool {
        // A node that comes back needs a while before the next thing happens to it.
        let apart = self.ends_ms() + 500 < other.at_ms || other.ends_ms() + 500 < self.at_ms;
        let rolls = |fault: &Self| fault.kind == Kind::RollingRestart;
        let same = self.node().is_some() && self.node() == other.node();
        let one_rolls =
            rolls(self) && (rolls(other) || other.node().is_some()) || rolls(other) && self.node().is_some();
        apart || !(same || one_rolls)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at_ms as f64 / 1000.0, self.lasts_ms as f64 / 1000.0);
        write!(f, "#{} at {at:.3} s for {lasts:.3} s: {}", self.place, self.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Partition(side) => write!(f, "{} cut off", names(side)),
            Self::OneWay(from, to) => write!(f, "nothing from {} to {}", names(from), names(to)),
            Self::Hold(side) => write!(f, "messages of {} held back", names(side)),
            Self::Slow(side, millis) => write!(f, "messages of {} take {millis} ms", names(side)),
            Self::Crash { node, silent, forgets } => {
                let how = if silent { " without a word" } else { "" };
                let disk = if forgets { ", and loses its disk" } else { "" };
                write!(f, "n{} crashes{how}{disk}", node + 1)
            }
            Self::Restart(node) => write!(f, "n{} is restarted", node + 1),
            Self::RollingRestart => write!(f, "all nodes are restarted, one after the other"),
            Self::Drain(node) => write!(f, "n{} is drained", node + 1),
            Self::Pause(node) => write!(f, "n{} is stopped", node + 1),
            Self::Disk(node) => write!(f, "the disk of n{} takes nothing", node + 1),
        }
    }
}

/// The names of nodes.
fn names(nodes: Nodes) -> String {
    let names: Vec<String> =
        (0..64).filter(|node| nodes >> node & 1 == 1).map(|node| format!("n{}", node + 1)).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_a_plan_ends() {
        for seed in 0..500 {
            let plan = Plan::of(seed, Shape::default());
            assert_eq!(plan, Plan::of(seed, Shape::default()));
            assert!(!plan.faults.is_empty());
            assert!(plan.faults.iter().all(|fault| fault.ends_ms() <= plan.healed_ms + 50), "{plan:?}");
            let only = plan.with(&Choice::Only(vec![0]));
            assert_eq!(only.faults, plan.faults[..1]);
        }
    }
}
