//! What is told of the rules.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use tidegate_cluster::state::{Applied, Change, Extent, Origin};
use tidegate_limiter::{
    cluster::{BlockDescription, RuleDescription, Rules, RulesDiff, WorstCase},
    rules::HashSecret,
};

use crate::{instant, node::Node};

/// Rules of all domains, or of one.
#[derive(Debug, Serialize)]
pub(super) struct Seen<T: Serialize> {
    pub(super) node: String,
    pub(super) applied: u64,
    pub(super) age_ms: Option<u64>,
    pub(super) consistent: bool,
    #[serde(flatten)]
    pub(super) what: T,
}

/// A rule, and what it may admit at most.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub(super) rule: RuleDescription,
    pub(super) worst_case: WorstCase,
}

impl Told {
    pub(super) fn of(rule: RuleDescription) -> Self {
        Self { worst_case: rule.worst_case(), rule }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Domains {
    pub(super) domains: Vec<Domain>,
}

#[derive(Debug, Serialize)]
pub(super) struct Domain {
    pub(super) domain: String,
    pub(super) revision: u64,
    pub(super) changed_at: String,
    pub(super) author: String,
    pub(super) message: String,
    pub(super) source: Arc<str>,
    pub(super) rules: Vec<Told>,
    pub(super) unmatched: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) block: Vec<BlockDescription>,
    pub(super) all_or_nothing: bool,
}

/// A change in the history.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub(super) revision: u64,
    pub(super) at: String,
    pub(super) author: &'a str,
    pub(super) message: &'a str,
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<u64>,
    pub(super) node: &'a str,
    pub(super) added: u32,
    pub(super) removed: u32,
    pub(super) changed: u32,
    pub(super) kept: bool,
}

impl<'a> Line<'a> {
    pub(super) fn of(change: &'a Change) -> Self {
        let Change { revision, origin, author, message, node, at_ms, extent, text } = change;
        let (kind, to) = match origin {
            Origin::Apply => ("apply", None),
            Origin::Rollback { to } => ("rollback", Some(to.get())),
        };
        let Extent { added, removed, changed } = *extent;
        let (revision, at, kept) = (revision.get(), instant::text_of(*at_ms), text.is_some());
        Self { revision, at, author, message, kind, to, node, added, removed, changed, kept }
    }
}

/// What became of a change.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    pub(super) domain: String,
    pub(super) revision: Option<u64>,
    pub(super) previous: Option<u64>,
    pub(super) changed: bool,
    pub(super) at: String,
    pub(super) dry_run: bool,
    pub(super) diff: RulesDiff,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) live_buckets: Option<BTreeMap<String, u64>>,
    pub(super) applied_by: Vec<String>,
}

/// An answer: its JSON, and the revision for `ETag`.
pub(in crate::http) struct Answer {
    pub(in crate::http) json: Vec<u8>,
    pub(in crate::http) revision: Option<u64>,
    /// The text itself, where that was asked for.
    pub(in crate::http) yaml: Option<Arc<str>>,
}

impl Answer {
    pub(super) fn of(body: &impl Serialize, revision: Option<u64>) -> Self {
        let json = serde_json::to_vec(body)
            .expect("text, numbers and maps with text as keys can be written as JSON");
        Self { json, revision, yaml: None }
    }
}

pub(super) fn seen(node: &Node, applied: &Applied, consistent: bool) -> Seen<()> {
    let age = node.cluster.ledger().age();
    let age_ms = age.map(|age| age.as_millis() as u64);
    Seen { node: node.name.clone(), applied: applied.index, age_ms, consistent, what: () }
}

impl Seen<()> {
    pub(super) fn with<T: Serialize>(self, what: T) -> Seen<T> {
        let Self { node, applied, age_ms, consistent, what: () } = self;
        Seen { node, applied, age_ms, consistent, what }
    }
}

pub(super) fn domain_view(name: &str, change: &Change) -> Domain {
    let source = text_of(change);
    let rules = rules_of(name, &source).describe(name);
    Domain {
        domain: name.to_owned(),
        revision: change.revision.get(),
        changed_at: instant::text_of(change.at_ms),
        author: change.author.clone(),
        message: change.message.clone(),
        source,
        rules: rules.rules.into_iter().map(Told::of).collect(),
        unmatched: if rules.allow_unmatched { "allow" } else { "deny" },
        block: rules.block,
        all_or_nothing: rules.all_or_nothing,
    }
}

/// The text of a change that has been looked for by `change_at`, or is in force.
pub(super) fn text_of(change: &Change) -> Arc<str> {
    change.text.clone().unwrap_or_default()
}

/// Any secret makes the same rules; these are only read.
pub(super) fn reading_secret() -> HashSecret {
    HashSecret::new([0; 16])
}

/// Rules that were written are rules; by an older version, if not by this one.
pub(super) fn rules_of(domain: &str, text: &str) -> Rules {
    let secret = reading_secret();
    Rules::empty(&secret).with_domain_at(domain, text, &secret, 0).unwrap_or_else(|_| Rules::empty(&secret))
}
