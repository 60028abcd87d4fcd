//! The HTTP front end.
//!
//! In the order in which a request meets them:
//!
//! - [`server`]: accepts connections and hands them to the worker threads; `connection` and `stream` are one of them.
//! - `quick`: answers whole checks where they lie, by `wire`; hyper gets what is something else.
//! - `front`: serves `/v1/check` itself and gives everything else to `routes`.
//! - `query`, `body`, `json`: what is asked, as a `request`.
//! - `check`: decides it, and `answer` writes that down; `batch` does it many times.
//! - `auth`, `path`: what a proxy asks before it lets a request through. `amend`: refunds and resets.
//! - `problem`: what is said when something is wrong.
//! - `openapi`: what all of it looks like, for programs.
//! - `members`, `exposition`: the cluster and the numbers, for people and for Prometheus.

mod amend;
mod answer;
mod auth;
mod batch;
mod body;
mod check;
mod connection;
mod exposition;
mod front;
mod json;
mod members;
mod openapi;
mod path;
mod problem;
mod query;
mod quick;
mod request;
mod routes;
mod rules;
pub mod server;
mod stream;
mod wire;

use bytes::Bytes;
use http_body_util::{Either, Full};

#[cfg(test)]
pub(crate) use self::answer::Policy;
pub use self::server::{Limits, serve};
pub(crate) use self::{
    amend::amend_as_check,
    answer::{Answer, Numbers},
    check::{check, check_group_here, check_here},
    front::Front,
    problem::{Kind as ProblemKind, Problem, echo},
    request::{AttributeList, CheckRequest, MAX_ATTRIBUTES, MAX_NAME_BYTES, MAX_VALUE_BYTES, Meant, Subject},
};
pub use crate::accept::ServerStats;

/// The body of an answer: bytes of ours, or what axum made.
pub(crate) type Body = Either<Full<Bytes>, axum::body::Body>;
