//! Puts the answer of a check together from the decisions of all its limits.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_cluster::{Answers, DecidedBy};
use tidegate_limiter::{
    Decision, Limit,
    cluster::{Charge, binding},
    rules::Mode,
};

use super::answer::{CheckAnswer, Decider, Numbers, Policy};
use crate::node::Node;

/// The name of a limit that came with the check, among those of rules.
const INLINE_POLICY: &str = "inline";

/// One decision of those that make a check's answer.
#[derive(Clone, Copy)]
pub(crate) struct Decided<'d> {
    pub(crate) decision: &'d Decision,
    pub(crate) by: Decider,
    pub(crate) node: &'d str,
}

impl<'d> Decided<'d> {
    pub(super) fn at(place: usize, answers: &'d Answers, node: &'d Node) -> Option<Self> {
        let answer = answers.get(place)?.as_ref()?;
        let node = if let DecidedBy::Forwarded(owner) = &answer.by { owner } else { &*node.name };
        Some(Self { decision: &answer.decision, by: answer.into(), node })
    }
}

/// The answer to a check that nothing limits.
pub(super) fn unlimited<'a>(node: &'a Node, allowed: bool, rule: Option<&'a str>) -> CheckAnswer<'a> {
    CheckAnswer {
        allowed,
        rule,
        numbers: None,
        decided_by: Decider::Unmatched,
        node: &node.name,
        policies: &[],
        shadow: None,
    }
}

/// Chooses what the answer tells of: the enforced limit that binds most; the one of a shadow rule only if there is no
/// other. Its policies never tell of shadow rules, which callers must not notice.
pub(super) fn put_together<'d, T>(
    node: &'d Node,
    worker: usize,
    allowed: bool,
    charges: &[Charge],
    name: impl Fn(usize) -> Option<&'d str>,
    decided: impl Fn(usize) -> Option<Decided<'d>>,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> (T, Decider) {
    let mut enforced: SmallVec<[usize; 4]> = SmallVec::new();
    let mut shadow: SmallVec<[usize; 4]> = SmallVec::new();
    let mut policies: SmallVec<[Policy<'_>; 4]> = SmallVec::new();
    for (place, charge) in charges.iter().enumerate() {
        let Some(Decided { decision, .. }) = decided(place) else { continue };
        if charge.mode == Mode::Shadow {
            shadow.push(place);
            if !decision.allowed {
                node.metrics[worker].count_shadow_denial();
            }
            continue;
        }
        enforced.push(place);
        policies.push(policy(name(place), charge, decision));
    }
    let only_watches = enforced.is_empty();
    let told = if enforced.is_empty() { shadow } else { enforced };
    let most = binding(told.iter().filter_map(|place| decided(*place)).map(|one| one.decision));
    let Some((place, told)) = most.and_then(|index| Some((told[index], decided(told[index])?))) else {
        // Nobody said anything about any limit; the verdict stands all the same.
        return (render(unlimited(node, allowed, None)), Decider::Unmatched);
    };
    let decision = told.decision;
    let answer = CheckAnswer {
        allowed,
        rule: name(place),
        numbers: Some(Numbers {
            limit: decision.limit,
            remaining: decision.remaining,
            reset_after: decision.reset_after,
            retry_after: decision.retry_after,
            delay: decision.delay,
        }),
        decided_by: told.by,
        node: told.node,
        policies: &policies,
        shadow: only_watches.then(|| policy(name(place), &charges[place], decision)),
    };
    (render(answer), told.by)
}

fn policy<'d>(name: Option<&'d str>, charge: &Charge, decision: &Decision) -> Policy<'d> {
    Policy {
        name: name.unwrap_or(INLINE_POLICY),
        count: charge.limit.count(),
        window: charge.limit.window(),
        remaining: decision.remaining,
        more_after: more_after(&charge.limit, decision),
        denied: !decision.allowed,
    }
}

/// Until the bucket has more than what remains. For buckets that fill up steadily, until the next unit; for the others until
/// all of it is back, which is not too early.
fn more_after(limit: &Limit, decision: &Decision) -> Duration {
    if let (false, Some(wait)) = (decision.allowed, decision.retry_after) {
        return wait;
    }
    let missing = decision.limit.saturating_sub(decision.remaining);
    if missing < 2 || !limit.algorithm().has_burst() {
        return decision.reset_after;
    }
    let rest = u128::from(missing - 1) * limit.window().as_nanos() / u128::from(limit.count().max(1));
    decision.reset_after.saturating_sub(Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::Algorithm;

    use super::*;

    #[test]
    fn more_comes_unit_by_unit_where_it_does() {
        let told = |algorithm, remaining, reset: u64| {
            let limit = Limit::parse("10/1m", None, algorithm).unwrap();
            let reset_after = Duration::from_secs(reset);
            let decision = Decision {
                allowed: true,
                limit: 10,
                remaining,
                reset_after,
                retry_after: None,
                delay: Duration::ZERO,
                assumed: false,
            };
            let denied = Decision { allowed: false, retry_after: Some(Duration::from_secs(4)), ..decision };
            assert_eq!(more_after(&limit, &denied).as_secs(), 4);
            more_after(&limit, &decision).as_secs()
        };
        assert_eq!(told(Algorithm::TokenBucket, 7, 17), 5);
        assert_eq!(told(Algorithm::LeakyBucket, 0, 60), 6);
        assert_eq!(told(Algorithm::TokenBucket, 9, 6), 6);
        assert_eq!(told(Algorithm::TokenBucket, 10, 0), 0);
        assert_eq!(told(Algorithm::FixedWindow, 7, 17), 17);
    }
}
