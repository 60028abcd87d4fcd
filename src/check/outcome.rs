//! Puts the answer of a check together from the decisions of all its limits.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_cluster::{Answers, DecidedBy};
use tidegate_limiter::{Decision, Limit, cluster::Charge, rules::Mode};

use super::{
    answer::{CheckAnswer, Decider, Numbers, Policy},
    ends::Ends,
};
use crate::node::Node;

/// The name of a limit that came with the check, among those of rules.
const INLINE_POLICY: &str = "inline";

/// One decision of those that make a check's answer.
#[derive(Clone, Copy)]
pub(crate) struct Decided<'d> {
    pub(crate) decision: &'d Decision,
    pub(crate) by: Decider,
    pub(crate) node: &'d str,
    /// When its limit stops being in force; none: not by itself. No wait of the decision is longer.
    pub(super) ends_after: Option<Duration>,
}

impl<'d> Decided<'d> {
    pub(super) fn at(place: usize, answers: &'d Answers, ends: &Ends, node: &'d Node) -> Option<Self> {
        let answer = answers.get(place)?.as_ref()?;
        let node = if let DecidedBy::Forwarded(owner) = &answer.by { owner } else { &*node.name };
        Some(Self { decision: &answer.decision, by: answer.into(), node, ends_after: ends.of(place) })
    }

    /// Until the bucket is full, or counts no more.
    pub(crate) fn reset_after(&self) -> Duration {
        self.at_most(self.decision.reset_after)
    }

    fn at_most(&self, wait: Duration) -> Duration {
        self.ends_after.map_or(wait, |rest| wait.min(rest))
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

/// Puts together what the answer tells, of enforced limits only: a rule in shadow mode changes nothing for anybody. The
/// numbers are those of the limit that binds most, the delay is the longest. Behind the names of the charges stands that of a
/// rule that finds the request unlimited, if one does.
pub(super) fn put_together<'d, T>(
    node: &'d Node,
    worker: usize,
    allowed: bool,
    charges: &[Charge],
    name: impl Fn(usize) -> Option<&'d str>,
    decided: impl Fn(usize) -> Option<Decided<'d>>,
    render: impl FnOnce(CheckAnswer<'_>) -> T,
) -> (T, Decider) {
    let mut policies: SmallVec<[Policy<'_>; 4]> = SmallVec::new();
    let mut most: Option<(Option<&str>, Decided<'_>)> = None;
    let mut watched: Option<(usize, Decided<'_>)> = None;
    let mut delay = Duration::ZERO;
    for (place, charge) in charges.iter().enumerate() {
        let Some(told) = decided(place) else { continue };
        let (decision, name) = (told.decision, name(place));
        if charge.mode == Mode::Shadow {
            if decision.denies() {
                node.metrics[worker].count_shadow_denial();
            }
            if watched.as_ref().is_none_or(|(_, most)| decision.binds(most.decision).is_gt()) {
                watched = Some((place, told));
            }
            continue;
        }
        delay = delay.max(decision.delay);
        policies.push(policy(name, charge, &told));
        if most.as_ref().is_none_or(|most| binds_more(name, told, most)) {
            most = Some((name, told));
        }
    }
    let Some((rule, told)) = most else {
        let shadow = watched.map(|(place, told)| policy(name(place), &charges[place], &told));
        let answer = unlimited(node, allowed, name(charges.len()));
        return (render(CheckAnswer { shadow, ..answer }), Decider::Unmatched);
    };
    let decision = told.decision;
    let answer = CheckAnswer {
        allowed,
        rule,
        numbers: Some(Numbers {
            limit: decision.limit,
            remaining: decision.remaining,
            reset_after: told.reset_after(),
            retry_after: decision.retry_after,
            delay: if allowed { delay } else { Duration::ZERO },
            banned: decision.banned,
        }),
        decided_by: told.by,
        node: told.node,
        policies: &policies,
        shadow: None,
    };
    (render(answer), told.by)
}

/// The order of rules says nothing: of two that bind alike it is the one whose name comes first.
fn binds_more(name: Option<&str>, told: Decided<'_>, (known, most): &(Option<&str>, Decided<'_>)) -> bool {
    told.decision.binds(most.decision).then_with(|| known.cmp(&name)).is_gt()
}

fn policy<'d>(name: Option<&'d str>, charge: &Charge, told: &Decided<'_>) -> Policy<'d> {
    let decision = told.decision;
    Policy {
        name: name.unwrap_or(INLINE_POLICY),
        count: charge.limit.count(),
        window: charge.limit.window(),
        quota: decision.limit,
        quota_window: charge.limit.quota_window(),
        remaining: decision.remaining,
        more_after: told.at_most(more_after(&charge.limit, decision)),
        denied: decision.denies(),
        banned: decision.banned,
    }
}

/// Until the bucket has more than what remains. For buckets that fill up steadily, until the next unit; for the others until
/// all of it is back, which is not too early.
fn more_after(limit: &Limit, decision: &Decision) -> Duration {
    if let (true, Some(wait)) = (decision.denies(), decision.retry_after) {
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
    use tidegate_limiter::{Algorithm, Nanos};

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
                banned: false,
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
    fn no_answer_tells_a_time_after_the_end_of_its_limit() {
        let limit = Limit::parse("10/1h", None, Algorithm::TokenBucket).unwrap();
        let charge = Charge {
            key: tidegate_limiter::cluster::KeyHash::from_raw(2),
            rule: tidegate_limiter::cluster::RuleId::INLINE,
            limit,
            cost: tidegate_limiter::Cost::ONE,
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        let told = |allowed, rest: u64| {
            let decision = Decision {
                allowed,
                limit: 10,
                remaining: 0,
                reset_after: Duration::from_secs(3600),
                retry_after: (!allowed).then_some(Duration::from_secs(360)),
                delay: Duration::ZERO,
                assumed: false,
                banned: false,
            };
            let mut ends = Ends::default();
            ends.add(0, Nanos::new(rest * 1_000_000_000), Nanos::new(0));
            let mut decisions = [decision];
            ends.bound(&mut decisions);
            let [decision] = &decisions;
            let told = Decided { decision, by: Decider::Owner, node: "n1", ends_after: ends.of(0) };
            let policy = policy(None, &charge, &told);
            (decision.retry_after, told.reset_after().as_secs(), policy.more_after.as_secs())
        };
        assert_eq!(told(false, 4), (Some(Duration::from_secs(4)), 4, 4));
        assert_eq!(told(false, 900), (Some(Duration::from_secs(360)), 900, 360));
        assert_eq!(told(true, 900), (None, 900, 360), "the next unit comes before that");
        assert_eq!(told(true, 100), (None, 100, 100));
        assert_eq!(told(false, 0), (Some(Duration::from_secs(360)), 3600, 360), "what is over is not cut");
    }
}
