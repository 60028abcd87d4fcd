//! What is done to a cluster while something breaks it.

pub mod rules;
