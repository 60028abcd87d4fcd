//! The tokens that the log says, as it is applied.

use std::{sync::Arc, time::Duration};

use tidegate_cluster::rules::Ledger;
use tokio::time::Instant;

use super::Access;

/// How long a quorum is asked at a time what the log had at the start. It is asked until it answers.
const ASK_FOR: Duration = Duration::from_secs(5);

/// Begins to publish each state that is applied.
pub(crate) fn follow(access: &Arc<Access>, ledger: &Ledger) {
    let mut applied = ledger.watch();
    access.publish(&applied.borrow());
    let publishing = Arc::clone(access);
    tokio::spawn(async move {
        while applied.changed().await.is_ok() {
            publishing.publish(&applied.borrow_and_update());
        }
    });
    let (access, ledger) = (Arc::clone(access), ledger.clone());
    tokio::spawn(async move {
        loop {
            if let Ok(latest) = ledger.latest(Instant::now() + ASK_FOR).await {
                return access.publish_latest(&latest);
            }
        }
    });
}
