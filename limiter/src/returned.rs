//! Units of an earlier charge that are given back.

use crate::{cost::Cost, time::Nanos};

/// Units of a charge that was made before, to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// So many.
    pub units: Cost,
    /// Units of the same charge that were not given back before and are not now.
    pub kept: Cost,
    /// When it was made.
    pub charged: Nanos,
}
