//! `POST /v1/refund` and `POST /v1/reset`: units given back, and buckets that forget.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_cluster::Amendment;
use tidegate_limiter::Cost;
use tokio::time::Instant;

use super::{answer::millis, json};
use crate::{
    access::{Caller, Grant},
    check::{AmendedBuckets, CheckRequest, Problem, ProblemKind, Subject, amend_buckets, echo},
    node::Node,
};

/// How long the leader may take to write that a bucket was reset.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AmendOptions {
    /// Of the rules that match, only this one.
    rule: Option<String>,
}

/// Makes the change; the answer's JSON.
pub(super) async fn amend(
    node: &Node,
    worker: usize,
    amendment: Amendment,
    options: &AmendOptions,
    text: &[u8],
    caller: &Caller,
) -> Result<Value, Problem> {
    let request = json::parse(text)?;
    caller.may_ask(&request.domain)?;
    if request.id.is_some() && amendment == Amendment::Reset {
        let detail = "a reset takes no request id: it is of the whole bucket";
        return Err(Problem::of_field(ProblemKind::InvalidValue, "request_id", detail));
    }
    if amendment == Amendment::Refund && request.cost == Cost::PEEK && request.costs.is_nothing() {
        let detail = "a refund gives at least one unit back";
        return Err(Problem::of_field(ProblemKind::InvalidValue, "cost", detail));
    }
    let only = options.rule.as_deref();
    let answer = amend_buckets(node, worker, amendment, &request, only, |amended| told(&amended)).await??;
    if amendment == Amendment::Reset {
        note_reset(node, &request, only, caller);
    }
    Ok(answer)
}

/// Has a reset by somebody who is known written into the audit trail. The bucket is reset already, so it is not waited for: where a
/// quorum is not there, it is missing in the trail, and the log of this node says so.
fn note_reset(node: &Node, request: &CheckRequest<'_>, only: Option<&str>, caller: &Caller) {
    if matches!(caller.grant, Grant::Nobody) {
        return;
    }
    let what = match &request.subject {
        Subject::Attributes(attributes) => {
            let all: Vec<String> =
                attributes.iter().map(|(name, value)| format!("{}={}", echo(name), echo(value))).collect();
            all.join(" ")
        }
        Subject::Inline { key, .. } | Subject::Named { key, .. } => format!("key {}", echo(key)),
    };
    let rule = only.map_or_else(String::new, |rule| format!("; rule {}", echo(rule)));
    let (domain, detail, actor) = (request.domain.to_string(), format!("{what}{rule}"), caller.actor());
    let Ok(room) = Arc::clone(&node.notes).try_acquire_owned() else {
        tracing::warn!(domain, detail, "many resets at a time: this one is not in the audit trail");
        return;
    };
    let ledger = node.cluster.ledger().clone();
    tokio::spawn(async move {
        let _room = room;
        let noted =
            ledger.note_reset(domain.clone(), detail.clone(), actor, Instant::now() + NOTED_WITHIN).await;
        if let Err(error) = noted {
            tracing::warn!(domain, detail, %error, "a reset is not in the audit trail");
        }
    });
}

fn told(amended: &AmendedBuckets<'_>) -> Result<Value, Problem> {
    // As long as an owner may have done it, nobody can know.
    let unknown = || if amended.unsure { Value::Null } else { Value::Bool(false) };
    let bucket = amended.buckets.iter().map(|bucket| {
        let rule = bucket.rule;
        let Some(now) = bucket.now else { return json!({ "rule": rule, "applied": unknown() }) };
        json!({
            "rule": rule, "applied": true, "limit": now.decision.limit, "remaining": now.decision.remaining,
            // A rule that denies has nothing that comes back.
            "reset_after_ms": (now.decision.limit > 0).then(|| millis(now.reset_after())),
            "decided_by": now.by.as_str(), "node": now.node,
        })
    });
    let buckets: Vec<Value> = bucket.collect();
    match amended.incomplete {
        None => Ok(json!({ "buckets": buckets })),
        Some(detail) => Err(Problem::new(ProblemKind::OwnerUnreachable, detail)
            .with("applied", unknown())
            .with("buckets", buckets)),
    }
}
