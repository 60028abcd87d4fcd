//! The tasks around who owns which slot; what they decide is in `owner`, which knows no task and no network.
//!
//! - `leader_task`: sees to it that each slot has the owner that it should have, while this node leads.
//! - `session_task`: asks for a session, and grants them. `taken_over`: asks whether others own this node's slots, when it does
//!   not follow the log.
//!   `earlier_start`: waits for whoever may still run where the disk comes from.
//! - `hand_over`: sends the buckets of slots that move by plan, and takes them. `floor_task`: replicates floors to successors.
//! - `disk_task`: keeps floors on this node's disk. `floor_file`: the file. `disk_time`: its clock. `from_disk`: what is there at the
//!   start. `heritage`: where slots that begin get their buckets from.
//! - `buckets`: the buckets, and those that come from floors. `saved`: those that come from this node's disk.
//! - `service`: what other nodes ask for. `context`: what all of these share.

pub(crate) mod buckets;
pub(crate) mod context;
pub(crate) mod disk_task;
mod disk_time;
pub(crate) mod earlier_start;
pub(crate) mod floor_file;
pub(crate) mod floor_task;
pub(crate) mod from_disk;
pub(crate) mod hand_over;
pub(crate) mod heritage;
pub(crate) mod leader_task;
pub(crate) mod saved;
pub(crate) mod service;
pub(crate) mod session_task;
mod taken_over;
