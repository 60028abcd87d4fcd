//! Promises of clusters whose network is cut. A plain user's program is started again in a user namespace for that
//! (`kit::network`), with all tests that are in it: so these have a program of their own.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "tests")]

#[path = "../e2e/kit/mod.rs"]
mod kit;

mod late_names;
mod partition;
mod shares;
mod unreachable_leader;
