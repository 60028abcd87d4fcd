//! Calls between nodes: Raft's own messages, and what else one node asks of another.
//!
//! A stream carries one call at a time: a `Call` frame, then its `Reply`. A call that is given up, for whatever reason, takes its
//! stream with it: an answer that comes late can then not be taken for that of another call. Each call names the cluster and the
//! node that it is meant for, so that what lies on a disk of another cluster, or was lost with a disk, is never mixed in.
//!
//! - `message`: the calls and answers. `buckets`: what some of them carry. `sane`: numbers that no cluster comes to.
//! - `caller`: asks. `connections`, `round_trip`: the streams that are kept for that, and how long answers take.
//! - `server`: answers, by whatever services it is given. `stream`: a stream with calls on it. `error`: why there is no answer.

pub(crate) mod buckets;
pub(crate) mod caller;
pub(crate) mod connections;
pub(crate) mod error;
#[cfg(test)]
mod golden;
pub(crate) mod message;
mod round_trip;
pub(crate) mod sane;
pub(crate) mod server;
mod stream;
