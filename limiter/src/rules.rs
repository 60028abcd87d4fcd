//! What rules and limits are made of beside what stands at the root, with their errors and statistics.

pub use crate::{
    attributes::Attributes,
    condition::short_form,
    cost::CostTooLarge,
    key::HashSecret,
    limit::{LimitError, MAX_REFILL},
    limiter::Ruled,
    parse::RuleError,
    pattern::{PatternForm, PatternText, is_like},
    period::{MAX_PERIOD, MIN_PERIOD, Period},
    policy::{Mode, OnMemoryFull},
    rule::Rule,
    store::{StoreStats, Swept},
};
