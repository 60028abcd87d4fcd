//! What the log is made of, as openraft wants to know it.

use std::io::Cursor;

use super::{command, runtime};
use crate::ids::{NodeId, RaftNode};
use command::MAX_RULES_BYTES;

/// Longest entry of the log: the rules of a domain and what is around them.
pub(crate) const MAX_ENTRY_BYTES: usize = MAX_RULES_BYTES + (64 << 10);

/// Longest snapshot: all rules and texts of the history with what is around them.
pub(crate) const MAX_SNAPSHOT_BYTES: usize = 512 << 20;

openraft::declare_raft_types!(
    /// What the group is made of.
    pub(crate) Group:
        D = command::Command,
        R = command::Outcome,
        NodeId = NodeId,
        Node = RaftNode,
        Entry = openraft::Entry<Group>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = runtime::Runtime,
);
