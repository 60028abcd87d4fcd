//! A rule, compiled: what the check path reads.

use std::sync::Arc;

use crate::{
    Algorithm, Cost, Limit, Mode, OnMemoryFull, OnTotalLoss, Reserve, RuleId, Takeover,
    address::{IpPrefix, OwnIpPrefix},
    ban::Ban,
    cardinality::Cardinality,
    condition::Condition,
    key::KeyHasher,
    limit::Placing,
    limits::{Carved, LimitId, Override},
    policy::{Consistency, OnOwnerLoss},
    price::Price,
    span::Span,
};

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(crate) domain: Arc<str>,
    pub(crate) name: Box<str>,
    pub(crate) when: Condition,
    /// When it is in force.
    pub(crate) span: Span,
    pub(crate) key: Box<[KeyPart]>,
    /// The places of the key's attributes in the order of their names: in whichever order a file has them, the bucket is the same.
    pub(crate) key_order: Box<[u8]>,
    /// How much of an address in its key counts.
    pub(crate) ip_prefix: IpPrefix,
    /// What the rule itself says of that.
    pub(crate) own_ip_prefix: OwnIpPrefix,
    pub(crate) hasher: KeyHasher,
    /// Of all by which it tells requests apart; see [`LimitRef`].
    pub(crate) shape: u64,
    pub(crate) id: RuleId,
    /// `None`: unlimited.
    pub(crate) limit: Option<Limit>,
    pub(crate) limit_id: LimitId,
    /// Of all its limits.
    pub(crate) algorithm: Algorithm,
    /// Where windows lie, of limits that do not say it themselves, as it was written.
    pub(crate) placing: Placing,
    /// The first that fits counts.
    pub(crate) overrides: Box<[Override]>,
    /// The attributes that these look at.
    pub(crate) override_attributes: Box<[Arc<str>]>,
    pub(crate) price: Price,
    pub(crate) mode: Mode,
    /// For how long a key is denied that exceeds a limit of it.
    pub(crate) ban: Option<Ban>,
    pub(crate) consistency: Consistency,
    pub(crate) on_owner_loss: OnOwnerLoss,
    /// What the owner gives of its limits, where a part is carved out for shares.
    pub(crate) carved: Option<Box<Carved>>,
    pub(crate) takeover: Takeover,
    pub(crate) on_total_loss: OnTotalLoss,
    pub(crate) on_memory_full: OnMemoryFull,
    /// Of a rule whose floors are replicated.
    pub(crate) reserve: Option<Reserve>,
    /// Shared with the same rule before and after a change.
    pub(crate) cardinality: Arc<Cardinality>,
}

/// An attribute of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPart {
    pub(crate) name: Arc<str>,
    /// Where a request has no such attribute, this part of its key is empty.
    pub(crate) optional: bool,
    /// As rules write it.
    pub(crate) written: Arc<str>,
}

impl AsRef<str> for KeyPart {
    fn as_ref(&self) -> &str {
        &self.written
    }
}

impl Rule {
    /// Whether the owner leaves a part of the limit to the shares of nodes that cannot reach it.
    pub fn is_carved(&self) -> bool {
        self.carved.is_some()
    }

    /// Registers that count the buckets which were used lately; see [`estimate`](crate::cluster::estimate). Those of several nodes
    /// are joined by the maximum of each.
    pub fn touched(&self) -> Vec<u8> {
        self.cardinality.registers()
    }

    /// Its number.
    pub fn id(&self) -> RuleId {
        self.id
    }

    /// The name space that the rule belongs to.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Its name, unique in the domain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The attributes whose values make a bucket.
    pub fn key(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|part| &*part.name)
    }

    /// Whether it looks at the attribute: in its condition, its key or an override.
    pub fn names(&self, attribute: &str) -> bool {
        self.key.iter().any(|part| *part.name == *attribute)
            || self.when.tests(attribute)
            || self.override_attributes.iter().any(|name| **name == *attribute)
    }

    /// Whether it is only about requests that have certain attributes.
    pub fn requires_attributes(&self) -> bool {
        !self.key.is_empty() || self.when.requires_any()
    }

    /// All limits of which it keeps buckets: its own and those of its overrides, but for what is unlimited or denies.
    pub(crate) fn counting_limits(&self) -> impl Iterator<Item = &Limit> {
        let overrides = self.overrides.iter().filter_map(|special| special.limit.as_ref());
        self.limit.iter().chain(overrides).filter(|limit| !limit.denies())
    }

    /// The limit where no override fits; `None`: unlimited.
    pub fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    /// How it counts.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether it denies.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// For how long its checks ban a key that exceeds a limit; in shadow mode they do not.
    pub fn ban(&self) -> Option<Ban> {
        self.ban.filter(|_| self.mode == Mode::Enforce)
    }

    /// What it demands in a partition.
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// What it wants when no owner answers.
    pub fn on_owner_loss(&self) -> OnOwnerLoss {
        self.on_owner_loss
    }

    /// How its buckets begin when their owner was lost.
    pub fn takeover(&self) -> Takeover {
        self.takeover
    }

    /// What happens with its buckets when there is no room for all of them.
    pub fn on_memory_full(&self) -> OnMemoryFull {
        self.on_memory_full
    }

    /// How the floors of its buckets are replicated to their successors; `None`: they are not.
    pub fn reserve(&self) -> Option<Reserve> {
        self.reserve
    }

    /// What a check of this cost takes of it. `named` is what the check says for rules by their names, and for all rules whose
    /// `cost` has that name.
    #[inline]
    pub fn cost_of(&self, cost: Cost, named: impl Fn(&str) -> Option<Cost>) -> Cost {
        match &self.price {
            Price::Times(1) => named(&self.name).unwrap_or(cost),
            Price::Times(units) => named(&self.name).unwrap_or_else(|| cost.times(*units)),
            Price::Named(name) => named(&self.name).or_else(|| named(name)).unwrap_or(cost),
        }
    }

    /// The names by which a check can say what it takes of the rule.
    pub(crate) fn price_names(&self) -> impl Iterator<Item = &str> {
        let named = if let Price::Named(name) = &self.price { Some(&**name) } else { None };
        [&*self.name].into_iter().chain(named)
    }
}
