//! What a rule file means: from its texts to rules, or to all that is wrong with them.

use std::{collections::HashSet, sync::Arc};

use super::{
    compile::{Compiler, Written},
    error::{Place, shortened},
    fields::nearest,
    shape::{RawBan, RawFile, RawIpPrefix, RawLimit, RawRule, RawSpan},
};
use crate::{
    Algorithm, Consistency, Limit, Mode, OnMemoryFull, OnOwnerLoss, OnTotalLoss, Reserve, Rule, Takeover,
    address::OwnIpPrefix,
    ban::{Ban, BanError},
    calendar::zone::Zone,
    condition::Condition,
    key::KeyHasher,
    limit::LimitError,
    limits::{Carved, LimitId, Override, Shape, attributes_of},
    matching::key_order,
    rule::KeyPart,
    rule_set::Content,
    span::Span,
};

impl Compiler<'_> {
    /// What the file says of its domain.
    pub(super) fn content(&mut self, name: &str, file: &RawFile) -> Content {
        let mut seen = HashSet::new();
        let zone = self.zone(file.timezone.as_ref());
        let mut rules = Vec::with_capacity(file.rules.len());
        for raw in &file.rules {
            if let Some(rule) = &raw.name {
                self.check_name("rule", rule);
                if !seen.insert(&*rule.text) {
                    let message =
                        format!("the rule name {:?} is there twice in the domain {name:?}", rule.text);
                    self.error(rule.place, message, "give each rule a name of its own");
                }
            }
            rules.extend(self.rule(name, raw, zone));
        }
        let allow_unmatched =
            self.word("unmatched", file.unmatched.as_ref(), &[("allow", true), ("deny", false)]);
        Content { rules, block: self.block(name, file), allow_unmatched }
    }

    /// Whether the descriptors of a request are charged together, or none of them is.
    pub(super) fn all_or_nothing(&mut self, file: &RawFile) -> bool {
        self.word("all_or_nothing", file.all_or_nothing.as_ref(), &[("false", false), ("true", true)])
    }

    /// `None` if there is an error in it, or if something is missing.
    fn rule(&mut self, domain: &str, raw: &RawRule, zone: Option<Zone>) -> Option<Rule> {
        let before = self.errors();
        let algorithm = self.algorithm(raw);
        let places = self.places(&raw.placing, zone);
        let limit = self.limit(&raw.limit, algorithm).map(|limit| self.place(limit, &places));
        let when = self.condition(&raw.when);
        let span = self.span(&raw.span);
        let spans: Vec<Span> = raw.overrides.iter().map(|special| self.span(&special.span)).collect();
        let key = raw.key.as_ref().map(|key| self.key(key));
        let ip_prefix = self.ip_prefix(&raw.ip_prefix, key.as_deref());
        let mut special_places = Vec::with_capacity(raw.overrides.len());
        let overrides: Vec<(Condition, Option<Limit>)> = raw
            .overrides
            .iter()
            .map(|special| {
                let own = self.places_in(&special.placing, &places);
                let limit = self.limit(&special.limit, algorithm).map(|limit| self.place(limit, &own));
                special_places.push(own.own());
                (self.condition(&special.when), limit.flatten())
            })
            .collect();
        let mode =
            self.word("mode", raw.mode.as_ref(), &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)]);
        let ban = raw.ban.as_ref().and_then(|ban| self.ban(ban));
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
                self.error(
                    written.place,
                    "carved: true sets a part aside for shares, which this rule does not give",
                    "write on_owner_loss: share, or leave carved out",
                );
            } else if carved.is_none() {
                self.error(
                    written.place,
                    "the limit is too small for a part of it to be set aside",
                    "a count and a burst of at least 4, or leave carved out",
                );
            }
        }
        let limits =
            || limit.iter().flatten().chain(overrides.iter().filter_map(|(_, limit)| limit.as_ref()));
        let placing = self.used_places(&places, limits(), self.errors() > before);
        if let (Some(ban), Some(_)) = (&raw.ban, &limit)
            && limits().all(Limit::denies)
        {
            let message = "no limit of the rule can be exceeded, so nobody would be banned";
            self.error(ban.place, message, "leave ban out, or write a limit such as 5/1m");
        }
        let takeover = self.takeover(raw.takeover.as_ref(), algorithm, Takeover::default_of(limits()));
        let words = [OnTotalLoss::Exhausted, OnTotalLoss::Full].map(|one| (one.as_str(), one));
        let on_total_loss = self.word("on_total_loss", raw.on_total_loss.as_ref(), &words);
        let words = [OnMemoryFull::Forget, OnMemoryFull::Strict].map(|one| (one.as_str(), one));
        let price = self.price(raw.cost.as_ref(), limits());
        let on_memory_full = self.word("on_memory_full", raw.on_memory_full.as_ref(), &words);
        let (Some(name), Some(limit), Some(key)) = (&raw.name, limit, key) else { return None };
        let key_order = key_order(&key);
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
        let mut overrides = Override::all(hasher, limit.as_ref(), overrides, carved.as_deref());
        for (special, placing) in overrides.iter_mut().zip(special_places) {
            special.placing = placing;
        }
        overrides.iter_mut().zip(spans).for_each(|(special, span)| special.span = span);
        let limit_id = LimitId::of_rule(match &carved {
            Some(carved) => carved.limit.as_ref(),
            None => limit.as_ref(),
        });
        let shape = Shape {
            when: &when,
            span,
            key: &key,
            key_order: &key_order,
            ip_prefix,
            own: limit_id,
            overrides: &overrides,
            price: &price,
        }
        .fingerprint(hasher);
        (self.errors() == before).then(|| Rule {
            domain: self.shared(domain),
            name: name.text.as_str().into(),
            shape,
            id: hasher.rule(),
            hasher,
            when,
            span,
            key,
            key_order,
            ip_prefix: self.ip_prefix.or(ip_prefix),
            own_ip_prefix: ip_prefix,
            limit,
            limit_id,
            algorithm,
            placing,
            override_attributes: attributes_of(&overrides),
            overrides,
            price,
            mode,
            ban,
            consistency,
            on_owner_loss,
            carved,
            takeover,
            on_total_loss,
            on_memory_full,
            reserve,
            cardinality: Arc::default(),
        })
    }

    /// That of all limits of the rule: as it says, or else as the periods of the calendar want it.
    fn algorithm(&mut self, raw: &RawRule) -> Algorithm {
        if raw.algorithm.is_some() {
            let known = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
            return self.word("algorithm", raw.algorithm.as_ref(), &known);
        }
        let own = raw.limit.limit.as_ref().map(|written| &*written.text);
        let counts = |text: &str| text.contains('/');
        let overrides = || raw.overrides.iter().map(|special| &special.limit);
        let has_calendar = match own {
            Some(own) if counts(own) => Limit::has_calendar(own),
            // All or nothing: the limits of the overrides say it.
            _ => overrides()
                .filter_map(|limit| limit.limit.as_ref())
                .any(|text| Limit::has_calendar(&text.text)),
        };
        // Earlier versions took these to be token buckets, and only these have a burst.
        let was_bucket = || [&raw.limit].into_iter().chain(overrides()).any(|limit| limit.burst.is_some());
        if has_calendar && !(self.is_stored && was_bucket()) {
            Algorithm::FixedWindow
        } else {
            Algorithm::TokenBucket
        }
    }

    fn span(&mut self, RawSpan { from, until }: &RawSpan) -> Span {
        let [start, end] = [from, until].map(|written| written.as_ref().and_then(|one| self.instant(one)));
        let span = Span::new(start, end);
        if let (None, Some(until)) = (span, until) {
            let message = format!("{} is not after `from`", until.text);
            self.error(until.place, message, "it would never be in force: write a later `until`");
        }
        span.unwrap_or(Span::ALWAYS)
    }

    fn ban(&mut self, raw: &RawBan) -> Option<Ban> {
        let longest = raw.longest.as_ref();
        match Ban::parse(&raw.first.text, longest.map(|longest| &*longest.text)) {
            Ok(ban) => Some(ban),
            Err(error) => {
                let is_of = |written: &&Written| match &error {
                    BanError::Syntax(text) | BanError::Length(text) => written.text.starts_with(text),
                    BanError::Shrinks { .. } => true,
                };
                let written = longest.filter(is_of).unwrap_or(&raw.first);
                self.error(
                    written.place,
                    error.to_string(),
                    "write e.g. `ban: 15m`, or `ban: { for: 15m, max: 1d }`",
                );
                None
            }
        }
    }

    fn ip_prefix(&mut self, raw: &RawIpPrefix, key: Option<&[KeyPart]>) -> OwnIpPrefix {
        let bits = |part: Option<(u8, _)>| part.map(|(bits, _)| bits);
        let own = OwnIpPrefix { v4: bits(raw.v4), v6: bits(raw.v6) };
        let places = [raw.v4.or(raw.v6), raw.v6].map(|part| part.map_or(Place::NOWHERE, |(_, place)| place));
        if let Some(key) = key {
            self.check_ip_prefix(own, places, key);
        }
        own
    }

    fn takeover(&mut self, given: Option<&Written>, algorithm: Algorithm, default: Takeover) -> Takeover {
        let Some(written) = given else { return default };
        let words = [Takeover::Zero, Takeover::Reserve].map(|one| (one.as_str(), one));
        let takeover = self.word("takeover", given, &words);
        if takeover == Takeover::Reserve && !Takeover::is_possible(algorithm) {
            self.error(
                written.place,
                format!("what a {algorithm} has counted cannot be told in advance"),
                "write takeover: zero, or another algorithm: token_bucket, leaky_bucket, fixed_window \
                 or sliding_window",
            );
        }
        takeover
    }

    /// `None`: invalid. `Some(None)`: unlimited.
    fn limit(&mut self, raw: &RawLimit, algorithm: Algorithm) -> Option<Option<Limit>> {
        let text = raw.limit.as_ref()?;
        if text.text == "unlimited" {
            if let Some((_, place)) = raw.burst {
                self.error(place, "what is unlimited has no burst", "leave it out");
            }
            return Some(None);
        }
        let burst = raw.burst.map(|(burst, _)| burst);
        let limit = match self.is_stored {
            true => Limit::parse_stored(&text.text, burst, Some(algorithm)),
            false => Limit::parse(&text.text, burst, algorithm),
        };
        match limit {
            Ok(limit) => Some(Some(limit)),
            Err(error) => {
                let place = match (&error, raw.burst) {
                    (
                        LimitError::ZeroBurst
                        | LimitError::BurstOfNothing
                        | LimitError::Refill { .. }
                        | LimitError::BurstOfWindow(_),
                        Some((_, place)),
                    ) => place,
                    (LimitError::TooLarge(number), Some((burst, place))) if *number == burst => place,
                    _ => text.place,
                };
                let near = nearest(&text.text, ["unlimited", "deny"].into_iter());
                let help = near.map_or(String::new(), |word| format!("did you mean `{word}`?"));
                let text = match &error {
                    // A check says no limit where it wants none; a rule has a word for it.
                    LimitError::Syntax(text) => format!(
                        "{text:?} is no limit: write COUNT/PERIOD, e.g. 5/1m, 100/1s, 1000/day, `unlimited` or `deny`"
                    ),
                    _ => error.to_string(),
                };
                self.error(place, text, help);
                None
            }
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
        self.error(given.place, format!("{:?} is no value for {field}", shortened(&given.text)), help);
        words[0].1
    }
}
