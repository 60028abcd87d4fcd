//! The limiting core of Tidegate. No I/O, no async, no clock of its own: time is an argument.
//!
//! In the order in which a check meets them:
//!
//! - [`Rules`]: what is limited; compiled from a rule file, matched with the [`Attributes`] of a request.
//! - [`KeyHash`]: the fingerprint of the bucket that a rule keeps for those attributes.
//! - [`Limit`]: how many units in which [`Period`], by which [`Algorithm`].
//! - [`Store`]: the buckets. It decides a [`Charge`], or several at once, and makes a [`Decision`].
//!
//! ```
//! use smallvec::SmallVec;
//! use tidegate_limiter::{Charge, Cost, HashSecret, Match, Nanos, Rules, Store, StoreConfig};
//!
//! let secret = HashSecret::new(*b"sixteen secret b");
//! let rules = Rules::from_yaml("rules: [{name: per-ip, key: [ip], limit: 2/1m}]", &secret).unwrap();
//! let now = Nanos::new(1_800_000_000_000_000_000);
//! let store = Store::new(StoreConfig::default(), now);
//!
//! let mut matched = SmallVec::new();
//! let found = rules.matching("default", &[("ip", "203.0.113.7")][..], &mut matched);
//! assert_eq!(found, Match::Rules);
//! let (rule, limit) = (matched[0].rule, *matched[0].limit.unwrap());
//! let charge = Charge { key: matched[0].key, limit, cost: Cost::ONE, mode: rule.mode(), floor: None };
//! assert!(store.check(&charge, now).allowed);
//! assert_eq!(store.check(&charge, now).remaining, 0);
//! assert_eq!(store.check(&charge, now).retry_after.unwrap().as_secs(), 30);
//! ```
#![forbid(unsafe_code)]

mod algorithm;
mod calendar;
mod condition;
mod decision;
mod index;
mod key;
mod limit;
mod limiter;
mod parse;
mod rule;
mod store;
mod time;
mod typed;

pub use self::{
    decision::{Charge, Cost, CostTooLarge, Decision, Mode, binding},
    key::{HashSecret, KeyHash},
    limit::{Algorithm, Limit, LimitError, MAX_PERIOD, MAX_REFILL, MIN_PERIOD, Period, UnknownAlgorithm},
    limiter::{Limiter, LimiterBuilder, Ruled, Verdict},
    parse::{DEFAULT_DOMAIN, MAX_KEY_PARTS, MAX_NAME_BYTES, RuleError},
    rule::{Attributes, Consistency, Match, Matched, OnOwnerLoss, Rule, Rules},
    store::{HoldId, Store, StoreConfig, StoreStats, Swept},
    time::Nanos,
    typed::NewRule,
};
