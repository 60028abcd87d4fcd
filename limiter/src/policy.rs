//! What a rule says beside its limit: what becomes of its decisions, and of its buckets when something is lacking.

/// Whether a rule acts on its decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// It denies what is over the limit.
    #[default]
    Enforce,
    /// It counts and reports, and never denies.
    Shadow,
}

/// What happens with the buckets of a rule when there is no room for all of them: when those that are in use at the same time are
/// more than the rule's part of the memory (see [`StoreConfig`](crate::StoreConfig)). Either way the ones that are used the
/// least are let go of first, and no other rule is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnMemoryFull {
    /// A bucket that was let go of is a full one when it is asked for again. Nobody is denied for what others did. Each time
    /// that it is let go of, a key can get its burst (or count) once more; for that to happen, as many other keys of the rule
    /// as its part of the memory holds must have used as much of theirs.
    #[default]
    Forget,
    /// A bucket that was let go of, and each that was never seen, counts as used as far as the most used one that was let go
    /// of. No key gets more than its limit allows. Keys that were never seen can be denied, until those that were let go of
    /// would be full again: after the last one was, for no longer than their own limit takes to refill.
    Strict,
}

impl OnMemoryFull {
    /// Its name in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forget => "forget",
            Self::Strict => "strict",
        }
    }
}

/// What happens when no owner of the bucket answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnOwnerLoss {
    /// Each node admits its part of the rate.
    #[default]
    Share,
    /// Denied.
    Deny,
    /// Allowed, counted and alarmed: unbounded.
    Allow,
}

/// Whether a side of a partition may decide without being sure to be the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// It may.
    #[default]
    Available,
    /// It may not.
    Strict,
}
