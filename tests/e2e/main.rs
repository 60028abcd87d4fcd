//! Promises of whole clusters of real processes, a module for each promise, in one program: what waits for a server or an
//! election leaves the processors to the others, and there is one program to link.
//!
//! What needs a network between the nodes that can be cut is in `tests/network`, and what floods a node in `tests/alone`:
//! programs of their own.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "tests")]

mod kit;

mod access;
mod access_certificates;
mod access_cli;
mod access_front_ends;
mod addresses;
mod advertise;
mod algorithms;
mod answers;
mod attacks;
mod auth;
mod backup;
mod bad_peers;
mod bad_requests;
mod bans;
mod batch;
mod block;
mod calendar;
mod changed_limits;
mod connections;
mod damaged_disks;
mod deny;
mod dev;
mod envoy;
mod explain;
mod floors_on_disk;
mod foreign_pages;
mod forged_gossip;
mod founding;
mod framing;
mod grpc;
mod hung_disk;
mod hung_disk_streams;
mod import_nginx;
mod import_rules;
mod join;
mod key_rotation;
mod lost_answers;
mod many_rules;
mod middleware;
mod moves;
mod node_loss;
mod noise;
mod one_limit;
mod openapi;
mod pause;
mod peer_attacks;
mod peer_tls;
mod pipelining;
mod placement;
mod planned_stop;
mod plans;
mod proxies;
mod recovery;
mod refunds;
mod request_ids;
mod resp;
mod restart;
mod reused_addresses;
mod rules_behind;
mod rules_cli;
mod rules_data_dir;
mod rules_replicated;
mod rules_survive_kills;
mod rules_without_quorum;
mod sbom;
mod service_manager;
mod several_rules;
mod slow_disks;
mod spellings;
mod supervised;
mod takeover;
mod throttlecrab;
mod tls;
mod transactions;
mod version;
mod wide_network;
mod work_beside_checks;
