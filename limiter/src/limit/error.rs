//! Why numbers or a text are no limit.

use std::time::Duration;

use super::algorithm::Algorithm;

/// Why numbers or a text are no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// A limit that denies, with a burst.
    #[error("a count of 0 denies, so it has no burst; leave the burst out")]
    BurstOfNothing,
    /// Nothing would ever pass.
    #[error(
        "a burst of 0 would never let anything pass; leave it out to get the count, or write the limit `deny`"
    )]
    ZeroBurst,
    /// More than numbers in JSON can carry exactly.
    #[error("{0} is above 2^53 (9007199254740992), the largest count that JSON carries exactly")]
    TooLarge(u64),
    /// Too short or too long.
    #[error("a period of {0:?} is outside of 100ms to 31d")]
    Period(Duration),
    /// A window with a burst.
    #[error("a burst belongs to token_bucket and leaky_bucket; leave it out: a {0} admits its count")]
    BurstOfWindow(Algorithm),
    /// A window from the first charge that is none.
    #[error("only a fixed_window can begin with its first charge, a {0} cannot")]
    FromFirst(Algorithm),
    /// The bucket would take too long to fill.
    #[error("a burst of {burst} at that rate takes longer than ten years to fill")]
    Refill {
        /// The burst.
        burst: u64,
    },
    /// Not `COUNT/PERIOD`.
    #[error("{0:?} is no limit: write COUNT/PERIOD, e.g. 5/1m, 100/1s, 1000/day, or `deny`")]
    Syntax(String),
    /// A unit that periods do not have.
    #[error("{0:?} is no period: write 500ms, 1s, 10m, 1h, 1d, day or month")]
    PeriodSyntax(String),
    /// What stands behind `COUNT/PERIOD` is neither a burst nor an algorithm.
    #[error(
        "{0:?} cannot follow a limit: write e.g. `100/1m burst 20`, or the algorithm (token_bucket, leaky_bucket, \
         fixed_window, sliding_window, sliding_log), as in `100/1m sliding_window`"
    )]
    Addition(String),
}

/// Why numbers are no limit, so that a constant can be made of what is right.
#[derive(Debug, Clone, Copy)]
pub(super) enum NumbersError {
    BurstOfNothing,
    ZeroBurst,
    TooLarge(u64),
    Period(Duration),
    BurstOfWindow(Algorithm),
    FromFirst(Algorithm),
    Refill { burst: u64 },
}

impl From<NumbersError> for LimitError {
    fn from(error: NumbersError) -> Self {
        match error {
            NumbersError::BurstOfNothing => Self::BurstOfNothing,
            NumbersError::ZeroBurst => Self::ZeroBurst,
            NumbersError::TooLarge(number) => Self::TooLarge(number),
            NumbersError::Period(length) => Self::Period(length),
            NumbersError::BurstOfWindow(algorithm) => Self::BurstOfWindow(algorithm),
            NumbersError::FromFirst(algorithm) => Self::FromFirst(algorithm),
            NumbersError::Refill { burst } => Self::Refill { burst },
        }
    }
}
