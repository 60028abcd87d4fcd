//! What rules and limits are made of beside what stands at the root, with their errors and statistics.

pub use crate::{
    attributes::Attributes,
    cost::CostTooLarge,
    key::HashSecret,
    limit::{LimitError, MAX_PERIOD, MAX_REFILL, MIN_PERIOD, Period},
    limiter::Ruled,
    parse::RuleError,
    policy::{Mode, OnMemoryFull},
    rule::Rule,
    store::{StoreStats, Swept},
};
