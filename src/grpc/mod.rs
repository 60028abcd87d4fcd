//! The gRPC front end: Envoy's rate limit service and Gubernator's, health and reflection.
//!
//! In the order in which a request meets them:
//!
//! - [`server`]: accepts connections; `connection` is one of them, with its limits.
//! - `front`: the services of one worker thread, by path. `unary` is the way of a check that is answered at once, `stream`
//!   that of everything else, through tonic.
//! - `envoy`: descriptors in, decisions out. `gubernator`: limits that come with the requests. `health`: whether this node can decide.

mod connection;
mod envoy;
mod front;
mod gubernator;
mod health;
mod server;
mod stream;
mod unary;

use tonic::{Code, Status};

pub(crate) use self::server::serve;
use crate::{
    http::{Problem, ProblemKind},
    node::Node,
};

/// A problem as gRPC tells it. It is counted.
fn refused(node: &Node, lane: usize, problem: &Problem) -> Status {
    node.metrics[lane].count_problem(problem.kind);
    let code = match problem.kind {
        ProblemKind::NotReady | ProblemKind::OwnerUnreachable => Code::Unavailable,
        _ => Code::InvalidArgument,
    };
    Status::new(code, problem.detail.clone())
}
