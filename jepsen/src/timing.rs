//! How long the product takes for what both the plan of a run and its checkers count with.

/// How long a session lasts (`Timing::session`): nobody else gets a node's slots before.
pub const SESSION: u64 = 2_200_000_000;
/// After the network is whole again, old and new owner may both still decide: a session, and a takeover.
pub const PARTITION_LINGERS: u64 = SESSION + 2_800_000_000;
