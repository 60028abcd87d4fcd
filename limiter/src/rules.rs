//! What rules and limits are made of beside what stands at the root, with their errors and statistics.

pub use crate::{
    attributes::Attributes,
    condition::reads_as_itself,
    cost::CostTooLarge,
    key::HashSecret,
    limit::{LimitError, MAX_REFILL},
    limiter::Ruled,
    parse::RuleError,
    pattern::{PatternForm, PatternText},
    period::{MAX_PERIOD, MIN_PERIOD, Period},
    policy::{Mode, OnMemoryFull},
    rule::Rule,
    store::{StoreStats, Swept},
};
