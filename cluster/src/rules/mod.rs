//! The rules of all domains: written from any node, read by all, put in force.
//!
//! - [`Ledger`]: takes a change at any node, brings it to the leader, and says what became of it. `status`: what a node can tell
//!   of the group. `service`: what other nodes ask for. `tokens`: the same for tokens and what else somebody asks for.
//! - `in_force`: compiles what the log says and puts it in force.

pub(crate) mod in_force;
pub(crate) mod ledger;
pub(crate) mod service;
pub(crate) mod status;
mod tokens;

pub use self::{
    ledger::{Ledger, NewRules, NoQuorum, Spread, WriteError},
    status::{GroupRole, GroupStatus},
    tokens::NewToken,
};
