//! What is done to a cluster while it is broken.

pub mod checks;
pub mod rules;
