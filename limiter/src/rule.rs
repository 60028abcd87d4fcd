//! Rules, compiled: what the check path reads.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fmt,
    hash::BuildHasher,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    Algorithm, HashSecret, KeyHash, Limit, LimitRef, Mode, OnMemoryFull, Reserve, Reserves, RuleId, Takeover,
    condition::Condition,
    index::Index,
    key::{KeyBytes, KeyHasher},
    limits::{Carved, LimitId, Override},
    touched::Touched,
};

/// The facts of a request, by name.
pub trait Attributes {
    /// The value of an attribute, if the request has it.
    fn get(&self, name: &str) -> Option<&str>;

    /// Whether a rule may be about the request at all, whatever the values are. By default each may.
    fn may_match(&self, _rule: &Rule) -> bool {
        true
    }
}

impl<N: AsRef<str>, V: AsRef<str>> Attributes for [(N, V)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.as_ref() == name).map(|(_, value)| value.as_ref())
    }
}

impl<N: AsRef<str>, V: AsRef<str>, const COUNT: usize> Attributes for [(N, V); COUNT] {
    fn get(&self, name: &str) -> Option<&str> {
        <[(N, V)] as Attributes>::get(self, name)
    }
}

impl<N: Borrow<str> + Ord, V: AsRef<str>> Attributes for BTreeMap<N, V> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(AsRef::as_ref)
    }
}

impl<N: Borrow<str> + Eq + std::hash::Hash, V: AsRef<str>, S: BuildHasher> Attributes for HashMap<N, V, S> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(AsRef::as_ref)
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

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(crate) domain: Arc<str>,
    pub(crate) name: Box<str>,
    pub(crate) when: Condition,
    pub(crate) key: Box<[Arc<str>]>,
    pub(crate) hasher: KeyHasher,
    /// Of all by which it tells requests apart; see [`LimitRef`].
    pub(crate) shape: u64,
    pub(crate) id: RuleId,
    /// `None`: unlimited.
    pub(crate) limit: Option<Limit>,
    pub(crate) limit_id: LimitId,
    /// Of all its limits.
    pub(crate) algorithm: Algorithm,
    /// The first that fits counts.
    pub(crate) overrides: Box<[Override]>,
    pub(crate) mode: Mode,
    pub(crate) consistency: Consistency,
    pub(crate) on_owner_loss: OnOwnerLoss,
    /// What the owner gives of its limits, where a part is carved out for shares.
    pub(crate) carved: Option<Box<Carved>>,
    pub(crate) takeover: Takeover,
    pub(crate) on_memory_full: OnMemoryFull,
    /// Of a rule whose owners tell floors.
    pub(crate) reserve: Option<Reserve>,
    /// Shared with the same rule before and after a change.
    pub(crate) touched: Arc<Touched>,
}

impl Rule {
    /// Whether the owner leaves a part of the limit to the shares of nodes that cannot reach it.
    pub fn is_carved(&self) -> bool {
        self.carved.is_some()
    }

    /// Registers that count the buckets which were used lately; see [`estimate`](crate::cluster::estimate). Those of several nodes
    /// are joined by the maximum of each.
    pub fn touched(&self) -> Vec<u8> {
        self.touched.registers()
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
        self.key.iter().map(|name| &**name)
    }

    /// Whether it looks at the attribute: in its condition, its key or an override.
    pub fn names(&self, attribute: &str) -> bool {
        self.key.iter().any(|name| **name == *attribute)
            || self.when.tests(attribute)
            || self.overrides.iter().any(|special| special.when.tests(attribute))
    }

    /// Whether it is only about requests that have certain attributes.
    pub fn requires_attributes(&self) -> bool {
        !self.key.is_empty() || self.when.requires_any()
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

    /// What its owners tell of its buckets to those who would take them over; `None`: nothing.
    pub fn reserve(&self) -> Option<Reserve> {
        self.reserve
    }
}

/// A rule that is about a request.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// The limit for this request; `None`: unlimited.
    pub limit: Option<&'r Limit>,
    /// Its bucket.
    pub key: KeyHash,
    /// Which of the rule's limits that is.
    pub limit_ref: LimitRef,
}

/// Whether rules are about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// At least one is.
    Rules,
    /// None is.
    Unmatched {
        /// What the domain says of such requests.
        allow: bool,
    },
}

/// The rules of all domains, compiled and immutable.
#[derive(Clone)]
pub struct Rules {
    inline: KeyHasher,
    /// Shared with the rules before and after a change of another domain.
    pub(crate) domains: HashMap<Box<str>, Arc<Domain>>,
    reserves: Arc<Reserves>,
    /// By the number of the rule: its domain, and its place there.
    by_id: HashMap<RuleId, (Arc<Domain>, usize)>,
    revision: u64,
}

/// The rules of one domain.
#[derive(Debug, Clone)]
pub(crate) struct Domain {
    rules: Vec<Rule>,
    index: Index,
    allow_unmatched: bool,
    /// Of its last change.
    pub(crate) revision: u64,
}

impl Domain {
    pub(crate) fn new(mut rules: Vec<Rule>, allow_unmatched: bool) -> Self {
        Self { index: Index::new(&mut rules), rules, allow_unmatched, revision: 0 }
    }

    /// Goes on with what is known of the rules with the same names.
    pub(crate) fn following(mut self, before: &Self) -> Self {
        let known: HashMap<&str, &Arc<Touched>> =
            before.rules.iter().map(|rule| (&*rule.name, &rule.touched)).collect();
        for rule in &mut self.rules {
            if let Some(touched) = known.get(&*rule.name) {
                rule.touched = Arc::clone(touched);
            }
        }
        self
    }

    /// Each rule that is about a request, with what the fingerprints of the request's key begin with, and the place of the
    /// override that fits.
    #[inline]
    fn each_about<'r, A: Attributes + ?Sized>(
        &'r self,
        attributes: &A,
        mut each: impl FnMut(&'r Rule, KeyBytes, Option<usize>),
    ) {
        let candidates = self.index.candidates(attributes);
        let rules = candidates.into_iter().map(|found| (found, &self.rules[found.rule()]));
        let rules = rules.filter(|(found, rule)| {
            rule.when.holds_from(found.tests_done(), attributes) && attributes.may_match(rule)
        });
        for (_, rule) in rules {
            if let Some(key) = rule.key_of(attributes) {
                each(rule, key, rule.overrides.iter().position(|special| special.when.holds(attributes)));
            }
        }
    }
}

impl Rules {
    /// No rules: everything is allowed.
    pub fn empty(secret: &HashSecret) -> Self {
        Self::of_domains(secret, HashMap::new())
    }

    /// The rules of one domain.
    pub(crate) fn of_domain(
        secret: &HashSecret,
        name: &str,
        rules: Vec<Rule>,
        allow_unmatched: bool,
    ) -> Self {
        Self::of_domains(
            secret,
            HashMap::from([(name.into(), Arc::new(Domain::new(rules, allow_unmatched)))]),
        )
    }

    pub(crate) fn of_domains(secret: &HashSecret, domains: HashMap<Box<str>, Arc<Domain>>) -> Self {
        let (reserves, by_id) = (reserves(&domains), by_id(&domains));
        Self { inline: KeyHasher::of_inline(secret), reserves, by_id, domains, revision: 0 }
    }

    /// These, with other domains.
    pub(crate) fn with_domains(&self, domains: HashMap<Box<str>, Arc<Domain>>) -> Self {
        let (reserves, by_id) = (reserves(&domains), by_id(&domains));
        Self { inline: self.inline, reserves, by_id, domains, revision: self.revision }
    }

    /// These rules and a domain that denies everything, for one whose rules cannot be used; `None` if there is one of that name.
    pub fn with_denied_domain(&self, name: &str) -> Option<Self> {
        if self.domains.contains_key(name) {
            return None;
        }
        let mut domains = self.domains.clone();
        domains.insert(name.into(), Arc::new(Domain::new(Vec::new(), false)));
        Some(self.with_domains(domains))
    }

    /// All that was written up to this revision is in these rules.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Of the last change of any domain: later than [`Rules::revision`] where an earlier change of another domain is missing.
    pub fn newest(&self) -> u64 {
        self.domains.values().map(|domain| domain.revision).max().unwrap_or(0).max(self.revision)
    }

    /// Whether a rule with this number is there, and denies.
    pub fn enforces(&self, rule: RuleId) -> bool {
        self.rule_of(rule).is_some_and(|(rule, _)| rule.mode == Mode::Enforce)
    }

    /// The same, of this revision: that of the last change of any domain.
    pub fn at_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The rule with a number, and the revision of the last change of its domain.
    pub(crate) fn rule_of(&self, id: RuleId) -> Option<(&Rule, u64)> {
        let (domain, place) = self.by_id.get(&id)?;
        Some((&domain.rules[*place], domain.revision))
    }

    /// Finds the rules that are about a request, in the order in which they were written. A rule applies if its
    /// condition holds and the request has all attributes of its key. A domain without rules allows everything.
    pub fn matching<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        found: &mut SmallVec<[Matched<'r>; 4]>,
    ) -> Match {
        let Some(domain) = self.domains.get(domain) else { return Match::Unmatched { allow: true } };
        let before = found.len();
        domain.each_about(attributes, |rule, key, special| {
            let matched = rule.matched(key, special);
            rule.touched.note(matched.key);
            found.push(matched);
        });
        if found.len() > before { Match::Rules } else { Match::Unmatched { allow: domain.allow_unmatched } }
    }

    /// Finds all buckets that the request's keys have in the rules that are about it: of each rule first that of the limit in
    /// force, then those of its other limits. What is unlimited has none.
    pub fn buckets<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        found: &mut SmallVec<[Matched<'r>; 4]>,
    ) {
        let Some(domain) = self.domains.get(domain) else { return };
        domain.each_about(attributes, |rule, key, special| {
            let first = found.len();
            let others = [None].into_iter().chain((0..rule.overrides.len()).map(Some));
            for place in [special].into_iter().chain(others) {
                let matched = rule.matched(key, place);
                if matched.limit.is_some() && found[first..].iter().all(|known| known.key != matched.key) {
                    found.push(matched);
                }
            }
        });
    }

    /// The bucket of a limit that a request brings along: the same key with another limit is another bucket.
    pub fn inline_key(&self, domain: &str, key: &str, limit: &Limit) -> KeyHash {
        let mut bytes = self.inline.key();
        bytes.text(domain);
        bytes.text(key);
        limit.feed(&mut bytes);
        bytes.finish(Some(limit))
    }

    /// A number for what a client calls its request; the same at each node of a cluster.
    pub fn request_number(&self, domain: &str, id: &str) -> u64 {
        let mut bytes = self.inline.key();
        bytes.text("request");
        bytes.text(domain);
        bytes.text(id);
        bytes.finish(None).get()
    }

    /// Forgets which buckets were used only before the last time that this was called: to be called every few minutes.
    pub fn forget_touched(&self) {
        self.domains.values().flat_map(|domain| &domain.rules).for_each(|rule| rule.touched.turn());
    }

    /// Whether a domain allows requests that no rule is about.
    pub fn allows_unmatched(&self, domain: &str) -> bool {
        self.domains.get(domain).is_none_or(|domain| domain.allow_unmatched)
    }

    /// All rules whose owners tell floors.
    pub fn reserves(&self) -> &Arc<Reserves> {
        &self.reserves
    }

    /// The rules of all domains.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        self.domains.values().flat_map(|domain| &domain.rules)
    }

    /// The names of the domains, sorted.
    pub fn domains(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.domains.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// The rules of a domain, in the order in which they were written.
    pub fn rules(&self, domain: &str) -> &[Rule] {
        self.domains.get(domain).map_or(&[], |domain| &domain.rules)
    }
}

fn by_id(domains: &HashMap<Box<str>, Arc<Domain>>) -> HashMap<RuleId, (Arc<Domain>, usize)> {
    let places = |domain: &Arc<Domain>| {
        let rules = domain.rules.iter().enumerate();
        rules.map(|(place, rule)| (rule.id, (Arc::clone(domain), place))).collect::<Vec<_>>()
    };
    domains.values().flat_map(places).collect()
}

fn reserves(domains: &HashMap<Box<str>, Arc<Domain>>) -> Arc<Reserves> {
    let rules = domains.values().flat_map(|domain| &domain.rules);
    Arc::new(Reserves::of(rules.filter_map(Rule::reserve)))
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("domains", &self.domains).finish_non_exhaustive()
    }
}
