//! Several checks as one: all of them are charged, or none is.

use smallvec::SmallVec;
use tidegate_cluster::{Answers, CheckOptions, Undecided, Verdict};
use tidegate_limiter::{Cost, Decision, cluster::Charge, rules::Mode};
use tidegate_proto::peer::MAX_CHARGES;

use super::{
    answer::{CheckAnswer, Decider},
    charges::{Charges, Purpose, Ruling, rule},
    decide::not_ready,
    outcome::{Decided, put_together, unlimited},
    prepared::Prepared,
    problem::{Problem, ProblemKind},
    request::CheckRequest,
};
use crate::node::Node;

/// What the rules say of one of the checks.
struct Ruled {
    /// The end of its charges among those of all.
    end: usize,
    /// What becomes of it where nothing limits it, and the name of the rule that says so.
    unlimited: Option<(bool, Option<String>)>,
}

/// Decides checks as if they were one, each with an answer of its own: where one is denied, none is charged. `is_denied`: they
/// are in any case, so this is a look. A check that fits beside one that does not is allowed, by its own answer.
pub(crate) async fn check_together<T>(
    node: &Node,
    worker: usize,
    requests: &[&CheckRequest<'_>],
    is_denied: bool,
    render: impl Fn(CheckAnswer<'_>) -> T,
) -> Result<Vec<T>, Problem> {
    let Some(first) = requests.first() else { return Ok(Vec::new()) };
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    let since = node.clock.now();
    let (mut now, deadline) = (since, node.router.deadline());
    loop {
        let mut ruled: SmallVec<[Ruled; 4]> = SmallVec::new();
        let mut prepared = {
            let rules = node.rules.load();
            let mut limited = Charges::default();
            for request in requests {
                let unlimited = match rule(&rules, request, now, Purpose::Decision, &mut limited) {
                    Ruling::Limited => None,
                    Ruling::Refused(problem) => return Err(*problem),
                    Ruling::Unlimited { allowed, rule } => Some((allowed, rule.map(str::to_owned))),
                };
                // Those of the next check follow.
                limited.names.truncate(limited.charges.len());
                ruled.push(Ruled { end: limited.charges.len(), unlimited });
            }
            Box::new(Prepared::new(&rules, first, &mut limited))
        };
        let charges = &mut prepared.charges;
        if charges.len() > MAX_CHARGES {
            let detail = format!(
                "the descriptors match {} limits, of which {MAX_CHARGES} can be charged together (all_or_nothing)",
                charges.len()
            );
            return Err(Problem::of_field(ProblemKind::ValueTooLarge, "descriptors", detail));
        }
        let is_refused = |one: &Ruled| matches!(one.unlimited, Some((false, _)));
        if is_denied || ruled.iter().any(is_refused) {
            charges.iter_mut().for_each(|charge| charge.cost = Cost::PEEK);
        }
        let options = CheckOptions { revision: prepared.revision(), request: None, deadline };
        let (charges, policies) = (&mut prepared.charges, &prepared.policies);
        let Verdict { allowed, mut answers } = if charges.is_empty() {
            Verdict { allowed: true, answers: SmallVec::new() }
        } else {
            match node.router.decide_once(worker, charges, policies, options, now).await {
                Ok(verdict) => verdict,
                Err(Undecided::NotReady(_)) => return Err(not_ready(node)),
                Err(Undecided::RulesChanged) => {
                    now = node.clock.now();
                    continue;
                }
            }
        };
        let (charges, ends) = (&prepared.charges, &prepared.ends);
        ends.bound_answers(&mut answers);
        // A bucket with room that does not allow is held: its owner waits for a successor. It did not deny.
        let has_no_room =
            |decision: &Decision, cost: Cost| !decision.allowed && decision.remaining < cost.get().max(1);
        let denying: SmallVec<[bool; 4]> = (0..charges.len())
            .map(|place| {
                let Charge { mode, cost, .. } = charges[place];
                let decided = Decided::at(place, &answers, ends, node);
                mode == Mode::Enforce && decided.is_some_and(|one| has_no_room(one.decision, cost))
            })
            .collect();
        let denies = |place: usize| denying[place];
        if !allowed {
            tell_untaken(charges, &mut answers);
        }
        let decided = |place: usize| Decided::at(place, &answers, ends, node);
        // A check can be denied where no bucket has denied it: held until its time was over, or without newer rules.
        let is_denied_as_whole = !allowed && !(0..charges.len()).any(denies);
        let mut start = 0;
        let answered = ruled.iter().map(|one| {
            let places = start..one.end;
            start = one.end;
            let (answer, allowed, by) = match &one.unlimited {
                Some((allowed, rule)) => {
                    (render(unlimited(node, *allowed, rule.as_deref())), *allowed, Decider::Unmatched)
                }
                None => {
                    let allowed = !is_denied_as_whole && !places.clone().any(denies);
                    let (own, first) = (&charges[places.clone()], places.start);
                    let name =
                        |place: usize| (place < own.len()).then(|| prepared.name(first + place)).flatten();
                    let decided = |place: usize| decided(first + place);
                    let (answer, by) = put_together(node, worker, allowed, own, name, decided, &render);
                    (answer, allowed, by)
                }
            };
            node.metrics[worker].count_check(allowed, by, node.clock.now().saturating_since(since));
            answer
        });
        return Ok(answered.collect());
    }
}

/// Of several charges of one bucket each was decided as if those before it had taken their units. Where nothing was taken in the
/// end, the first one has seen what is there.
fn tell_untaken(charges: &[Charge], answers: &mut Answers) {
    for place in 1..charges.len() {
        let first = charges[..place].iter().position(|known| known.key == charges[place].key);
        let there = first.and_then(|first| answers.get(first)?.as_ref()).map(|answer| answer.decision);
        if let (Some(there), Some(Some(answer))) = (there, answers.get_mut(place)) {
            answer.decision.remaining = there.remaining;
            answer.decision.reset_after = there.reset_after;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smallvec::smallvec;
    use tidegate_cluster::{Answer, DecidedBy};
    use tidegate_limiter::{
        Algorithm, Limit,
        cluster::{KeyHash, RuleId},
    };

    use super::*;

    #[test]
    fn charges_of_one_bucket_that_were_not_taken_all_tell_what_is_there() {
        let limit = Limit::parse("10/1h", None, Algorithm::TokenBucket).unwrap();
        let charge = |key| Charge {
            key: KeyHash::from_raw(key),
            rule: RuleId::INLINE,
            limit,
            cost: Cost::new(4).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        let answer = |allowed, remaining, reset| {
            let decision = Decision {
                allowed,
                limit: 10,
                remaining,
                reset_after: Duration::from_secs(reset),
                retry_after: None,
                delay: Duration::ZERO,
                assumed: false,
                banned: false,
            };
            Some(Answer { decision, by: DecidedBy::Owner })
        };
        let mut answers: Answers =
            smallvec![answer(true, 10, 0), answer(true, 7, 9), answer(true, 6, 4), answer(false, 2, 8), None];
        tell_untaken(&[charge(1), charge(2), charge(1), charge(1), charge(1)], &mut answers);
        let told =
            answers.iter().flatten().map(|one| (one.decision.remaining, one.decision.reset_after.as_secs()));
        assert_eq!(told.collect::<Vec<_>>(), [(10, 0), (7, 9), (10, 0), (10, 0)]);
    }
}
