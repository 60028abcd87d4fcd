//! The HTTP front end.
//!
//! In the order in which a request meets them:
//!
//! - [`transport`]: connections, and the fast path past hyper.
//! - `front`: serves `/v1/check` and `/v1/auth` itself and gives everything else to `routes`. `calls`: which there are.
//! - `guard`: keeps web pages of others away from the calls that are for people. `needs`: what who asks must have a token for.
//! - `query`, `json`, `fields`: what is asked, as a check. `auth`, `path`: the same of what a proxy asks before it lets a
//!   request through.
//! - `answer`: what is answered; `batch` does it many times. `amend`: refunds and resets.
//! - `foreign`: the calls of other limiters' clients.
//! - `problem`: what is said when something is wrong. `response`: the body of any response.
//! - `rules`, `members`, `tokens`, `audit`: the rules and the cluster, who may do what and who did, for people.
//! - `openapi`: what all of it looks like, for programs.

mod amend;
mod answer;
mod answers;
mod audit;
mod auth;
mod backup;
mod batch;
mod calls;
mod explain;
mod fields;
mod foreign;
mod front;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guard;
mod json;
mod members;
mod needs;
mod openapi;
mod path;
mod problem;
mod query;
mod response;
mod routes;
mod rules;
mod tokens;
pub mod transport;

pub(crate) use self::front::Front;
pub use self::transport::{Limits, serve};
pub use crate::{accept::ServerStats, tls::Acceptor};
