//! What a check is answered, in no protocol's words.

use std::time::Duration;

use tidegate_cluster::{Answer, DecidedBy};

/// What a check is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckAnswer<'a> {
    pub(crate) allowed: bool,
    /// The enforced rule that binds most, or one that says `unlimited`; none if no rule matched, or the check brought its
    /// limit with it.
    pub(crate) rule: Option<&'a str>,
    /// None if nothing limits the check.
    pub(crate) numbers: Option<Numbers>,
    pub(crate) decided_by: Decider,
    /// The node that decided.
    pub(crate) node: &'a str,
    /// Each enforced limit that was looked at.
    pub(crate) policies: &'a [Policy<'a>],
    /// Where all of them only watch, the one that binds most: for those who set the rules, callers must not notice it.
    pub(crate) shadow: Option<Policy<'a>>,
}

/// How far a limit is exhausted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) reset_after: Duration,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) delay: Duration,
    /// The key is banned.
    pub(crate) banned: bool,
}

/// One limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy<'a> {
    pub(crate) name: &'a str,
    /// Units in a window, as the rule has it.
    pub(crate) count: u64,
    pub(crate) window: Duration,
    /// What `remaining` counts against, the burst of a bucket, and the time in which all of it comes.
    pub(crate) quota: u64,
    pub(crate) quota_window: Duration,
    pub(crate) remaining: u64,
    /// Until there is more than that.
    pub(crate) more_after: Duration,
    /// It is this one that denied.
    pub(crate) denied: bool,
    /// By a ban of the key.
    pub(crate) banned: bool,
}

impl CheckAnswer<'_> {
    /// Whether a limit denies it that denies everything.
    pub(crate) fn is_denied_for_ever(&self) -> bool {
        !self.allowed && self.numbers.is_some_and(|numbers| numbers.denies())
    }
}

impl Numbers {
    /// Whether they are of a limit that denies everything.
    pub(crate) fn denies(&self) -> bool {
        self.limit == 0
    }
}

impl Policy<'_> {
    /// Whether it denies everything.
    pub(crate) fn denies(&self) -> bool {
        self.count == 0
    }
}

/// Who decided a check, as answers and metrics tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decider {
    Owner,
    Forwarded,
    Share,
    Fallback,
    /// The owner, of a bucket that was not in memory any more: what it had consumed was assumed.
    Memory,
    /// Nobody: nothing limits the check.
    Unmatched,
}

impl Decider {
    pub(crate) const ALL: [Self; 6] =
        [Self::Owner, Self::Forwarded, Self::Share, Self::Fallback, Self::Memory, Self::Unmatched];

    /// The word for it in answers and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Forwarded => "forwarded",
            Self::Share => "share",
            Self::Fallback => "fallback",
            Self::Memory => "memory",
            Self::Unmatched => "unmatched",
        }
    }
}

impl From<&Answer> for Decider {
    fn from(answer: &Answer) -> Self {
        if answer.decision.assumed {
            return Self::Memory;
        }
        match answer.by {
            DecidedBy::Owner => Self::Owner,
            DecidedBy::Forwarded(_) => Self::Forwarded,
            DecidedBy::Share => Self::Share,
            DecidedBy::Fallback => Self::Fallback,
        }
    }
}
