//! The Redis protocol front end: a limiter for clients that speak to redis-cell or throttlecrab, unchanged.
//!
//! In the order in which bytes meet them:
//!
//! - [`server`]: accepts connections; `connection` is one of them: reads, answers in order, writes.
//! - `stopping`: how connections learn that the server stops.
//! - `request`: the words of a command, out of the bytes.
//! - `command`: what each command is; `throttle` has those that decide, `about` what a node tells of itself, `table` the list of all.
//! - `permission`: who may give which command.
//! - `session`: what a connection remembers between commands: whether answers are wanted, the transaction that is open; `room`: the memory
//!   for those of all connections.
//! - `identity`: what a connection is called.
//! - `reply`: answers as bytes, in RESP2 or, after `HELLO 3`, RESP3.

mod about;
mod command;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod identity;
mod permission;
mod reply;
mod request;
mod room;
mod server;
mod session;
mod stopping;
mod table;
mod throttle;

pub(crate) use self::server::serve;
