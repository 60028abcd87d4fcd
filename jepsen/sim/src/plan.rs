//! What a seed means: how many nodes, which network, which load, which faults and when.

use std::fmt;

use fastrand::Rng;

use super::themes::{self, Theme};

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
    /// What it is about.
    pub theme: Theme,
    /// How many nodes there are.
    pub nodes: usize,
    /// When each starts, in milliseconds; never earlier than the one before.
    pub starts_ms: Vec<u64>,
    /// So many nodes, the first ones, found a cluster when they see `expect` of them.
    pub expecting: usize,
    /// How many nodes a cluster is founded with.
    pub expect: usize,
    /// Addresses to join at which there is nobody.
    pub ghosts: usize,
    /// How long a message takes at least and at most, in milliseconds.
    pub latency_ms: (u64, u64),
    /// The pause of a client between two checks, in milliseconds, on the average.
    pub pause_ms: u64,
    /// Clients at each node.
    pub clients: usize,
    /// The families of keys that are asked about, one as often as another. One that is there twice is asked twice as often.
    pub families: Vec<usize>,
    /// Clients that write and read rules.
    pub writers: usize,
    /// By how many nanoseconds each machine's clock is ahead, and by how many millionths it is too fast.
    pub clocks: Vec<(i64, i64)>,
    /// How long a session lasts, in milliseconds.
    pub session_ms: u64,
    /// Bytes for the buckets of a node.
    pub store_bytes: usize,
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

/// At which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// At this one.
    Node(usize),
    /// At the one that owns the key under pressure of this family.
    Owner(usize),
    /// At the Raft leader.
    Leader,
    /// At one that neither leads nor owns the key under pressure of this family.
    Bystander(usize),
    /// At one that does not lead, and that no other fault is aimed at now.
    Follower,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No message between these nodes and the others.
    Partition(Nodes),
    /// No message between this node and the others.
    CutOff(Aim),
    /// No message from these nodes to those.
    OneWay(Nodes, Nodes),
    /// Messages between these nodes and the others arrive when it is over.
    Hold(Nodes),
    /// Messages from and to these nodes take so many milliseconds.
    Slow(Nodes, u64),
    /// No new connection to this node; its own work. `resets`: those that are open end.
    Unreachable {
        /// Which.
        aim: Aim,
        /// Connections that are open end.
        resets: bool,
    },
    /// Of a thousand hand-overs so many are taken and their answer is lost; of other calls a twentieth of that.
    LostAnswers(u32),
    /// Of a thousand hand-overs so many arrive when their caller has given up; of other calls a twentieth of that.
    LateCalls(u32),
    /// Of a thousand datagrams so many are lost, as many come twice, and as many late.
    Datagrams(u32),
    /// The node's process ends at once, and starts again when it is over. `silent`: the others are not told, as when the
    /// power goes. `forgets`: it comes back with an empty disk.
    Crash {
        /// Which.
        aim: Aim,
        /// Nobody is told.
        silent: bool,
        /// With an empty disk.
        forgets: bool,
    },
    /// Whoever gives its vote to another one loses its power at that moment, more often than not, and starts again soon.
    PowerCutsAtVotes,
    /// The node is asked to end, does so, and starts again.
    Restart(usize),
    /// One node after the other, as for an upgrade.
    RollingRestart,
    /// The node gives its slots to others, and gets them back when it is over.
    Drain(usize),
    /// The node's process is stopped.
    Pause(Aim),
    /// The node's virtual machine is stopped, and its clock with it: it does not know how long.
    Stun(Aim),
    /// The node's disk takes nothing.
    Disk(Aim),
    /// The node's disk does not answer.
    HungSync(Aim),
    /// A limit is lower.
    Lowered,
    /// No rule has floors. `crash`: as soon as one has them again, the owner of its key crashes.
    NoFloors {
        /// Because it only counts; else because its takeover is `zero`.
        shadow: bool,
        /// The owner crashes.
        crash: bool,
    },
    /// A rule is flooded with keys that never come again.
    Flood,
}

impl Kind {
    /// Whether nodes cannot reach each other, or a quorum may be gone: what rules that are `available` say of themselves for a
    /// partition.
    pub fn cuts(&self) -> bool {
        matches!(
            self,
            Self::Partition(_)
                | Self::CutOff(_)
                | Self::OneWay(..)
                | Self::Hold(_)
                | Self::Slow(..)
                | Self::Unreachable { .. }
                | Self::LateCalls(_)
                | Self::LostAnswers(_)
                | Self::Disk(_)
                | Self::HungSync(_)
        )
    }

    /// The same at that node.
    #[must_use]
    pub fn at(self, node: usize) -> Self {
        let aim = Aim::Node(node);
        match self {
            Self::CutOff(_) => Self::CutOff(aim),
            Self::Unreachable { resets, .. } => Self::Unreachable { aim, resets },
            Self::Crash { silent, forgets, .. } => Self::Crash { aim, silent, forgets },
            Self::Pause(_) => Self::Pause(aim),
            Self::Stun(_) => Self::Stun(aim),
            Self::Disk(_) => Self::Disk(aim),
            Self::HungSync(_) => Self::HungSync(aim),
            other => other,
        }
    }

    /// Where it is aimed.
    pub fn aim(&self) -> Option<Aim> {
        match *self {
            Self::CutOff(aim)
            | Self::Unreachable { aim, .. }
            | Self::Crash { aim, .. }
            | Self::Pause(aim)
            | Self::Stun(aim)
            | Self::Disk(aim)
            | Self::HungSync(aim) => Some(aim),
            Self::Restart(node) | Self::Drain(node) => Some(Aim::Node(node)),
            _ => None,
        }
    }
}

/// How long a cluster may take until all of its nodes are there.
pub(super) const STARTED_MS: u64 = 6_000;
/// How long a stream may be silent before it is given up, and a little.
const STREAM_IS_SILENT_MS: u64 = 4_000;
/// How long after the last fault the cluster must be whole again.
const HEALS_MS: u64 = 14_000;

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, shape: Shape) -> Self {
        let mut dice = Rng::with_seed(seed);
        let theme = Theme::any(&mut dice);
        // Small clusters more often: they are quick, and most of what can go wrong needs three.
        let of_seed = theme.nodes(&mut dice);
        let nodes = shape.nodes.unwrap_or(of_seed);
        let late = if nodes >= 4 { dice.usize(..=1) } else { 0 };
        let longest = [3, 5, 10, 20][dice.usize(..4)];
        let clocks = (0..nodes)
            .map(|_| (dice.i64(-3_600_000_000_000..3_600_000_000_000), dice.i64(-500..=500)))
            .collect();
        let length = shape.faults_ms.unwrap_or_else(|| dice.u64(8_000..16_000));
        let starts_ms = (0..nodes).map(|node| if node < nodes - late { 0 } else { 7_000 }).collect();
        let mut plan = Self {
            seed,
            theme,
            nodes,
            starts_ms,
            expecting: nodes - late,
            expect: nodes - late,
            ghosts: 0,
            latency_ms: (1, longest),
            pause_ms: dice.u64(20..100),
            clients: 1 + dice.usize(..2),
            families: (0..2 + dice.usize(..4))
                .map(|_| dice.usize(..super::workload::FAMILIES.len()))
                .collect(),
            writers: 1 + dice.usize(..3),
            clocks,
            session_ms: 2_200,
            store_bytes: 4 << 20,
            tick_ms: 1,
            faults: Vec::new(),
            healed_ms: STARTED_MS + length,
            end_ms: 0,
        };
        themes::add_faults(&mut plan, &mut dice, length);
        plan.faults.sort_by_key(|fault| fault.at_ms);
        for (place, fault) in plan.faults.iter_mut().enumerate() {
            fault.place = place;
        }
        plan.healed_ms = plan.faults.iter().map(Fault::ends_ms).max().unwrap_or(0).max(STARTED_MS);
        // Founders ask addresses at which there is nobody for some seconds.
        let asks_ghosts = if plan.ghosts > 0 || plan.theme == Theme::Founding { 12_000 } else { 0 };
        plan.end_ms =
            asks_ghosts + plan.healed_ms + HEALS_MS + 2 * (plan.session_ms - 2_200) + 60 * plan.latency_ms.1;
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

    /// From when on the cluster may be whole again. The simulated network loses what was sent during a cut, where TCP
    /// would send it again: until the nodes give such a stream up, it is silent.
    pub fn settled_ms(&self) -> u64 {
        let started = self.starts_ms.last().map_or(0, |last| last + 1_000);
        self.faults.iter().map(Fault::ends_ms).max().map_or(0, |last| last + STREAM_IS_SILENT_MS).max(started)
    }

    /// The cuts: from when until when nodes may differ about who owns a slot.
    pub fn cuts(&self) -> impl Iterator<Item = (&Fault, u64)> {
        let lingers = STREAM_IS_SILENT_MS + 2 * self.session_ms;
        self.faults
            .iter()
            .filter(|fault| fault.kind.cuts())
            .map(move |fault| (fault, fault.ends_ms() + lingers))
    }

    /// Into how many sides the nodes may fall apart at one time, so that each has its own idea of who owns a slot: what is cut
    /// while something else is, or is not forgotten yet, may split each side once more.
    pub fn sides(&self) -> u64 {
        let cuts: Vec<(&Fault, u64)> = self.cuts().collect();
        let at_once = cuts.iter().map(|(one, _)| {
            cuts.iter().filter(|(other, until)| other.at_ms <= one.at_ms && one.at_ms < *until).count() as u32
        });
        let most = at_once.max().unwrap_or(0);
        2_u64.saturating_pow(most).min(self.nodes as u64)
    }
}

impl Fault {
    /// When it is over.
    pub fn ends_ms(&self) -> u64 {
        self.at_ms + self.lasts_ms
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at_ms as f64 / 1000.0, self.lasts_ms as f64 / 1000.0);
        write!(f, "#{} at {at:.3} s for {lasts:.3} s: {}", self.place, self.kind)
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |family: usize| super::workload::FAMILIES[family].name;
        match *self {
            Self::Node(node) => write!(f, "n{}", node + 1),
            Self::Owner(family) => write!(f, "the owner of the hot key of {}", name(family)),
            Self::Leader => write!(f, "the leader"),
            Self::Follower => write!(f, "a follower that nothing else befalls"),
            Self::Bystander(family) => {
                write!(f, "neither leader nor owner of the hot key of {}", name(family))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Partition(side) => write!(f, "{} cut off", names(side)),
            Self::CutOff(aim) => write!(f, "cut off: {aim}"),
            Self::OneWay(from, to) => write!(f, "nothing from {} to {}", names(from), names(to)),
            Self::Hold(side) => write!(f, "messages of {} held back", names(side)),
            Self::Slow(side, millis) => write!(f, "messages of {} take {millis} ms", names(side)),
            Self::Unreachable { aim, resets } => {
                let old = if resets { ", and the open ones end" } else { "" };
                write!(f, "no new connections{old} to: {aim}")
            }
            Self::LostAnswers(rate) => write!(f, "answers to {rate} of 1000 hand-overs are lost"),
            Self::LateCalls(rate) => write!(f, "{rate} of 1000 hand-overs arrive late"),
            Self::Datagrams(rate) => write!(f, "{rate} of 1000 datagrams are lost, come twice, come late"),
            Self::Crash { aim, silent, forgets } => {
                let how = if silent { " without a word" } else { "" };
                let disk = if forgets { ", and loses its disk" } else { "" };
                write!(f, "crashes{how}{disk}: {aim}")
            }
            Self::PowerCutsAtVotes => write!(f, "the power goes where a vote is given"),
            Self::Restart(node) => write!(f, "n{} is restarted", node + 1),
            Self::RollingRestart => write!(f, "all nodes are restarted, one after the other"),
            Self::Drain(node) => write!(f, "n{} is drained", node + 1),
            Self::Pause(aim) => write!(f, "stopped: {aim}"),
            Self::Stun(aim) => write!(f, "stopped with its clock: {aim}"),
            Self::Disk(aim) => write!(f, "the disk takes nothing: {aim}"),
            Self::HungSync(aim) => write!(f, "the disk does not answer: {aim}"),
            Self::Lowered => write!(f, "a limit is lowered"),
            Self::NoFloors { shadow, crash } => {
                let how = if shadow { "mode: shadow" } else { "takeover: zero" };
                let then = if crash { ", then the owner crashes" } else { "" };
                write!(f, "no rule has floors ({how}){then}")
            }
            Self::Flood => write!(f, "a rule is flooded with keys"),
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
        let mut themes = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let plan = Plan::of(seed, Shape::default());
            assert_eq!(plan, Plan::of(seed, Shape::default()));
            themes.insert(plan.theme);
            assert!(plan.faults.iter().all(|fault| fault.ends_ms() <= plan.healed_ms), "{plan:?}");
            assert!(plan.starts_ms.is_sorted() && plan.starts_ms.len() == plan.nodes, "{plan:?}");
            let only = plan.with(&Choice::Only(vec![0]));
            assert_eq!(only.faults, plan.faults.iter().take(1).copied().collect::<Vec<_>>());
        }
        assert_eq!(themes.len(), Theme::ALL.len(), "each theme comes");
    }
}
