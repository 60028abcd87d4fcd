//! The Raft group of the cluster: what all nodes must agree on, in one log.
//!
//! In the order in which a change of the rules meets them:
//!
//! - `ledger`: takes a change at any node, brings it to the leader, and says what became of it.
//! - `calls`: the streams between nodes on which that and Raft's own messages go.
//! - `log`: entries and vote on the disk. `disk`: the directory.
//! - `machine`: what the entries add up to ([`Replicated`]). `applied`: keeps that for Raft, with snapshots.
//! - `in_force`: compiles the rules and puts them in force.
//!
//! Behind it:
//!
//! - `formation`: how the group is founded, once. `survey`: what stands behind `--join`, asked before that. `belonging`: which
//!   cluster a node belongs to, decided once. `abandon`: a founding that was interrupted and is dead. `foreign`: a second
//!   cluster of the same name.
//! - `election`: who stands for election, and when; `reach`: whether the others could reach it. `voters`: who should have a vote.
//!   `steward`: the task of the leader that keeps members, voters and slots as they should be.
//! - `group`: starts Raft on a disk, and again when the disk has failed. `running`: Raft in between. `trial`: whether it
//!   works again. `status`: what a node tells of all this. `recovery`: one node goes on when most votes are lost for good.

mod abandon;
mod applied;
mod belonging;
mod calls;
mod chair;
mod command;
mod disk;
mod election;
mod foreign;
mod formation;
#[cfg(test)]
mod golden;
mod group;
mod in_force;
mod ledger;
mod log;
mod machine;
mod moves;
mod reach;
mod reads;
mod recovery;
mod running;
mod runtime;
mod saved;
mod sessions;
mod status;
mod steward;
#[cfg(test)]
mod suite;
mod survey;
mod tell;
mod trial;
mod voters;

use std::io::Cursor;

use crate::ids::{NodeId, RaftNode};

pub use self::{
    applied::Applied,
    command::{
        ClusterId, Expected, Extent, Founding, MAX_REMARK_BYTES, MAX_RULES_BYTES, MemberRow, NodeId, Origin,
        Revision, Written,
    },
    disk::DiskFault,
    ledger::{Ledger, NewRules, NoQuorum, Spread, WriteFault},
    machine::{Change, DomainHistory, Replicated},
    recovery::{RecoveryFault, Remains},
    status::{GroupRole, GroupStatus},
};
pub(crate) use self::{
    calls::{CallServer, serve_calls},
    foreign::Foreign,
    group::{GroupConfig, RaftGroup},
    in_force::InForce,
};

/// Longest entry of the log: the rules of a domain and what is around them.
const MAX_ENTRY_BYTES: usize = MAX_RULES_BYTES + (64 << 10);

/// Longest snapshot: all rules and texts of the history with what is around them.
const MAX_SNAPSHOT_BYTES: usize = 512 << 20;

openraft::declare_raft_types!(
    /// What the group is made of.
    pub(crate) Group:
        D = command::Command,
        R = command::Outcome,
        NodeId = NodeId,
        Node = RaftNode,
        Entry = openraft::Entry<Group>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = runtime::Runtime,
);
