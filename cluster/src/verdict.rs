//! What becomes of a check: the decisions, and who made them.

use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_limiter::{
    Decision, Nanos,
    cluster::{Consistency, LimitRef, OnOwnerLoss, Reserve},
};
use tokio::time::Instant;

/// What a charge's rule wants of those who decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossPolicy {
    /// What happens when no owner answers.
    pub on_owner_loss: OnOwnerLoss,
    /// Whether an owner may go on that cannot be sure that it still is the only one.
    pub consistency: Consistency,
    /// Whether a part of the limit is set aside for shares.
    pub carved: bool,
    /// What the owner tells of the bucket to its successor; `None`: nothing.
    pub reserve: Option<Reserve>,
    /// Which of the rule's limits the charge has.
    pub limit_ref: LimitRef,
}

/// What belongs to a whole check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckOptions {
    /// Of the rules that the charges were made by.
    pub revision: u64,
    /// A number for what the client calls its request: the same check with it, asked again within two seconds, is not charged again.
    pub request: Option<u64>,
    /// When it is to be answered, however many attempts that takes; see [`Router::deadline`](crate::Router::deadline).
    pub deadline: Instant,
}

/// Decisions of one check in the order of its charges.
pub type Decisions = SmallVec<[Decision; 4]>;
/// Answers to one check in the order of its charges; `None` where the check was denied, and who else says what of that bucket
/// could not be found out.
pub type Answers = SmallVec<[Option<Answer>; 4]>;

/// A decision and who made it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was decided.
    pub decision: Decision,
    /// By whom.
    pub by: DecidedBy,
}

/// Who decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedBy {
    /// This node: it owns the slot.
    Owner,
    /// The node of that name: it owns the slot.
    Forwarded(Arc<str>),
    /// This node, from its share: no owner answered.
    Share,
    /// The rule itself, which says what happens when no owner answers.
    Fallback,
}

impl DecidedBy {
    /// The word for it in answers and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Forwarded(_) => "forwarded",
            Self::Share => "share",
            Self::Fallback => "fallback",
        }
    }
}

/// What [`Router::decide_local`](crate::Router::decide_local) found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// This node owns all the slots, and has decided.
    Decided {
        /// Whether all charges were made; none was otherwise.
        allowed: bool,
        /// When that was.
        at: Nanos,
    },
    /// A limit denies whatever was consumed, so nothing was charged. Each such limit has its decision; those of the others say
    /// nothing.
    Denied {
        /// When that was.
        at: Nanos,
    },
    /// Another node owns one of the slots; nothing was charged.
    Elsewhere,
    /// This node has no slot table yet; nothing was charged.
    NotReady,
}

/// The answer to a whole check.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether all charges were made; none was otherwise.
    pub allowed: bool,
    /// The decisions.
    pub answers: Answers,
}

/// Why a check was not decided. Nothing has been charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// As it says.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// Newer rules than those of the charges are in force here, and an owner wants the check to be made by them: it is to be
    /// matched again. This ends: each time the rules are newer, and after the deadline a check is decided all the same.
    #[error("the rules have changed")]
    RulesChanged,
}

/// This node has no slot table: it has not found its cluster yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node has not found its cluster yet")]
pub struct NotReady;
