//! The gRPC front end: Envoy's rate limit service and Gubernator's, health and reflection.
//!
//! In the order in which a request meets them:
//!
//! - [`server`]: accepts connections; `connection` is one of them, with its limits; `frames` is what lies beneath it: bytes.
//! - `front`: the services of one worker thread, by path. `unary` is the way of a check that is answered at once, `stream`
//!   that of everything else, through tonic; `outgoing` is what a client has not taken of its answers.
//! - `envoy`: descriptors in, decisions out. `gubernator`: limits that come with the requests. `health`: whether this node can decide.
//! - `refusal`: what is said when something is wrong.

mod connection;
mod envoy;
mod frames;
mod front;
mod gubernator;
mod health;
mod outgoing;
mod refusal;
mod server;
mod stream;
mod unary;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::envoy::fuzzing;
pub(crate) use self::server::serve;
