//! Checkers: from a history to a verdict.

pub mod bound;
