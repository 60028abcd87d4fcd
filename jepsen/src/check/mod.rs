//! What a history must fulfil.

pub mod bound;
pub mod ledger;
pub mod linear;
