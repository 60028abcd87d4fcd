//! The front for one limit and many keys.

use std::hash::Hash;

use smallvec::SmallVec;

use crate::{
    Answer, Cost, Error, HashSecret, KeyHash, Limit, Nanos, OnMemoryFull, RuleId, Store, StoreConfig,
    StoreStats, Swept, SystemClock,
    algorithm::{Asked, Bounds},
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
/// use tidegate_limiter::{Cost, Keyed, Limit};
///
/// let logins = Keyed::new(Limit::per_minute(2))?;
/// assert!(logins.check_now("ada", Cost::ONE).is_allowed());
/// assert!(logins.check_now("ada", Cost::ONE).is_allowed());
/// let denied = logins.check_now("ada", Cost::ONE);
/// assert!(!denied.is_allowed());
/// assert!(denied.decision().retry_after > Some(Duration::from_secs(29)));
/// assert!(logins.check_now("grace", Cost::ONE).is_allowed());
///
/// // Now and then, from a thread that serves nobody.
/// logins.sweep_now();
/// # Ok::<(), tidegate_limiter::Error>(())
/// ```
///
/// # Keys
///
/// All that is [`Hash`] can be a key, borrowed or not: `"ada"`, `&42_u64`, `&("tenant", 42_u64)`, an address, a type of yours;
/// `&()` where one bucket is for all. A key is not kept, only 63 bits of a pseudo-random function of it (SipHash-1-3), whose
/// secret nobody knows: clients that choose their keys cannot look for two that have a bucket together.
///
/// **Take one type of key for a limiter.** Two values of a type with a derived `Hash` never look alike, but `42_u32` and `42_u64`
/// have two buckets, and a text can hash the same as a number. Where keys are of several kinds, make them an `enum`.
///
/// ```
/// # use tidegate_limiter::{Cost, Keyed, Limit};
/// #[derive(Hash)]
/// enum Caller<'c> {
///     User(&'c str),
///     Address(std::net::IpAddr),
/// }
///
/// let calls = Keyed::new(Limit::per_second(50).burst(100))?;
/// assert!(calls.check_now(&Caller::User("ada"), Cost::ONE).is_allowed());
/// assert!(calls.check_now(&Caller::Address([127, 0, 0, 1].into()), Cost::new(5)?).is_allowed());
/// # Ok::<(), tidegate_limiter::Error>(())
/// ```
#[derive(Debug)]
pub struct Keyed {
    limit: Limit,
    /// With all that is the same for all keys taken in.
    hasher: KeyHasher,
    /// The number of the one rule that there is.
    rule: RuleId,
    store: Store,
    on_memory_full: OnMemoryFull,
    clock: SystemClock,
}

impl Keyed {
    /// A limiter without buckets, that is with a full one for each key. It takes at most 1 GiB for them.
    ///
    /// # Errors
    /// The limit is none, for instance its count is 0.
    pub fn new(limit: Limit) -> Result<Self, Error> {
        limit.validate()?;
        Ok(Self::made(limit, &HashSecret::random(), StoreConfig::default(), OnMemoryFull::default()))
    }

    fn made(limit: Limit, secret: &HashSecret, config: StoreConfig, on_memory_full: OnMemoryFull) -> Self {
        let hasher = KeyHasher::of_keyed(secret);
        // Time is an argument: whatever it begins with, nothing is earlier.
        let (rule, store) = (hasher.rule(), Store::new(config, Nanos::new(0)));
        store.set_policies([(rule, on_memory_full)].into_iter());
        Self { limit, hasher, rule, store, on_memory_full, clock: SystemClock::new() }
    }

    /// Bytes that buckets may take; to be said before the first check, because it begins anew.
    #[must_use]
    pub fn max_memory(self, bytes: usize) -> Self {
        // Nobody has seen a fingerprint of the secret that was there before.
        Self::made(self.limit, &HashSecret::random(), StoreConfig::of_memory(bytes), self.on_memory_full)
    }

    /// What happens with buckets when there is no room for all of them; by default they are forgotten.
    #[must_use]
    pub fn on_memory_full(self, on_memory_full: OnMemoryFull) -> Self {
        self.store.set_policies([(self.rule, on_memory_full)].into_iter());
        Self { on_memory_full, ..self }
    }

    /// As [`Keyed::check`], now.
    #[inline]
    pub fn check_now<K: Hash + ?Sized>(&self, key: &K, cost: Cost) -> Answer<'_> {
        self.check(key, cost, self.clock.now())
    }

    /// Decides about `cost` units for a key and charges its bucket if that allows. A cost of 0 ([`Cost::PEEK`]) only
    /// looks: it is allowed if a cost of 1 would be.
    ///
    /// The time is an argument, so that tests need not wait, and one reading of a clock is enough for several checks.
    #[inline]
    pub fn check<K: Hash + ?Sized>(&self, key: &K, cost: Cost, now: Nanos) -> Answer<'_> {
        self.store.ask(&self.asked(self.hash(key), cost), now)
    }

    /// As [`Keyed::check`] for many keys, each by itself and in their order; `each` gets the answers.
    pub fn check_many<'k, K: Hash + ?Sized + 'k>(
        &self,
        keys: impl IntoIterator<Item = &'k K>,
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
    pub fn refund<K: Hash + ?Sized>(&self, key: &K, cost: Cost, now: Nanos) {
        self.store.refund(self.hash(key), &self.limit, cost, now);
    }

    /// Forgets what the bucket of a key knows.
    pub fn reset<K: Hash + ?Sized>(&self, key: &K) {
        self.store.reset(self.hash(key));
    }

    /// As [`Keyed::sweep`], now.
    pub fn sweep_now(&self) -> Swept {
        self.sweep(self.clock.now())
    }

    /// Removes some buckets that have been full again for a second, and gives their memory back; each call goes on where the
    /// last one ended. Call it often, e.g. each 10 ms, from a thread that serves nobody. Without it nothing is wrong: memory
    /// stays taken until a table is full.
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
    fn hash<K: Hash + ?Sized>(&self, key: &K) -> KeyHash {
        let mut bytes = self.hasher.key();
        key.hash(&mut bytes);
        bytes.finish(Some(&self.limit))
    }

    #[inline]
    fn asked(&self, key: KeyHash, cost: Cost) -> Asked<'_> {
        Asked { key, rule: self.rule, limit: &self.limit, cost, bounds: Bounds::NONE, ban: None }
    }
}
