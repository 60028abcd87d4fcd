//! A rate limiter that is a cluster by itself: the node as a program.
//!
//! In the order in which a node comes to life:
//!
//! - [`cli`]: the command line. [`config`]: flags, environment and file become settings. `data_dir`: the node's name.
//! - [`serve`]: starts everything below, waits, and stops it. [`workers`]: the threads that answer checks.
//! - `accept`: lets connections in. [`ending`]: how it ends. [`http`], `grpc`, `resp`: the front ends, from a request's bytes to those of its answer.
//! - `tls`: connections of clients over TLS, and the files that this takes.
//! - `gubernator`: what Gubernator's clients ask, over gRPC and HTTP. `throttle`: the same of redis-cell and throttlecrab, over
//!   the Redis protocol and HTTP. [`client_address`]: whose request it is that a proxy asks about. `allowed_hosts`: the names under
//!   which people ask it. `access`: who may do what. `rate_limit_headers`: the headers that tell of limits.
//! - `check`: decides, for all front ends and knowing none of them, by what they share: `node`.
//! - `service_manager`: tells systemd how far the node is. `advertised`: the address that the others are told, by a name.
//!   `rules_file`: the rules, from a file. `secret_file`: a secret, from one that nobody else can read. `sweeper`: removes idle buckets.
//! - `metrics`, [`logging`], `lasting`, `process`: numbers and log lines about all of it; `lasting` logs a fault that persists.
//! - `authority`: certificates for nodes and clients. `key_file`: one cluster key after another.
//! - `import`: rules from the configuration of another limiter.
//! - `fuzzing` (a feature): what `fuzz/` calls.
//! - `client`: asks a node. `dev`: a whole cluster on this machine. `terminal`: what people read of them.

mod accept;
mod access;
mod advertised;
mod allowed_hosts;
mod authority;
mod check;
pub mod cli;
mod client;
pub mod client_address;
pub mod config;
mod connections;
mod data_dir;
mod desk;
mod dev;
pub mod ending;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grpc;
mod gubernator;
pub mod http;
mod import;
mod instant;
mod key_file;
mod lasting;
#[cfg(test)]
mod layers;
pub mod logging;
mod metrics;
mod node;
mod noise;
mod parts;
mod process;
mod rate_limit_headers;
mod resp;
mod rules_file;
mod seats;
mod secret_file;
pub mod serve;
mod service_manager;
mod sweeper;
mod terminal;
mod throttle;
mod tls;
mod turns;
pub mod workers;
