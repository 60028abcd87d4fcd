//! The way of one check: match the rules, decide here or where the slots are owned, put the answer together.

use smallvec::SmallVec;
use tidegate_cluster::{DecidedBy, Decisions, Local, Readiness};
use tidegate_limiter::{Charge, Decision, Limit, Match, Mode, OnOwnerLoss, binding};

use super::{
    answer::{Answer, Numbers, Policy},
    problem::{Kind, Problem},
    request::{CheckRequest, Subject},
};
use crate::{metrics::Decider, node::Node};

/// The name of a limit that came with the check, in the `RateLimit` headers.
const INLINE_POLICY: &str = "inline";

/// A limit that applies to a check, and what is charged for it.
struct Applied<'r> {
    /// None: the limit came with the check.
    rule: Option<&'r str>,
    limit: Limit,
    mode: Mode,
}

/// One decision of those that make a check's answer.
#[derive(Clone, Copy)]
struct Decided<'d> {
    decision: &'d Decision,
    by: Decider,
    node: &'d str,
}

/// Decides a check and gives the answer to `render`. `lane` is that of the calling thread. Nothing is awaited when this
/// node owns all the slots of the check.
pub(super) async fn check<T>(
    node: &Node,
    lane: usize,
    request: &CheckRequest<'_>,
    render: impl FnOnce(Answer<'_>) -> T,
) -> Result<T, Problem> {
    let now = node.clock.now();
    let rules = node.rules.load_full();
    let mut applied: SmallVec<[Applied<'_>; 4]> = SmallVec::new();
    let mut charges: SmallVec<[Charge; 4]> = SmallVec::new();
    let mut losses: SmallVec<[OnOwnerLoss; 4]> = SmallVec::new();
    let metrics = &node.metrics[lane];
    let count = |allowed, by| metrics.count_check(allowed, by, node.clock.now().saturating_since(now));

    match &request.subject {
        Subject::Attributes(attributes) => {
            let mut matched = SmallVec::new();
            if let Match::Unmatched { allow } = rules.matching(&request.domain, attributes, &mut matched) {
                count(allow, Decider::Unmatched);
                return Ok(render(unlimited(node, allow, None)));
            }
            let mut unlimited_by = None;
            for one in &matched {
                let Some(limit) = one.limit else {
                    unlimited_by.get_or_insert(one.rule.name());
                    continue;
                };
                applied.push(Applied { rule: Some(one.rule.name()), limit: *limit, mode: one.rule.mode() });
                charges.push(Charge {
                    key: one.key,
                    limit: *limit,
                    cost: request.cost,
                    mode: one.rule.mode(),
                    floor: None,
                });
                losses.push(one.rule.on_owner_loss());
            }
            if charges.is_empty() {
                count(true, Decider::Unmatched);
                return Ok(render(unlimited(node, true, unlimited_by)));
            }
        }
        Subject::Inline { key, limit } => {
            let mode = Mode::Enforce;
            applied.push(Applied { rule: None, limit: *limit, mode });
            let key = rules.inline_key(&request.domain, key, limit);
            charges.push(Charge { key, limit: *limit, cost: request.cost, mode, floor: None });
            losses.push(OnOwnerLoss::Share);
        }
    }

    let mut decisions = Decisions::new();
    match node.router.decide_local(&mut charges, now, &mut decisions) {
        Local::Decided { allowed } => {
            let decided = |place: usize| {
                Some(Decided { decision: decisions.get(place)?, by: Decider::Owner, node: &node.name })
            };
            let (answer, by) = put_together(node, lane, allowed, &applied, decided, render);
            count(allowed, by);
            Ok(answer)
        }
        Local::NotReady => Err(not_ready(node)),
        Local::Elsewhere => {
            // Rare enough to be worth a box: the future of a local check stays small.
            let verdict = Box::pin(node.router.decide(lane, &mut charges, &losses, now));
            let verdict = verdict.await.map_err(|_| not_ready(node))?;
            let decided = |place: usize| {
                let answer = verdict.answers.get(place)?.as_ref()?;
                let node = if let DecidedBy::Forwarded(owner) = &answer.by { owner } else { &*node.name };
                Some(Decided { decision: &answer.decision, by: (&answer.by).into(), node })
            };
            let (answer, by) = put_together(node, lane, verdict.allowed, &applied, decided, render);
            count(verdict.allowed, by);
            Ok(answer)
        }
    }
}

/// The answer to a check that nothing limits.
fn unlimited<'a>(node: &'a Node, allowed: bool, rule: Option<&'a str>) -> Answer<'a> {
    Answer {
        allowed,
        rule,
        numbers: None,
        decided_by: Decider::Unmatched.as_str(),
        node: &node.name,
        policies: &[],
    }
}

fn not_ready(node: &Node) -> Problem {
    let detail = match node.cluster.readiness() {
        Readiness::NotReady(reason) => reason,
        Readiness::Ready => "this node has just left its cluster".to_owned(),
    };
    Problem::new(Kind::NotReady, detail)
}

/// Chooses what the answer tells of: the enforced limit that binds most; the one of a shadow rule only if there is no
/// other. Headers never tell of shadow rules, which callers must not notice.
fn put_together<'d, T>(
    node: &'d Node,
    lane: usize,
    allowed: bool,
    applied: &[Applied<'d>],
    decided: impl Fn(usize) -> Option<Decided<'d>>,
    render: impl FnOnce(Answer<'_>) -> T,
) -> (T, Decider) {
    let mut enforced: SmallVec<[usize; 4]> = SmallVec::new();
    let mut shadow: SmallVec<[usize; 4]> = SmallVec::new();
    let mut policies: SmallVec<[Policy<'_>; 4]> = SmallVec::new();
    for (place, one) in applied.iter().enumerate() {
        let Some(Decided { decision, .. }) = decided(place) else { continue };
        if one.mode == Mode::Shadow {
            shadow.push(place);
            if !decision.allowed {
                node.metrics[lane].count_shadow_denial();
            }
            continue;
        }
        enforced.push(place);
        policies.push(Policy {
            name: one.rule.unwrap_or(INLINE_POLICY),
            count: one.limit.count(),
            window: one.limit.window(),
            remaining: decision.remaining,
            reset_after: decision.reset_after,
        });
    }
    let told = if enforced.is_empty() { shadow } else { enforced };
    let most = binding(told.iter().filter_map(|place| decided(*place)).map(|one| one.decision));
    let Some((place, told)) = most.and_then(|index| Some((told[index], decided(told[index])?))) else {
        // Nobody said anything about any limit; the verdict stands all the same.
        return (render(unlimited(node, allowed, None)), Decider::Unmatched);
    };
    let decision = told.decision;
    let answer = Answer {
        allowed,
        rule: applied[place].rule,
        numbers: Some(Numbers {
            limit: decision.limit,
            remaining: decision.remaining,
            reset_after: decision.reset_after,
            retry_after: decision.retry_after,
            delay: decision.delay,
        }),
        decided_by: told.by.as_str(),
        node: told.node,
        policies: &policies,
    };
    (render(answer), told.by)
}
