//! Connections between nodes: long-lived streams with many checks in flight on each.

mod handshake;
mod in_flight;
mod incoming;
mod outgoing;

use tidegate_proto::peer::Outcome;

pub(crate) use self::{
    handshake::{Identity, call as call_peer, greet as greet_peer},
    incoming::{Answering, accept_peers},
    outgoing::{Link, NotSent},
};

/// An answer, with the id by which the check can be undone.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) outcome: Outcome,
}
