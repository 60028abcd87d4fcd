//! HTTP/1.1 on the accept loop, for whichever service: it knows none of the calls.
//!
//! In the order in which a request meets them:
//!
//! - `server`: hands connections to the worker threads. `service`: what it asks of what is served.
//! - `connection`: one of them, over a `stream`; `activity` is what its client does.
//! - `fast_path`: answers whole requests for one path where they lie, by `reply`; hyper gets what is something else.
//! - `head`: what hyper lets pass in the head of a request. `body`: reads its body.

mod activity;
mod body;
mod connection;
mod fast_path;
mod head;
mod reply;
mod server;
mod service;
mod stream;

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::fast_path::fuzzing;
pub(super) use self::{
    body::{BodyError, read},
    head::{HeadError, examine},
    service::{MAX_HEAD_BYTES, MAX_HEADERS},
};
pub use self::{
    reply::Replies,
    server::serve,
    service::{ConnectionService, Credentials, FastPath, Limits, Question, TransportError},
};
