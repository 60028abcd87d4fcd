//! A change of rules as people read it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Deserialize;
use serde_json::Value;
use tidegate_limiter::cluster::{FieldChange, RuleDescription, RulesDiff};

use crate::cli::node::{NodeArgs, NodeError, plural};

/// What a node says of a change.
#[derive(Debug, Deserialize)]
pub(super) struct Change {
    pub(super) domain: String,
    pub(super) revision: Option<u64>,
    pub(super) previous: Option<u64>,
    pub(super) changed: bool,
    pub(super) dry_run: bool,
    pub(super) diff: RulesDiff,
    #[serde(default)]
    pub(super) live_buckets: std::collections::BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) applied_by: Vec<String>,
}

impl Change {
    pub(super) fn read(node: &NodeArgs, value: &Value) -> Result<Self, NodeError> {
        node.read(value)
    }

    /// Some lines, in colour; what prints them takes the colours out where nobody sees them.
    pub(super) fn to_text(&self) -> String {
        let mut text = lines(&self.diff, &self.live_buckets);
        let (added, changed, removed) =
            (self.diff.added.len(), self.diff.changed.len(), self.diff.removed.len());
        let revision =
            |revision: Option<u64>| revision.map_or("none".to_owned(), |revision| revision.to_string());
        let domain = &self.domain;
        let _ = match (self.changed, self.dry_run) {
            (false, _) => write!(text, "{domain}: no change, revision {}", revision(self.revision)),
            (true, true) if self.diff.is_empty() => {
                write!(
                    text,
                    "{domain}: the same rules in other words; at revision {}",
                    revision(self.revision)
                )
            }
            (true, true) => write!(
                text,
                "{domain}: {added} to add, {changed} to change, {removed} to remove; at revision {}",
                revision(self.revision)
            ),
            (true, false) => write!(
                text,
                "{domain}: {added} added, {changed} changed, {removed} removed; revision {} -> {}, in force at {}",
                revision(self.previous),
                revision(self.revision),
                if self.applied_by.is_empty() {
                    "no node yet".to_owned()
                } else {
                    self.applied_by.join(", ")
                }
            ),
        };
        text
    }
}

/// A block list can be long: so many of its entries are shown.
const MAX_BLOCK_LINES: usize = 20;

const ADDED: Style = AnsiColor::Green.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();
const CHANGED: Style = AnsiColor::Yellow.on_default();

fn lines(diff: &RulesDiff, live_buckets: &std::collections::BTreeMap<String, u64>) -> String {
    let mut text = String::new();
    let buckets = |name: &str| match live_buckets.get(name) {
        Some(count) if *count > 0 => format!("  (about {})", plural(*count as usize, "bucket")),
        _ => String::new(),
    };
    let line = |text: &mut String, style: Style, sign: char, name: &str, what: String| {
        let _ = writeln!(text, "{style}{sign} {name}{style:#}  {what}");
    };
    for change in &diff.changed {
        let fields: Vec<String> = change.fields.iter().map(field_text).collect();
        let counts = change.counts.as_ref().map_or(String::new(), |counts| format!("; counts: {counts}"));
        line(
            &mut text,
            CHANGED,
            '~',
            &change.name,
            format!("{}{}{counts}", fields.join(", "), buckets(&change.name)),
        );
    }
    for rule in &diff.added {
        line(&mut text, ADDED, '+', &rule.name, rule_text(rule));
    }
    for rule in &diff.removed {
        line(&mut text, REMOVED, '-', &rule.name, format!("{}{}", rule_text(rule), buckets(&rule.name)));
    }
    for note in &diff.renamed {
        let _ = writeln!(text, "{CHANGED}!{CHANGED:#} {note}");
    }
    for (style, sign, entries) in [(ADDED, '+', &diff.blocked), (REMOVED, '-', &diff.unblocked)] {
        for entry in entries.iter().take(MAX_BLOCK_LINES) {
            line(&mut text, style, sign, "block", entry.to_string());
        }
        if let Some(more) = entries.len().checked_sub(MAX_BLOCK_LINES).filter(|more| *more > 0) {
            line(&mut text, style, sign, "block", format!("and {more} more"));
        }
    }
    if let Some(change) = &diff.unmatched {
        line(&mut text, CHANGED, '~', "unmatched", field_text(change));
    }
    if let Some(change) = &diff.all_or_nothing {
        line(&mut text, CHANGED, '~', "all_or_nothing", field_text(change));
    }
    text
}

fn field_text(change: &FieldChange) -> String {
    let FieldChange { field, from, to } = change;
    match (from, to) {
        (Some(from), Some(to)) => format!("{field} {from} -> {to}"),
        (None, Some(to)) => format!("{field} {to} (new)"),
        (Some(from), None) => format!("{field} {from} (gone)"),
        (None, None) => field.clone(),
    }
}

fn rule_text(rule: &RuleDescription) -> String {
    let mut text = rule.limit.clone();
    if !rule.key.is_empty() {
        let _ = write!(text, " for each {}", rule.key.join(", "));
    }
    if let Some(burst) = rule.burst {
        let _ = write!(text, ", burst {burst}");
    }
    if let Some(algorithm) = &rule.algorithm {
        let _ = write!(text, ", {algorithm}");
    }
    if let Some(zone) = &rule.timezone {
        let _ = write!(text, ", timezone {zone}");
    }
    if let Some(starts) = &rule.starts {
        let _ = write!(text, ", starts {starts}");
    }
    if let Some(cost) = &rule.cost {
        let _ = write!(text, ", cost {cost}");
    }
    if rule.mode != "enforce" {
        let _ = write!(text, ", {}", rule.mode);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_a_line_a_rule_and_a_sum() {
        let rule = |name: &str| {
            serde_json::json!({"name": name, "when": {}, "key": ["ip"], "limit": "5/1m", "burst": 5,
                "algorithm": "token_bucket", "mode": "shadow", "consistency": "available", "on_owner_loss": "share"})
        };
        let change: Change = serde_json::from_value(serde_json::json!({
            "domain": "default", "revision": 9, "previous": 4, "changed": true, "dry_run": false,
            "diff": {"added": [rule("new")], "removed": [rule("old")], "unmatched": null,
                "changed": [{"name": "login", "counts": "kept", "fields": [{"field": "limit", "from": "5/1m", "to": "9/1m"}]}],
                "renamed": ["a note"]},
            "live_buckets": {"login": 12}, "applied_by": ["n1", "n2"],
        }))
        .unwrap();
        let text = anstream::adapter::strip_str(&change.to_text()).to_string();
        assert_eq!(
            text,
            "~ login  limit 5/1m -> 9/1m  (about 12 buckets); counts: kept\n\
             + new  5/1m for each ip, burst 5, token_bucket, shadow\n\
             - old  5/1m for each ip, burst 5, token_bucket, shadow\n\
             ! a note\n\
             default: 1 added, 1 changed, 1 removed; revision 4 -> 9, in force at n1, n2"
        );
    }
}
