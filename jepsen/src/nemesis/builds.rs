//! The programs of an upgrade.

use std::path::PathBuf;

/// With which programs nodes are restarted in an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    first: PathBuf,
    /// `None`: there are no upgrades.
    other: Option<PathBuf>,
    /// Whether the last upgrade was to the other one.
    is_other: bool,
}

impl Builds {
    /// Nodes begin with the first one.
    pub fn new(first: PathBuf, other: Option<PathBuf>) -> Self {
        Self { first, other, is_other: false }
    }

    /// Begins an upgrade: to the other program, or back.
    pub(super) fn change(&mut self) {
        self.is_other = !self.is_other;
    }

    /// That of the last upgrade.
    pub(super) fn wanted(&self) -> &PathBuf {
        self.other.as_ref().filter(|_| self.is_other).unwrap_or(&self.first)
    }
}
