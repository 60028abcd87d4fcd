//! What a rule makes of the cost of a check.

use crate::key::KeyBytes;

/// What a rule makes of the cost of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Price {
    /// So many units for each of the cost: at least 1.
    Times(u64),
    /// What the check says under this name; otherwise its cost.
    Named(Box<str>),
}

impl Price {
    pub(crate) const ONE: Self = Self::Times(1);

    /// Fills in what makes it another one, if it is not the usual one: a fingerprint is that of before then.
    pub(crate) fn feed(&self, bytes: &mut KeyBytes) {
        match self {
            Self::Times(1) => {}
            Self::Times(units) => bytes.number(*units),
            Self::Named(name) => bytes.text(name),
        }
    }
}

impl std::fmt::Display for Price {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Times(units) => units.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}
