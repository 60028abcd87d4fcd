//! Forgetting what the store has of slots from before, on a thread of its own: see [`crate::owner::leftovers`].

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::warn;

use super::group::Shared;
use crate::{
    fabric,
    owner::{leftovers::Ready, table::SlotMove},
};

/// How often it is looked what tenures that have ended have left.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Forgets what tenures have left that are over, so that a slot which comes back finds nothing. All that have ended in a second at
/// one time: it is a look at the whole store.
pub(super) async fn forget_ended(shared: Arc<Shared>) {
    loop {
        sleep(FORGET_EVERY).await;
        let ended = shared.rights.leftovers().ended();
        shared.forget_leftovers(ended).await;
    }
}

impl Shared {
    /// Whoever gives this up, it is done.
    async fn forget_leftovers(self: &Arc<Self>, slots: Vec<u16>) {
        let shared = Arc::clone(self);
        let forget = move || shared.rights.leftovers().forget(&slots, &shared.store, shared.clock.now());
        if fabric::blocking(forget).await.is_err() {
            warn!("what is left of slots could not be forgotten: they do not come back");
        }
    }

    /// Whether buckets can come by these moves, that is whether nothing is there of the slots from before. If something is, it is
    /// being forgotten.
    pub(super) fn has_forgotten(self: &Arc<Self>, moves: impl Iterator<Item = SlotMove>) -> bool {
        match self.rights.leftovers().prepare(moves.map(|one| (one.slot, one.id))) {
            Ready::Yes => true,
            Ready::After(slots) => {
                if !slots.is_empty() {
                    let shared = Arc::clone(self);
                    tokio::spawn(async move { shared.forget_leftovers(slots).await });
                }
                false
            }
        }
    }
}
