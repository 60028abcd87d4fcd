//! Where slots that begin get their buckets from: the floors that their owner has sent, or this node's disk.

use std::time::Duration;

use tidegate_limiter::cluster::{KeyHash, Mark};

use super::context::Context;
use crate::owner::slot_ownership::Heritage;

/// What this node has, as the log has it.
pub(crate) struct Inherited<'c> {
    pub(crate) context: &'c Context,
    /// Whether the rules in force are those of the log: floors that were sent under those before may be behind what was admitted
    /// under others since.
    pub(crate) are_in_force: bool,
    /// Whether the log gives shares to nobody else.
    pub(crate) is_alone: bool,
}

impl Heritage for Inherited<'_> {
    fn take_floors(&mut self, slots: &[usize], unheard: Duration) -> bool {
        if self.are_in_force {
            self.context.buckets.inherit(slots, unheard, self.context.group.clock.now());
        }
        self.are_in_force
    }

    fn take_from_disk(&mut self, slots: &[usize], puts: bool) -> Option<Vec<(KeyHash, Mark)>> {
        let disk = self.context.disk.as_ref().filter(|_| self.are_in_force)?;
        disk.take(slots, puts, self.is_alone, &self.context.buckets.store, self.context.group.clock.now())
    }

    fn has_disk(&self) -> bool {
        self.are_in_force && self.context.disk.as_ref().is_some_and(|disk| disk.has_left())
    }

    fn is_alone(&self) -> bool {
        self.is_alone
    }
}
