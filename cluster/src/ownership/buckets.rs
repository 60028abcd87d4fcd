//! The buckets of this node's slots, where they come from and go to other than by a move: its own disk, and floors.

use std::{path::Path, time::Duration};

use tidegate_limiter::cluster::{Bucket, LetGo};

use super::saved;
use crate::{
    raft::handle::Shared,
    slots::{SLOTS, SlotId},
};

/// Decides nothing any more, and saves the buckets for the next start. How many are saved.
pub(crate) fn save(shared: &Shared, directory: &Path) -> Result<usize, String> {
    let Shared { ownership, store, clock, .. } = shared;
    saved::save(directory, ownership, store, clock.now())
}

/// Puts the floors of these slots where the buckets are, as if time had stood still for so long.
pub(crate) fn inherit(shared: &Shared, slots: &[usize], unheard: Duration) {
    let mut wanted = vec![false; SLOTS];
    slots.iter().for_each(|slot| wanted[*slot] = true);
    let Shared { store, floors, clock, .. } = shared;
    let now = clock.now();
    let is_wanted = |key| wanted[SlotId::of(key).index()];
    store.postpone(unheard, now);
    floors.buckets(now, is_wanted, |Bucket { key, rule, held }| {
        store.take_over(&Bucket { key, rule, held: held.postponed(unheard) }, now);
    });
    for LetGo { rule, held } in floors.let_go(now) {
        store.take_over_let_go(&LetGo { rule, held: held.postponed(unheard) }, now);
    }
}
