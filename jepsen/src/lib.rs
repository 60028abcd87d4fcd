//! Black-box testing of Tidegate: real processes, real sockets, recorded histories, and checkers that know nothing of
//! the code.
//!
//! In the order in which a test meets them:
//!
//! - [`cluster`]: starts nodes, waits for what they say of themselves, stops and kills them, shows their logs when a
//!   test fails. [`node`]: one of them. [`ports`]: where they listen.
//! - [`client`]: asks a node over HTTP, with a deadline.
//! - [`load`]: many clients at once, each asking one question after the other.
//! - [`history`]: what was asked and answered, and when; also as a file, for later looks.
//! - [`workload`]: checks of each kind of rule; rules that are written meanwhile.
//! - [`nemesis`]: which faults there are, when they happen, at whom they are aimed. [`network`]: what
//!   lies between the nodes and can be cut. `names`: how they are told where the others are.
//! - [`machine`]: what a build for tests does to its own clock and disk.
//! - [`sampler`]: looks at the nodes meanwhile. [`campaign`]: a run with all of that. [`record`]: what is known of it.
//! - [`check`]: was more admitted than the limit allows, in any interval? A file a question. [`mod@judge`]: all of them.
//! - [`report`]: the verdict for a terminal, for a browser, and as a picture.
//! - [`starts`]: clusters that are founded, in whatever order their nodes come, and what is killed meanwhile.
//! - [`timing`]: how long the product takes for what plan and checkers count with.
//! - [`binary`], [`args`]: which program is a node, and what several command lines have in common.
//!
//! This crate depends on nothing of the product. The simulation, which does, is `jepsen/sim`.

pub mod args;
pub mod binary;
pub mod campaign;
pub mod check;
pub mod client;
pub mod cluster;
mod disk;
pub mod history;
pub mod judge;
pub mod load;
mod log_pipe;
pub mod machine;
mod names;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod ports;
pub mod record;
pub mod report;
pub mod sampler;
pub mod starts;
pub mod timing;
pub mod workload;
