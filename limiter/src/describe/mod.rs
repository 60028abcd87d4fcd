//! Rules as people and programs read them.

mod counts;
mod diff;
mod warnings;
mod worst_case;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    diff::{FieldChange, RuleChange, RulesDiff},
    worst_case::WorstCase,
};
use crate::{
    Consistency, Limit, Mode, Nanos, OnMemoryFull, OnOwnerLoss, OnTotalLoss, Rule, Rules, Takeover,
    address::OwnIpPrefix, block::Blocked, limit::Placing, limits::Override, pattern::PatternText,
    price::Price, rfc3339, span::Span,
};

/// Patterns by attribute.
pub type Conditions = BTreeMap<String, Vec<PatternText>>;

/// A rule, with all that it leaves to defaults written out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDescription {
    /// Its name.
    pub name: String,
    /// Which requests it is about.
    pub when: Conditions,
    /// From when on it is in force, as RFC 3339; none: it was always.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// Until when; none: it does not end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<String>,
    /// The attributes whose values make a bucket.
    pub key: Vec<String>,
    /// How many bits of an address in the key count, where the rule says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ip_prefix: Option<IpPrefixDescription>,
    /// As in `5/1m`, `unlimited` or `deny`.
    pub limit: String,
    /// Capacity or queue length, of the algorithms that have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub burst: Option<u64>,
    /// How it counts; none of a rule all limits of which are `unlimited` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub algorithm: Option<String>,
    /// The time zone of its windows, where it or its file says one and it changes any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timezone: Option<String>,
    /// The date on which one of its windows begins.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub starts: Option<String>,
    /// Units that a request takes for each of its cost, or the name under which a check says how many; none: its cost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<String>,
    /// `enforce` or `shadow`.
    pub mode: String,
    /// For how long a key is denied that exceeds a limit; none: for as long as the limit denies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ban: Option<BanDescription>,
    /// `available` or `strict`.
    pub consistency: String,
    /// `share`, `deny` or `allow`.
    pub on_owner_loss: String,
    /// Whether a part of the limit is set aside for shares.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub carved: bool,
    /// `zero` or `reserve`.
    #[serde(default = "zero")]
    pub takeover: String,
    /// `exhausted` or `full`.
    #[serde(default = "exhausted")]
    pub on_total_loss: String,
    /// `forget` or `strict`.
    #[serde(default = "forget")]
    pub on_memory_full: String,
    /// Other limits for some requests; the first that fits counts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub overrides: Vec<OverrideDescription>,
}

/// For how long a key is denied that exceeds a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanDescription {
    /// The first time, as in `15m`.
    #[serde(rename = "for")]
    pub first: String,
    /// At most: each time is twice as long as the one before.
    pub max: String,
}

/// How many bits of an address count; what is left out, the settings of the node say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpPrefixDescription {
    /// Of IPv4.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub v4: Option<u8>,
    /// Of IPv6.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub v6: Option<u8>,
}

/// Another limit for some requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideDescription {
    /// Which.
    pub when: Conditions,
    /// From when on it is in force, as RFC 3339; none: it was always.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// Until when; none: it does not end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<String>,
    /// As in `5/1m`, `unlimited` or `deny`.
    pub limit: String,
    /// Capacity or queue length, of the algorithms that have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub burst: Option<u64>,
    /// The time zone of its windows, where that is not the rule's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timezone: Option<String>,
    /// The date on which one of its windows begins, where that is not the rule's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub starts: Option<String>,
}

/// The rules of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainDescription {
    /// In their order.
    pub rules: Vec<RuleDescription>,
    /// Whether requests that no rule is about are allowed.
    pub allow_unmatched: bool,
    /// Whether the descriptors of a request are charged together, or none of them is.
    #[serde(default)]
    pub all_or_nothing: bool,
    /// What is denied before any rule is asked.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub block: Vec<BlockDescription>,
}

/// An entry of the block list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockDescription {
    /// Its name in answers.
    pub name: String,
    /// Which requests it denies.
    pub when: Conditions,
    /// Until when, as RFC 3339; none: it does not end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<String>,
}

impl Rule {
    /// The rule as people and programs read it.
    pub fn describe(&self) -> RuleDescription {
        let (from, until) = self.span.texts();
        RuleDescription {
            name: self.name.to_string(),
            when: self.when.describe(),
            from,
            until,
            key: self.key.iter().map(|part| part.written.to_string()).collect(),
            ip_prefix: ip_prefix(self.own_ip_prefix),
            limit: limit_text(self.limit.as_ref()),
            burst: burst(self.limit.as_ref()),
            algorithm: self.counting_limits().next().map(|_| self.algorithm.to_string()),
            timezone: timezone(self.placing),
            starts: starts(self.placing),
            cost: (self.price != Price::ONE).then(|| self.price.to_string()),
            mode: match self.mode {
                Mode::Enforce => "enforce",
                Mode::Shadow => "shadow",
            }
            .to_owned(),
            ban: self.ban.map(|ban| {
                let (first, max) = ban.texts();
                BanDescription { first, max }
            }),
            consistency: match self.consistency {
                Consistency::Available => "available",
                Consistency::Strict => "strict",
            }
            .to_owned(),
            on_owner_loss: match self.on_owner_loss {
                OnOwnerLoss::Share => "share",
                OnOwnerLoss::Deny => "deny",
                OnOwnerLoss::Allow => "allow",
            }
            .to_owned(),
            carved: self.is_carved(),
            takeover: self.takeover.as_str().to_owned(),
            on_total_loss: self.on_total_loss.as_str().to_owned(),
            on_memory_full: self.on_memory_full.as_str().to_owned(),
            overrides: self.overrides.iter().map(Override::describe).collect(),
        }
    }
}

impl Override {
    pub(crate) fn describe(&self) -> OverrideDescription {
        let Self { when, span, limit, placing, .. } = self;
        let (from, until) = span.texts();
        OverrideDescription {
            when: when.describe(),
            from,
            until,
            limit: limit_text(limit.as_ref()),
            burst: burst(limit.as_ref()),
            timezone: timezone(*placing),
            starts: starts(*placing),
        }
    }
}

impl Rules {
    /// The rules of a domain as people and programs read them; none of a domain that is not there.
    pub fn describe(&self, domain: &str) -> DomainDescription {
        DomainDescription {
            rules: self.rules(domain).iter().map(Rule::describe).collect(),
            allow_unmatched: self.allows_unmatched(domain),
            block: self.describe_block(domain),
            all_or_nothing: self.is_all_or_nothing(domain),
        }
    }
}

impl Rules {
    /// What is over at this instant and can be deleted: rules, overrides and entries of block lists, in words.
    pub fn over(&self, now: Nanos) -> Vec<String> {
        let mut over = Vec::new();
        for domain in self.domains() {
            for rule in self.rules(domain) {
                let mut note = |what: String, span: Span| {
                    if let (true, (_, Some(until))) = (span.is_over(now), span.texts()) {
                        over.push(format!("{domain}: {what} is over since {until}"));
                    }
                };
                note(format!("the rule {:?}", rule.name()), rule.span);
                for Override { when, span, .. } in &rule.overrides {
                    let when = conditions_text(&when.describe());
                    note(format!("the override of {:?} for {when}", rule.name()), *span);
                }
            }
            let list = self.domains.get(domain).and_then(|domain| domain.block());
            for (entry, name) in list.into_iter().flat_map(|list| list.entries()) {
                if let Some(until) = entry.until.filter(|until| *until <= now) {
                    let (when, until) = (conditions_text(&entry.when.describe()), rfc3339::text_of(until));
                    over.push(format!(
                        "{domain}: the entry {name:?} of block for {when} is over since {until}"
                    ));
                }
            }
        }
        over
    }

    fn describe_block(&self, domain: &str) -> Vec<BlockDescription> {
        let list = self.domains.get(domain).and_then(|domain| domain.block());
        let entries = list.into_iter().flat_map(|list| list.entries());
        let describe = |(entry, name): (&Blocked, &str)| BlockDescription {
            name: name.to_owned(),
            when: entry.when.describe(),
            until: entry.until.map(rfc3339::text_of),
        };
        entries.map(describe).collect()
    }
}

/// Of descriptions that an older version wrote.
fn zero() -> String {
    Takeover::Zero.as_str().to_owned()
}

/// As `zero`.
fn exhausted() -> String {
    OnTotalLoss::default().as_str().to_owned()
}

/// As `zero`.
fn forget() -> String {
    OnMemoryFull::Forget.as_str().to_owned()
}

fn ip_prefix(own: OwnIpPrefix) -> Option<IpPrefixDescription> {
    (!own.says_nothing()).then_some(IpPrefixDescription { v4: own.v4, v6: own.v6 })
}

fn timezone(placing: Placing) -> Option<String> {
    placing.zone.map(|zone| zone.name().to_owned())
}

fn starts(placing: Placing) -> Option<String> {
    placing.starts.map(|starts| starts.to_string())
}

fn limit_text(limit: Option<&Limit>) -> String {
    limit.map_or("unlimited".to_owned(), Limit::to_string)
}

fn burst(limit: Option<&Limit>) -> Option<u64> {
    limit.filter(|limit| limit.algorithm().has_burst() && !limit.denies()).map(Limit::burst_size)
}

/// As in `ip=10.0.0.0/8 path=/a|/b`.
pub fn conditions_text(conditions: &Conditions) -> String {
    let text = |patterns: &[PatternText]| patterns.iter().map(PatternText::to_string).collect::<Vec<_>>();
    let one = |(name, patterns): (&String, &Vec<PatternText>)| format!("{name}={}", text(patterns).join("|"));
    conditions.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
