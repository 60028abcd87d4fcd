//! What a seed is about. A bit of everything in each run finds little: what breaks a promise needs a certain fault, aimed at a
//! certain node, under a certain load. So each seed turns on a few faults that have to do with each other, strongly, on the load
//! that shows them; every fourth is a mixture of anything.

use fastrand::Rng;

/// What a seed is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Theme {
    /// Anything, of everything a bit.
    Mixed,
    /// Nodes crash, hang and restart, and nothing is cut.
    Crashes,
    /// Owners crash beside nodes that answer and own nothing.
    OwningNothing,
    /// Nobody can connect to the owner of a carved rule, and it goes on.
    LonelyOwner,
    /// Nobody can connect to the leader, and it goes on.
    LonelyLeader,
    /// Slots move, and answers to hand-overs are lost.
    LostAnswers,
    /// Slots move to and fro, and calls arrive late.
    LateCalls,
    /// A disk does not answer.
    HungDisk,
    /// A limit is lowered while a node does not hear of it.
    Lowered,
    /// Rules lose their floors and get them again, and owners crash.
    Floors,
    /// A leader is stopped while it expires a session.
    StoppedLeader,
    /// A virtual machine is stopped.
    Stun,
    /// A small memory is flooded.
    Memory,
    /// Nodes with the same arguments start while the first ones found a cluster.
    Founding,
    /// Nodes are far from each other.
    Far,
    /// Gossip is lost, late, and comes twice.
    Datagrams,
    /// Long sessions, and clocks at the ends of what they may differ.
    Clocks,
    /// Elections, and power that goes.
    Votes,
    /// Nodes come back at other addresses, leave and come, and their addresses are given to others.
    Moves,
}

/// Of so many seeds this one is about moves. It came later: so all other seeds mean what they meant.
const MOVES: (u64, u64) = (20, 19);

impl Theme {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Mixed,
        Self::Crashes,
        Self::OwningNothing,
        Self::LonelyOwner,
        Self::LonelyLeader,
        Self::LostAnswers,
        Self::LateCalls,
        Self::HungDisk,
        Self::Lowered,
        Self::Floors,
        Self::StoppedLeader,
        Self::Stun,
        Self::Memory,
        Self::Founding,
        Self::Far,
        Self::Datagrams,
        Self::Clocks,
        Self::Votes,
        Self::Moves,
    ];

    /// Of 24 seeds so many are about it. Moves have seeds of their own ([`MOVES`]).
    fn weight(self) -> usize {
        match self {
            Self::Mixed => 5,
            Self::Crashes | Self::StoppedLeader => 2,
            Self::Moves => 0,
            _ => 1,
        }
    }

    /// What this seed is about.
    pub(super) fn of(seed: u64, dice: &mut Rng) -> Self {
        let any = Self::any(dice);
        if seed % MOVES.0 == MOVES.1 { Self::Moves } else { any }
    }

    fn any(dice: &mut Rng) -> Self {
        let all: usize = Self::ALL.iter().map(|theme| theme.weight()).sum();
        let mut thrown = dice.usize(..all);
        for theme in Self::ALL {
            match thrown.checked_sub(theme.weight()) {
                Some(rest) => thrown = rest,
                None => return theme,
            }
        }
        Self::Mixed
    }

    pub(super) fn nodes(self, dice: &mut Rng) -> usize {
        match self {
            Self::Mixed | Self::Datagrams => [3, 3, 3, 5, 1, 2, 4, 5, 3, 7, 3, 9][dice.usize(..12)],
            Self::OwningNothing => dice.usize(5..=7),
            Self::LonelyLeader => dice.usize(6..=7),
            Self::LonelyOwner => dice.usize(3..=5),
            Self::Founding => dice.usize(6..=12),
            Self::Crashes | Self::Floors | Self::LateCalls | Self::LostAnswers => {
                [3, 3, 4, 5][dice.usize(..4)]
            }
            Self::StoppedLeader => 3,
            Self::Moves => [3, 3, 4, 5, 5, 7][dice.usize(..6)],
            _ => [3, 3, 3, 5][dice.usize(..4)],
        }
    }
}
