//! `POST /v1/refund` and `POST /v1/reset`: units given back, and buckets that forget.

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_cluster::Amendment;
use tidegate_limiter::Cost;

use super::{answer::millis, json};
use crate::{
    check::{AmendedBuckets, Problem, ProblemKind, amend_buckets},
    node::Node,
};

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
) -> Result<Value, Problem> {
    let request = json::parse(text)?;
    if request.id.is_some() && amendment == Amendment::Reset {
        let detail = "a reset takes no request id: it is of the whole bucket";
        return Err(Problem::of_field(ProblemKind::InvalidValue, "request_id", detail));
    }
    if amendment == Amendment::Refund && request.cost == Cost::PEEK && request.costs.is_nothing() {
        let detail = "a refund gives at least one unit back";
        return Err(Problem::of_field(ProblemKind::InvalidValue, "cost", detail));
    }
    let only = options.rule.as_deref();
    amend_buckets(node, worker, amendment, &request, only, |amended| told(&amended)).await?
}

fn told(amended: &AmendedBuckets<'_>) -> Result<Value, Problem> {
    // As long as an owner may have done it, nobody can know.
    let unknown = || if amended.unsure { Value::Null } else { Value::Bool(false) };
    let bucket = amended.buckets.iter().map(|bucket| {
        let rule = bucket.rule;
        let Some(now) = bucket.now else { return json!({ "rule": rule, "applied": unknown() }) };
        json!({
            "rule": rule, "applied": true, "limit": now.decision.limit, "remaining": now.decision.remaining,
            "reset_after_ms": millis(now.decision.reset_after),
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
