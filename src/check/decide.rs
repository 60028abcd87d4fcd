//! The way of one check: match the rules, decide here or where the slots are owned, put the answer together.

use tidegate_cluster::{CheckOptions, Decisions, Local, Readiness, Undecided, Verdict};
use tidegate_limiter::{Cost, Nanos};

use super::{
    answer::{CheckAnswer, Decider},
    charges::{Charges, Ruling, rule},
    outcome::{Decided, put_together, unlimited},
    problem::{Problem, ProblemKind},
    request::CheckRequest,
};
use crate::node::Node;

/// Decides a check right here, without waiting, and gives the answer to `render`, if this node owns all of its slots. `None`:
/// another node owns one, or the check has a request id, and nothing has been charged. `lane` is that of the calling thread.
pub(crate) fn check_here<T>(
    node: &Node,
    lane: usize,
    request: &CheckRequest<'_>,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> Option<Result<T, Problem>> {
    let now = node.clock.now();
    let rules = node.rules.load();
    let mut limited = Charges::default();
    let ruling = rule(&rules, request, &mut limited);
    decide_here(node, lane, request, &ruling, &mut limited, now, render)
}

/// As [`check_here`] for checks that came together, each decided by itself and in their order: what all of them need of the
/// buckets is asked for before the first one is decided.
pub(crate) fn check_group_here<'c, 'r: 'c, T>(
    node: &Node,
    lane: usize,
    requests: impl Iterator<Item = &'c CheckRequest<'r>>,
    render: impl Fn(CheckAnswer<'_>) -> T,
) -> Vec<Option<Result<T, Problem>>> {
    let now = node.clock.now();
    let rules = node.rules.load();
    let mut ruled: Vec<(&CheckRequest<'_>, Ruling<'_>, Charges<'_>)> =
        Vec::with_capacity(requests.size_hint().1.unwrap_or(0));
    for request in requests {
        ruled.push((request, Ruling::Limited, Charges::default()));
        if let Some((_, ruling, limited)) = ruled.last_mut() {
            *ruling = rule(&rules, request, limited);
        }
    }
    node.store.warm(ruled.iter().flat_map(|(_, _, limited)| &limited.charges).map(|charge| charge.key));
    let decide = |(request, ruling, limited): &mut (&CheckRequest<'_>, Ruling<'_>, Charges<'_>)| {
        decide_here(node, lane, request, ruling, limited, now, &render)
    };
    ruled.iter_mut().map(decide).collect()
}

fn decide_here<T>(
    node: &Node,
    lane: usize,
    request: &CheckRequest<'_>,
    ruling: &Ruling<'_>,
    limited: &mut Charges<'_>,
    now: Nanos,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> Option<Result<T, Problem>> {
    if let Ruling::Unlimited { allowed, rule } = *ruling {
        return Some(answer_unlimited(node, lane, allowed, rule, now, render));
    }
    if request.id.is_some() {
        // `check` looks whether it was charged before.
        return None;
    }
    let mut decisions = Decisions::new();
    match node.router.decide_local(&mut limited.charges, &limited.wishes, now, &mut decisions) {
        Local::Elsewhere => None,
        Local::NotReady => Some(Err(not_ready(node))),
        Local::Decided { allowed, at } => {
            let name = |place: usize| limited.names.get(place).copied().flatten();
            let decided = |place: usize| {
                let decision = decisions.get(place)?;
                let by = if decision.assumed { Decider::Memory } else { Decider::Owner };
                Some(Decided { decision, by, node: &node.name })
            };
            let (answer, by) = put_together(node, lane, allowed, &limited.charges, name, decided, render);
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
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> Result<T, Problem> {
    let since = node.clock.now();
    let (mut now, deadline) = (since, node.router.deadline());
    loop {
        let rules = node.rules.load_full();
        let mut limited = Charges::default();
        if let Ruling::Unlimited { allowed, rule } = rule(&rules, request, &mut limited) {
            return answer_unlimited(node, lane, allowed, rule, since, render);
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
        let name = |place: usize| limited.names.get(place).copied().flatten();
        let decided = |place: usize| Decided::at(place, &answers, node);
        let (answer, by) = put_together(node, lane, allowed, &limited.charges, name, decided, render);
        count(node, lane, allowed, by, since);
        return Ok(answer);
    }
}

fn answer_unlimited<T>(
    node: &Node,
    lane: usize,
    allowed: bool,
    rule: Option<&str>,
    since: Nanos,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> Result<T, Problem> {
    // A node without the cluster's rules knows of no limit, which does not mean that there is none.
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    count(node, lane, allowed, Decider::Unmatched, since);
    Ok(render(unlimited(node, allowed, rule)))
}

fn count(node: &Node, lane: usize, allowed: bool, by: Decider, since: Nanos) {
    node.metrics[lane].count_check(allowed, by, node.clock.now().saturating_since(since));
}

pub(super) fn not_ready(node: &Node) -> Problem {
    let detail = match node.cluster.readiness() {
        Readiness::NotReady(reason) => reason,
        Readiness::Ready => "this node has just left its cluster".to_owned(),
    };
    Problem::new(ProblemKind::NotReady, detail)
}
