//! How a limit counts.

use std::fmt;

use crate::period::Period;

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Algorithm {
    /// A bucket that holds `burst` units and refills steadily.
    TokenBucket = 0,
    /// A queue with room for `burst` units, first in first out, that is served steadily: the decision says how long the
    /// request has to wait for its turn. A full queue denies.
    LeakyBucket = 1,
    /// `count` units in each window. Around the border of two windows up to twice as many pass in a period.
    FixedWindow = 2,
    /// `count` units in this window and, weighted by how much of it still lies within one period, the one before: an
    /// estimate that takes the requests of the window before as evenly spread.
    SlidingWindow = 3,
    /// `count` units in any period, exactly. It keeps each admitted request, so it is the one that costs memory.
    SlidingLog = 4,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::TokenBucket, Self::LeakyBucket, Self::FixedWindow, Self::SlidingWindow, Self::SlidingLog];

    /// Its name in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenBucket => "token_bucket",
            Self::LeakyBucket => "leaky_bucket",
            Self::FixedWindow => "fixed_window",
            Self::SlidingWindow => "sliding_window",
            Self::SlidingLog => "sliding_log",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Whether its windows can be those of the calendar. Buckets refill steadily, and a log slides.
    pub const fn has_calendar(self) -> bool {
        matches!(self, Self::FixedWindow | Self::SlidingWindow)
    }

    /// That of limits with a period which say none.
    pub(crate) const fn default_of(period: Period) -> Self {
        if period.is_of_calendar() { Self::FixedWindow } else { Self::TokenBucket }
    }

    /// Whether its limits have a burst that differs from their count.
    pub const fn has_burst(self) -> bool {
        matches!(self, Self::TokenBucket | Self::LeakyBucket)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = UnknownAlgorithm;

    fn try_from(number: u8) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| *algorithm as u8 == number).ok_or(UnknownAlgorithm(number))
    }
}

/// A number that no algorithm has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no algorithm has the number {0}")]
pub struct UnknownAlgorithm(pub u8);
