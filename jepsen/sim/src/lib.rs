//! A whole cluster of Tidegate in one thread, on a simulated network, disk and clock: from one seed, the same history each time.
//!
//! The nodes are the code that runs in production, compiled once more with the seams of the feature `simulation`
//! (`jepsen/sim/cluster`), so that nothing else in the workspace gets that feature. The checkers are those of `jepsen`.
//!
//! - [`entropy`]: all randomness of a thread from one seed.
//! - [`plan`]: what a seed means: nodes, rules, loads, faults.
//! - [`themes`]: what a seed is about, so that it finds something. `workload`: the rules, and what each may admit.
//! - `node`: one node. `client`: who asks it. `world`: all of them, and what is done to them. `links`: the network between
//!   them.
//! - `observe`: what is seen of them. `verdict`, `steps`: whether the promises were kept. `trace`: panics, and what happened,
//!   for people.
//! - [`simulator`]: runs a seed. [`campaign`]: many seeds on several threads; a failing one is shrunk to the fewest faults
//!   that still fail. [`planted`]: in how many seeds a planted bug is found.

pub mod campaign;
mod client;
pub mod entropy;
mod links;
mod node;
mod observe;
pub mod outcome;
pub mod plan;
pub mod planted;
pub mod simulator;
mod steps;
pub mod themes;
mod trace;
mod verdict;
mod workload;
mod world;
