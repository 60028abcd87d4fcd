//! The way of one check: match the rules, decide here or where the slots are owned, put the answer together.

use std::pin::Pin;

use tidegate_cluster::{CheckOptions, Decisions, Local, Readiness, Undecided, Verdict};
use tidegate_limiter::{Nanos, cluster::Charge};

use super::{
    answer::{CheckAnswer, Decider},
    charges::{Charges, Purpose, Ruling, rule},
    outcome::{Decided, put_together, unlimited},
    prepared::Prepared,
    problem::{Problem, ProblemKind},
    request::CheckRequest,
};
use crate::node::Node;

/// What a node that does not wait makes of a check.
pub(crate) enum FirstLook<T> {
    Decided(Result<T, Problem>),
    /// Another node owns one of its slots, or the check has a request id; nothing has been charged. This is for [`check`].
    Elsewhere(Box<Prepared>),
}

/// Decides a check right here, without waiting, and gives the answer to `render`, if this node owns all of its slots. `worker`
/// is that of the calling thread.
pub(crate) fn check_here<T>(
    node: &Node,
    worker: usize,
    request: &CheckRequest<'_>,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> FirstLook<T> {
    check_here_at(node, worker, request, &mut node.clock.now(), render)
}

/// As [`check_here`], of one of several checks that follow each other without a wait: it begins at `now`, which becomes the time when it was
/// decided, for the next one. To read a clock costs as much as to decide.
pub(crate) fn check_here_at<T>(
    node: &Node,
    worker: usize,
    request: &CheckRequest<'_>,
    now: &mut Nanos,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> FirstLook<T> {
    let rules = node.rules.load();
    let mut limited = Charges::default();
    let ruling = rule(&rules, request, *now, Purpose::Decision, &mut limited);
    match decide_here(node, worker, request, &ruling, &mut limited, now, render) {
        Some(decided) => FirstLook::Decided(decided),
        None => FirstLook::Elsewhere(Box::new(Prepared::new(&rules, request, &mut limited))),
    }
}

/// How a check begins that may have to wait.
pub(crate) enum Begun<T, W> {
    Decided(Result<T, Problem>),
    Waits(Pin<Box<W>>),
}

/// As [`check_here`], with the way on to [`check`] where it is needed: in a box, so that whoever answers checks one after the
/// other keeps no room for what few of them need.
pub(crate) fn begin_check<T>(
    node: &Node,
    worker: usize,
    request: &CheckRequest<'_>,
    mut render: impl FnMut(CheckAnswer<'_>) -> T,
) -> Begun<T, impl Future<Output = Result<T, Problem>>> {
    match check_here(node, worker, request, &mut render) {
        FirstLook::Decided(decided) => Begun::Decided(decided),
        FirstLook::Elsewhere(found) => {
            Begun::Waits(Box::pin(check(node, worker, request, Some(found), render)))
        }
    }
}

/// As [`check_here`] for checks that came together, each decided by itself and in their order: what all of them need of the
/// buckets is asked for before the first one is decided. `None`: decided elsewhere, and `elsewhere` takes what is needed for that.
pub(crate) fn check_group_here<'c, 'r: 'c, T>(
    node: &Node,
    worker: usize,
    requests: impl Iterator<Item = &'c CheckRequest<'r>>,
    render: impl Fn(CheckAnswer<'_>) -> T,
    elsewhere: &mut impl Extend<Box<Prepared>>,
) -> Vec<Option<Result<T, Problem>>> {
    let now = node.clock.now();
    let rules = node.rules.load();
    let mut ruled: Vec<(&CheckRequest<'_>, Ruling<'_>, Charges<'_>)> =
        Vec::with_capacity(requests.size_hint().1.unwrap_or(0));
    for request in requests {
        ruled.push((request, Ruling::Limited, Charges::default()));
        if let Some((_, ruling, limited)) = ruled.last_mut() {
            *ruling = rule(&rules, request, now, Purpose::Decision, limited);
        }
    }
    node.store.warm(ruled.iter().flat_map(|(_, _, limited)| &limited.charges).map(|charge| charge.key));
    let decide = |(request, ruling, limited): &mut (&CheckRequest<'_>, Ruling<'_>, Charges<'_>)| {
        let decided = decide_here(node, worker, request, ruling, limited, &mut { now }, &render);
        if decided.is_none() {
            elsewhere.extend([Box::new(Prepared::new(&rules, request, limited))]);
        }
        decided
    };
    ruled.iter_mut().map(decide).collect()
}

fn decide_here<T>(
    node: &Node,
    worker: usize,
    request: &CheckRequest<'_>,
    ruling: &Ruling<'_>,
    limited: &mut Charges<'_>,
    now: &mut Nanos,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> Option<Result<T, Problem>> {
    match ruling {
        Ruling::Limited => {}
        Ruling::Refused(problem) => return Some(Err(refused(node, problem))),
        Ruling::Unlimited { allowed, rule } => {
            return Some(answer_unlimited(node, worker, *allowed, *rule, *now, render));
        }
    }
    if request.id.is_some() {
        // `check` looks whether it was charged before.
        return None;
    }
    let mut decisions = Decisions::new();
    match node.router.decide_local(&mut limited.charges, &limited.policies, *now, &mut decisions) {
        Local::Elsewhere => None,
        Local::NotReady => Some(Err(not_ready(node))),
        local @ (Local::Decided { at, .. } | Local::Denied { at }) => {
            let (allowed, is_whole) = match local {
                Local::Decided { allowed, .. } => (allowed, true),
                _ => (false, false),
            };
            limited.ends.bound(&mut decisions);
            let name = |place: usize| limited.names.get(place).copied().flatten();
            let decided = |place: usize| {
                let has_decided = |charge: &Charge| is_whole || charge.limit.denies();
                let decision = decisions.get(place).filter(|_| has_decided(&limited.charges[place]))?;
                let by = if decision.assumed { Decider::Memory } else { Decider::Owner };
                Some(Decided { decision, by, node: &node.name, ends_after: limited.ends.of(place) })
            };
            let (answer, by) = put_together(node, worker, allowed, &limited.charges, name, decided, render);
            node.metrics[worker].count_check(allowed, by, at.saturating_since(*now));
            *now = at;
            Some(Ok(answer))
        }
    }
}

/// Decides a check wherever its slots are owned; one that was charged under its request id before gets the same answer.
/// `prepared` is what the first look has found, if there was one. Where an owner has newer rules than this node, the check is
/// made again by these, as soon as they are here.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps what it is given twice, and it is large")]
pub(crate) fn check<T>(
    node: &Node,
    worker: usize,
    request: &CheckRequest<'_>,
    mut prepared: Option<Box<Prepared>>,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> impl Future<Output = Result<T, Problem>> {
    async move {
        let since = node.clock.now();
        let (mut now, deadline) = (since, node.router.deadline());
        loop {
            let rules = node.rules.load();
            let found = match &mut prepared {
                Some(found) if found.is_by(&rules) => found,
                _ => {
                    let mut limited = Charges::default();
                    match rule(&rules, request, now, Purpose::Decision, &mut limited) {
                        Ruling::Limited => {}
                        Ruling::Refused(problem) => return Err(refused(node, &problem)),
                        Ruling::Unlimited { allowed, rule } => {
                            return answer_unlimited(node, worker, allowed, rule, since, render);
                        }
                    }
                    prepared.insert(Box::new(Prepared::new(&rules, request, &mut limited)))
                }
            };
            // Not held while other nodes are waited for: a thread has room for a few, and looks up more slowly beyond.
            drop(rules);
            let options = CheckOptions { revision: found.revision(), request: found.request, deadline };
            let (charges, policies) = (&mut found.charges, &found.policies);
            let verdict = match node.router.decide_once(worker, charges, policies, options, now).await {
                Ok(verdict) => verdict,
                Err(Undecided::NotReady(_)) => return Err(not_ready(node)),
                Err(Undecided::RulesChanged) => {
                    now = node.clock.now();
                    continue;
                }
            };
            let Verdict { allowed, mut answers } = verdict;
            found.ends.bound_answers(&mut answers);
            let name = |place: usize| found.name(place);
            let decided = |place: usize| Decided::at(place, &answers, &found.ends, node);
            let (answer, by) = put_together(node, worker, allowed, &found.charges, name, decided, render);
            count(node, worker, allowed, by, since);
            return Ok(answer);
        }
    }
}

fn answer_unlimited<T>(
    node: &Node,
    worker: usize,
    allowed: bool,
    rule: Option<&str>,
    since: Nanos,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> Result<T, Problem> {
    // A node without the cluster's rules knows of no limit, which does not mean that there is none.
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    count(node, worker, allowed, Decider::Unmatched, since);
    Ok(render(unlimited(node, allowed, rule)))
}

/// A node without the cluster's rules does not know their names.
fn refused(node: &Node, problem: &Problem) -> Problem {
    if node.router.has_routes() { problem.clone() } else { not_ready(node) }
}

fn count(node: &Node, worker: usize, allowed: bool, by: Decider, since: Nanos) {
    node.metrics[worker].count_check(allowed, by, node.clock.now().saturating_since(since));
}

pub(super) fn not_ready(node: &Node) -> Problem {
    let detail = match node.cluster.readiness() {
        Readiness::NotReady(reason) => reason,
        Readiness::Ready => "this node has just left its cluster".to_owned(),
    };
    Problem::new(ProblemKind::NotReady, detail)
}
