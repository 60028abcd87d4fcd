//! What a check takes.

/// How many units a check takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

/// A cost above [`Cost::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cost of {0} is above 2^53 (9007199254740992)")]
pub struct CostTooLarge(pub u64);

impl Cost {
    /// Looks without taking anything.
    pub const PEEK: Self = Self(0);
    /// What a request costs if nothing else is said.
    pub const ONE: Self = Self(1);
    /// The largest: what JSON carries exactly.
    pub const MAX: Self = Self(1 << 53);

    /// So many units.
    ///
    /// # Errors
    /// Above [`Cost::MAX`].
    pub const fn new(units: u64) -> Result<Self, CostTooLarge> {
        if units > Self::MAX.0 { Err(CostTooLarge(units)) } else { Ok(Self(units)) }
    }

    /// So many units, or the most that there can be.
    pub(crate) fn saturating(units: u64) -> Self {
        Self(units.min(Self::MAX.0))
    }

    /// For each unit of it so many; at most [`Cost::MAX`].
    pub(crate) fn times(self, units: u64) -> Self {
        Self(self.0.saturating_mul(units).min(Self::MAX.0))
    }

    /// The units.
    pub const fn get(self) -> u64 {
        self.0
    }
}
