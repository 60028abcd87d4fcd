//! Black-box testing of Tidegate: real processes, real sockets, recorded histories, and checkers that know nothing of
//! the code.
//!
//! In the order in which a test meets them:
//!
//! - [`cluster`]: starts nodes, waits for what they say of themselves, stops and kills them, shows their logs when a
//!   test fails. [`node`]: one of them.
//! - [`client`]: asks a node over HTTP, with a deadline.
//! - [`load`]: many clients at once, each asking one question after the other.
//! - [`history`]: what was asked and answered, and when; also as a file, for later looks.
//! - [`workload`]: rules that are written while nodes are killed.
//! - [`check`]: was more admitted than the limit allows, in any interval? was as much admitted as should have been?

pub mod check;
pub mod client;
pub mod cluster;
pub mod history;
pub mod load;
pub mod netns;
pub mod node;
pub mod workload;
