//! Units given back, and buckets that forget, of all rules that match a request: `POST /v1/refund` and `POST /v1/reset`, and
//! what protocols of others ask of the kind.

use serde::Deserialize;
use serde_json::{Value, json};
use smallvec::SmallVec;
use tidegate_cluster::{Amended, Amendment, DecidedBy};
use tidegate_limiter::Cost;

use super::{
    answer::{Answer, millis},
    check::{Charges, Decided, Ruling, not_ready, put_together, rule, rule_all, unlimited},
    json,
    problem::{Kind, Problem},
    request::CheckRequest,
};
use crate::{metrics::Decider, node::Node};

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AmendOptions {
    /// Of the rules that match, only this one.
    rule: Option<String>,
}

/// Makes the change where it is asked for as a check, and gives what a look says then to `render`: of the limits in force, and
/// no others. Who gives back asks for nothing, so nothing is denied.
///
/// # Errors
/// When not every bucket is known to be changed.
pub(crate) async fn amend_as_check<T>(
    node: &Node,
    lane: usize,
    amendment: Amendment,
    request: &CheckRequest<'_>,
    render: impl FnOnce(Answer<'_>) -> T,
) -> Result<T, Problem> {
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    let rules = node.rules.load_full();
    let mut limited = Charges::default();
    if let Ruling::Unlimited { rule, .. } = rule(&rules, request, &mut limited) {
        return Ok(render(unlimited(node, true, rule)));
    }
    let amended =
        node.router.amend(lane, amendment, &limited.charges, &limited.wishes, limited.revision).await;
    let amended = amended.map_err(|_| not_ready(node))?;
    if !amended.is_complete() {
        return Err(Problem::new(Kind::OwnerUnreachable, why_incomplete(&amended)));
    }
    let decided = |place: usize| Decided::at(place, &amended.answers, node);
    Ok(put_together(node, lane, true, &limited.applied, decided, render).0)
}

fn why_incomplete(amended: &Amended) -> &'static str {
    if amended.unsure {
        "an owner was asked and did not answer: nobody knows whether it has done it"
    } else {
        "no owner of a bucket could be asked; what was not applied can be asked for again"
    }
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
    if request.id.is_some() {
        // Whoever relied on it would give back twice.
        let detail = "refunds and resets take no request id: each one that is asked for is made";
        return Err(Problem::of_field(Kind::InvalidValue, "request_id", detail));
    }
    if amendment == Amendment::Refund && request.cost == Cost::PEEK {
        let detail = "a refund gives at least one unit back";
        return Err(Problem::of_field(Kind::InvalidValue, "cost", detail));
    }
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    let rules = node.rules.load_full();
    let mut limited = Charges::default();
    let ruling = match amendment {
        // What was taken was taken by the limit in force; what is to be forgotten is all that is known of the keys.
        Amendment::Refund => rule(&rules, &request, &mut limited),
        Amendment::Reset => rule_all(&rules, &request, &mut limited),
    };
    if let Ruling::Unlimited { .. } = ruling {
        return Ok(json!({ "buckets": [] }));
    }
    let wanted = |place: &usize| match &options.rule {
        Some(name) => limited.applied[*place].rule == Some(name),
        None => true,
    };
    let places: SmallVec<[usize; 4]> = (0..limited.charges.len()).filter(wanted).collect();
    let charges: SmallVec<[_; 4]> = places.iter().map(|place| limited.charges[*place]).collect();
    let wishes: SmallVec<[_; 4]> = places.iter().map(|place| limited.wishes[*place]).collect();
    let amended = node.router.amend(lane, amendment, &charges, &wishes, limited.revision).await;
    let amended = amended.map_err(|_| not_ready(node))?;
    let buckets: Vec<Value> = places
        .iter()
        .zip(&amended.answers)
        .map(|(place, answer)| {
            let rule = limited.applied[*place].rule;
            // Which owner was asked is not told apart: as long as one may have done it, nobody can know.
            let unknown = if amended.unsure { Value::Null } else { Value::Bool(false) };
            let Some(answer) = answer else { return json!({ "rule": rule, "applied": unknown }) };
            let by = if let DecidedBy::Forwarded(owner) = &answer.by { owner } else { &*node.name };
            json!({
                "rule": rule, "applied": true, "limit": answer.decision.limit, "remaining": answer.decision.remaining,
                "reset_after_ms": millis(answer.decision.reset_after),
                "decided_by": Decider::from(answer).as_str(), "node": by,
            })
        })
        .collect();
    if amended.is_complete() {
        return Ok(json!({ "buckets": buckets }));
    }
    let detail = why_incomplete(&amended);
    let applied = if amended.unsure { Value::Null } else { Value::Bool(false) };
    Err(Problem::new(Kind::OwnerUnreachable, detail).with("applied", applied).with("buckets", buckets))
}
