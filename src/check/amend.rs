//! Units given back, and buckets that forget, of all rules that match a request.

use smallvec::SmallVec;
use tidegate_cluster::{Amended, Amendment};
use tidegate_limiter::{Cost, cluster::Rules};

use super::{
    answer::CheckAnswer,
    charges::{Charges, Purpose, Ruling, rule, rule_all},
    decide::not_ready,
    ends::Ends,
    outcome::{Decided, put_together, unlimited},
    problem::{Problem, ProblemKind, echo},
    request::{CheckRequest, Subject},
};
use crate::node::Node;

/// What became of the buckets that were to be changed.
pub(crate) struct AmendedBuckets<'a> {
    pub(crate) buckets: SmallVec<[AmendedBucket<'a>; 4]>,
    /// Whether one of those that were not changed may have been all the same: which one is not told apart.
    pub(crate) unsure: bool,
    /// Why not all are known to be changed; none: they are.
    pub(crate) incomplete: Option<&'static str>,
}

/// One of them.
pub(crate) struct AmendedBucket<'a> {
    /// None: the limit came with the request.
    pub(crate) rule: Option<&'a str>,
    /// What a look says after the change; none if nobody is known to have made it.
    pub(crate) now: Option<Decided<'a>>,
}

/// Makes the change where it is asked for as a check, and gives what a look says then to `render`: of the limits in force, and
/// no others. Who gives back asks for nothing, so nothing is denied.
///
/// # Errors
/// When not every bucket is known to be changed.
pub(crate) async fn amend_as_check<T>(
    node: &Node,
    worker: usize,
    amendment: Amendment,
    request: &CheckRequest<'_>,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> Result<T, Problem> {
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    let (rules, now) = (node.rules.load_full(), node.clock.now());
    let mut limited = Charges::default();
    match rule(&rules, request, now, Purpose::Change, &mut limited) {
        Ruling::Limited => {}
        Ruling::Refused(problem) => return Err(*problem),
        Ruling::Unlimited { rule, .. } => return Ok(render(unlimited(node, true, rule))),
    }
    let amended =
        node.router.amend(worker, amendment, &limited.charges, &limited.policies, limited.revision).await;
    let amended = amended.map_err(|_| not_ready(node))?;
    if let Some(detail) = why_incomplete(&amended) {
        return Err(Problem::new(ProblemKind::OwnerUnreachable, detail));
    }
    let name = |place: usize| limited.names.get(place).copied().flatten();
    let decided = |place: usize| Decided::at(place, &amended.answers, &limited.ends, node);
    Ok(put_together(node, worker, true, &limited.charges, name, decided, render).0)
}

/// Makes the change in all buckets of the rules that match, or of the one that is named, and tells of each: a refund in those
/// of the limits in force, by which the units were taken, and with a request id of what that request was charged; a reset in all that is known of the request's keys.
///
/// # Errors
/// When this node cannot do it yet.
pub(crate) async fn amend_buckets<T>(
    node: &Node,
    worker: usize,
    amendment: Amendment,
    request: &CheckRequest<'_>,
    only: Option<&str>,
    render: impl FnOnce(AmendedBuckets<'_>) -> T,
) -> Result<T, Problem> {
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    let (rules, now) = (node.rules.load_full(), node.clock.now());
    if let Some(name) = only {
        is_known(&rules, request, name)?;
    }
    let mut limited = Charges::default();
    let amendment = match (amendment, &request.id) {
        (Amendment::Refund, Some(id)) => Amendment::RefundOf(rules.request_number(&request.domain, id)),
        _ => amendment,
    };
    let ruling = match amendment {
        Amendment::Refund | Amendment::RefundOf(_) => {
            rule(&rules, request, now, Purpose::Change, &mut limited)
        }
        Amendment::Reset => rule_all(&rules, &node.store, request, now, &mut limited),
    };
    match ruling {
        Ruling::Limited => {}
        Ruling::Refused(problem) => return Err(*problem),
        Ruling::Unlimited { .. } => {
            return Ok(render(AmendedBuckets { buckets: SmallVec::new(), unsure: false, incomplete: None }));
        }
    }
    let is_something =
        |place: &usize| amendment == Amendment::Reset || limited.charges[*place].cost != Cost::PEEK;
    let wanted = |place: &usize| (only.is_none() || limited.names[*place] == only) && is_something(place);
    let places: SmallVec<[usize; 4]> = (0..limited.charges.len()).filter(wanted).collect();
    let charges: SmallVec<[_; 4]> = places.iter().map(|place| limited.charges[*place]).collect();
    let policies: SmallVec<[_; 4]> = places.iter().map(|place| limited.policies[*place]).collect();
    let amended = node.router.amend(worker, amendment, &charges, &policies, limited.revision).await;
    let amended = amended.map_err(|_| not_ready(node))?;
    let mut ends = Ends::default();
    for (at, rest) in places.iter().enumerate().filter_map(|(at, place)| Some((at, limited.ends.of(*place)?)))
    {
        ends.add(at, now.saturating_add(rest), now);
    }
    let buckets = places.iter().enumerate().map(|(at, place)| AmendedBucket {
        rule: limited.names[*place],
        now: Decided::at(at, &amended.answers, &ends, node),
    });
    Ok(render(AmendedBuckets {
        buckets: buckets.collect(),
        unsure: amended.unsure,
        incomplete: why_incomplete(&amended),
    }))
}

/// Who misspells a rule is told so: it was not reset.
fn is_known(rules: &Rules, request: &CheckRequest<'_>, name: &str) -> Result<(), Problem> {
    /// Names that are told.
    const MOST: usize = 20;
    if let Subject::Inline { .. } = request.subject {
        let detail = "a limit that comes with the request belongs to no rule: leave the rule out";
        return Err(Problem::of_field(ProblemKind::InvalidValue, "rule", detail));
    }
    let known: Vec<&str> = match &request.subject {
        Subject::Named { limits, .. } => limits.iter().map(|(name, _)| &**name).collect(),
        _ => rules.rules(&request.domain).iter().map(|rule| rule.name()).collect(),
    };
    if known.contains(&name) {
        return Ok(());
    }
    let mut names: Vec<String> = known.iter().take(MOST).map(|name| (*name).to_owned()).collect();
    if known.len() > MOST {
        names.push(format!("and {} more", known.len() - MOST));
    }
    let there =
        if names.is_empty() { "it has none".to_owned() } else { format!("there are: {}", names.join(", ")) };
    let detail = match &request.subject {
        Subject::Named { .. } => format!("the request brings no limit {:?}; {there}", echo(name)),
        _ => format!("the domain {:?} has no rule {:?}; {there}", echo(&request.domain), echo(name)),
    };
    Err(Problem::of_field(ProblemKind::NoSuchRule, "rule", detail))
}

fn why_incomplete(amended: &Amended) -> Option<&'static str> {
    if amended.is_complete() {
        None
    } else if amended.unsure {
        Some("an owner was asked and did not answer: nobody knows whether it has done it")
    } else {
        Some("no owner of a bucket could be asked; what was not applied can be asked for again")
    }
}
