//! What is done to a cluster while it is broken.

pub mod changes;
pub mod checks;
mod families;
pub mod flood;
pub mod limits;
pub mod rules;
