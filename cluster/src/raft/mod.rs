//! Consensus: Raft on this node, and what decides who belongs to the group and who leads it.
//!
//! - `handle`: what the tasks share. `consensus`: whether Raft runs, and what is wanted of it. `group`: starts Raft on a disk, and again when the disk has failed. `running`: Raft in
//!   between. `trial`: whether it works again.
//! - `log`: entries and vote on the disk. `disk`: the directory. `database`: a database of it as a file; `witness`: whether that is the
//!   newest. `files`: what is in it whole or not at all. `applied`: keeps for Raft what the entries add up to.
//! - `network`: Raft's own calls. `service`: answers those of others; `senders`: who may say what. `leader_client`: asks the
//!   leader, whoever that is. `reads`: linearizable reads of many clients at once.
//! - `bootstrap`: how the group is founded, once; `founding`: what is known of that. `survey`: what stands behind `--join`, asked before that. `belonging`: which
//!   cluster a node belongs to, decided once. `abandon`: a founding that was interrupted and is dead. `foreign`: a second
//!   cluster of the same name.
//! - `election`: who stands for election, and when; `heard`, `reach`: of whom this node has heard, and whom it could reach.
//!   `voters`: who should have a vote. `membership`: the task of the leader that keeps members and voters as they should be; `newcomers`: who
//!   gossips and has shown no certificate.
//! - `recovery`: one node continues when the quorum is lost permanently.

pub(crate) mod abandon;
#[cfg(test)]
mod adoption;
pub(crate) mod applied;
pub(crate) mod belonging;
pub(crate) mod bootstrap;
pub(crate) mod consensus;
pub(crate) mod database;
pub(crate) mod disk;
pub(crate) mod election;
pub(crate) mod files;
pub(crate) mod foreign;
pub(crate) mod founding;
pub(crate) mod group;
pub(crate) mod handle;
pub(crate) mod heard;
pub(crate) mod leader_client;
pub(crate) mod log;
pub(crate) mod membership;
pub(crate) mod network;
mod newcomers;
pub(crate) mod reach;
pub(crate) mod reads;
pub(crate) mod recovery;
pub(crate) mod running;
pub(crate) mod senders;
pub(crate) mod service;
#[cfg(test)]
mod suite;
pub(crate) mod survey;
pub(crate) mod trial;
pub(crate) mod voters;
pub(crate) mod witness;

pub use self::{
    files::DiskError,
    recovery::{RecoveryError, Remains},
};
