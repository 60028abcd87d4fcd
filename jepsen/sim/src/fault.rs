//! What can happen to a simulated cluster: a fault, and the node that it is aimed at.

use std::fmt;

use super::workload::FAMILIES;

/// The nodes of a plan, as bits: node 1 is the lowest.
pub type Nodes = u64;

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
    /// These nodes end at the same time, and start again at other addresses when it is over.
    MoveAddresses {
        /// Which.
        nodes: Nodes,
        /// They crash, without a word; else they are asked to end.
        crash: bool,
    },
    /// These nodes leave one after the other, and come back when it is over.
    Scale(Nodes),
    /// The node ends and starts again at another address when it is over, beside a node of another cluster at its former one.
    ReuseAddress {
        /// Which.
        node: usize,
        /// It crashes, without a word; else it is asked to end.
        crash: bool,
    },
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
            Self::Restart(node) | Self::Drain(node) | Self::ReuseAddress { node, .. } => {
                Some(Aim::Node(node))
            }
            _ => None,
        }
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
        let name = |family: usize| FAMILIES[family].name;
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
            Self::MoveAddresses { nodes, crash } => {
                write!(f, "{} {} and start again at other addresses", names(nodes), ends(crash))
            }
            Self::Scale(nodes) => write!(f, "{} leave one after the other, and come back", names(nodes)),
            Self::ReuseAddress { node, crash } => {
                let (name, how) = (names(1 << node), ends(crash));
                write!(f, "{name} {how}, moves, and a node of another cluster gets its address")
            }
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

fn ends(crash: bool) -> &'static str {
    if crash { "lose their power" } else { "are asked to end" }
}

/// The names of nodes.
fn names(nodes: Nodes) -> String {
    let names: Vec<String> =
        (0..64).filter(|node| nodes >> node & 1 == 1).map(|node| format!("n{}", node + 1)).collect();
    names.join(",")
}
