//! What the owner of a slot and its successor agree on, so that the successor may begin from *floors* (see
//! [`tidegate_limiter::cluster::Reserve`]): two state machines of values.
//!
//! - The owner is **bound**, or free. While it is bound, no charge goes beyond what the successor has acknowledged.
//! - The successor has all that it needs, it is **complete**, or buckets count as exhausted.
//!
//! **While a successor is complete that the log names, the owner is bound to it.** So the owner binds itself first, tells
//! the rest, and only then says that it was all. What is agreed is a [`Agreement`]: it names the owner's epoch, the log index
//! that named the successor, and the attempt. Another row in the log ends it: the owner is free as soon as it has applied
//! that row, and by then the log no longer lets the successor begin by that bond. Short of that, the owner is free only
//! once the successor has acknowledged a later attempt, in which it is not complete.

use serde::{Deserialize, Serialize};

use super::table::SlotRow;
use crate::ids::NodeStart;

/// Which row of the log is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SuccessorRef {
    /// Of the owner.
    pub(crate) epoch: u64,
    /// The log index that named the successor.
    pub(crate) named: u64,
}

impl SuccessorRef {
    /// What a row names, if it has this owner and a successor.
    pub(crate) fn of(owner: NodeStart, row: &SlotRow) -> Option<Self> {
        let named = row.successor.filter(|_| row.owner == owner)?.since;
        Some(Self { epoch: row.epoch, named })
    }
}

/// One attempt of an owner to have its successor know enough. Later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Agreement {
    pub(crate) naming: SuccessorRef,
    /// Counted by the owner, over all slots.
    pub(crate) attempt: u64,
    pub(crate) owner: NodeStart,
}

/// The owner's side, for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct FloorSender {
    naming: Option<SuccessorRef>,
    bond: Option<Agreement>,
    complete: bool,
}

impl FloorSender {
    /// Takes in what the log names now. True if that is another: then nothing that was acknowledged counts any more, and the
    /// owner is free.
    pub(crate) fn observe(&mut self, naming: Option<SuccessorRef>) -> bool {
        let is_other = self.naming != naming;
        if is_other {
            *self = Self { naming, bond: None, complete: false };
        }
        is_other
    }

    /// What the log names.
    pub(crate) fn naming(self) -> Option<SuccessorRef> {
        self.naming
    }

    /// Binds the owner, from now on until the log names another. False if it does so already.
    pub(crate) fn bind(&mut self, bond: Agreement) -> bool {
        let is_named = self.naming == Some(bond.naming);
        if is_named {
            (self.bond, self.complete) = (Some(bond), false);
        }
        is_named
    }

    /// The bond that binds.
    pub(crate) fn bond(self) -> Option<Agreement> {
        self.bond
    }

    /// The successor is complete, as far as the owner knows.
    pub(crate) fn completed(&mut self, bond: Agreement) {
        self.complete |= self.bond == Some(bond);
    }

    /// What was told is not enough any more.
    pub(crate) fn doubt(&mut self) {
        self.complete = false;
    }

    /// Whether there is nothing to do but to tell what is spent.
    pub(crate) fn is_complete(self) -> bool {
        self.complete
    }

    /// The successor has acknowledged that this attempt has begun, and nothing more was or will be said of it: the owner is
    /// free. False if it is bound by another one.
    pub(crate) fn free(&mut self, bond: Agreement) -> bool {
        let is_bound = self.bond == Some(bond) && !self.complete;
        if is_bound {
            self.bond = None;
        }
        is_bound
    }
}

/// The successor's side, for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct FloorReceiver {
    bond: Option<Agreement>,
    complete: bool,
}

impl FloorReceiver {
    /// An attempt begins: what was said to be complete is so no more. Whatever is older is over.
    pub(crate) fn begin(&mut self, bond: Agreement) {
        if self.bond.is_none_or(|known| known < bond) {
            *self = Self { bond: Some(bond), complete: false };
        }
    }

    /// All was told. False if this attempt is over.
    pub(crate) fn complete(&mut self, bond: Agreement) -> bool {
        let is_this = self.bond == Some(bond);
        self.complete |= is_this;
        is_this
    }

    /// Whether the successor may begin from what it was told by this owner, under what the log named last.
    pub(crate) fn may_begin(self, owner: NodeStart, naming: SuccessorRef) -> bool {
        self.complete && self.bond.is_some_and(|bond| bond.owner == owner && bond.naming == naming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: NodeStart = NodeStart { node: 1, incarnation: 1 };

    fn bond(named: u64, attempt: u64) -> Agreement {
        Agreement { naming: SuccessorRef { epoch: 5, named }, attempt, owner: OWNER }
    }

    #[test]
    fn a_successor_begins_only_when_all_was_told_and_the_log_still_names_it_by_that() {
        let mut heir = FloorReceiver::default();
        let naming = bond(7, 0).naming;
        heir.begin(bond(7, 1));
        assert!(!heir.may_begin(OWNER, naming));
        assert!(!heir.complete(bond(7, 0)) && heir.complete(bond(7, 1)));
        assert!(heir.may_begin(OWNER, naming));
        heir.begin(bond(7, 1));
        heir.begin(bond(6, 9));
        assert!(heir.may_begin(OWNER, naming), "what is repeated or late changes nothing");
        assert!(!heir.may_begin(NodeStart { incarnation: 2, ..OWNER }, naming));
        assert!(!heir.may_begin(OWNER, SuccessorRef { named: 9, ..naming }));
        heir.begin(bond(7, 2));
        assert!(!heir.may_begin(OWNER, naming));
        assert!(!heir.complete(bond(7, 1)), "a word that comes late");
    }

    #[test]
    fn an_owner_is_bound_until_the_log_names_another_or_the_successor_knows_that_it_is_not() {
        let mut teller = FloorSender::default();
        assert!(!teller.bind(bond(7, 1)));
        assert!(teller.observe(Some(bond(7, 0).naming)));
        assert!(teller.bind(bond(7, 1)));
        assert!(!teller.observe(Some(bond(7, 0).naming)));
        teller.completed(bond(7, 1));
        assert!(teller.is_complete() && !teller.free(bond(7, 1)));
        assert!(teller.bind(bond(7, 2)) && teller.bond() == Some(bond(7, 2)));
        assert!(teller.free(bond(7, 2)) && teller.bond().is_none());
        assert!(teller.bind(bond(7, 3)) && teller.observe(None) && teller.bond().is_none());
    }
}
