//! What is known of slots whose floors are on the owner's own disk.

use std::collections::BTreeMap;

use crate::{
    ids::NodeStart,
    owner::floors::{Agreement, SuccessorRef},
};

/// What is known of slots that began from the disk.
#[derive(Debug, Default)]
pub(super) struct DiskSlots {
    /// Bound from the beginning, and not yet under the name of this start on the disk.
    pub(super) inherited: BTreeMap<u16, Agreement>,
    /// An earlier start had begun these from the disk's floors, and charged within them: the disk is to name it.
    pub(super) renamed: Vec<(u16, NodeStart, u64)>,
    /// Whether the log was read.
    pub(super) has_table: bool,
}

/// A slot that is to be kept on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskSlot {
    pub(crate) slot: u16,
    pub(crate) successor_ref: SuccessorRef,
    /// It has all floors already, and this agreement binds.
    pub(crate) inherited: Option<Agreement>,
}
