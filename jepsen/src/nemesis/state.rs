//! How far a fault is, and what is known of the nodes that it is done to.

use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::Kind;

/// A process that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Which node it was.
    pub node: String,
    /// When that was seen.
    pub at: u64,
    /// With which exit code; -1: by a signal.
    pub code: i32,
    /// Why that is wrong, if it is.
    pub wrong: Option<String>,
}

/// How far a fault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Undone when the time has come.
    On,
    /// The process was asked to stop: it is waited for since then.
    Stopping {
        since: u64,
    },
    /// All targets were ended or asked to end at that time. Then each that is named here goes to the address with that last byte, or all
    /// lose their data.
    Ending {
        since: u64,
        homes: Vec<(String, u8)>,
        forgets: bool,
    },
    /// Two nodes found another cluster, of which one is for the target's former address.
    Founding {
        since: u64,
        kills: bool,
    },
    /// That node has the address; the target starts again at that time.
    Beside {
        returns: u64,
    },
    /// That node was asked to end.
    Dismissing {
        since: u64,
    },
    /// Nodes leave, one after the other; the last one is next, or was asked to at that time.
    Leaving {
        left: Vec<String>,
        stopping: Option<u64>,
    },
    /// Nodes that are still to be restarted; the last one is being.
    Rolling {
        left: Vec<String>,
        stopping: Option<u64>,
    },
    /// Undone; the target becomes ready again.
    Recovering {
        since: u64,
    },
    Over,
}

/// A fault that is not over.
#[derive(Debug)]
pub(super) struct Active {
    /// Of the fault that is recorded.
    pub(super) fault: usize,
    pub(super) kind: Kind,
    /// The node; empty where it is one after the other.
    pub(super) target: String,
    pub(super) until: u64,
    pub(super) state: State,
    pub(super) looked: u64,
    /// What a clock had gained when that was first seen, by which process.
    pub(super) gained: Option<(u32, i64)>,
    /// A question that is on its way.
    pub(super) errand: Option<JoinHandle<bool>>,
    /// What the target had told before of what is counted.
    pub(super) before: u64,
    /// Whether the machine was stopped already.
    pub(super) stopped: bool,
}

/// Nodes that are not like the others.
#[derive(Debug, Clone, Default)]
pub struct Special {
    /// They own nothing.
    pub idle: Vec<String>,
    /// They have little memory.
    pub small: Vec<String>,
}
