//! Promises under floods, which take every processor there is: one after the other, in a program of its own, so that they
//! neither disturb what is measured elsewhere nor are disturbed.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "tests")]

#[path = "../e2e/kit/mod.rs"]
mod kit;

mod denied_floods;
mod id_flood;
mod key_flood;
