//! Who may decide about a slot, at any instant at most one node.
//!
//! The log says who owns each slot (`table`); a *session* with the leader (`session`) says for how long a node may rely
//! on what it has applied; `node` is what a node makes of both, and `leader` what the leader does about it. These four
//! are state machines of values: time and news come in as arguments, so that the model checker of the tests explores the
//! same code that runs.

pub(crate) mod acknowledged;
#[cfg(test)]
mod disk_suite;
pub(crate) mod floor_replication;
#[cfg(test)]
mod floor_suite;
pub(crate) mod floors;
pub(crate) mod kept;
pub(crate) mod leader;
pub(crate) mod node;
pub(crate) mod session;
pub(crate) mod shares;
pub(crate) mod slot_ownership;
#[cfg(test)]
mod suite;
pub(crate) mod table;
pub(crate) mod takeover;

pub use self::table::{Move, SlotRow, Start, Successor, Table};
pub use crate::ids::{Leadership, NodeStart};
