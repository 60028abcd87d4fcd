//! The front for one limit and many keys.

use smallvec::SmallVec;

use crate::{
    Answer, Cost, HashSecret, KeyHash, Limit, Nanos, OnMemoryFull, RuleId, Store, StoreConfig, StoreStats,
    Swept,
    decision::{Asked, Bounds},
    key::KeyHasher,
    store::GROUP,
};

/// One limit with a bucket for each key, for one process: what to take where there are no rules to match.
///
/// A check of a key that is known locks nothing, allocates nothing, and tells at once whether the request may run; what
/// remains is worked out when the [`Answer`] is asked for it.
///
/// ```
/// use std::time::Duration;
/// use tidegate_limiter::{Algorithm, Cost, HashSecret, Keyed, Limit, Nanos, StoreConfig};
///
/// let now = Nanos::new(1_800_000_000_000_000_000); // nanoseconds since 1970, from a clock that does not step
/// let limit = Limit::parse("2/1m", None, Algorithm::TokenBucket)?;
/// let logins = Keyed::new(limit, HashSecret::random(), StoreConfig::default(), now);
///
/// assert!(logins.check("ada", Cost::ONE, now).is_allowed());
/// assert!(logins.check("ada", Cost::ONE, now).is_allowed());
/// let denied = logins.check("ada", Cost::ONE, now);
/// assert!(!denied.is_allowed());
/// assert_eq!(denied.decision().retry_after, Some(Duration::from_secs(30)));
/// assert!(logins.check("grace", Cost::ONE, now).is_allowed());
///
/// // Now and then, from a thread that serves nobody.
/// logins.sweep(now.saturating_add(Duration::from_secs(60)));
/// # Ok::<(), tidegate_limiter::LimitError>(())
/// ```
#[derive(Debug)]
pub struct Keyed {
    limit: Limit,
    /// With all that is the same for all keys taken in.
    hasher: KeyHasher,
    /// The number of the one rule that there is.
    rule: RuleId,
    store: Store,
}

impl Keyed {
    /// A limiter without buckets, that is with a full one for each key. `now` is the earliest instant that it knows.
    pub fn new(limit: Limit, secret: HashSecret, config: StoreConfig, now: Nanos) -> Self {
        let hasher = KeyHasher::of_keyed(&secret);
        Self { limit, hasher, rule: hasher.rule(), store: Store::new(config, now) }
    }

    /// What happens with buckets when there is no room for all of them; by default they are forgotten.
    #[must_use]
    pub fn on_memory_full(self, on_memory_full: OnMemoryFull) -> Self {
        self.store.set_policies([(self.rule, on_memory_full)].into_iter());
        self
    }

    /// Decides about `cost` units for a key and charges its bucket if that allows. A cost of 0 ([`Cost::PEEK`]) only
    /// looks: it is allowed if a cost of 1 would be.
    #[inline]
    pub fn check(&self, key: &str, cost: Cost, now: Nanos) -> Answer<'_> {
        self.ask(self.hash(key), cost, now)
    }

    /// As [`Keyed::check`], for a key that is a number. No text has the bucket of a number.
    #[inline]
    pub fn check_number(&self, key: u64, cost: Cost, now: Nanos) -> Answer<'_> {
        let mut bytes = self.hasher.key();
        bytes.number(key);
        self.ask(bytes.finish(Some(&self.limit)), cost, now)
    }

    /// As [`Keyed::check`] for many keys, each by itself and in their order; `each` gets the answers.
    pub fn check_many<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k str>,
        cost: Cost,
        now: Nanos,
        mut each: impl FnMut(Answer<'_>),
    ) {
        let mut keys = keys.into_iter();
        loop {
            let group: SmallVec<[Asked<'_>; GROUP]> =
                keys.by_ref().take(GROUP).map(|key| self.asked(self.hash(key), cost)).collect();
            if group.is_empty() {
                return;
            }
            self.store.ask_group(&group, now, &mut each);
        }
    }

    /// Gives units back to the bucket of a key, e.g. because the request failed; never more than it has given.
    pub fn refund(&self, key: &str, cost: Cost, now: Nanos) {
        self.store.refund(self.hash(key), &self.limit, cost, now);
    }

    /// Forgets what the bucket of a key knows.
    pub fn reset(&self, key: &str) {
        self.store.reset(self.hash(key));
    }

    /// Removes some idle buckets; see [`Store::sweep`].
    pub fn sweep(&self, now: Nanos) -> Swept {
        self.store.sweep(now)
    }

    /// What the buckets take.
    pub fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// Its limit.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    #[inline]
    fn hash(&self, key: &str) -> KeyHash {
        let mut bytes = self.hasher.key();
        bytes.text(key);
        bytes.finish(Some(&self.limit))
    }

    #[inline]
    fn ask(&self, key: KeyHash, cost: Cost, now: Nanos) -> Answer<'_> {
        self.store.ask(&self.asked(key, cost), now)
    }

    #[inline]
    fn asked(&self, key: KeyHash, cost: Cost) -> Asked<'_> {
        Asked { key, rule: self.rule, limit: &self.limit, cost, bounds: Bounds::NONE }
    }
}
