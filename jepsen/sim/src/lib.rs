//! A whole cluster of Tidegate in one thread, on a simulated network, disk and clock: from one seed, the same history each time.
//!
//! The nodes are the code that runs in production, compiled once more with the seams of the feature `simulation`
//! (`jepsen/sim/cluster`), so that nothing else in the workspace gets that feature. The checkers are those of `jepsen`.
//!
//! - [`entropy`]: all randomness of a thread from one seed.
//! - [`plan`]: what a run is: nodes, network, loads, faults. [`fault`]: what can happen. [`theme`]: what a seed is about, so that
//!   it finds something. `planner`: the plan of a seed. `moves`: that of one in which nodes move. `workload`: the rules, and what each may admit.
//! - `shared`: what nodes, clients and the world share. `node`: one node. `stranger`: one of another cluster. `client`: who asks it. `writers`: who changes rules.
//! - `links`: the network between the nodes. `world`: all of them, from the first start to the end. `injection`: what is done to
//!   them.
//! - `observe`: what is seen of them. `verdict`, `steps`: whether the promises were kept. `trace`: panics, and what happened,
//!   for people.
//! - [`simulator`]: runs a seed. [`campaign`]: many seeds on several threads; a failing one is shrunk to the fewest faults
//!   that still fail. [`planted`]: in how many seeds a planted bug is found.

pub mod campaign;
mod client;
pub mod entropy;
pub mod fault;
mod injection;
mod links;
mod moves;
mod node;
mod observe;
pub mod outcome;
pub mod plan;
mod planner;
pub mod planted;
mod shared;
pub mod simulator;
mod steps;
mod stranger;
pub mod theme;
mod trace;
mod verdict;
mod workload;
mod world;
mod writers;
