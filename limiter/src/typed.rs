//! Rules written in Rust.

use std::{collections::HashMap, time::Duration};

use crate::{
    Consistency, Limit, Mode, OnMemoryFull, OnOwnerLoss, OnTotalLoss, Rule, Takeover,
    address::OwnIpPrefix,
    ban::Ban,
    key::KeyHasher,
    limit::Placing,
    limits::{LimitId, Override, Shape, attributes_of},
    matching::key_order,
    parse::{Compiler, Place, RawKey, RawPattern, RawTest, Written},
    pattern::PatternText,
    span::Span,
};

/// A rule written in Rust, for [`LimiterBuilder::rule`](crate::LimiterBuilder::rule).
///
/// ```
/// use tidegate_limiter::{Limit, NewRule};
///
/// let logins = NewRule::new("logins", Limit::per_minute(5).burst(10))
///     .when("path", ["/login", "/token/*"])
///     .key("ip")
///     .unlimited_when("ip", ["10.0.0.0/8"]);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a rule is for a builder"]
pub struct NewRule {
    name: String,
    limit: Limit,
    when: Patterns,
    key: Vec<String>,
    ip_prefix: OwnIpPrefix,
    overrides: Vec<(Patterns, Option<Limit>)>,
    price: u64,
    mode: Mode,
    ban: Option<(Duration, Duration)>,
    on_memory_full: OnMemoryFull,
}

/// Attributes with the patterns that their values must fit.
type Patterns = HashMap<String, Vec<PatternText>>;

impl NewRule {
    /// A rule for all requests, with one bucket for all of them.
    pub fn new(name: impl Into<String>, limit: Limit) -> Self {
        Self {
            name: name.into(),
            limit,
            when: Patterns::new(),
            key: Vec::new(),
            ip_prefix: OwnIpPrefix::default(),
            overrides: Vec::new(),
            price: 1,
            mode: Mode::Enforce,
            ban: None,
            on_memory_full: OnMemoryFull::default(),
        }
    }

    /// Only for requests whose attribute fits one of the patterns: an exact value, `/api/*` (a prefix), `10.0.0.0/8` (for
    /// an address), `*` (it is there), or one of these after a `!`, which must not fit. A
    /// [`PatternForm`](crate::rules::PatternForm) is not read by what it looks like.
    ///
    /// ```
    /// # use tidegate_limiter::{Limit, NewRule, rules::PatternForm};
    /// let downloads = NewRule::new("downloads", Limit::per_minute(5))
    ///     .when("path", [PatternForm::Like("/api/*/download".to_owned())]);
    /// ```
    pub fn when(
        mut self,
        attribute: impl Into<String>,
        patterns: impl IntoIterator<Item = impl Into<PatternText>>,
    ) -> Self {
        self.when.entry(attribute.into()).or_default().extend(patterns.into_iter().map(Into::into));
        self
    }

    /// A bucket for each value of this attribute; of several such attributes, for each combination. The rule is not
    /// about requests that lack one of them, unless it is written with a `?` behind its name: then its part of the key may be
    /// empty, and the rule is not about requests whose key is empty altogether. Of an IPv6 address in `ip` the /64 network counts, see
    /// [`NewRule::ip_prefix`].
    pub fn key(mut self, attribute: impl Into<String>) -> Self {
        self.key.push(attribute.into());
        self
    }

    /// How many bits of an address in the key `ip` stand for one client: of IPv4 (1 to 32, by default 32), and of IPv6 (1 to
    /// 128, by default 64).
    pub fn ip_prefix(mut self, v4: u8, v6: u8) -> Self {
        self.ip_prefix = OwnIpPrefix { v4: Some(v4), v6: Some(v6) };
        self
    }

    /// Another limit for requests whose attribute fits one of the patterns. The first that fits counts. It has buckets of its
    /// own: what these requests take is not taken from the rule's limit.
    pub fn limit_when(
        mut self,
        attribute: impl Into<String>,
        patterns: impl IntoIterator<Item = impl Into<PatternText>>,
        limit: Limit,
    ) -> Self {
        let patterns = patterns.into_iter().map(Into::into).collect();
        self.overrides.push((Patterns::from([(attribute.into(), patterns)]), Some(limit)));
        self
    }

    /// No limit for requests whose attribute fits one of the patterns.
    pub fn unlimited_when(
        mut self,
        attribute: impl Into<String>,
        patterns: impl IntoIterator<Item = impl Into<PatternText>>,
    ) -> Self {
        let patterns = patterns.into_iter().map(Into::into).collect();
        self.overrides.push((Patterns::from([(attribute.into(), patterns)]), None));
        self
    }

    /// A request takes so many units of it for each of its cost: an expensive one several.
    pub fn cost(mut self, units: u64) -> Self {
        self.price = units;
        self
    }

    /// It counts and reports, and never denies.
    pub fn shadow(mut self) -> Self {
        self.mode = Mode::Shadow;
        self
    }

    /// A key that exceeds its limit is denied for so long: the first time for `first`, then each time twice as long as before, and never
    /// longer than `longest`. A key that was not banned for `longest` after that begins anew. Whole seconds, at most 366 days.
    pub fn ban(mut self, first: Duration, longest: Duration) -> Self {
        self.ban = Some((first, longest));
        self
    }

    /// What happens with its buckets when there is no room for all of them; by default they are forgotten.
    pub fn on_memory_full(mut self, on_memory_full: OnMemoryFull) -> Self {
        self.on_memory_full = on_memory_full;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `None` if there is an error in it.
    pub(crate) fn compile(&self, domain: &str, compiler: &mut Compiler<'_>) -> Option<Rule> {
        let before = compiler.errors();
        compiler.check_name("rule", &Written::nowhere(&self.name));
        let limits = self.overrides.iter().filter_map(|(_, limit)| limit.as_ref());
        for error in [&self.limit].into_iter().chain(limits).filter_map(|limit| limit.validate().err()) {
            compiler.error(Place::NOWHERE, format!("the rule {:?}: {error}", self.name), "");
        }
        let limits =
            [&self.limit].into_iter().chain(self.overrides.iter().filter_map(|(_, limit)| limit.as_ref()));
        let price = compiler.price(Some(&Written::nowhere(self.price.to_string())), limits);
        let ban = self.ban.and_then(|(first, longest)| {
            let ban = Ban::of(first, longest);
            if let Err(error) = &ban {
                compiler.error(Place::NOWHERE, format!("the rule {:?}: {error}", self.name), "");
            }
            ban.ok()
        });
        let when = compiler.condition(&tests(&self.when));
        let parts = self.key.iter().map(Written::nowhere).collect();
        let key = compiler.key(&RawKey { parts, place: Place::NOWHERE });
        let key_order = key_order(&key);
        compiler.check_ip_prefix(self.ip_prefix, [Place::NOWHERE; 2], &key);
        let hasher = KeyHasher::of_rule(compiler.secret, domain, &self.name);
        let overrides = self.overrides.iter().map(|(when, limit)| (compiler.condition(&tests(when)), *limit));
        let overrides = Override::all(hasher, Some(&self.limit), overrides, None);
        let shape = Shape {
            when: &when,
            span: Span::ALWAYS,
            key: &key,
            key_order: &key_order,
            ip_prefix: self.ip_prefix,
            own: LimitId::of_rule(Some(&self.limit)),
            overrides: &overrides,
            price: &price,
        }
        .fingerprint(hasher);
        (compiler.errors() == before).then(|| Rule {
            domain: compiler.shared(domain),
            name: self.name.as_str().into(),
            shape,
            id: hasher.rule(),
            hasher,
            when,
            span: Span::ALWAYS,
            key,
            key_order,
            ip_prefix: compiler.ip_prefix.or(self.ip_prefix),
            own_ip_prefix: self.ip_prefix,
            limit: Some(self.limit),
            limit_id: LimitId::of_rule(Some(&self.limit)),
            algorithm: self.limit.algorithm(),
            placing: Placing::default(),
            override_attributes: attributes_of(&overrides),
            overrides,
            price,
            mode: self.mode,
            ban,
            consistency: Consistency::Available,
            on_owner_loss: OnOwnerLoss::Share,
            carved: None,
            takeover: Takeover::Zero,
            on_total_loss: OnTotalLoss::default(),
            on_memory_full: self.on_memory_full,
            reserve: None,
            cardinality: std::sync::Arc::default(),
        })
    }
}

fn tests(patterns: &Patterns) -> Vec<RawTest> {
    let test = |(name, many): (&String, &Vec<PatternText>)| RawTest {
        attribute: Written::nowhere(name),
        patterns: many
            .iter()
            .map(|pattern| RawPattern { pattern: pattern.clone(), place: Place::NOWHERE })
            .collect(),
        place: Place::NOWHERE,
    };
    patterns.iter().map(test).collect()
}
