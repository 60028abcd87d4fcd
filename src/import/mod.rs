//! Rules from the configuration of another limiter.
//!
//! - `envoy`: envoyproxy/ratelimit's YAML, read as a `tree`.
//! - `nginx`: `limit_req_zone` and `limit_req`, of all files that include each other.
//!
//! Both read `sources`, texts that follow each other, and make an `imported`. What a rule cannot say is not guessed: each such thing is a remark with its line.

mod envoy;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod imported;
mod nginx;
mod sources;
mod tree;

pub(crate) use self::{
    envoy::read as envoy,
    imported::{Imported, NotRead},
    nginx::read as nginx,
    sources::{SourceError, Sources},
};
