//! What a history is held against: the limits of its rules, and the buckets that each question takes from.

use serde::{Deserialize, Serialize};

use crate::check::{bound::Bound, law::Law};

/// A rule as a history is held against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// Its name.
    pub name: String,
    /// As it was written: limit, and what happens in trouble.
    pub text: String,
    /// What it allows in any interval, by its law.
    pub bound: Bound,
    /// What its algorithm promises.
    #[serde(default)]
    pub law: Law,
    /// Where it changes meanwhile: what it may have in a period. Its burst is what it has in a period then.
    #[serde(default)]
    pub counts: Vec<u64>,
    /// Whether only one node may decide at a time.
    pub strict: bool,
    /// How many times its bound it may admit, as it says itself, when an owner crashes or hangs; `None`: no limit.
    pub crash: Option<u32>,
    /// And when nodes cannot reach each other.
    pub partition: Option<u32>,
}

impl Limited {
    /// Whether when it counts anew is a matter of the wall clock: windows begin at multiples of their period.
    pub fn lies_by_the_wall_clock(&self) -> bool {
        self.text.contains("window")
    }

    /// Whether nodes that have lost the owner give out shares that its limit was not made smaller for.
    pub fn shares_uncarved(&self) -> bool {
        self.text.contains("on_owner_loss: share") && !self.text.contains("carved: true")
    }
}

/// A question that is asked many times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub path: String,
    /// A body, if it is posted.
    #[serde(default)]
    pub body: Option<String>,
    /// The buckets that it takes from: a rule, by its place, and the value of its key.
    pub buckets: Vec<(usize, String)>,
}
