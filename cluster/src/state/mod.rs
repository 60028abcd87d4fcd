//! What all nodes agree on: the entries of the log, and what they add up to.
//!
//! - `command`: what is written. `machine`: what the entries add up to ([`Replicated`]), a state machine of values.
//!   `applied`: how far this node is.
//! - `types`, `runtime`: the types and the runtime that openraft uses.

pub(crate) mod applied;
pub(crate) mod command;
pub(crate) mod machine;
pub(crate) mod runtime;
pub(crate) mod types;

pub use self::{
    applied::Applied,
    command::{Expected, Extent, Founding, MAX_REMARK_BYTES, MAX_RULES_BYTES, Origin, Written},
    machine::{Change, DomainHistory, Replicated},
};
