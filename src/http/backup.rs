//! `GET /v1/backup`: what a backup is made of, for `tidegate backup`. All that is replicated comes from any node, what the buckets
//! have used from each node for the slots that it owns.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tidegate_cluster::{rules::WriteError, slots::SLOTS};
use tokio::time::Instant;

use super::tokens;
use crate::{
    check::{Problem, ProblemKind},
    desk::Work,
    node::Node,
};

/// How long a node may take to hear of all that was acknowledged.
const LATEST_WITHIN: Duration = Duration::from_secs(5);

/// Of which slots.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlotOptions {
    first: u16,
    last: u16,
}

/// The beginning of a backup, with all that was acknowledged before.
pub(super) async fn beginning(node: &Arc<Node>) -> Result<Vec<u8>, Problem> {
    let latest = node.cluster.ledger().latest(Instant::now() + LATEST_WITHIN).await;
    let applied = latest.map_err(|missing| tokens::problem(&WriteError::NoQuorum(missing)))?;
    let with = Arc::clone(node);
    node.desk.work(Work::Read, move || with.cluster.backup(&applied)).await?.map_err(too_large)
}

/// The buckets of some slots, where they are this node's.
pub(super) async fn buckets(node: &Arc<Node>, options: &SlotOptions) -> Result<Vec<u8>, Problem> {
    let SlotOptions { first, last } = *options;
    if first > last || usize::from(last) >= SLOTS {
        let detail = format!("first and last name slots from 0 to {}, not {first} to {last}", SLOTS - 1);
        return Err(Problem::new(ProblemKind::InvalidValue, detail));
    }
    let with = Arc::clone(node);
    let work = move || with.cluster.backup_buckets(first, last);
    node.desk.work(Work::Read, work).await?.map_err(too_large)
}

fn too_large(reason: String) -> Problem {
    Problem::new(ProblemKind::NoRoom, format!("it is too large for a backup: {reason}"))
}
