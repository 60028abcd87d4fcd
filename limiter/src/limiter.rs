//! The front of the crate for one process: rules and buckets together.

use std::{collections::HashSet, time::Duration};

use smallvec::SmallVec;

use crate::{
    Attributes, Charge, Costs, DEFAULT_DOMAIN, Decision, Error, HashSecret, Limit, Match, Mode, Nanos,
    NewRule, Rule, Rules, Store, StoreConfig, StoreStats, Swept, SystemClock,
    parse::{Compiler, Place, one_domain},
    rule_set::Content,
    store::GROUP,
};

/// Rules and the buckets that they need, for one process.
///
/// ```
/// use std::time::Duration;
/// use tidegate_limiter::{Algorithm, Cost, Limit, Limiter, NewRule};
///
/// let limiter = Limiter::builder()
///     .rule(NewRule::new("per-user", Limit::per_minute(100).with_algorithm(Algorithm::SlidingWindow)).key("user"))
///     .rule(NewRule::new("logins", Limit::per_hour(2)).when("path", ["/login"]).key("ip"))
///     .build()?;
///
/// let request = [("user", "ada"), ("ip", "203.0.113.7"), ("path", "/login")];
/// assert!(limiter.check_now(&request, Cost::ONE).allowed);
/// assert!(limiter.check_now(&request, Cost::ONE).allowed);
/// let denied = limiter.check_now(&request, Cost::ONE);
/// assert!(!denied.allowed);
/// let binding = denied.binding().expect("some rule has denied it");
/// assert_eq!(binding.rule.name(), "logins");
/// assert!(binding.decision.retry_after > Some(Duration::from_secs(1700)));
/// # Ok::<(), tidegate_limiter::Error>(())
/// ```
#[derive(Debug)]
pub struct Limiter {
    rules: Rules,
    store: Store,
    domain: String,
    clock: SystemClock,
}

/// What a [`Limiter`] is made of.
#[derive(Debug, Default)]
#[must_use = "it makes a limiter by `build`"]
pub struct LimiterBuilder {
    secret: Option<HashSecret>,
    config: StoreConfig,
    rules: Vec<NewRule>,
    yaml: Option<String>,
    deny_unmatched: bool,
}

/// One rule that was about a request, and what it says.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Ruled<'l> {
    /// The rule.
    pub rule: &'l Rule,
    /// Of its limits, the one of the request.
    pub limit: &'l Limit,
    /// What it decided.
    pub decision: Decision,
}

/// What limits a request.
#[derive(Default)]
struct Limited<'l> {
    rules: SmallVec<[(&'l Rule, &'l Limit); 4]>,
    charges: SmallVec<[Charge; 4]>,
}

/// The answer to a check.
#[derive(Debug, Clone)]
#[must_use = "it says whether the request may run"]
#[non_exhaustive]
pub struct Verdict<'l> {
    /// Whether the request may run. Then all rules have been charged; otherwise none.
    pub allowed: bool,
    rules: SmallVec<[Ruled<'l>; 4]>,
}

impl<'l> Verdict<'l> {
    /// What each rule said that was about the request and did not find it unlimited, in their order. None if no rule was.
    pub fn rules(&self) -> &[Ruled<'l>] {
        &self.rules
    }

    /// The rule that binds most: of those that deny the one with the longest wait, otherwise the one with the least
    /// remaining. Never one in shadow mode, which changes nothing for anybody; `None`: no other was about the request.
    pub fn binding(&self) -> Option<&Ruled<'l>> {
        let before = |a: &&Ruled<'l>, b: &&Ruled<'l>| {
            a.decision.binds(&b.decision).then_with(|| b.rule.name().cmp(a.rule.name()))
        };
        self.enforced().max_by(before)
    }

    /// How long the request has to wait for its turn: the longest such time of all rules. Zero if it may not run.
    pub fn delay(&self) -> Duration {
        let delays = self.enforced().map(|ruled| ruled.decision.delay);
        if self.allowed { delays.max().unwrap_or_default() } else { Duration::ZERO }
    }

    fn enforced(&self) -> impl Iterator<Item = &Ruled<'l>> {
        self.rules.iter().filter(|ruled| ruled.rule.mode() == Mode::Enforce)
    }
}

impl Limiter {
    /// Begins with no rules, which allow everything, and at most 1 GiB for buckets.
    pub fn builder() -> LimiterBuilder {
        LimiterBuilder::default()
    }

    /// As [`Limiter::check`], now.
    pub fn check_now<'c, A: Attributes + ?Sized>(
        &self,
        attributes: &A,
        costs: impl Into<Costs<'c>>,
    ) -> Verdict<'_> {
        self.check(attributes, costs, self.clock.now())
    }

    /// Decides about a request and charges it if all rules that are about it allow. A check of one known bucket locks
    /// nothing; of several it takes a lock for some dozens of nanoseconds. It allocates nothing for up to four rules, and
    /// never waits for anything else.
    pub fn check<'c, A: Attributes + ?Sized>(
        &self,
        attributes: &A,
        costs: impl Into<Costs<'c>>,
        now: Nanos,
    ) -> Verdict<'_> {
        let mut limited = Limited::default();
        match self.limits(attributes, &costs.into(), now, &mut limited) {
            Some(verdict) => verdict,
            None => self.decide(limited, now),
        }
    }

    /// As [`Limiter::check`] for many requests, each by itself and in their order; `each` gets the verdicts. It takes less
    /// time than one after the other where buckets are many, because those of up to 32 requests are looked for at once.
    pub fn check_many<'a, 'c, A: Attributes + ?Sized + 'a>(
        &self,
        requests: impl IntoIterator<Item = &'a A>,
        costs: impl Into<Costs<'c>>,
        now: Nanos,
        mut each: impl FnMut(Verdict<'_>),
    ) {
        let costs = costs.into();
        let mut requests = requests.into_iter();
        let mut group = Vec::with_capacity(GROUP);
        loop {
            group.extend(requests.by_ref().take(GROUP).map(|attributes| {
                let mut limited = Limited::default();
                let known = self.limits(attributes, &costs, now, &mut limited);
                (known, limited)
            }));
            if group.is_empty() {
                return;
            }
            self.store.warm(group.iter().flat_map(|(_, limited)| &limited.charges).map(|charge| charge.key));
            for (known, limited) in group.drain(..) {
                each(known.unwrap_or_else(|| self.decide(limited, now)));
            }
        }
    }

    /// Fills in what limits a request. The verdict, if no rule is about it.
    fn limits<'l, A: Attributes + ?Sized>(
        &'l self,
        attributes: &A,
        costs: &Costs<'_>,
        now: Nanos,
        limited: &mut Limited<'l>,
    ) -> Option<Verdict<'l>> {
        let mut matched = SmallVec::new();
        let outcome = self.rules.matching_at(&self.domain, attributes, now, &mut matched);
        if let Match::Unmatched { allow } = outcome {
            return Some(Verdict { allowed: allow, rules: SmallVec::new() });
        }
        for (one, limit) in matched.iter().filter_map(|one| Some((one, one.limit?))) {
            limited.rules.push((one.rule, limit));
            limited.charges.push(Charge {
                key: one.key,
                rule: one.rule.id(),
                limit: *limit,
                cost: costs.of(one.rule),
                mode: one.rule.mode(),
                floor: None,
                ban: one.rule.ban(),
            });
        }
        None
    }

    fn decide<'l>(&self, limited: Limited<'l>, now: Nanos) -> Verdict<'l> {
        let mut decisions = SmallVec::new();
        let allowed = self.store.check_all(&limited.charges, now, &mut decisions);
        let rules = limited.rules.into_iter().zip(decisions);
        let rules = rules.map(|((rule, limit), decision)| Ruled { rule, limit, decision });
        Verdict { allowed, rules: rules.collect() }
    }

    /// Gives units back to all buckets that a request was charged, e.g. because it failed.
    pub fn refund<'c, A: Attributes + ?Sized>(
        &self,
        attributes: &A,
        costs: impl Into<Costs<'c>>,
        now: Nanos,
    ) {
        let costs = costs.into();
        let mut matched = SmallVec::new();
        self.rules.matching_unblocked_at(&self.domain, attributes, now, &mut matched);
        for one in matched {
            if let Some(limit) = one.limit {
                self.store.refund(one.key, limit, costs.of(one.rule), now);
            }
        }
    }

    /// Forgets what all buckets of a request know: those of all limits that a rule has for its key, whichever is in force.
    pub fn reset<A: Attributes + ?Sized>(&self, attributes: &A) {
        let mut matched = SmallVec::new();
        self.rules.buckets(&self.domain, attributes, &mut matched);
        matched.iter().for_each(|one| self.store.reset(one.key));
    }

    /// As [`Limiter::sweep`], now.
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

    /// Its rules.
    pub fn rules(&self) -> &[Rule] {
        self.rules.rules(&self.domain)
    }
}

impl LimiterBuilder {
    /// Adds a rule. The order of rules is only that of their answers: all that are about a request must allow.
    pub fn rule(mut self, rule: NewRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Takes the rules of a rule file, as nodes have them, before those that are written in Rust; the last file counts. It is one
    /// document, whose `domain` says nothing here. What its rules say about nodes that are lost means nothing in one process; of
    /// a rule that is `carved` the quarter is set aside here too.
    ///
    /// ```
    /// use tidegate_limiter::{Cost, Limiter};
    ///
    /// let rules = "rules: [{ name: per-ip, key: [ip], limit: 2/1m }]";
    /// let limiter = Limiter::builder().yaml(rules).build()?;
    /// assert!(limiter.check_now(&[("ip", "203.0.113.7")], Cost::ONE).allowed);
    /// # Ok::<(), tidegate_limiter::Error>(())
    /// ```
    #[cfg(feature = "yaml")]
    pub fn yaml(mut self, text: impl Into<String>) -> Self {
        self.yaml = Some(text.into());
        self
    }

    /// Denies requests that no rule is about.
    pub fn deny_unmatched(mut self) -> Self {
        self.deny_unmatched = true;
        self
    }

    /// The secret of the fingerprints. By default it is random, so that nobody can look for keys that collide.
    pub fn secret(mut self, secret: HashSecret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Bytes that buckets may take. What happens when they are full, each rule says: see
    /// [`NewRule::on_memory_full`].
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.config = StoreConfig::of_memory(bytes);
        self
    }

    /// Makes the limiter.
    ///
    /// # Errors
    /// All that is wrong with the rules: names that are there twice, names that none can have, limits and networks that are
    /// none.
    pub fn build(self) -> Result<Limiter, Error> {
        let secret = self.secret.unwrap_or_else(HashSecret::random);
        let mut content = Content { rules: Vec::new(), block: None, allow_unmatched: true };
        let mut compiler = Compiler::new(self.yaml.as_deref().unwrap_or_default(), &secret);
        if let Some(text) = &self.yaml
            && let Some(written) = one_domain(text, DEFAULT_DOMAIN, &mut compiler)
        {
            content = written;
        }
        content.allow_unmatched &= !self.deny_unmatched;
        let mut names: HashSet<String> =
            content.rules.iter().map(|rule: &Rule| rule.name().to_owned()).collect();
        for rule in &self.rules {
            if !names.insert(rule.name().to_owned()) {
                let message = format!("the rule name {:?} is there twice", rule.name());
                compiler.error(Place::NOWHERE, message, "give each rule a name of its own");
            }
            content.rules.extend(rule.compile(DEFAULT_DOMAIN, &mut compiler));
        }
        compiler.finish()?;
        let rules = Rules::of_domain(&secret, DEFAULT_DOMAIN, content);
        let store = Store::new(self.config, Nanos::new(0));
        store.set_rules(&rules);
        Ok(Limiter { rules, store, domain: DEFAULT_DOMAIN.to_owned(), clock: SystemClock::new() })
    }
}
