//! The limits of a rule, its own and those of its overrides, and from a request's key to the bucket of each.
//!
//! **Another limit is another bucket.** So no check under one limit changes what another one admits, whatever the algorithm.
//! What tells the buckets of a key apart is not the limit's numbers, so that what was consumed stays when these change:
//!
//! - of the rule's own limit, what its states mean: its [class](Limit::class),
//! - of an override, the same and its condition, wherever it stands among the others and however it is written.
//!
//! An override that says the very limit of its rule has the rule's bucket.

use std::net::IpAddr;

use crate::{
    Attributes, Limit, LimitRef, Matched, Rule,
    condition::Condition,
    key::{KeyBytes, KeyHasher},
};

/// What the fingerprints of all buckets of one of a rule's limits have in common; the same at each node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitId(u64);

impl LimitId {
    /// Of a rule's own limit.
    pub(crate) fn of_rule(limit: Option<&Limit>) -> Self {
        // No class is that.
        Self(limit.map_or(u64::MAX, Limit::class))
    }

    fn of_override(rule: KeyHasher, when: &Condition, limit: Option<&Limit>) -> Self {
        let mut bytes = rule.key();
        bytes.text("override");
        when.feed(&mut bytes);
        bytes.number(Self::of_rule(limit).0);
        Self(bytes.finish(None).get())
    }

    #[inline]
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

/// Another limit for some requests.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    pub(crate) when: Condition,
    /// `None`: unlimited.
    pub(crate) limit: Option<Limit>,
    pub(crate) id: LimitId,
}

impl Override {
    /// All overrides of a rule with this limit.
    pub(crate) fn all(
        rule: KeyHasher,
        own: Option<&Limit>,
        overrides: impl IntoIterator<Item = (Condition, Option<Limit>)>,
    ) -> Box<[Self]> {
        let one = |(when, limit): (Condition, Option<Limit>)| {
            let is_own = own.zip(limit.as_ref()).is_some_and(|(own, limit)| own.is_same(limit));
            let id = match is_own {
                true => LimitId::of_rule(own),
                false => LimitId::of_override(rule, &when, limit.as_ref()),
            };
            Self { when, limit, id }
        };
        overrides.into_iter().map(one).collect()
    }
}

/// The owner's part of a rule's limits.
#[derive(Debug, Clone)]
pub(crate) struct Carved {
    limit: Option<Limit>,
    /// In the order of the overrides.
    overrides: Box<[Option<Limit>]>,
}

impl Carved {
    /// `None` when nothing is left of one of them.
    pub(crate) fn of(limit: Option<&Limit>, overrides: &[(Condition, Option<Limit>)]) -> Option<Self> {
        let carve = |limit: Option<&Limit>| match limit {
            Some(limit) => limit.carve().map(Some),
            None => Some(None),
        };
        let overrides: Option<Box<[Option<Limit>]>> =
            overrides.iter().map(|(_, limit)| carve(limit.as_ref())).collect();
        Some(Self { limit: carve(limit)?, overrides: overrides? })
    }

    pub(crate) fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.limit.iter().chain(self.overrides.iter().flatten())
    }
}

impl Rule {
    /// The limit in force, by the place of the override that fits.
    pub(crate) fn limit_at(&self, special: Option<usize>) -> Option<&Limit> {
        match (&self.carved, special) {
            (Some(carved), Some(place)) => carved.overrides[place].as_ref(),
            (Some(carved), None) => carved.limit.as_ref(),
            (None, Some(place)) => self.overrides[place].limit.as_ref(),
            (None, None) => self.limit.as_ref(),
        }
    }

    /// What tells its buckets from those of the others.
    #[inline]
    pub(crate) fn limit_id_at(&self, special: Option<usize>) -> LimitId {
        special.map_or(self.limit_id, |place| self.overrides[place].id)
    }

    /// What the fingerprints of all buckets of the request's key begin with; `None` when the request lacks an attribute of it.
    pub(crate) fn key_of<A: Attributes + ?Sized>(&self, attributes: &A) -> Option<KeyBytes> {
        let mut key = self.hasher.key();
        for name in &self.key {
            let value = attributes.get(name)?;
            match network_of(name, value) {
                Some(network) => key.number(network),
                None => key.text(value),
            }
        }
        Some(key)
    }

    /// With the limit of the override at that place.
    #[inline]
    pub(crate) fn matched(&self, mut key: KeyBytes, special: Option<usize>) -> Matched<'_> {
        let limit = self.limit_at(special);
        key.number(self.limit_id_at(special).get());
        let limit_ref = LimitRef::new(self.shape, special.map_or(0, |place| place as u32 + 1));
        Matched { rule: self, limit, key: key.finish(limit), limit_ref }
    }
}

/// An address as a number, so that each way of writing it is the same bucket. Of an IPv6 address only the network
/// counts: whoever has one address has all 2^64 of its /64. An IPv4 address in IPv6 clothes is still one host.
fn network_of(name: &str, value: &str) -> Option<u64> {
    if name != "ip" {
        return None;
    }
    match value.parse::<IpAddr>().ok()?.to_canonical() {
        // No unicast IPv6 network begins with a one bit followed by zeros.
        IpAddr::V4(address) => Some(u64::from(address.to_bits()) | 1 << 63),
        IpAddr::V6(address) => Some((address.to_bits() >> 64) as u64),
    }
}
