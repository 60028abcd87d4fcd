//! A rate limiter for one process, and the limiting core of Tidegate: rules, algorithms and buckets. No I/O, no async, no thread.
//!
//! # One limit, many keys
//!
//! ```
//! use tidegate_limiter::{Cost, Keyed, Limit};
//!
//! let logins = Keyed::new(Limit::per_minute(2).burst(5))?;
//! for _ in 0..5 {
//!     assert!(logins.check_now("ada", Cost::ONE).is_allowed());
//! }
//! let denied = logins.check_now("ada", Cost::ONE);
//! assert!(!denied.is_allowed());
//! assert!(denied.decision().retry_after.is_some_and(|wait| wait.as_secs() <= 30));
//! # Ok::<(), tidegate_limiter::Error>(())
//! ```
//!
//! # Rules
//!
//! Where rules say what is limited and by what, of requests that have attributes, it is a [`Limiter`]:
//!
//! ```
//! use tidegate_limiter::{Cost, Limit, Limiter, NewRule};
//!
//! let limiter = Limiter::builder()
//!     .rule(NewRule::new("per-user", "100/1m".parse()?).key("user"))
//!     .rule(NewRule::new("logins", Limit::per_hour(2)).when("path", ["/login"]).key("ip"))
//!     .build()?;
//! let request = [("user", "ada"), ("ip", "203.0.113.7"), ("path", "/login")];
//! let verdict = limiter.check_now(&request, Cost::ONE);
//! assert!(verdict.allowed);
//! let remaining: Vec<u64> = verdict.rules().iter().map(|one| one.decision.remaining).collect();
//! assert_eq!(remaining, [99, 1]);
//! # Ok::<(), tidegate_limiter::Error>(())
//! ```
//!
//! All rules that are about a request must allow it, else none is charged. With the feature `yaml`, [`LimiterBuilder`] takes the
//! rule files that Tidegate's nodes have.
//!
//! # Coming from governor
//!
//! | governor | here |
//! | --- | --- |
//! | `Quota::per_second(nonzero!(50u32)).allow_burst(nonzero!(100u32))` | `Limit::per_second(50).burst(100)` |
//! | `RateLimiter::keyed(quota)` | `Keyed::new(limit)?`; a count of 0 denies |
//! | `RateLimiter::direct(quota)` | the same, with the key `&()` |
//! | `limiter.check_key(&key).is_ok()` | `limiter.check_now(&key, Cost::ONE).is_allowed()` |
//! | `limiter.check_key_n(&key, n)` | `limiter.check_now(&key, Cost::new(n)?)` |
//! | `not_until.wait_time_from(clock.now())` | `answer.decision().retry_after` |
//! | `FakeRelativeClock` | the time is an argument of `check`: give it any |
//! | `retain_recent()`, `shrink_to_fit()` | `sweep_now()`, in small steps; memory is bounded without it |
//! | `RateLimiter<String, ..>` | keys of any `Hash` type, borrowed too |
//!
//! ```
//! use std::time::Duration;
//! use tidegate_limiter::{Cost, Keyed, Limit, Nanos};
//!
//! // A test that does not wait: `check` where the program has `check_now`.
//! let limiter = Keyed::new(Limit::per_second(1))?;
//! let start = Nanos::new(1_800_000_000_000_000_000);
//! assert!(limiter.check(&("tenant", 42_u64), Cost::ONE, start).is_allowed());
//! assert!(!limiter.check(&("tenant", 42_u64), Cost::ONE, start).is_allowed());
//! let later = start.saturating_add(Duration::from_secs(1));
//! assert!(limiter.check(&("tenant", 42_u64), Cost::ONE, later).is_allowed());
//! # Ok::<(), tidegate_limiter::Error>(())
//! ```
//!
//! # What is where
//!
//! - Here: what an application names. What limits and rules are made of beside is in [`rules`].
//! - [`cluster`]: what Tidegate's nodes are made of. It changes in any release.
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
//! | sliding window | n·(1 + d/p) | an estimate: the window before counts as evenly spread up to its last unit, and above 256 as up to 1/128 too high | 8 bytes |
//! | sliding log | n·(⌊d/p⌋ + 1), that is n in any period | exact up to 65,536 admitted requests in a period | 16 bytes each |
//!
//! Costs are units from 0 (a look) to 2^53, times are nanoseconds, decisions tell times rounded up to a nanosecond.
//!
//! - A cost above the burst (or count) is denied for ever: no `retry_after`. A count of 0 denies every cost.
//! - A look ([`Cost::PEEK`]) is allowed if a cost of 1 would be, and takes nothing.
//! - Several rules: all must allow, else none is charged ([`Limiter::check`]).
//! - A limit that changes keeps what was consumed, in units, whatever it was and becomes; no wait is longer than the new limit needs
//!   to refill. (One process does not change its rules; nodes do: see [`Store::set_limits`](cluster::Store::set_limits).)
//! - Whoever waits for `retry_after` is admitted if nobody else came first, and at `reset_after` all units are there again.
//! - A client that always takes what it can get gets at least 0.95 of the count: of a sliding window of one or a few units, too
//!   (periods from 9 ms on). A full bucket can be emptied at once, at any rate.
//! - Rates above 3.9 million units a second (fixed windows: 4,000 million; sliding windows: 483,000) are counted in coarser steps, each
//!   check rounded up.
//! - What time may do stands at [`Nanos`], what memory may do at [`OnMemoryFull`], what a collision of fingerprints
//!   does at [`KeyHash`].
#![deny(unsafe_code)]
#![cfg_attr(
    not(feature = "yaml"),
    allow(dead_code, reason = "rules in Rust cannot say all that rule files can")
)]

mod about;
mod address;
mod algorithm;
mod answer;
mod attributes;
mod ban;
mod block;
mod calendar;
mod cardinality;
mod charge;
mod clock;
mod condition;
mod cost;
mod costs;
mod decision;
mod describe;
mod error;
mod floor;
mod index;
mod key;
mod keyed;
mod limit;
mod limit_bits;
mod limiter;
mod limits;
mod mark;
mod matching;
mod override_index;
mod parse;
mod pattern;
mod period;
mod policy;
mod prefix_index;
mod price;
mod reserve;
mod returned;
mod revised;
mod rfc3339;
mod rule;
mod rule_set;
mod siphash;
mod span;
mod store;
mod takeover;
mod time;
mod typed;

pub mod cluster;
pub mod rules;

// What an application needs. `tests/structure.rs` counts it: a name more here is one more to read for everybody.
pub use self::{
    answer::Answer,
    clock::SystemClock,
    cost::Cost,
    decision::Decision,
    error::Error,
    keyed::Keyed,
    limit::{Algorithm, Limit},
    limiter::{Limiter, LimiterBuilder, Verdict},
    time::Nanos,
    typed::NewRule,
};
// Inside of the crate each name is at the root.
use self::{
    attributes::Attributes,
    charge::Charge,
    costs::Costs,
    key::{HashSecret, KeyHash, RuleId},
    limits::LimitRef,
    mark::Mark,
    matching::Matched,
    parse::DEFAULT_DOMAIN,
    period::Period,
    policy::{Consistency, Mode, OnMemoryFull, OnOwnerLoss},
    reserve::{Reserve, Reserves},
    returned::Returned,
    rule::Rule,
    rule_set::{Match, Rules},
    store::{Store, StoreConfig, StoreStats, Swept},
    takeover::{OnTotalLoss, Takeover},
};
