//! What is done against a cluster: which faults there are, when they happen, at whom they are aimed, and how they are
//! undone.

mod actions;
mod addresses;
mod builds;
mod driver;
mod machine;
mod members;
mod network;
mod process;
mod progress;
mod repeat;
mod requirements;
mod reuse;
mod scale;
mod schedule;
mod state;
mod stranger;
mod targets;

use serde::{Deserialize, Serialize};

pub use self::{
    builds::Builds,
    driver::Driver,
    requirements::Means,
    schedule::{Phases, Planned, schedule, seasons},
    state::{Ends, Special},
};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL; started again a little later, with its data.
    Kill,
    /// SIGSTOP for 0.1 to 10 s.
    Pause,
    /// SIGTERM, and started again when it has ended.
    Restart,
    /// SIGKILL; its data directory is emptied before it is started again.
    Wipe,
    /// SIGTERM and start, one node after the other.
    Rolling,
    /// Two halves that do not reach each other.
    Halves,
    /// Each node reaches its neighbours in a ring, so that each sees a majority, and each another one.
    MajorityRing,
    /// The target hears all and nobody hears it, or the other way round.
    OneWay,
    /// Two halves that only the target reaches.
    Bridge,
    /// The target reaches nobody.
    Alone,
    /// What the target sends goes through a link of some hundred kilobits.
    Slow,
    /// Every link of the target loses packets.
    Loss,
    /// Packets to and from the target arrive twice.
    Double,
    /// Packets to and from the target arrive later. Only proxies can do it.
    Delay,
    /// Packets to and from the target overtake each other. Only proxies can do it.
    Reorder,
    /// The target's disk has no room.
    FullDisk,
    /// The target gives its slots away, and takes them again.
    Drain,
    /// One more node comes, takes slots, and leaves.
    Join,
    /// The target's wall clock is up to an hour off, and stays so; SIGTERM or SIGKILL, and started again.
    ClockJump,
    /// The target's clock runs too fast or too slow, within what is promised.
    ClockDrift,
    /// The target's disk reports an error when it should sync, and what was written since the last time is there or not.
    FailedFsync,
    /// The target loses its power in the middle of writes to its disk.
    TornWrite,
    /// As `Rolling`, but with another build, and the next time back.
    Upgrade,
    /// SIGSTOP, and the target's clock stands still meanwhile: the machine under it was stopped, as a hypervisor does it.
    VmStop,
    /// Nobody gets a new connection to the target; those that there are live, and so do those that it makes.
    Unconnectable,
    /// Answers of the target are lost, and the streams that they were to come on with them. Only proxies can do it.
    LostAnswers,
    /// All nodes are far from each other: round trips of 5 to 150 ms. Only proxies can do it.
    FarApart,
    /// The target's disk does not come back from a sync for some seconds, and reports nothing.
    HungFsync,
    /// More keys of one rule than the target's memory can hold.
    Flood,
    /// SIGTERM; its data directory is emptied before it is started again: another machine takes its place, under its name.
    Replace,
    /// Nobody reads the target's log, and it has much to say.
    StalledLog,
    /// One, some or all nodes end at the same time, and start again with their data at other addresses, or at those of each other.
    MoveAddresses,
    /// Some nodes leave by plan, one after the other, and come back; or more come than there were, and leave.
    Scale,
    /// The target gets another address, and a node of another cluster gets its former one.
    ReuseAddress,
    /// The target starts again, and the name by which it is told of the others stands for nothing yet.
    LateDns,
    /// A control, and none of `all`: the target's clock runs faster than is promised.
    ClockRunaway,
}

/// Which kinds never happen at the same time as another one of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// Something happens to a process.
    Process,
    /// Something happens to the network, or a node does not learn of what the others decide: promises about partitions hold.
    Network,
    /// Members, disks or clocks change.
    Members,
}

/// Whether a fault is a partition, as rules say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// Some do not reach others, or do not hear of what the others decide.
    Always,
    /// Everybody reaches everybody, if with trouble; where that is so much that nodes held owners for lost, it was a partition.
    IfLinksAreLost,
    /// It has nothing to do with it.
    Never,
}

impl Kind {
    /// All that promises are kept under.
    pub const ALL: [Self; 35] = [
        Self::Kill,
        Self::Pause,
        Self::Restart,
        Self::Wipe,
        Self::Rolling,
        Self::Halves,
        Self::MajorityRing,
        Self::OneWay,
        Self::Bridge,
        Self::Alone,
        Self::Slow,
        Self::Loss,
        Self::Double,
        Self::Delay,
        Self::Reorder,
        Self::FullDisk,
        Self::Drain,
        Self::Join,
        Self::ClockJump,
        Self::ClockDrift,
        Self::FailedFsync,
        Self::TornWrite,
        Self::Upgrade,
        Self::VmStop,
        Self::Unconnectable,
        Self::LostAnswers,
        Self::FarApart,
        Self::HungFsync,
        Self::Flood,
        Self::Replace,
        Self::StalledLog,
        Self::MoveAddresses,
        Self::Scale,
        Self::ReuseAddress,
        Self::LateDns,
    ];
    /// Those under which a promise must be seen to break.
    pub const CONTROLS: [Self; 1] = [Self::ClockRunaway];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Wipe => "wipe",
            Self::Rolling => "rolling",
            Self::Halves => "halves",
            Self::MajorityRing => "majority-ring",
            Self::OneWay => "one-way",
            Self::Bridge => "bridge",
            Self::Alone => "alone",
            Self::Slow => "slow",
            Self::Loss => "loss",
            Self::Double => "double",
            Self::Delay => "delay",
            Self::Reorder => "reorder",
            Self::FullDisk => "full-disk",
            Self::Drain => "drain",
            Self::Join => "join",
            Self::ClockJump => "clock-jump",
            Self::ClockDrift => "clock-drift",
            Self::FailedFsync => "failed-fsync",
            Self::TornWrite => "torn-write",
            Self::Upgrade => "upgrade",
            Self::VmStop => "vm-stop",
            Self::Unconnectable => "unconnectable",
            Self::LostAnswers => "lost-answers",
            Self::FarApart => "far-apart",
            Self::HungFsync => "hung-fsync",
            Self::Flood => "flood",
            Self::Replace => "replace",
            Self::StalledLog => "stalled-log",
            Self::MoveAddresses => "move-addresses",
            Self::Scale => "scale",
            Self::ReuseAddress => "reuse-address",
            Self::LateDns => "late-dns",
            Self::ClockRunaway => "clock-runaway",
        }
    }

    /// In which track it is.
    pub fn track(self) -> Track {
        match self {
            Self::Kill | Self::Pause | Self::Restart | Self::Wipe | Self::Rolling => Track::Process,
            Self::Replace | Self::MoveAddresses | Self::ReuseAddress | Self::LateDns => Track::Process,
            Self::ClockJump | Self::TornWrite | Self::Upgrade | Self::VmStop => Track::Process,
            Self::FullDisk | Self::Drain | Self::Join | Self::Flood | Self::StalledLog => Track::Members,
            Self::Scale => Track::Members,
            Self::ClockDrift | Self::ClockRunaway | Self::FailedFsync => Track::Members,
            _ => Track::Network,
        }
    }

    /// What it does to who can reach whom.
    pub fn cuts(self) -> Cuts {
        match self {
            Self::Halves | Self::MajorityRing | Self::OneWay | Self::Bridge | Self::Alone => Cuts::Always,
            Self::Unconnectable | Self::HungFsync => Cuts::Always,
            Self::Slow | Self::Loss | Self::Delay | Self::Reorder => Cuts::IfLinksAreLost,
            Self::LostAnswers | Self::FarApart => Cuts::IfLinksAreLost,
            _ => Cuts::Never,
        }
    }

    /// Whether a node's build must have fault injection for it.
    pub fn needs_orders(self) -> bool {
        matches!(
            self,
            Self::ClockJump
                | Self::ClockDrift
                | Self::ClockRunaway
                | Self::FailedFsync
                | Self::TornWrite
                | Self::VmStop
                | Self::HungFsync
        )
    }

    /// The kinds that a list like `kill,pause` or `all` or `none` names; `-kill` after them leaves one out again.
    ///
    /// # Errors
    /// With the part that names none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut kinds = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part {
                "all" => kinds.extend(Self::ALL),
                "none" => {}
                _ if part.starts_with('-') => {
                    let without = Self::parse_list(&part[1..])?;
                    kinds.retain(|kind| !without.contains(kind));
                }
                "partition" => kinds.extend(Self::ALL.iter().filter(|kind| {
                    matches!(
                        kind,
                        Self::Halves | Self::MajorityRing | Self::OneWay | Self::Bridge | Self::Alone
                    )
                })),
                _ => match Self::ALL.iter().chain(&Self::CONTROLS).find(|kind| kind.name() == part) {
                    Some(kind) => kinds.push(*kind),
                    None => {
                        let known: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
                        return Err(format!(
                            "{part:?} is none of all, none, partition, {}",
                            known.join(", ")
                        ));
                    }
                },
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        Ok(kinds)
    }
}

/// How many numbers a network has beyond those of the nodes: one that joins, two by which the cluster grows, and two of another
/// cluster.
pub const GUESTS: u8 = 5;

/// At whom a fault is aimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// The node that decides about the hottest key.
    HotOwner,
    /// The Raft leader.
    Leader,
    /// A node that gives or takes slots right now.
    Moving,
    /// Any.
    Random,
}

impl Aim {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::HotOwner => "owner of the hottest key",
            Self::Leader => "Raft leader",
            Self::Moving => "in mid-move",
            Self::Random => "random",
        }
    }
}

/// A fault that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What it was.
    pub kind: Kind,
    /// At whom.
    pub aim: Aim,
    /// The nodes that it was done to.
    pub targets: Vec<String>,
    /// What those were at that time, whatever the aim was.
    pub roles: Vec<Aim>,
    /// What exactly was done.
    pub what: String,
    /// When, in nanoseconds of the history's clock.
    pub begun: u64,
    /// When it was undone.
    pub ended: Option<u64>,
    /// When the targets said that they are ready again, if they were not.
    pub recovered: Option<u64>,
    /// How it is known that it hit: what was seen of it. `None`: nothing was.
    pub evidence: Option<String>,
    /// Where the nodes fell apart into groups of which each reaches all of its own and nobody else: these, by name.
    #[serde(default)]
    pub sides: Vec<Vec<String>>,
    /// What must not come of it and did.
    #[serde(default)]
    pub broke: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_kinds_is_what_it_names() {
        assert_eq!(Kind::parse_list("all").unwrap(), Kind::ALL);
        assert_eq!(Kind::parse_list("pause, kill,kill").unwrap(), [Kind::Kill, Kind::Pause]);
        assert_eq!(Kind::parse_list("none").unwrap(), []);
        assert_eq!(Kind::parse_list("partition").unwrap().len(), 5);
        assert_eq!(Kind::parse_list("kill,flood,pause,-flood,-kill").unwrap(), [Kind::Pause]);
        assert_eq!(Kind::parse_list("all,-partition").unwrap().len(), Kind::ALL.len() - 5);
        assert!(Kind::parse_list("all,-earthquake").is_err());
        assert!(Kind::parse_list("earthquake").unwrap_err().contains("majority-ring"));
    }
}
