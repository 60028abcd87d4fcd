//! The limiting core of Tidegate: rules, algorithms and buckets. No I/O, no async, no clock of its own: time is an
//! argument.
//!
//! # For one process
//!
//! [`Keyed`] is one limit for many keys. Where rules say what is limited and by what, [`Limiter`] is all that is needed:
//!
//! ```
//! use tidegate_limiter::{Algorithm, Cost, Limit, Limiter, Nanos, NewRule};
//!
//! let now = Nanos::new(1_800_000_000_000_000_000); // nanoseconds since 1970, from a clock that does not step
//! let per_user = NewRule::new("per-user", Limit::parse("2/1m", None, Algorithm::TokenBucket)?).key("user");
//! let limiter = Limiter::builder().rule(per_user).build(now).map_err(|faults| faults[0].clone())?;
//!
//! let ada = [("user", "ada")];
//! assert!(limiter.check(&ada[..], Cost::ONE, now).allowed);
//! assert!(limiter.check(&ada[..], Cost::ONE, now).allowed);
//! let denied = limiter.check(&ada[..], Cost::ONE, now);
//! assert_eq!(denied.binding().unwrap().decision.retry_after.unwrap().as_secs(), 30);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # In parts
//!
//! In the order in which a check meets them:
//!
//! - [`Rules`]: what is limited; compiled from a rule file, matched with the [`Attributes`] of a request.
//! - [`KeyHash`]: the fingerprint of the bucket that a rule keeps for those attributes.
//! - [`Limit`]: how many units in which [`Period`], by which [`Algorithm`].
//! - [`Store`]: the buckets. It decides a [`Charge`], or several at once, and makes a [`Decision`].
//!
//! # What the algorithms promise
//!
//! For a limit of n units in a period p (and a burst b of the buckets, n unless said), the cost admitted in *any* interval
//! of length d is at most:
//!
//! | algorithm | bound | decisions | state |
//! | --- | --- | --- | --- |
//! | token bucket, leaky bucket | b + n·d/p | exact | 8 bytes |
//! | fixed window | n·(⌊d/p⌋ + 2), and n in each window | exact | 8 bytes |
//! | sliding window | n·(1 + d/p) | an estimate: the window before counts as evenly spread, and up to 1/128 too high | 8 bytes |
//! | sliding log | n·(⌊d/p⌋ + 1), that is n in any period | exact up to 65,536 admitted requests in a period | 16 bytes each |
//!
//! Costs are units from 0 (a look) to 2^53, times are nanoseconds, decisions tell times rounded up to a nanosecond.
//!
//! - A cost above the burst (or count) is denied for ever: no `retry_after`.
//! - A look ([`Cost::PEEK`]) is allowed if a cost of 1 would be, and takes nothing.
//! - Several rules: all must allow, else none is charged ([`Store::check_all`]).
//! - A changed count or burst keeps what was consumed: windows and the log in units, the two buckets in time (a bucket
//!   that needs ten seconds to be full again still does). Windows of another period begin anew, since they do not line up.
//! - Rates above 3.9 million units a second (windows: 488,000) are counted in coarser steps, each check rounded up.
//! - What time may do stands at [`Nanos`], what memory may do at [`StoreConfig`] and [`OnMemoryFull`], what a collision of fingerprints does
//!   at [`KeyHash`].
#![deny(unsafe_code)]

mod algorithm;
mod calendar;
mod condition;
mod decision;
mod describe;
mod index;
mod key;
mod keyed;
mod limit;
mod limiter;
mod limits;
mod nested;
mod parse;
mod reserve;
mod revised;
mod rule;
mod siphash;
mod store;
mod time;
mod touched;
mod typed;

pub mod cluster;
pub mod rules;

// What an application needs. `tests/structure.rs` counts it: a name more here is one more to read for everybody.
pub use self::{
    decision::{Answer, Cost, Decision},
    keyed::Keyed,
    limit::{Algorithm, Limit},
    limiter::{Limiter, LimiterBuilder, Verdict},
    time::Nanos,
    typed::NewRule,
};
// Inside of the crate each name is at the root.
use self::{
    decision::{Charge, Mode, OnMemoryFull, binding},
    key::{HashSecret, KeyHash, RuleId},
    limit::{LimitError, Period},
    parse::{DEFAULT_DOMAIN, RuleError},
    reserve::{Floor, Reserve, Reserves, Takeover},
    revised::LimitRef,
    rule::{Attributes, Consistency, Match, Matched, OnOwnerLoss, Rule, Rules},
    store::{Held, Store, StoreConfig, StoreStats, Swept},
};
