//! `POST /v1/refund` and `POST /v1/reset`: units given back, and buckets that forget, of all rules that match a request.

use serde::Deserialize;
use serde_json::{Value, json};
use smallvec::SmallVec;
use tidegate_cluster::{Amendment, DecidedBy};
use tidegate_limiter::Cost;

use super::{
    answer::millis,
    check::{Charges, Ruling, not_ready, rule},
    json,
    problem::{Kind, Problem},
};
use crate::{metrics::Decider, node::Node};

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
    lane: usize,
    amendment: Amendment,
    options: &AmendOptions,
    text: &[u8],
) -> Result<Value, Problem> {
    let request = json::parse(text)?;
    if amendment == Amendment::Refund && request.cost == Cost::PEEK {
        let detail = "a refund gives at least one unit back";
        return Err(Problem::of_field(Kind::InvalidValue, "cost", detail));
    }
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    let rules = node.rules.load_full();
    let mut limited = Charges::default();
    if let Ruling::Unlimited { .. } = rule(&rules, &request, &mut limited) {
        return Ok(json!({ "buckets": [] }));
    }
    let wanted = |place: &usize| match &options.rule {
        Some(name) => limited.applied[*place].rule == Some(name),
        None => true,
    };
    let places: SmallVec<[usize; 4]> = (0..limited.charges.len()).filter(wanted).collect();
    let charges: SmallVec<[_; 4]> = places.iter().map(|place| limited.charges[*place]).collect();
    let wishes: SmallVec<[_; 4]> = places.iter().map(|place| limited.wishes[*place]).collect();
    let amended = node.router.amend(lane, amendment, &charges, &wishes).await.map_err(|_| not_ready(node))?;
    let buckets: Vec<Value> = places
        .iter()
        .zip(&amended.answers)
        .map(|(place, answer)| {
            let rule = limited.applied[*place].rule;
            let Some(answer) = answer else { return json!({ "rule": rule, "applied": false }) };
            let by = if let DecidedBy::Forwarded(owner) = &answer.by { owner } else { &*node.name };
            json!({
                "rule": rule, "applied": true, "limit": answer.decision.limit, "remaining": answer.decision.remaining,
                "reset_after_ms": millis(answer.decision.reset_after),
                "decided_by": Decider::from(&answer.by).as_str(), "node": by,
            })
        })
        .collect();
    if amended.is_complete() {
        return Ok(json!({ "buckets": buckets }));
    }
    let detail = if amended.unsure {
        "an owner was asked and did not answer: nobody knows whether it has done it"
    } else {
        "no owner of a bucket could be asked; what was not applied can be asked for again"
    };
    let applied = if amended.unsure { Value::Null } else { Value::Bool(false) };
    Err(Problem::new(Kind::OwnerUnreachable, detail).with("applied", applied).with("buckets", buckets))
}
