//! The rules of all domains: which of them are about a request.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, OnceLock},
};

use smallvec::SmallVec;

use crate::{
    Attributes, HashSecret, KeyHash, Limit, Matched, Mode, Nanos, OnTotalLoss, Reserves, Rule, RuleId,
    address::IpPrefix,
    block::BlockList,
    cardinality::Cardinality,
    index::Index,
    key::{KeyBytes, KeyHasher},
    override_index::OverrideIndex,
};

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
    /// Of any domain: so that requests of the others need not look.
    has_all_or_nothing: bool,
    revision: u64,
    /// Of rules that say none.
    ip_prefix: IpPrefix,
}

/// What is written of a domain.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) rules: Vec<Rule>,
    pub(crate) block: Option<BlockList>,
    /// Whether requests that no rule is about are allowed.
    pub(crate) allow_unmatched: bool,
}

/// The rules of one domain.
#[derive(Debug, Clone)]
pub(crate) struct Domain {
    rules: Vec<Rule>,
    index: Index,
    /// Of each rule.
    overrides: Box<[OverrideIndex]>,
    /// Denied before any rule is asked.
    block: Option<Box<BlockList>>,
    allow_unmatched: bool,
    /// By which checks say what they take of single rules; worked out when it is first asked for.
    price_names: OnceLock<HashSet<Box<str>>>,
    /// The descriptors of a request are charged together, or none of them is.
    all_or_nothing: bool,
    /// Of its last change.
    pub(crate) revision: u64,
}

impl Domain {
    pub(crate) fn new(content: Content) -> Self {
        let Content { mut rules, block, allow_unmatched } = content;
        Self {
            index: Index::new(&mut rules),
            overrides: rules.iter_mut().map(|rule| OverrideIndex::new(&mut rule.overrides)).collect(),
            rules,
            block: block.map(Box::new),
            allow_unmatched,
            price_names: OnceLock::new(),
            all_or_nothing: false,
            revision: 0,
        }
    }

    /// What it blocks, if it has a list.
    pub(crate) fn block(&self) -> Option<&BlockList> {
        self.block.as_deref()
    }

    /// With its descriptors charged together, or each by itself.
    pub(crate) fn charging(self, all_or_nothing: bool) -> Self {
        Self { all_or_nothing, ..self }
    }

    /// Goes on with what is known of the rules with the same names.
    pub(crate) fn following(mut self, before: &Self) -> Self {
        let known: HashMap<&str, &Arc<Cardinality>> =
            before.rules.iter().map(|rule| (&*rule.name, &rule.cardinality)).collect();
        for rule in &mut self.rules {
            if let Some(cardinality) = known.get(&*rule.name) {
                rule.cardinality = Arc::clone(cardinality);
            }
        }
        self
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The place of the override of a rule that fits a request.
    pub(crate) fn override_of<A: Attributes + ?Sized>(
        &self,
        place: usize,
        attributes: &A,
        now: Nanos,
    ) -> Option<usize> {
        self.overrides[place].first(&self.rules[place].overrides, attributes, Some(now))
    }

    /// Each rule that is about a request, with what the fingerprints of the request's key begin with, and the place of the
    /// override that fits. `at`: only what is in force then.
    #[inline]
    fn each_about<'r, A: Attributes + ?Sized>(
        &'r self,
        attributes: &A,
        at: Option<Nanos>,
        mut each: impl FnMut(&'r Rule, KeyBytes, Option<usize>),
    ) {
        let candidates = self.index.candidates(attributes);
        let rules = candidates.into_iter().map(|found| (found, &self.rules[found.place()]));
        let rules = rules.filter(|(found, rule)| {
            at.is_none_or(|now| rule.span.has(now))
                && rule.when.holds_from(found.tests_done(), attributes)
                && attributes.may_match(rule)
        });
        for (found, rule) in rules {
            if let Some(key) = rule.key_of(attributes) {
                let special = self.overrides[found.place()].first(&rule.overrides, attributes, at);
                each(rule, key, special);
            }
        }
    }

    #[inline]
    fn matching<'r, A: Attributes + ?Sized>(
        &'r self,
        attributes: &A,
        at: Option<Nanos>,
        found: &mut SmallVec<[Matched<'r>; 4]>,
    ) -> Match {
        let before = found.len();
        self.each_about(attributes, at, |rule, key, special| {
            let matched = rule.matched(key, special);
            // What denies has no bucket.
            if !matched.limit.is_some_and(Limit::denies) {
                rule.cardinality.note(matched.key);
            }
            found.push(matched);
        });
        if found.len() > before { Match::Rules } else { Match::Unmatched { allow: self.allow_unmatched } }
    }
}

impl Rules {
    /// No rules: everything is allowed.
    pub fn empty(secret: &HashSecret) -> Self {
        Self::of_domains(secret, HashMap::new())
    }

    /// The rules of one domain.
    pub(crate) fn of_domain(secret: &HashSecret, name: &str, content: Content) -> Self {
        Self::of_domains(secret, HashMap::from([(name.into(), Arc::new(Domain::new(content)))]))
    }

    pub(crate) fn of_domains(secret: &HashSecret, domains: HashMap<Box<str>, Arc<Domain>>) -> Self {
        let (reserves, by_id) = (reserves(&domains), by_id(&domains));
        let has_all_or_nothing = domains.values().any(|domain| domain.all_or_nothing);
        let (inline, ip_prefix) = (KeyHasher::of_inline(secret), IpPrefix::default());
        Self { inline, reserves, by_id, domains, has_all_or_nothing, revision: 0, ip_prefix }
    }

    /// These, with other domains.
    pub(crate) fn with_domains(&self, domains: HashMap<Box<str>, Arc<Domain>>) -> Self {
        let (reserves, by_id) = (reserves(&domains), by_id(&domains));
        let has_all_or_nothing = domains.values().any(|domain| domain.all_or_nothing);
        Self { reserves, by_id, domains, has_all_or_nothing, ..*self }
    }

    /// These rules and a domain that denies everything, for one whose rules cannot be used; `None` if there is one of that name.
    pub fn with_denied_domain(&self, name: &str) -> Option<Self> {
        if self.domains.contains_key(name) {
            return None;
        }
        let mut domains = self.domains.clone();
        let nothing = Content { rules: Vec::new(), block: None, allow_unmatched: false };
        domains.insert(name.into(), Arc::new(Domain::new(nothing)));
        Some(self.with_domains(domains))
    }

    /// These, where rules that are added count addresses by so many bits, unless they say others.
    pub fn with_ip_prefix(self, ip_prefix: IpPrefix) -> Self {
        Self { ip_prefix, ..self }
    }

    /// How many bits of an address count in the keys of rules that do not say it.
    pub fn ip_prefix(&self) -> IpPrefix {
        self.ip_prefix
    }

    /// Of which revision the rules of a domain are; `None`: there is no such domain.
    pub fn revision_of(&self, domain: &str) -> Option<u64> {
        self.domains.get(domain).map(|domain| domain.revision)
    }

    /// The floors of the rules of one domain.
    pub fn reserves_of(&self, domain: &str) -> Option<Reserves> {
        self.domains.get(domain).map(|domain| reserves_of([domain].into_iter()))
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
    /// condition holds and the request has all attributes of its key, at whatever time. A domain without rules allows everything.
    pub fn matching<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        found: &mut SmallVec<[Matched<'r>; 4]>,
    ) -> Match {
        let Some(domain) = self.domains.get(domain) else { return Match::Unmatched { allow: true } };
        domain.matching(attributes, None, found)
    }

    /// As [`Rules::matching`], with the rules and overrides that are in force at this instant, whatever is blocked.
    pub fn matching_unblocked_at<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        now: Nanos,
        found: &mut SmallVec<[Matched<'r>; 4]>,
    ) -> Match {
        let Some(domain) = self.domains.get(domain) else { return Match::Unmatched { allow: true } };
        domain.matching(attributes, Some(now), found)
    }

    /// The same, for a request that is to be decided at this instant: of one that the domain's block list denies
    /// then, that is all that is found.
    pub fn matching_at<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        now: Nanos,
        found: &mut SmallVec<[Matched<'r>; 4]>,
    ) -> Match {
        let Some(domain) = self.domains.get(domain) else { return Match::Unmatched { allow: true } };
        if let Some(rule) = domain.block().and_then(|block| block.find(attributes, now)) {
            found.push(rule.matched(rule.hasher.key(), None));
            return Match::Rules;
        }
        domain.matching(attributes, Some(now), found)
    }

    /// Finds all buckets that the request's keys have in the rules that are about it: of each rule first that of the limit in
    /// force, then those of its other limits, whenever these are in force. What is unlimited has none, nor has what denies.
    pub fn buckets<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        found: &mut SmallVec<[Matched<'r>; 4]>,
    ) {
        let Some(domain) = self.domains.get(domain) else { return };
        domain.each_about(attributes, None, |rule, key, special| {
            let mut known = HashSet::with_capacity(rule.overrides.len() + 1);
            let others = [None].into_iter().chain((0..rule.overrides.len()).map(Some));
            for place in [special].into_iter().chain(others) {
                let matched = rule.matched(key, place);
                let has_bucket = matched.limit.is_some_and(|limit| !limit.denies());
                if has_bucket && known.insert(matched.key) {
                    found.push(matched);
                }
            }
        });
    }

    /// Each rule of a domain that is about a request, at whatever time, with what the fingerprints of the request's key begin with.
    pub(crate) fn each_about<'r, A: Attributes + ?Sized>(
        &'r self,
        domain: &str,
        attributes: &A,
        mut each: impl FnMut(&'r Rule, KeyBytes),
    ) {
        if let Some(domain) = self.domains.get(domain) {
            domain.each_about(attributes, None, |rule, key, _| each(rule, key));
        }
    }

    /// Whether some rule of the domain has this name, or a `cost` of this name.
    pub fn is_price(&self, domain: &str, name: &str) -> bool {
        self.domains.get(domain).is_some_and(|domain| {
            let names = || domain.rules.iter().flat_map(Rule::price_names).map(Box::from).collect();
            domain.price_names.get_or_init(names).contains(name)
        })
    }

    /// The names of that kind that are there, at most so many, in the order of the rules.
    pub fn prices(&self, domain: &str, at_most: usize) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.rules(domain).iter().flat_map(Rule::price_names) {
            if names.len() < at_most && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The bucket of a limit that a request brings along: the same key with another limit is another bucket.
    pub fn inline_key(&self, domain: &str, key: &str, limit: &Limit) -> KeyHash {
        let mut bytes = self.inline.key();
        bytes.text(domain);
        bytes.text(key);
        bytes.limit(limit);
        bytes.finish(Some(limit))
    }

    /// As [`Rules::inline_key`], of one of several limits with names: each name has a bucket of its own.
    pub fn named_inline_key(&self, domain: &str, key: &str, name: &str, limit: &Limit) -> KeyHash {
        let mut bytes = self.inline.key();
        bytes.text(domain);
        bytes.text(key);
        bytes.limit(limit);
        bytes.text(name);
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
        self.domains.values().flat_map(|domain| &domain.rules).for_each(|rule| rule.cardinality.turn());
    }

    /// Whether a domain allows requests that no rule is about.
    pub fn allows_unmatched(&self, domain: &str) -> bool {
        self.domains.get(domain).is_none_or(|domain| domain.allow_unmatched)
    }

    /// Whether the descriptors of a request to a domain are charged together, or none of them is.
    #[inline]
    pub fn is_all_or_nothing(&self, domain: &str) -> bool {
        self.has_all_or_nothing && self.domains.get(domain).is_some_and(|domain| domain.all_or_nothing)
    }

    /// All rules whose floors are replicated.
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
    Arc::new(reserves_of(domains.values()))
}

fn reserves_of<'d>(domains: impl Iterator<Item = &'d Arc<Domain>> + Clone) -> Reserves {
    let rules = || domains.clone().flat_map(|domain| &domain.rules);
    let full = rules().filter(|rule| rule.on_total_loss == OnTotalLoss::Full).map(Rule::id);
    let all = rules().map(|rule| (rule.id, rule.reserve(), rule.numbered_limits()));
    Reserves::of(all, full)
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("domains", &self.domains).finish_non_exhaustive()
    }
}
