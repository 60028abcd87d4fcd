//! What rules and limits are made of beside what stands at the root, with their errors and statistics.

pub use crate::{
    address::Address,
    attributes::Attributes,
    cost::CostTooLarge,
    costs::Costs,
    key::HashSecret,
    limit::{LimitError, MAX_REFILL},
    limiter::Ruled,
    parse::RuleError,
    period::{MAX_PERIOD, MIN_PERIOD, Period},
    policy::{Mode, OnMemoryFull},
    rule::Rule,
    store::{StoreStats, Swept},
};
