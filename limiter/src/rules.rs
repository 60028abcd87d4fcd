//! What rules and limits are made of beside what stands at the root, and what is told of them.

pub use crate::{
    decision::{CostTooLarge, Mode, OnMemoryFull},
    key::HashSecret,
    limit::{LimitError, MAX_PERIOD, MAX_REFILL, MIN_PERIOD, Period},
    limiter::Ruled,
    parse::RuleError,
    rule::{Attributes, Rule},
    store::{StoreStats, Swept},
};
