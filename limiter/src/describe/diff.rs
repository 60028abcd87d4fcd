//! What changes from some rules to others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    BanDescription, BlockDescription, DomainDescription, IpPrefixDescription, OverrideDescription,
    RuleDescription, conditions_text, counts,
};
use crate::address::IpPrefix;

/// What changes from some rules to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesDiff {
    /// Rules that are new.
    pub added: Vec<RuleDescription>,
    /// Rules that are no longer there.
    pub removed: Vec<RuleDescription>,
    /// What becomes of counts where a rule seems to have got another name.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub renamed: Vec<String>,
    /// Rules that are different.
    pub changed: Vec<RuleChange>,
    /// Whether requests that no rule is about are allowed, if that changes: before and after, `allow` or `deny`.
    pub unmatched: Option<FieldChange>,
    /// Entries of the block list that are new.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub blocked: Vec<BlockDescription>,
    /// Entries of the block list that are no longer there.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unblocked: Vec<BlockDescription>,
    /// Whether the descriptors of a request are charged together, if that changes: before and after, `true` or `false`.
    #[serde(default)]
    pub all_or_nothing: Option<FieldChange>,
}

/// A rule that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// Its name.
    pub name: String,
    /// What is different.
    pub fields: Vec<FieldChange>,
    /// What becomes of what its buckets have counted, where the change touches it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counts: Option<String>,
}

/// A field that is different, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Which.
    pub field: String,
    /// What it was; none if the rule did not have it.
    pub from: Option<String>,
    /// What it is; none if the rule does not have it any more.
    pub to: Option<String>,
}

impl RulesDiff {
    /// Whether nothing changes. (The order of rules does not count: all that are about a request must allow.)
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.changed.is_empty()
            && self.unmatched.is_none()
            && self.blocked.is_empty()
            && self.unblocked.is_empty()
            && self.all_or_nothing.is_none()
    }

    /// What changes from `before` to `after`; rules are known by their names.
    pub fn between(before: &DomainDescription, after: &DomainDescription) -> Self {
        Self::between_with(before, after, IpPrefix::default())
    }

    /// The same where rules without an `ip_prefix` have this one.
    pub fn between_with(before: &DomainDescription, after: &DomainDescription, ip_prefix: IpPrefix) -> Self {
        let by_name = |domain: &DomainDescription| -> BTreeMap<String, RuleDescription> {
            domain.rules.iter().map(|rule| (rule.name.clone(), rule.clone())).collect()
        };
        let mut old = by_name(before);
        let mut diff = Self::default();
        for rule in &after.rules {
            match old.remove(&rule.name) {
                None => diff.added.push(rule.clone()),
                Some(was) => {
                    let fields = changes(&fields(&was), &fields(rule));
                    if !fields.is_empty() {
                        let counts = counts::after(&was, rule, ip_prefix);
                        diff.changed.push(RuleChange { name: rule.name.clone(), fields, counts });
                    }
                }
            }
        }
        diff.removed = before.rules.iter().filter(|rule| old.contains_key(&rule.name)).cloned().collect();
        diff.renamed = counts::renamed(&diff.removed, &diff.added);
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (before.block.iter().collect(), after.block.iter().collect());
        diff.blocked = new.difference(&old).map(|entry| (*entry).clone()).collect();
        diff.unblocked = old.difference(&new).map(|entry| (*entry).clone()).collect();
        let word = |allow: bool| Some(if allow { "allow" } else { "deny" }.to_owned());
        if before.allow_unmatched != after.allow_unmatched {
            let (from, to) = (word(before.allow_unmatched), word(after.allow_unmatched));
            diff.unmatched = Some(FieldChange { field: "unmatched".to_owned(), from, to });
        }
        if before.all_or_nothing != after.all_or_nothing {
            let word = |together: bool| Some(together.to_string());
            let (from, to) = (word(before.all_or_nothing), word(after.all_or_nothing));
            diff.all_or_nothing = Some(FieldChange { field: "all_or_nothing".to_owned(), from, to });
        }
        diff
    }
}

/// The fields of a rule but its name, in the order in which they are written.
fn fields(rule: &RuleDescription) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if !rule.when.is_empty() {
        fields.push(("when", conditions_text(&rule.when)));
    }
    fields.extend(rule.from.clone().map(|from| ("from", from)));
    fields.extend(rule.until.clone().map(|until| ("until", until)));
    fields.push(("key", format!("[{}]", rule.key.join(", "))));
    if let Some(IpPrefixDescription { v4, v6 }) = &rule.ip_prefix {
        let bits = [("v4", v4), ("v6", v6)]
            .into_iter()
            .filter_map(|(name, bits)| Some(format!("{name}: {}", (*bits)?)));
        fields.push(("ip_prefix", format!("{{ {} }}", bits.collect::<Vec<_>>().join(", "))));
    }
    fields.push(("limit", rule.limit.clone()));
    fields.extend(rule.burst.map(|burst| ("burst", burst.to_string())));
    fields.extend(rule.algorithm.clone().map(|algorithm| ("algorithm", algorithm)));
    fields.extend(rule.timezone.clone().map(|zone| ("timezone", zone)));
    fields.extend(rule.starts.clone().map(|starts| ("starts", starts)));
    fields.extend(rule.cost.clone().map(|cost| ("cost", cost)));
    fields.push(("mode", rule.mode.clone()));
    if let Some(BanDescription { first, max }) = &rule.ban {
        fields.push(("ban", format!("{first}, at most {max}")));
    }
    fields.push(("consistency", rule.consistency.clone()));
    fields.push(("on_owner_loss", rule.on_owner_loss.clone()));
    fields.push(("carved", rule.carved.to_string()));
    fields.push(("takeover", rule.takeover.clone()));
    fields.push(("on_total_loss", rule.on_total_loss.clone()));
    fields.push(("on_memory_full", rule.on_memory_full.clone()));
    if !rule.overrides.is_empty() {
        let special = |special: &OverrideDescription| {
            let burst = special.burst.map_or(String::new(), |burst| format!(" burst {burst}"));
            let zone = special.timezone.as_ref().map_or(String::new(), |zone| format!(" timezone {zone}"));
            let starts = special.starts.as_ref().map_or(String::new(), |starts| format!(" starts {starts}"));
            let from = special.from.as_ref().map_or(String::new(), |from| format!(" from {from}"));
            let until = special.until.as_ref().map_or(String::new(), |until| format!(" until {until}"));
            format!(
                "{} for {}{burst}{zone}{starts}{from}{until}",
                special.limit,
                conditions_text(&special.when)
            )
        };
        fields.push(("overrides", rule.overrides.iter().map(special).collect::<Vec<_>>().join("; ")));
    }
    fields
}

impl std::fmt::Display for BlockDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}  {}", self.name, conditions_text(&self.when))?;
        self.until.as_ref().map_or(Ok(()), |until| write!(f, " until {until}"))
    }
}

fn changes(before: &[(&'static str, String)], after: &[(&'static str, String)]) -> Vec<FieldChange> {
    const ORDER: &[&str] = &[
        "when",
        "from",
        "until",
        "key",
        "ip_prefix",
        "limit",
        "burst",
        "algorithm",
        "timezone",
        "starts",
        "cost",
        "mode",
        "ban",
        "consistency",
        "on_owner_loss",
        "carved",
        "takeover",
        "on_total_loss",
        "on_memory_full",
        "overrides",
    ];
    let value = |fields: &[(&'static str, String)], name: &str| {
        fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    };
    ORDER
        .iter()
        .filter_map(|name| {
            let (from, to) = (value(before, name), value(after, name));
            (from != to).then(|| FieldChange { field: (*name).to_owned(), from, to })
        })
        .collect()
}
