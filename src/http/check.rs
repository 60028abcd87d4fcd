//! The way of one check: match the rules, decide here or where the slots are owned, put the answer together.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_cluster::{
    Answers, CheckOptions, DecidedBy, Decisions, Local, Readiness, Undecided, Verdict, Wish,
};
use tidegate_limiter::{
    Charge, Consistency, Cost, Decision, Limit, LimitRef, Match, Matched, Mode, Nanos, OnOwnerLoss, RuleId,
    Rules, binding,
};

use super::{
    answer::{Answer, Numbers, Policy},
    problem::{Kind, Problem},
    request::{CheckRequest, Subject},
};
use crate::{metrics::Decider, node::Node};

/// The name of a limit that came with the check, in the `RateLimit` headers.
const INLINE_POLICY: &str = "inline";

/// A limit that applies to a check, and what is charged for it.
pub(super) struct Applied<'r> {
    /// None: the limit came with the check.
    pub(super) rule: Option<&'r str>,
    limit: Limit,
    mode: Mode,
}

/// One decision of those that make a check's answer.
#[derive(Clone, Copy)]
pub(super) struct Decided<'d> {
    decision: &'d Decision,
    by: Decider,
    node: &'d str,
}

impl<'d> Decided<'d> {
    pub(super) fn at(place: usize, answers: &'d Answers, node: &'d Node) -> Option<Self> {
        let answer = answers.get(place)?.as_ref()?;
        let node = if let DecidedBy::Forwarded(owner) = &answer.by { owner } else { &*node.name };
        Some(Self { decision: &answer.decision, by: answer.into(), node })
    }
}

/// The charges of a check, with what its answer needs to know of them.
#[derive(Default)]
pub(super) struct Charges<'r> {
    pub(super) applied: SmallVec<[Applied<'r>; 4]>,
    pub(super) charges: SmallVec<[Charge; 4]>,
    pub(super) wishes: SmallVec<[Wish; 4]>,
    /// Of the rules that they were made by.
    pub(super) revision: u64,
}

/// What rules say of a check before anything is charged.
pub(super) enum Ruling<'r> {
    /// What is to be charged stands in the [`Charges`].
    Limited,
    /// Nothing limits it, if it is allowed; the rule that says so, if one does.
    Unlimited { allowed: bool, rule: Option<&'r str> },
}

/// Decides a check right here, without waiting, and gives the answer to `render`; `None` if another node owns one of its
/// slots, or the check has a request id, and nothing has been charged. `lane` is that of the calling thread.
pub(crate) fn check_here<T>(
    node: &Node,
    lane: usize,
    request: &CheckRequest<'_>,
    render: impl FnOnce(Answer<'_>) -> T,
) -> Option<Result<T, Problem>> {
    if request.id.is_some() {
        // `check` looks whether it was charged before.
        return None;
    }
    let now = node.clock.now();
    let rules = node.rules.load();
    let mut limited = Charges::default();
    let ruling = rule(&rules, request, &mut limited);
    decide_here(node, lane, &ruling, &mut limited, now, render)
}

/// As [`check_here`] for checks that came together, each decided by itself and in their order: what all of them need of the
/// buckets is asked for before the first one is decided.
pub(crate) fn check_group_here<'c, 'r: 'c, T>(
    node: &Node,
    lane: usize,
    requests: impl Iterator<Item = &'c CheckRequest<'r>>,
    render: impl Fn(Answer<'_>) -> T,
) -> Vec<Option<Result<T, Problem>>> {
    let now = node.clock.now();
    let rules = node.rules.load();
    let mut ruled: Vec<(Option<Ruling<'_>>, Charges<'_>)> =
        Vec::with_capacity(requests.size_hint().1.unwrap_or(0));
    for request in requests {
        ruled.push((None, Charges::default()));
        if let (None, Some((ruling, limited))) = (&request.id, ruled.last_mut()) {
            *ruling = Some(rule(&rules, request, limited));
        }
    }
    node.store.warm(ruled.iter().flat_map(|(_, limited)| &limited.charges).map(|charge| charge.key));
    let decide = |(ruling, limited): &mut (Option<Ruling<'_>>, Charges<'_>)| {
        decide_here(node, lane, ruling.as_ref()?, limited, now, &render)
    };
    ruled.iter_mut().map(decide).collect()
}

fn decide_here<T>(
    node: &Node,
    lane: usize,
    ruling: &Ruling<'_>,
    limited: &mut Charges<'_>,
    now: Nanos,
    render: impl FnOnce(Answer<'_>) -> T,
) -> Option<Result<T, Problem>> {
    if let Ruling::Unlimited { allowed, rule } = *ruling {
        // A node without the cluster's rules knows of no limit, which does not mean that there is none.
        if !node.router.has_routes() {
            return Some(Err(not_ready(node)));
        }
        count(node, lane, allowed, Decider::Unmatched, now);
        return Some(Ok(render(unlimited(node, allowed, rule))));
    }
    let mut decisions = Decisions::new();
    match node.router.decide_local(&mut limited.charges, &limited.wishes, now, &mut decisions) {
        Local::Elsewhere => None,
        Local::NotReady => Some(Err(not_ready(node))),
        Local::Decided { allowed, at } => {
            let decided = |place: usize| {
                let decision = decisions.get(place)?;
                let by = if decision.assumed { Decider::Memory } else { Decider::Owner };
                Some(Decided { decision, by, node: &node.name })
            };
            let (answer, by) = put_together(node, lane, allowed, &limited.applied, decided, render);
            node.metrics[lane].count_check(allowed, by, at.saturating_since(now));
            Some(Ok(answer))
        }
    }
}

/// Decides a check wherever its slots are owned; one that was charged under its request id before gets the same answer.
/// Where an owner has newer rules than this node, the check is made again by these, as soon as they are here.
pub(crate) async fn check<T>(
    node: &Node,
    lane: usize,
    request: &CheckRequest<'_>,
    render: impl FnOnce(Answer<'_>) -> T,
) -> Result<T, Problem> {
    let since = node.clock.now();
    let (mut now, deadline) = (since, node.router.deadline());
    loop {
        let rules = node.rules.load_full();
        let mut limited = Charges::default();
        if let Ruling::Unlimited { allowed, rule } = rule(&rules, request, &mut limited) {
            if !node.router.has_routes() {
                return Err(not_ready(node));
            }
            count(node, lane, allowed, Decider::Unmatched, since);
            return Ok(render(unlimited(node, allowed, rule)));
        }
        // A look charges nothing, and tells what is so now.
        let id = request.id.as_deref().filter(|_| request.cost != Cost::PEEK);
        let number = id.map(|id| rules.request_number(&request.domain, id));
        let options = CheckOptions { revision: limited.revision, request: number, deadline };
        let (charges, wishes) = (&mut limited.charges, &limited.wishes);
        let verdict = match node.router.decide_once(lane, charges, wishes, options, now).await {
            Ok(verdict) => verdict,
            Err(Undecided::NotReady(_)) => return Err(not_ready(node)),
            Err(Undecided::RulesChanged) => {
                now = node.clock.now();
                continue;
            }
        };
        let Verdict { allowed, answers } = verdict;
        let decided = |place: usize| Decided::at(place, &answers, node);
        let (answer, by) = put_together(node, lane, allowed, &limited.applied, decided, render);
        count(node, lane, allowed, by, since);
        return Ok(answer);
    }
}

/// Fills in `limited` in place: it is large, and moving it around is felt.
pub(super) fn rule<'r>(
    rules: &'r Rules,
    request: &CheckRequest<'_>,
    limited: &mut Charges<'r>,
) -> Ruling<'r> {
    limited.revision = rules.revision();
    match &request.subject {
        Subject::Attributes(attributes) => {
            let mut matched = SmallVec::new();
            if let Match::Unmatched { allow } = rules.matching(&request.domain, attributes, &mut matched) {
                return Ruling::Unlimited { allowed: allow, rule: None };
            }
            let mut unlimited_by = None;
            for one in matched {
                match one.limit {
                    Some(limit) => limited.add_matched(&one, limit, request.cost),
                    None => {
                        unlimited_by.get_or_insert(one.rule.name());
                    }
                }
            }
            if limited.charges.is_empty() {
                return Ruling::Unlimited { allowed: true, rule: unlimited_by };
            }
        }
        Subject::Inline { key, limit } => {
            let key = rules.inline_key(&request.domain, key, limit);
            let wish = Wish {
                on_owner_loss: OnOwnerLoss::Share,
                consistency: Consistency::Available,
                carved: false,
                reserve: None,
                limit_ref: LimitRef::INLINE,
            };
            let (limit, cost) = (*limit, request.cost);
            let charge = Charge { key, rule: RuleId::INLINE, limit, cost, mode: Mode::Enforce, floor: None };
            limited.add(None, charge, wish);
        }
    }
    Ruling::Limited
}

/// As [`rule`], with all buckets that the request's keys have, whichever limit is in force.
pub(super) fn rule_all<'r>(
    rules: &'r Rules,
    request: &CheckRequest<'_>,
    limited: &mut Charges<'r>,
) -> Ruling<'r> {
    let Subject::Attributes(attributes) = &request.subject else { return rule(rules, request, limited) };
    limited.revision = rules.revision();
    let mut found = SmallVec::new();
    rules.buckets(&request.domain, attributes, &mut found);
    for one in found {
        if let Some(limit) = one.limit {
            limited.add_matched(&one, limit, request.cost);
        }
    }
    if limited.charges.is_empty() {
        return Ruling::Unlimited { allowed: true, rule: None };
    }
    Ruling::Limited
}

impl<'r> Charges<'r> {
    fn add_matched(&mut self, one: &Matched<'r>, limit: &Limit, cost: Cost) {
        let rule = one.rule;
        let (key, mode) = (one.key, rule.mode());
        let charge = Charge { key, rule: rule.id(), limit: *limit, cost, mode, floor: None };
        let wish = Wish {
            on_owner_loss: rule.on_owner_loss(),
            consistency: rule.consistency(),
            carved: rule.is_carved(),
            reserve: rule.reserve(),
            limit_ref: one.limit_ref,
        };
        self.add(Some(rule.name()), charge, wish);
    }

    fn add(&mut self, rule: Option<&'r str>, charge: Charge, wish: Wish) {
        self.applied.push(Applied { rule, limit: charge.limit, mode: charge.mode });
        self.charges.push(charge);
        self.wishes.push(wish);
    }
}

fn count(node: &Node, lane: usize, allowed: bool, by: Decider, since: Nanos) {
    node.metrics[lane].count_check(allowed, by, node.clock.now().saturating_since(since));
}

/// The answer to a check that nothing limits.
pub(super) fn unlimited<'a>(node: &'a Node, allowed: bool, rule: Option<&'a str>) -> Answer<'a> {
    Answer {
        allowed,
        rule,
        numbers: None,
        decided_by: Decider::Unmatched.as_str(),
        node: &node.name,
        policies: &[],
        legacy: None,
    }
}

pub(super) fn not_ready(node: &Node) -> Problem {
    let detail = match node.cluster.readiness() {
        Readiness::NotReady(reason) => reason,
        Readiness::Ready => "this node has just left its cluster".to_owned(),
    };
    Problem::new(Kind::NotReady, detail)
}

/// Chooses what the answer tells of: the enforced limit that binds most; the one of a shadow rule only if there is no
/// other. Headers never tell of shadow rules, which callers must not notice.
pub(super) fn put_together<'d, T>(
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
            more_after: more_after(&one.limit, decision),
            denied: !decision.allowed,
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
        legacy: node.legacy_headers.offset(node.clock),
    };
    (render(answer), told.by)
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
    use tidegate_limiter::{Algorithm, HashSecret};

    use super::{super::query, *};

    const RULES: &str = "
domain: default
rules:
  - name: per-ip
    key: [ip]
    limit: 10/1m
    overrides:
      - { when: { ip: 10.0.0.0/8 }, limit: unlimited }
  - { name: watched, when: { path: /a }, key: [], limit: 5/1s, mode: shadow, on_owner_loss: allow }
---
domain: closed
unmatched: deny
rules: []
";

    fn ruling(question: &str, look: impl FnOnce(Ruling<'_>, &Charges<'_>)) {
        let rules = Rules::from_yaml(RULES, &HashSecret::new([7; 16])).unwrap();
        let mut limited = Charges::default();
        let ruling = rule(&rules, &query::parse(Some(question)).unwrap(), &mut limited);
        look(ruling, &limited);
    }

    #[test]
    fn each_rule_that_matches_is_charged() {
        ruling("ip=203.0.113.7&path=/a&cost=3", |ruling, limited| {
            assert!(matches!(ruling, Ruling::Limited));
            let names: Vec<_> = limited.applied.iter().map(|one| (one.rule.unwrap(), one.mode)).collect();
            assert_eq!(names, [("per-ip", Mode::Enforce), ("watched", Mode::Shadow)]);
            let losses: Vec<_> = limited.wishes.iter().map(|wish| wish.on_owner_loss).collect();
            assert_eq!(losses, [OnOwnerLoss::Share, OnOwnerLoss::Allow]);
            assert!(limited.charges.iter().all(|charge| charge.cost.get() == 3));
        });
    }

    #[test]
    fn what_is_unlimited_is_not_charged_but_other_rules_are() {
        ruling("ip=10.1.2.3", |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: true, rule: Some("per-ip") }));
        });
        ruling("ip=10.1.2.3&path=/a", |ruling, limited| {
            assert!(matches!(ruling, Ruling::Limited));
            assert_eq!(limited.applied[0].rule, Some("watched"));
        });
    }

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

    #[test]
    fn a_domain_says_what_happens_to_the_unmatched() {
        ruling("user=x", |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: true, rule: None }))
        });
        ruling("user=x&domain=closed", |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: false, rule: None }));
        });
        ruling("user=x&domain=nowhere", |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: true, rule: None }));
        });
    }
}
