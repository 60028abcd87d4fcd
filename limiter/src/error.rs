//! What can be wrong with what an application says.

use std::fmt;

use crate::{cost::CostTooLarge, limit::LimitError, parse::RuleError};

/// What is wrong with a limit, a cost or rules, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A limit.
    Limit(LimitError),
    /// A cost.
    Cost(CostTooLarge),
    /// Rules: all that is wrong with them, at least one thing.
    Rules(Vec<RuleError>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => error.fmt(f),
            Self::Cost(error) => error.fmt(f),
            Self::Rules(errors) => {
                let mut between = "";
                for error in errors {
                    write!(f, "{between}{error}")?;
                    between = "; ";
                }
                Ok(())
            }
        }
    }
}

/// It has no source: its text says all.
impl std::error::Error for Error {}

impl From<LimitError> for Error {
    fn from(error: LimitError) -> Self {
        Self::Limit(error)
    }
}

impl From<CostTooLarge> for Error {
    fn from(error: CostTooLarge) -> Self {
        Self::Cost(error)
    }
}

impl From<Vec<RuleError>> for Error {
    fn from(errors: Vec<RuleError>) -> Self {
        Self::Rules(errors)
    }
}
