//! The limits of a rule, its own and those of its overrides, and what tells the buckets of each apart.
//!
//! **Another limit is another bucket.** So no check under one limit changes what another one admits, whatever the algorithm.
//! What tells the buckets of a key apart is, of an override, its condition, wherever it stands among the others and however it is
//! written. An override that says the very limit of its rule has the rule's bucket. It is not the limit's numbers, so that what was
//! consumed stays when these change: where that gives a bucket's state another meaning, the fingerprint differs in some bits only
//! ([`Limit::bits`]), and what is known of the same bucket under the limits before is found by these (`store/former.rs`).

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    Limit, address::OwnIpPrefix, condition::Condition, key::KeyHasher, limit::Placing, price::Price,
    span::Span,
};

/// What the fingerprints of all buckets of one of a rule's limits have in common; the same at each node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitId {
    /// Whose limit it is.
    pub(crate) number: u64,
    /// What its states mean; see [`Limit::bits`].
    pub(crate) bits: u64,
}

impl LimitId {
    /// Of a rule's own limit; `None`: unlimited.
    pub(crate) fn of_rule(limit: Option<&Limit>) -> Self {
        Self { number: 0, bits: limit.map_or(0, Limit::bits) }
    }

    fn of_override(rule: KeyHasher, when: &Condition, limit: Option<&Limit>) -> Self {
        let mut bytes = rule.key();
        bytes.text("override");
        when.feed(&mut bytes);
        Self { number: bytes.finish(None).get(), ..Self::of_rule(limit) }
    }
}

/// Another limit for some requests.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    pub(crate) when: Condition,
    /// When it is in force.
    pub(crate) span: Span,
    /// `None`: unlimited.
    pub(crate) limit: Option<Limit>,
    /// Where its windows lie, as it says itself.
    pub(crate) placing: Placing,
    pub(crate) id: LimitId,
}

impl Override {
    /// All overrides of a rule with this limit.
    pub(crate) fn all(
        rule: KeyHasher,
        own: Option<&Limit>,
        overrides: impl IntoIterator<Item = (Condition, Option<Limit>)>,
        carved: Option<&Carved>,
    ) -> Box<[Self]> {
        let one = |(place, (when, limit)): (usize, (Condition, Option<Limit>))| {
            let is_own = own.zip(limit.as_ref()).is_some_and(|(own, limit)| own.is_same(limit));
            let given = carved.map_or(limit.as_ref(), |carved| carved.overrides[place].as_ref());
            let id = match is_own {
                true => LimitId::of_rule(given),
                false => LimitId::of_override(rule, &when, given),
            };
            Self { when, span: Span::ALWAYS, limit, placing: Placing::default(), id }
        };
        overrides.into_iter().enumerate().map(one).collect()
    }
}

/// The attributes that some overrides look at, each once.
pub(crate) fn attributes_of(overrides: &[Override]) -> Box<[Arc<str>]> {
    let tests = overrides.iter().flat_map(|special| &special.when.tests);
    let names: BTreeSet<&Arc<str>> = tests.map(|test| &test.attribute).collect();
    names.into_iter().cloned().collect()
}

/// The owner's part of a rule's limits.
#[derive(Debug, Clone)]
pub(crate) struct Carved {
    pub(crate) limit: Option<Limit>,
    /// In the order of the overrides.
    pub(crate) overrides: Box<[Option<Limit>]>,
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

/// Which of a rule's limits a charge has, and a fingerprint of what the choice was made by. The same at each node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitRef {
    shape: u64,
    place: u32,
}

impl LimitRef {
    /// Of a limit that came with the check: no rule is about it.
    pub const INLINE: Self = Self { shape: 0, place: 0 };

    /// From the wire.
    pub const fn new(shape: u64, place: u32) -> Self {
        Self { shape, place }
    }

    /// What the rule tells requests apart by.
    pub const fn shape(self) -> u64 {
        self.shape
    }

    /// 0: the limit where no override fits; otherwise that of an override, counted from 1.
    pub const fn place(self) -> u32 {
        self.place
    }
}

/// All by which a rule tells requests apart, which of its limits have a bucket together, and what it takes of them.
pub(crate) struct Shape<'r, K> {
    pub(crate) when: &'r Condition,
    pub(crate) span: Span,
    pub(crate) key: &'r [K],
    /// The places of the key's attributes in the order of their names.
    pub(crate) key_order: &'r [u8],
    pub(crate) ip_prefix: OwnIpPrefix,
    pub(crate) own: LimitId,
    pub(crate) overrides: &'r [Override],
    pub(crate) price: &'r Price,
}

impl<K: AsRef<str>> Shape<'_, K> {
    /// A fingerprint of it. Keyed, so that nobody looks for rules with the same one.
    pub(crate) fn fingerprint(&self, hasher: KeyHasher) -> u64 {
        let mut bytes = hasher.key();
        bytes.text("shape");
        self.when.feed(&mut bytes);
        bytes.number(self.key.len() as u64);
        for place in self.key_order {
            bytes.text(self.key[usize::from(*place)].as_ref());
        }
        if !self.ip_prefix.says_nothing() {
            bytes.text("ip_prefix");
            let bits = |bits: Option<u8>| bits.map_or(0, u64::from);
            bytes.number(bits(self.ip_prefix.v4) << 8 | bits(self.ip_prefix.v6));
        }
        self.span.feed(&mut bytes);
        bytes.number(self.overrides.len() as u64);
        for special in self.overrides {
            special.when.feed(&mut bytes);
            special.span.feed(&mut bytes);
            // Where that changes, the same request has another bucket.
            bytes.number(u64::from(special.id.number == self.own.number));
        }
        // Who has other rules cannot tell what a request takes.
        self.price.feed(&mut bytes);
        bytes.finish(None).get()
    }
}
