//! The cluster: many nodes, one answer.
//!
//! In the order in which a check meets them:
//!
//! - [`Router`]: who decides: this node, the owner of the slot, or the rule when no owner answers ([`DecidedBy`]).
//! - [`slots`]: which node owns which of the 4,096 parts of the key space.
//! - `link`: the long-lived connections on which nodes ask each other, plain or over TLS. `peer_port`: where they come in.
//! - `loss`: shares, for when no owner answers.
//!
//! Behind it, never on the way of a check:
//!
//! - [`state`]: what all must agree on, in one log: the rules, the members, the slots. [`raft`]: consensus about it. `rpc`: the
//!   calls between nodes for that. [`rules`]: written from any node, and put in force.
//! - `placement`: who should own each slot, and who take it over.
//! - [`owner`]: who may decide about a slot: state machines of values. `ownership`: the tasks around them. `controller`: the task
//!   that puts into force what they say of this node.
//! - `gossip`: who seems alive; a hint.
//! - [`backup`]: all of it in one file, and a data directory made of that.
//! - [`Cluster`]: assembles all of this and owns its tasks.
//! - [`clock`], `fabric`: where time, network and randomness enter. `simulation` (only in `jepsen/sim/cluster`, which compiles
//!   these sources once more): what a test puts in their place. `injection` (a feature): what it does to the machine under a real
//!   node.
//! - [`planted`]: bugs on purpose, for tests of the tests. `fuzzing` (a feature): what `fuzz/` calls.

pub mod backup;
pub mod clock;
mod config;
mod controller;
mod fabric;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gossip;
pub mod ids;
#[cfg(any(test, feature = "fault-injection"))]
#[cfg_attr(not(feature = "fault-injection"), allow(dead_code, reason = "here are only the tests of it"))]
mod injection;
pub mod key;
mod link;
mod loss;
mod machine_clock;
mod member;
mod names;
mod node;
pub mod owner;
mod ownership;
mod peer_port;
mod placement;
pub mod planted;
pub mod raft;
mod requests;
mod router;
mod routes;
mod rpc;
pub mod rules;
mod rules_in_force;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod slots;
pub mod state;
pub mod stats;
mod status;
mod verdict;
mod wire;

pub use self::{
    clock::Clock,
    config::{ClusterConfig, DEFAULT_PEER_PORT, PeerEncryption, PeerTls, SERVICE_PREFIX, Timing},
    gossip::is_valid_name,
    ids::{NoWeight, Weight},
    key::{ClusterKey, KeyError, KeyRing},
    member::{Member, MemberId, MemberRow, MemberState},
    node::{Cluster, ClusterStats, MemberError, StartError},
    router::{Amended, Look, Router},
    stats::GossipRejection,
    status::{ClusterStatus, Lost, Readiness},
    verdict::{
        Answer, Answers, CheckOptions, DecidedBy, Decisions, Local, LossPolicy, NotReady, Undecided, Verdict,
    },
};
pub use tidegate_proto::peer::Amendment;

/// What this build has for tests only. A release has nothing of it.
pub const TEST_FEATURES: &[&str] = &[
    #[cfg(feature = "fault-injection")]
    "fault injection",
    #[cfg(feature = "fuzzing")]
    "fuzzing",
    #[cfg(feature = "planted-bugs")]
    "planted bugs",
    #[cfg(feature = "simulation")]
    "simulation",
];
