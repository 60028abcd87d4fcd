//! What a rule file means: from its texts to rules, or to all that is wrong with them.

use std::{collections::HashSet, sync::Arc};

use super::{
    MAX_KEY_PARTS, MAX_NAME_BYTES,
    fault::{Faults, Place, RuleError},
    fields::{nearest, shortened},
    shape::{RawFile, RawKey, RawLimit, RawRule, RawTest, Written},
};
use crate::{
    Algorithm, Consistency, HashSecret, Limit, LimitError, Mode, OnMemoryFull, OnOwnerLoss, Reserve, Rule,
    Takeover,
    condition::{Condition, Test},
    key::KeyHasher,
    limits::{Carved, LimitId, Override},
    revised,
    rule::Domain,
};

/// Attributes that calls use for themselves.
const RESERVED: [&str; 3] = ["domain", "cost", "request_id"];

/// Makes rules, and collects what is wrong with them.
pub(crate) struct Compiler<'t> {
    pub(crate) secret: &'t HashSecret,
    pub(super) faults: Faults<'t>,
    /// Names that many rules share are there once.
    names: HashSet<Arc<str>>,
}

impl<'t> Compiler<'t> {
    pub(crate) fn new(text: &'t str, secret: &'t HashSecret) -> Self {
        Self { secret, faults: Faults::new(text), names: HashSet::new() }
    }

    pub(crate) fn fault(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.faults.add(place, message, help);
    }

    pub(crate) fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// How many faults there are so far.
    pub(crate) fn faults(&self) -> usize {
        self.faults.count()
    }

    /// What was made may be used if this is `Ok`.
    pub(crate) fn finish(self) -> Result<(), Vec<RuleError>> {
        self.faults.into_result()
    }

    pub(super) fn domain(&mut self, name: &str, file: &RawFile) -> Domain {
        let mut seen = HashSet::new();
        let mut rules = Vec::with_capacity(file.rules.len());
        for raw in &file.rules {
            if let Some(rule) = &raw.name {
                self.check_name("rule", rule);
                if !seen.insert(&*rule.text) {
                    let message =
                        format!("the rule name {:?} is there twice in the domain {name:?}", rule.text);
                    self.fault(rule.place, message, "give each rule a name of its own");
                }
            }
            rules.extend(self.rule(name, raw));
        }
        let allow_unmatched =
            self.word("unmatched", file.unmatched.as_ref(), &[("allow", true), ("deny", false)]);
        Domain::new(rules, allow_unmatched)
    }

    /// `None` if there is a fault in it, or if something is missing.
    fn rule(&mut self, domain: &str, raw: &RawRule) -> Option<Rule> {
        let before = self.faults();
        let known = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
        let algorithm = self.word("algorithm", raw.algorithm.as_ref(), &known);
        let limit = self.limit(&raw.limit, algorithm);
        let when = self.condition(&raw.when);
        let key = raw.key.as_ref().map(|key| self.key(key));
        let overrides: Vec<(Condition, Option<Limit>)> = raw
            .overrides
            .iter()
            .map(|special| {
                let limit = self.limit(&special.limit, algorithm);
                (self.condition(&special.when), limit.flatten())
            })
            .collect();
        let mode =
            self.word("mode", raw.mode.as_ref(), &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)]);
        let consistency = self.word(
            "consistency",
            raw.consistency.as_ref(),
            &[("available", Consistency::Available), ("strict", Consistency::Strict)],
        );
        let on_owner_loss = self.word(
            "on_owner_loss",
            raw.on_owner_loss.as_ref(),
            &[("share", OnOwnerLoss::Share), ("deny", OnOwnerLoss::Deny), ("allow", OnOwnerLoss::Allow)],
        );
        let wants_carved = self.word("carved", raw.carved.as_ref(), &[("false", false), ("true", true)]);
        let mut carved = None;
        if let (true, Some(written), Some(limit)) = (wants_carved, &raw.carved, &limit) {
            carved = Carved::of(limit.as_ref(), &overrides).map(Box::new);
            if on_owner_loss != OnOwnerLoss::Share {
                self.fault(
                    written.place,
                    "carved: true sets a part aside for shares, which this rule does not give",
                    "write on_owner_loss: share, or leave carved out",
                );
            } else if carved.is_none() {
                self.fault(
                    written.place,
                    "the limit is too small for a part of it to be set aside",
                    "a count and a burst of at least 4, or leave carved out",
                );
            }
        }
        let limits =
            || limit.iter().flatten().chain(overrides.iter().filter_map(|(_, limit)| limit.as_ref()));
        let takeover = self.takeover(raw.takeover.as_ref(), algorithm, Takeover::default_of(limits()));
        let words = [OnMemoryFull::Forget, OnMemoryFull::Strict].map(|one| (one.as_str(), one));
        let on_memory_full = self.word("on_memory_full", raw.on_memory_full.as_ref(), &words);
        let (Some(name), Some(limit), Some(key)) = (&raw.name, limit, key) else { return None };
        let hasher = KeyHasher::of_rule(self.secret, domain, &name.text);
        let limits = || limit.iter().chain(overrides.iter().filter_map(|(_, limit)| limit.as_ref()));
        let reserve = match (&carved, takeover, mode) {
            // The shares of a carved rule come out of the part that is set aside.
            (Some(carved), Takeover::Reserve, Mode::Enforce) => {
                Reserve::of(hasher.rule(), carved.limits(), false)
            }
            (None, Takeover::Reserve, Mode::Enforce) => {
                Reserve::of(hasher.rule(), limits(), on_owner_loss != OnOwnerLoss::Deny)
            }
            _ => None,
        };
        let overrides = Override::all(hasher, limit.as_ref(), overrides);
        (self.faults() == before).then(|| Rule {
            domain: self.shared(domain),
            name: name.text.as_str().into(),
            shape: revised::shape(hasher, &when, &key, LimitId::of_rule(limit.as_ref()), &overrides),
            id: hasher.rule(),
            hasher,
            when,
            key,
            limit,
            limit_id: LimitId::of_rule(limit.as_ref()),
            algorithm,
            overrides,
            mode,
            consistency,
            on_owner_loss,
            carved,
            takeover,
            on_memory_full,
            reserve,
            touched: Arc::default(),
        })
    }

    fn takeover(&mut self, given: Option<&Written>, algorithm: Algorithm, default: Takeover) -> Takeover {
        let Some(written) = given else { return default };
        let words = [Takeover::Zero, Takeover::Reserve].map(|one| (one.as_str(), one));
        let takeover = self.word("takeover", given, &words);
        if takeover == Takeover::Reserve && !Takeover::is_possible(algorithm) {
            self.fault(
                written.place,
                format!("what a {algorithm} has counted cannot be told in advance"),
                "write takeover: zero, or another algorithm: token_bucket, leaky_bucket or fixed_window",
            );
        }
        takeover
    }

    /// `None`: faulty. `Some(None)`: unlimited.
    fn limit(&mut self, raw: &RawLimit, algorithm: Algorithm) -> Option<Option<Limit>> {
        let text = raw.limit.as_ref()?;
        if text.text == "unlimited" {
            if let Some((_, place)) = raw.burst {
                self.fault(place, "what is unlimited has no burst", "leave it out");
            }
            return Some(None);
        }
        match Limit::parse(&text.text, raw.burst.map(|(burst, _)| burst), algorithm) {
            Ok(limit) => Some(Some(limit)),
            Err(error) => {
                let place = match (&error, raw.burst) {
                    (
                        LimitError::ZeroBurst | LimitError::Refill { .. } | LimitError::BurstOfWindow(_),
                        Some((_, place)),
                    ) => place,
                    (LimitError::TooLarge(number), Some((burst, place))) if *number == burst => place,
                    _ => text.place,
                };
                let near = nearest(&text.text, ["unlimited"].into_iter());
                let help = near.map_or(String::new(), |word| format!("did you mean `{word}`?"));
                self.fault(place, error.to_string(), help);
                None
            }
        }
    }

    pub(crate) fn condition(&mut self, when: &[RawTest]) -> Condition {
        let mut tests: Vec<Test> = Vec::with_capacity(when.len());
        for RawTest { attribute, patterns, place } in when {
            self.check_attribute(attribute);
            if patterns.is_empty() {
                let message = format!("the list for {:?} is empty: no request could match", attribute.text);
                self.fault(*place, message, "name at least one value, or leave the attribute out");
            }
            for pattern in patterns {
                let bare = pattern.text.strip_prefix('!').unwrap_or(&pattern.text);
                if attribute.text == "ip" && bare.contains('/') && bare.parse::<ipnet::IpNet>().is_err() {
                    self.fault(
                        pattern.place,
                        format!("{:?} is no network", shortened(bare)),
                        "write e.g. 10.0.0.0/8 or 2001:db8::/32",
                    );
                }
            }
            let name = self.shared(&attribute.text);
            tests.push(Test::new(name, patterns.iter().map(|pattern| &*pattern.text)));
        }
        // The same rule must compile to the same thing, whatever order its attributes have.
        tests.sort_by(|a, b| a.attribute.cmp(&b.attribute));
        Condition::new(tests)
    }

    pub(crate) fn key(&mut self, key: &RawKey) -> Box<[Arc<str>]> {
        if key.parts.len() > MAX_KEY_PARTS {
            let message =
                format!("a key of {} attributes, at most {MAX_KEY_PARTS} are possible", key.parts.len());
            self.fault(key.place, message, "");
        }
        let mut seen = HashSet::new();
        for part in &key.parts {
            self.check_attribute(part);
            if !seen.insert(&*part.text) {
                self.fault(part.place, format!("{:?} is twice in the key", part.text), "name it once");
            }
        }
        key.parts.iter().map(|part| self.shared(&part.text)).collect()
    }

    fn check_attribute(&mut self, name: &Written) {
        if RESERVED.contains(&&*name.text) {
            let message =
                format!("{:?} cannot be an attribute: calls use that name for something else", name.text);
            self.fault(name.place, message, "choose another name");
        } else if name.text.is_empty() || name.text.len() > MAX_NAME_BYTES {
            self.fault(name.place, format!("an attribute needs a name of 1 to {MAX_NAME_BYTES} bytes"), "");
        }
    }

    pub(crate) fn check_name(&mut self, what: &str, name: &Written) {
        let text = &name.text;
        if !super::is_valid_name(text) {
            let message = format!("{:?} cannot name a {what}", shortened(text));
            self.fault(
                name.place,
                message,
                format!("use 1 to {MAX_NAME_BYTES} letters, digits and - _ . / :"),
            );
        }
    }

    /// The first word of the list is the default.
    fn word<T: Copy>(&mut self, field: &str, given: Option<&Written>, words: &[(&str, T)]) -> T {
        let Some(given) = given else { return words[0].1 };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == given.text) {
            return *value;
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let all = format!("write one of: {}", known.join(", "));
        let help = match nearest(&given.text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? {all}"),
            None => all,
        };
        self.fault(given.place, format!("{:?} is no value for {field}", shortened(&given.text)), help);
        words[0].1
    }
}
