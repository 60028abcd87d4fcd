//! What rules and limits are made of beside what stands at the root, with their errors and statistics.

pub use crate::{
    address::Address,
    attributes::Attributes,
    calendar::{
        placed::{Calendar, Unit},
        starts::{NoDate, Starts},
        zone::{UnknownZone, Zone},
    },
    condition::short_form,
    cost::CostTooLarge,
    costs::Costs,
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
