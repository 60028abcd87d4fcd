//! The answer to a check as HTTP has it, written without a detour into one buffer.
//!
//! - `json`: its JSON.
//! - `response`: the whole response for hyper, to the client that asked or to a proxy.
//! - `wire`: the same as the bytes of an HTTP/1.1 message, for the fast path.
//! - `denial`: what a client is told when a proxy has asked for it.

mod denial;
mod json;
mod response;
mod wire;

pub(super) use self::json::millis;
