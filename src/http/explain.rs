//! `GET` and `POST /v1/explain`: why a check would be decided as it would be now.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tidegate_cluster::DecidedBy;
use tidegate_limiter::rules::Mode;

use super::answer::millis;
use crate::{
    check::{CheckRequest, Decider, Explanation, Limited, Problem, explain},
    instant,
    node::Node,
};

/// Explains it; the answer's JSON.
pub(super) async fn view(node: &Node, worker: usize, request: &CheckRequest<'_>) -> Result<Value, Problem> {
    let explained = explain(node, worker, request).await?;
    let limits: Vec<Value> = explained.limits.iter().map(|limited| of_limit(node, limited)).collect();
    let others: Vec<Value> =
        explained.others.iter().map(|(name, why)| json!({ "rule": name, "because": why })).collect();
    Ok(json!({
        "node": node.name,
        "at": instant::text_of(node.clock.unix_millis()),
        "domain": request.domain,
        "revision": explained.revision,
        "allowed": explained.allowed,
        "because": because(request, &explained),
        "blocked_by": explained.blocked_by,
        "limits": limits,
        "other_rules": others,
        "other_rules_count": explained.other_count,
    }))
}

fn of_limit(node: &Node, limited: &Limited) -> Value {
    let key: Map<String, Value> =
        limited.key.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let mut told = json!({
        "rule": limited.name,
        "limit": limited.limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string()),
        "algorithm": limited.limit.filter(|limit| !limit.denies()).map(|limit| limit.algorithm().to_string()),
        "override": limited.special,
        "mode": if limited.mode == Mode::Shadow { "shadow" } else { "enforce" },
        "key": key,
        "cost": limited.cost,
    });
    let Some(look) = &limited.look else { return told };
    let denies = limited.limit.is_some_and(|limit| limit.denies());
    if !denies {
        told["slot"] = look.slot.into();
        told["owner"] = look.owner.as_deref().into();
    }
    let Some(answer) = &look.answer else {
        told["allowed"] = Value::Null;
        return told;
    };
    let decision = &answer.decision;
    told["allowed"] = decision.allowed.into();
    told["quota"] = decision.limit.into();
    told["remaining"] = decision.remaining.into();
    told["retry_after_ms"] = decision.retry_after.map(millis).into();
    told["reset_after_ms"] = (!denies).then(|| millis(decision.reset_after)).into();
    told["banned"] = decision.banned.into();
    told["decided_by"] = Decider::from(answer).as_str().into();
    told["decides"] =
        if let DecidedBy::Forwarded(owner) = &answer.by { &**owner } else { &*node.name }.into();
    told
}

/// The answer in one sentence.
fn because(request: &CheckRequest<'_>, explained: &Explanation) -> String {
    if let Some(name) = &explained.blocked_by {
        return format!("the entry {name:?} of the block list denies it");
    }
    let decision = |limited: &Limited| Some(limited.look.as_ref()?.answer.as_ref()?.decision);
    let name =
        |limited: &Limited| limited.name.clone().unwrap_or_else(|| "the limit of the check".to_owned());
    let enforced = || explained.limits.iter().filter(|limited| limited.mode == Mode::Enforce);
    let said = || enforced().filter_map(|limited| Some((limited, decision(limited)?)));
    let most = said().max_by(|(_, one), (_, other)| one.binds(other));
    match (explained.allowed, most) {
        (Some(false), Some((limited, _))) if limited.limit.is_some_and(|limit| limit.denies()) => {
            format!("{} denies everything", name(limited))
        }
        (Some(false), Some((limited, decision))) => {
            let of = format!("{} has {} of {} left", name(limited), decision.remaining, decision.limit);
            // Rounded as in every answer.
            let wait = decision.retry_after.map(|wait| Duration::from_millis(millis(wait)));
            match (decision.banned, wait) {
                (true, Some(wait)) => format!("{} has banned this key for {wait:?} more", name(limited)),
                (_, Some(wait)) => format!("{of}; enough for a cost of {} in {wait:?}", limited.cost),
                (_, None) => format!("{of}, and never enough for a cost of {}", limited.cost),
            }
        }
        (Some(false), None) => {
            format!("no rule is about it, and the domain {:?} denies what none is about", request.domain)
        }
        (Some(true), Some((limited, decision))) => {
            format!(
                "{} has {} of {} left, the least of all",
                name(limited),
                decision.remaining,
                decision.limit
            )
        }
        (Some(true), None) if !explained.has_domain => {
            format!("there is no domain {:?}, and so no rule", request.domain)
        }
        (Some(true), None) if explained.limits.is_empty() => "no rule is about it".to_owned(),
        (Some(true), None) => "nothing that is enforced limits it".to_owned(),
        (None, _) => {
            let mute: Vec<String> = enforced()
                .filter(|limited| limited.limit.is_some() && decision(limited).is_none())
                .map(name)
                .collect();
            format!("who owns the bucket of {} does not say; ask again", mute.join(", "))
        }
    }
}
