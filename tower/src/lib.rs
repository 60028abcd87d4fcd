//! Tidegate as a [`tower`](https://docs.rs/tower) layer, for axum, tonic, and whatever else serves `http` requests.
//!
//! Each request is put to the nearest Tidegate node, or to a limiter inside this process; a request over its limit is
//! answered 429 (gRPC: `RESOURCE_EXHAUSTED`) and does not reach the service. Answers carry the `RateLimit` headers.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tidegate_tower::{OnFailure, Tidegate};
//!
//! # fn main() -> Result<(), tidegate_tower::ConfigError> {
//! let limited = Tidegate::nodes(["http://127.0.0.1:7800", "http://127.0.0.1:7810"])
//!     .domain("api")
//!     .header("x-user", "user") // this header is the attribute `user` of the rules
//!     .on_failure(OnFailure::Allow)
//!     .build()?;
//! let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(limited);
//! # Ok(()) }
//! ```
//!
//! In the order in which a request meets them:
//!
//! - [`Builder`]: what a request is asked about: by default `method`, `path` and `host`, and what you add.
//! - `nodes`: asks a node, the least busy of two, and another one if that does not answer. `local`: a limiter in here (the feature
//!   `local`, on by default; a service that only asks nodes can turn it off, and does not build `tidegate-limiter` then).
//! - [`Answer`]: what was decided; handlers find it in the request's extensions.
//! - [`Refusal`]: what a request over its limit is answered, unless you answer it ([`Builder::on_refused`]).
//!
//! # What it costs, and what happens when no node answers
//!
//! A request waits for one round trip to a node that should be on the same machine: some dozens of microseconds. It never
//! waits longer than [`Builder::timeout`] (150 ms, of which a node takes at most 100). A node that does not answer is not
//! asked for a while, so that requests do not wait for it, and its name is resolved anew then; when none answers, [`OnFailure`] decides. At most
//! [`Builder::max_in_flight`] checks are under way at once; one more counts as not answered.

mod answer;
mod builder;
mod facts;
mod layer;
#[cfg(feature = "local")]
mod local;
mod nodes;
mod refusal;
mod service;

pub use self::{
    answer::Answer,
    builder::{Builder, ConfigError},
    layer::{OnFailure, Tidegate},
    nodes::Unanswered,
    refusal::Refusal,
    service::{Limited, LimitedBody},
};
