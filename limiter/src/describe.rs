//! Rules as people and programs read them, and what changes from some rules to others.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, Consistency, Limit, Mode, OnMemoryFull, OnOwnerLoss, Rule, Rules, Takeover, algorithm::gcra,
    limits::Override, mark::QUANTUM_PART, time::TICKS_PER_NANO,
};

/// From when the successor has last heard of an owner that crashed until it has taken over, at most, in a cluster whose leader is
/// elected again meanwhile.
const UNOWNED: Duration = Duration::from_secs(5);

/// Patterns by attribute.
pub type Conditions = BTreeMap<String, Vec<String>>;

/// A rule, with all that it leaves to defaults written out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDescription {
    /// Its name.
    pub name: String,
    /// Which requests it is about.
    pub when: Conditions,
    /// The attributes whose values make a bucket.
    pub key: Vec<String>,
    /// As in `5/1m`, or `unlimited`.
    pub limit: String,
    /// Capacity or queue length, of the algorithms that have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub burst: Option<u64>,
    /// How it counts; none of an unlimited rule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub algorithm: Option<String>,
    /// `enforce` or `shadow`.
    pub mode: String,
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
    /// `forget` or `strict`.
    #[serde(default = "forget")]
    pub on_memory_full: String,
    /// Other limits for some requests; the first that fits counts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub overrides: Vec<OverrideDescription>,
}

impl RuleDescription {
    /// What it may admit at most.
    pub fn worst_case(&self) -> WorstCase {
        let exact = WorstCase {
            lost: self.lost(),
            memory_full: (self.on_memory_full == OnMemoryFull::Strict.as_str()).then_some(1),
            ..WorstCase::default()
        };
        match (&*self.consistency, &*self.on_owner_loss) {
            (_, "allow") => WorstCase { crash: None, partition: None, further_side: None, ..exact },
            ("strict", "deny") => exact,
            ("strict", "share") if self.carved => exact,
            ("strict", _) => WorstCase { partition: Some(2), ..exact },
            _ => WorstCase { partition: Some(2), further_side: Some(1), ..exact },
        }
    }
}

impl RuleDescription {
    /// How many units of a bucket are lost at most when its owner dies.
    fn lost(&self) -> Option<u64> {
        let count = self.limit.split('/').next().and_then(|count| count.parse().ok());
        let all = self.burst.or(count)?;
        if self.takeover != Takeover::Reserve.as_str() {
            return Some(all);
        }
        let gives_shares = self.on_owner_loss != "deny" && !self.carved;
        let of_window = self.algorithm.as_deref() == Some("fixed_window");
        let refilled = match Limit::parse(&self.limit, None, Algorithm::TokenBucket) {
            // Nobody can tell whether shares have admitted it.
            Ok(limit) if gives_shares && !of_window => {
                UNOWNED.as_nanos() as u64 * TICKS_PER_NANO / gcra::ticks_for(&limit, 1).max(1)
            }
            _ => 0,
        };
        Some((all / QUANTUM_PART).max(1).max(refilled).min(all))
    }
}

/// How much a rule may admit in any interval, as a multiple of what its limit allows in an interval of that length, by what
/// happens to the cluster. `None`: there is no limit to it.
///
/// - `deny` with `strict`: whoever decides is the only one.
/// - `share` with `strict` and `carved`: what all shares give together, the owner never does.
/// - `share`: nodes that cannot reach the owner admit m/N of the limit together, m of N nodes being cut off.
/// - `available`: an owner that is cut off goes on; the one that takes its slots over starts with exhausted buckets, or with what
///   the other had left at most, and admits no more than the limit either. So each side admits no more than the limit, and
///   there may be more than two of them: where the network falls apart into more, or is cut again before it is healed.
/// - `allow`: whoever cannot reach the owner admits everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstCase {
    /// Without a fault, and while nodes come and go by plan.
    pub planned: Option<u32>,
    /// When the owner of its bucket crashes, or hangs until it is replaced. One that goes on before that gives once more what has
    /// refilled meanwhile, where others give shares that are not carved.
    pub crash: Option<u32>,
    /// When the nodes fall apart into two sides that do not reach each other, or a quorum is gone.
    pub partition: Option<u32>,
    /// How much more that is for each further side.
    #[serde(default)]
    pub further_side: Option<u32>,
    /// When more of its buckets are in use at the same time than its part of the memory holds. `None` of `forget`: a key gets its
    /// burst (or count) once more each time that it is let go of, which takes as many other keys of the rule, as that part
    /// holds, that have used as much of theirs.
    #[serde(default)]
    pub memory_full: Option<u32>,
    /// Not a multiple: how many units of a bucket its callers lose at most when its owner dies; none of what is unlimited.
    #[serde(default)]
    pub lost: Option<u64>,
}

impl Default for WorstCase {
    fn default() -> Self {
        Self {
            planned: Some(1),
            crash: Some(1),
            partition: Some(1),
            further_side: Some(0),
            memory_full: None,
            lost: None,
        }
    }
}

/// Another limit for some requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideDescription {
    /// Which.
    pub when: Conditions,
    /// As in `5/1m`, or `unlimited`.
    pub limit: String,
    /// Capacity or queue length, of the algorithms that have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub burst: Option<u64>,
}

/// The rules of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainDescription {
    /// In their order.
    pub rules: Vec<RuleDescription>,
    /// Whether requests that no rule is about are allowed.
    pub allow_unmatched: bool,
}

/// What changes from some rules to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesDiff {
    /// Rules that are new.
    pub added: Vec<RuleDescription>,
    /// Rules that are no longer there.
    pub removed: Vec<RuleDescription>,
    /// Rules that are different.
    pub changed: Vec<RuleChange>,
    /// Whether requests that no rule is about are allowed, if that changes: before and after, `allow` or `deny`.
    pub unmatched: Option<FieldChange>,
}

/// A rule that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// Its name.
    pub name: String,
    /// What is different.
    pub fields: Vec<FieldChange>,
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
    }

    /// What changes from `before` to `after`; rules are known by their names.
    pub fn between(before: &DomainDescription, after: &DomainDescription) -> Self {
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
                        diff.changed.push(RuleChange { name: rule.name.clone(), fields });
                    }
                }
            }
        }
        diff.removed = before.rules.iter().filter(|rule| old.contains_key(&rule.name)).cloned().collect();
        let word = |allow: bool| Some(if allow { "allow" } else { "deny" }.to_owned());
        if before.allow_unmatched != after.allow_unmatched {
            let (from, to) = (word(before.allow_unmatched), word(after.allow_unmatched));
            diff.unmatched = Some(FieldChange { field: "unmatched".to_owned(), from, to });
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
    fields.push(("key", format!("[{}]", rule.key.join(", "))));
    fields.push(("limit", rule.limit.clone()));
    fields.extend(rule.burst.map(|burst| ("burst", burst.to_string())));
    fields.extend(rule.algorithm.clone().map(|algorithm| ("algorithm", algorithm)));
    fields.push(("mode", rule.mode.clone()));
    fields.push(("consistency", rule.consistency.clone()));
    fields.push(("on_owner_loss", rule.on_owner_loss.clone()));
    fields.push(("carved", rule.carved.to_string()));
    fields.push(("takeover", rule.takeover.clone()));
    fields.push(("on_memory_full", rule.on_memory_full.clone()));
    if !rule.overrides.is_empty() {
        let special = |special: &OverrideDescription| {
            let burst = special.burst.map_or(String::new(), |burst| format!(" burst {burst}"));
            format!("{} for {}{burst}", special.limit, conditions_text(&special.when))
        };
        fields.push(("overrides", rule.overrides.iter().map(special).collect::<Vec<_>>().join("; ")));
    }
    fields
}

/// As in `ip=10.0.0.0/8 path=/a|/b`.
fn conditions_text(conditions: &Conditions) -> String {
    let one = |(name, patterns): (&String, &Vec<String>)| format!("{name}={}", patterns.join("|"));
    conditions.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn changes(before: &[(&'static str, String)], after: &[(&'static str, String)]) -> Vec<FieldChange> {
    const ORDER: [&str; 12] = [
        "when",
        "key",
        "limit",
        "burst",
        "algorithm",
        "mode",
        "consistency",
        "on_owner_loss",
        "carved",
        "takeover",
        "on_memory_full",
        "overrides",
    ];
    let value = |fields: &[(&'static str, String)], name: &str| {
        fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    };
    ORDER
        .into_iter()
        .filter_map(|name| {
            let (from, to) = (value(before, name), value(after, name));
            (from != to).then(|| FieldChange { field: name.to_owned(), from, to })
        })
        .collect()
}

impl Rule {
    /// The rule as people and programs read it.
    pub fn describe(&self) -> RuleDescription {
        RuleDescription {
            name: self.name.to_string(),
            when: self.when.describe(),
            key: self.key.iter().map(|name| name.to_string()).collect(),
            limit: limit_text(self.limit.as_ref()),
            burst: burst(self.limit.as_ref()),
            algorithm: self.limit.map(|limit| limit.algorithm().to_string()),
            mode: match self.mode {
                Mode::Enforce => "enforce",
                Mode::Shadow => "shadow",
            }
            .to_owned(),
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
            on_memory_full: self.on_memory_full.as_str().to_owned(),
            overrides: self
                .overrides
                .iter()
                .map(|Override { when, limit, .. }| OverrideDescription {
                    when: when.describe(),
                    limit: limit_text(limit.as_ref()),
                    burst: burst(limit.as_ref()),
                })
                .collect(),
        }
    }
}

impl Rules {
    /// The rules of a domain as people and programs read them; none of a domain that is not there.
    pub fn describe(&self, domain: &str) -> DomainDescription {
        DomainDescription {
            rules: self.rules(domain).iter().map(Rule::describe).collect(),
            allow_unmatched: self.allows_unmatched(domain),
        }
    }
}

/// Of descriptions that an older version wrote.
fn zero() -> String {
    Takeover::Zero.as_str().to_owned()
}

/// As `zero`.
fn forget() -> String {
    OnMemoryFull::Forget.as_str().to_owned()
}

fn limit_text(limit: Option<&Limit>) -> String {
    limit.map_or("unlimited".to_owned(), Limit::to_string)
}

fn burst(limit: Option<&Limit>) -> Option<u64> {
    limit.filter(|limit| limit.algorithm().has_burst()).map(Limit::burst_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashSecret;

    fn describe(yaml: &str) -> DomainDescription {
        Rules::from_yaml(yaml, &HashSecret::new([1; 16])).unwrap().describe("default")
    }

    const BEFORE: &str = r#"
rules:
  - name: login
    when: { path: ["/login", "/signin/*"], ip: "!10.0.0.0/8", user: "*" }
    key: [ip]
    limit: 5/1m
  - name: old
    key: []
    limit: unlimited
"#;

    #[test]
    fn a_rule_is_described_with_its_defaults_and_its_patterns_as_written() {
        let rule = &describe(BEFORE).rules[0];
        assert_eq!(
            (&*rule.limit, rule.burst, rule.algorithm.as_deref()),
            ("5/1m", Some(5), Some("token_bucket"))
        );
        assert_eq!(rule.when["path"], ["/login", "/signin/*"]);
        assert_eq!((&*rule.when["ip"][0], &*rule.when["user"][0]), ("!10.0.0.0/8", "*"));
        let json = serde_json::to_string(&describe(BEFORE)).unwrap();
        assert_eq!(serde_json::from_str::<DomainDescription>(&json).unwrap(), describe(BEFORE));
    }

    #[test]
    fn a_description_written_as_a_rule_file_is_the_same_rules() {
        let rules = serde_json::to_value(describe(BEFORE).rules).unwrap();
        let again = serde_json::json!({ "rules": rules }).to_string();
        assert_eq!(describe(&again), describe(BEFORE));
    }

    #[test]
    fn what_changes_is_told_by_rule_and_field() {
        let after = BEFORE.replace("5/1m", "10/1m\n    mode: shadow").replace("name: old", "name: new");
        let diff = RulesDiff::between(&describe(BEFORE), &describe(&after));
        let names =
            |rules: &[RuleDescription]| rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&diff.added), names(&diff.removed)),
            (vec!["new".to_owned()], vec!["old".to_owned()])
        );
        let fields: Vec<_> = diff.changed[0].fields.iter().map(|change| &*change.field).collect();
        assert_eq!((&*diff.changed[0].name, fields), ("login", vec!["limit", "burst", "mode"]));
        assert_eq!(diff.changed[0].fields[0].to.as_deref(), Some("10/1m"));
        assert!(RulesDiff::between(&describe(BEFORE), &describe(BEFORE)).is_empty());
    }

    #[test]
    fn a_domain_that_denies_the_unmatched_says_so() {
        let after = format!("unmatched: deny{BEFORE}");
        let diff = RulesDiff::between(&describe(BEFORE), &describe(&after));
        assert_eq!(diff.unmatched.unwrap().to.as_deref(), Some("deny"));
    }

    #[test]
    fn a_rule_tells_its_worst_case_and_a_carved_one_is_exact_in_a_partition() {
        let worst = |rest: &str| {
            let text = format!("rules:\n  - {{ name: r, key: [ip], limit: 8/1s, {rest} }}\n");
            describe(&text).rules[0].worst_case()
        };
        assert_eq!(worst("consistency: strict, on_owner_loss: deny").partition, Some(1));
        assert_eq!(worst("consistency: strict, carved: true").partition, Some(1));
        assert_eq!(worst("consistency: strict").partition, Some(2));
        assert_eq!(worst("consistency: strict").further_side, Some(0));
        assert_eq!(worst("carved: true").partition, Some(2));
        assert_eq!(worst("carved: true").further_side, Some(1), "whoever is cut off goes on");
        assert_eq!(worst("on_owner_loss: allow").crash, None);
        assert_eq!(worst("burst: 64").lost, Some(64));
        assert_eq!(worst("burst: 64, takeover: reserve").lost, Some(40), "what refills in five seconds");
        assert_eq!(worst("burst: 64, takeover: reserve, on_owner_loss: deny").lost, Some(4));
        assert_eq!(worst("burst: 1000, takeover: reserve").lost, Some(62));
        assert_eq!(worst("burst: 64").memory_full, None);
        assert_eq!(worst("on_memory_full: strict").memory_full, Some(1));
    }

    #[test]
    fn what_happens_when_memory_is_full_is_described_and_a_change_of_it_is_one() {
        let rule = |rest: &str| describe(&format!("rules: [{{ name: r, key: [ip], limit: 8/1s{rest} }}]"));
        assert_eq!(rule("").rules[0].on_memory_full, "forget");
        assert_eq!(rule(", on_memory_full: forget"), rule(""));
        let diff = RulesDiff::between(&rule(""), &rule(", on_memory_full: strict"));
        let change = &diff.changed[0].fields[0];
        assert_eq!(
            (&*change.field, change.from.as_deref(), change.to.as_deref()),
            ("on_memory_full", Some("forget"), Some("strict"))
        );
        // Descriptions of versions before have none.
        let old = serde_json::to_string(&rule("").rules[0]).unwrap();
        let old = old.replace(r#","on_memory_full":"forget""#, "");
        assert!(!old.contains("on_memory_full"), "{old}");
        let old: RuleDescription = serde_json::from_str(&old).unwrap();
        assert_eq!(old, rule("").rules[0]);
    }

    #[test]
    fn how_buckets_begin_again_is_said_and_refused_where_it_can_not_be() {
        let takeover = |rest: &str| {
            let text = format!("rules:\n  - {{ name: r, key: [ip], {rest} }}\n");
            let rules = Rules::from_yaml(&text, &HashSecret::new([1; 16]));
            rules.map(|rules| {
                (rules.describe("default").rules[0].takeover.clone(), rules.reserves().is_empty())
            })
        };
        assert_eq!(takeover("limit: 5/1s").unwrap(), ("zero".to_owned(), true));
        assert_eq!(takeover("limit: 5/1h").unwrap(), ("reserve".to_owned(), false));
        assert_eq!(takeover("limit: 5/1h, takeover: zero").unwrap(), ("zero".to_owned(), true));
        assert_eq!(takeover("limit: 5/1s, takeover: reserve").unwrap(), ("reserve".to_owned(), false));
        assert_eq!(takeover("limit: 5/1h, mode: shadow").unwrap(), ("reserve".to_owned(), true));
        let faults = takeover("limit: 5/1h, algorithm: sliding_log, takeover: reserve").unwrap_err();
        assert!(faults[0].to_string().contains("sliding_log"), "{}", faults[0]);
    }

    #[test]
    fn all_parts_of_a_carved_limit_are_no_more_than_the_whole() {
        for algorithm in crate::Algorithm::ALL {
            for (limit, burst) in
                [("100/1s", Some(40)), ("7/1m", None), ("1000003/1h", Some(11)), ("30/day", None)]
            {
                let burst = burst.filter(|_| algorithm.has_burst());
                let whole = Limit::parse(limit, burst, algorithm).unwrap();
                let owner = whole.carve().unwrap();
                for nodes in [1u32, 3, 50] {
                    let share = owner.share(nodes * Limit::CARVED_PARTS);
                    let shares = share.map_or(0, |share| share.burst_size() * u64::from(nodes));
                    assert!(owner.burst_size() + shares <= whole.burst_size(), "{whole} {algorithm:?}");
                }
                let rate = |limit: &Limit| limit.count() as f64 / limit.window().as_secs_f64();
                assert!(rate(&owner) <= rate(&whole) * 0.750_000_1, "{whole} {algorithm:?}");
            }
        }
    }
}
