//! The buckets of this node's slots, and what it knows of other nodes' buckets.

use std::{sync::Arc, time::Duration};

use tidegate_limiter::{
    Nanos,
    cluster::{Bucket, LetGo, Store},
};

use crate::{
    requests::Requests,
    slots::{SLOTS, SlotId},
};

/// The buckets that this node decides about, and what it needs to take over others.
pub(crate) struct Buckets {
    /// The buckets that this node decides about.
    pub(crate) store: Arc<Store>,
    /// The floors that owners have replicated to this node: apart, because a slot that comes by plan comes with more than floors.
    pub(crate) floors: Arc<Store>,
    /// What was charged lately, by the clients' names for it.
    pub(crate) requests: Arc<Requests>,
}

impl Buckets {
    /// Puts the floors of these slots where the buckets are, as if time had stood still for so long.
    pub(crate) fn inherit(&self, slots: &[usize], unheard: Duration, now: Nanos) {
        let mut wanted = vec![false; SLOTS];
        slots.iter().for_each(|slot| wanted[*slot] = true);
        let Self { store, floors, .. } = self;
        let is_wanted = |key| wanted[SlotId::of(key).index()];
        store.postpone(unheard, now);
        floors.buckets(now, is_wanted, |Bucket { key, rule, held }| {
            store.take_over(&Bucket { key, rule, held: held.postponed(unheard) }, now);
        });
        for LetGo { rule, held } in floors.let_go(now) {
            store.take_over_let_go(&LetGo { rule, held: held.postponed(unheard) }, now);
        }
    }
}
