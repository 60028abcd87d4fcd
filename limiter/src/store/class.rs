//! The small number that stands for a rule in a store; `classes.rs` gives them out.

/// Bits of a class.
pub(super) const MAX_CLASS_BITS: u32 = 10;

/// A class: below 2^10.
pub(super) type Class = u16;
