//! The arithmetic of each algorithm: functions of values, on ticks since the start of the store.

pub(crate) mod gcra;
