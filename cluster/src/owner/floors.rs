//! What the owner of a slot and its successor agree on, so that the successor may begin from *floors* (see
//! [`tidegate_limiter::cluster::Reserve`]): two state machines of values.
//!
//! - The owner is **bound**, or free. While it is bound, no charge goes beyond what the successor has acknowledged.
//! - The successor has all that it needs, it is **complete**, or buckets count as exhausted.
//!
//! **While a successor is complete that the log names, the owner is bound to it.** So the owner binds itself first, sends
//! the rest, and only then says that it was all. An [`Agreement`] names the owner's epoch, the log index
//! that named the successor, and the attempt. Another row in the log ends it: the owner is free as soon as it has applied
//! that row, and by then the log no longer lets the successor begin by that agreement. Short of that, the owner is free only
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
    pub(crate) successor_ref: SuccessorRef,
    /// Counted by the owner, over all slots.
    pub(crate) attempt: u64,
    pub(crate) owner: NodeStart,
}

/// The owner's side, for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct FloorSender {
    successor_ref: Option<SuccessorRef>,
    agreement: Option<Agreement>,
    complete: bool,
}

impl FloorSender {
    /// Takes in what the log names now. True if that is another: then nothing that was acknowledged counts any more, and the
    /// owner is free.
    pub(crate) fn observe(&mut self, successor_ref: Option<SuccessorRef>) -> bool {
        let is_other = self.successor_ref != successor_ref;
        if is_other {
            *self = Self { successor_ref, agreement: None, complete: false };
        }
        is_other
    }

    /// What the log names.
    pub(crate) fn successor_ref(self) -> Option<SuccessorRef> {
        self.successor_ref
    }

    /// Binds the owner, from now on until the log names another. False if it does so already.
    pub(crate) fn bind(&mut self, agreement: Agreement) -> bool {
        let is_named = self.successor_ref == Some(agreement.successor_ref);
        if is_named {
            (self.agreement, self.complete) = (Some(agreement), false);
        }
        is_named
    }

    /// The agreement that binds.
    pub(crate) fn agreement(self) -> Option<Agreement> {
        self.agreement
    }

    /// The successor is complete, as far as the owner knows.
    pub(crate) fn completed(&mut self, agreement: Agreement) {
        self.complete |= self.agreement == Some(agreement);
    }

    /// What was sent is not enough any more.
    pub(crate) fn doubt(&mut self) {
        self.complete = false;
    }

    /// Whether there is nothing to do but to send what is spent.
    pub(crate) fn is_complete(self) -> bool {
        self.complete
    }

    /// The successor has acknowledged that this attempt has begun, and nothing more was or will be said of it: the owner is
    /// free. False if it is bound by another one.
    pub(crate) fn free(&mut self, agreement: Agreement) -> bool {
        let is_bound = self.agreement == Some(agreement) && !self.complete;
        if is_bound {
            self.agreement = None;
        }
        is_bound
    }
}

/// The successor's side, for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct FloorReceiver {
    agreement: Option<Agreement>,
    complete: bool,
}

impl FloorReceiver {
    /// An attempt begins: what was said to be complete is so no more. Whatever is older is over.
    pub(crate) fn begin(&mut self, agreement: Agreement) {
        if self.agreement.is_none_or(|known| known < agreement) {
            *self = Self { agreement: Some(agreement), complete: false };
        }
    }

    /// All was received. False if this attempt is over.
    pub(crate) fn complete(&mut self, agreement: Agreement) -> bool {
        let is_this = self.agreement == Some(agreement);
        self.complete |= is_this;
        is_this
    }

    /// Whether the successor may begin from the floors of this owner, under what the log named last.
    pub(crate) fn may_begin(self, owner: NodeStart, successor_ref: SuccessorRef) -> bool {
        self.complete
            && self
                .agreement
                .is_some_and(|agreement| agreement.owner == owner && agreement.successor_ref == successor_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: NodeStart = NodeStart { node: 1, incarnation: 1 };

    fn agreement(named: u64, attempt: u64) -> Agreement {
        Agreement { successor_ref: SuccessorRef { epoch: 5, named }, attempt, owner: OWNER }
    }

    #[test]
    fn a_successor_begins_only_when_all_floors_are_there_and_the_log_still_names_it_by_that() {
        let mut receiver = FloorReceiver::default();
        let successor_ref = agreement(7, 0).successor_ref;
        receiver.begin(agreement(7, 1));
        assert!(!receiver.may_begin(OWNER, successor_ref));
        assert!(!receiver.complete(agreement(7, 0)) && receiver.complete(agreement(7, 1)));
        assert!(receiver.may_begin(OWNER, successor_ref));
        receiver.begin(agreement(7, 1));
        receiver.begin(agreement(6, 9));
        assert!(receiver.may_begin(OWNER, successor_ref), "what is repeated or late changes nothing");
        assert!(!receiver.may_begin(NodeStart { incarnation: 2, ..OWNER }, successor_ref));
        assert!(!receiver.may_begin(OWNER, SuccessorRef { named: 9, ..successor_ref }));
        receiver.begin(agreement(7, 2));
        assert!(!receiver.may_begin(OWNER, successor_ref));
        assert!(!receiver.complete(agreement(7, 1)), "an update that comes late");
    }

    #[test]
    fn an_owner_is_bound_until_the_log_names_another_or_the_successor_knows_that_it_is_not() {
        let mut sender = FloorSender::default();
        assert!(!sender.bind(agreement(7, 1)));
        assert!(sender.observe(Some(agreement(7, 0).successor_ref)));
        assert!(sender.bind(agreement(7, 1)));
        assert!(!sender.observe(Some(agreement(7, 0).successor_ref)));
        sender.completed(agreement(7, 1));
        assert!(sender.is_complete() && !sender.free(agreement(7, 1)));
        assert!(sender.bind(agreement(7, 2)) && sender.agreement() == Some(agreement(7, 2)));
        assert!(sender.free(agreement(7, 2)) && sender.agreement().is_none());
        assert!(sender.bind(agreement(7, 3)) && sender.observe(None) && sender.agreement().is_none());
    }
}
