//! `GET /v1/audit`: what was done, when and by whom.

use serde::{Deserialize, Serialize};
use tidegate_cluster::state::{Applied, AuditEntry, Identity};

use crate::instant;

const DEFAULT_LIMIT: usize = 100;

/// What the call asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditOptions {
    limit: Option<usize>,
    /// Only what stands before this entry.
    before: Option<u64>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct View {
    node: String,
    /// Up to which entry of the log this node knows what was done.
    applied: u64,
    /// The newest first.
    entries: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    index: u64,
    at: String,
    /// Who has proved to be whom; none: nothing had to be proved.
    identity: Option<Who>,
    address: String,
    action: String,
    target: String,
    detail: String,
    node: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Who {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: String,
    /// The name in the certificate that was shown instead of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

impl Line {
    fn of(entry: &AuditEntry) -> Self {
        let who = |kind, id, name: &str| Some(Who { kind, id, name: name.to_owned(), certificate: None });
        let identity = match &entry.actor.identity {
            Identity::Nobody => None,
            Identity::AdminToken => who("admin-token", None, &entry.node),
            Identity::Token { id, name } => who("token", Some(id.to_string()), name),
            Identity::Certificate { id, name, certificate } => Some(Who {
                kind: "certificate",
                id: Some(id.to_string()),
                name: name.clone(),
                certificate: Some(certificate.clone()),
            }),
        };
        Self {
            index: entry.index,
            at: instant::text_of(entry.at_ms),
            identity,
            address: entry.actor.address.clone(),
            action: entry.action.clone(),
            target: entry.target.clone(),
            detail: entry.detail.clone(),
            node: entry.node.clone(),
            outcome: if entry.error.is_none() { "done" } else { "refused" },
            reason: entry.error.as_ref().map(ToString::to_string),
        }
    }
}

/// Looks at it.
pub(super) fn view(node: &str, applied: &Applied, options: &AuditOptions) -> View {
    let entries = applied.state.access.audit.entries().rev();
    let entries = entries.filter(|entry| options.before.is_none_or(|before| entry.index < before));
    View {
        node: node.to_owned(),
        applied: applied.index,
        entries: entries.take(options.limit.unwrap_or(DEFAULT_LIMIT)).map(Line::of).collect(),
    }
}
