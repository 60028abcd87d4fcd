//! What a check is charged: the rules that match it, or the limit that it brings along, as charges for the router.

use smallvec::SmallVec;
use tidegate_cluster::LossPolicy;
use tidegate_limiter::{
    Cost, Limit, Nanos,
    cluster::{
        Charge, Consistency, KeyHash, LimitRef, Match, Matched, OnOwnerLoss, Reserve, RuleId, Rules, Store,
    },
    rules::Mode,
};

use super::{
    ends::Ends,
    problem::{Problem, ProblemKind, echo},
    request::{CheckRequest, Subject},
};

/// Names that a problem repeats at most.
const NAMES_TOLD: usize = 16;

/// The charges of a check, with what its answer needs to know of them.
#[derive(Default)]
pub(super) struct Charges<'r> {
    /// Of the rules, or of limits that came with the check; none: one without a name came with it. Behind those of the charges, the name of a rule that finds the
    /// request unlimited, if one does.
    pub(super) names: SmallVec<[Option<&'r str>; 4]>,
    pub(super) charges: SmallVec<[Charge; 4]>,
    pub(super) policies: SmallVec<[LossPolicy; 4]>,
    /// Where a limit ends by itself.
    pub(super) ends: Ends,
    /// Of the rules that they were made by.
    pub(super) revision: u64,
}

/// What rules say of a check before anything is charged.
pub(super) enum Ruling<'r> {
    /// What is to be charged stands in the [`Charges`].
    Limited,
    /// It cannot be charged as it says.
    Refused(Box<Problem>),
    /// Nothing limits it, if it is allowed; the rule that says so, if one does.
    Unlimited { allowed: bool, rule: Option<&'r str> },
}

/// What rules are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Decision,
    /// Of buckets, which a block list does not concern.
    Change,
}

/// Adds to `limited` in place: it is large, and moving it around is felt.
pub(super) fn rule<'r>(
    rules: &'r Rules,
    request: &'r CheckRequest<'_>,
    now: Nanos,
    purpose: Purpose,
    limited: &mut Charges<'r>,
) -> Ruling<'r> {
    limited.revision = rules.revision();
    let before = limited.charges.len();
    match &request.subject {
        Subject::Attributes(attributes) => {
            if let Some(problem) = no_such_cost(rules, request) {
                return Ruling::Refused(Box::new(problem));
            }
            let mut matched = SmallVec::new();
            let outcome = match purpose {
                Purpose::Decision => rules.matching_at(&request.domain, attributes, now, &mut matched),
                Purpose::Change => {
                    rules.matching_unblocked_at(&request.domain, attributes, now, &mut matched)
                }
            };
            if let Match::Unmatched { allow } = outcome {
                return Ruling::Unlimited { allowed: allow, rule: None };
            }
            let mut unlimited_by = None;
            for one in matched {
                match one.limit {
                    Some(limit) => limited.add_matched(&one, limit, request, now),
                    None => {
                        unlimited_by.get_or_insert(one.rule.name());
                    }
                }
            }
            if limited.charges.len() == before {
                return Ruling::Unlimited { allowed: true, rule: unlimited_by };
            }
            if unlimited_by.is_some() {
                limited.names.push(unlimited_by);
            }
        }
        Subject::Inline { key, limit } => {
            let key = rules.inline_key(&request.domain, key, limit);
            limited.add_inline(None, key, limit, request.cost);
        }
        Subject::Named { key, limits } => {
            for (name, limit) in limits {
                let key = rules.named_inline_key(&request.domain, key, name, limit);
                limited.add_inline(Some(name), key, limit, request.costs.get(name).unwrap_or(request.cost));
            }
        }
    }
    Ruling::Limited
}

/// As [`rule`], with all buckets that the request's keys have, whichever limit is in force; where that is none now, the bucket that they had.
pub(super) fn rule_all<'r>(
    rules: &'r Rules,
    store: &Store,
    request: &'r CheckRequest<'_>,
    now: Nanos,
    limited: &mut Charges<'r>,
) -> Ruling<'r> {
    let Subject::Attributes(attributes) = &request.subject else {
        return rule(rules, request, now, Purpose::Change, limited);
    };
    limited.revision = rules.revision();
    let mut found = SmallVec::new();
    rules.buckets(&request.domain, attributes, &mut found);
    for one in found {
        if let Some(limit) = one.limit {
            limited.add_matched(&one, limit, request, now);
        }
    }
    let mut former = SmallVec::new();
    store.former_buckets(rules, &request.domain, attributes, now, &mut former);
    for (one, limit) in former {
        limited.add_matched(&one, &limit, request, now);
    }
    if limited.charges.is_empty() {
        return Ruling::Unlimited { allowed: true, rule: None };
    }
    Ruling::Limited
}

/// The problem of a cost that no rule of the domain takes: a name that is spelled wrongly would limit nothing.
pub(super) fn no_such_cost(rules: &Rules, request: &CheckRequest<'_>) -> Option<Problem> {
    let domain = &request.domain;
    let name = request.costs.names().find(|name| !rules.is_price(domain, name))?;
    let known = rules.prices(domain, NAMES_TOLD + 1);
    let more = if known.len() > NAMES_TOLD { ", and more" } else { "" };
    let known = match &known[..known.len().min(NAMES_TOLD)] {
        [] => "it has no rules".to_owned(),
        known => format!("there are: {}{more}", known.join(", ")),
    };
    let name = echo(name);
    let detail = format!(
        "no rule of the domain {:?} is called {name:?} or has a cost of that name; {known}",
        echo(domain)
    );
    Some(Problem::of_field(ProblemKind::InvalidValue, format!("costs.{name}"), detail))
}

impl<'r> Charges<'r> {
    pub(super) fn add_matched(
        &mut self,
        one: &Matched<'r>,
        limit: &Limit,
        request: &CheckRequest<'_>,
        now: Nanos,
    ) {
        let rule = one.rule;
        let cost = rule.cost_of(request.cost, |name| request.costs.get(name));
        let (key, mode) = (one.key, rule.mode());
        let charge = Charge { key, rule: rule.id(), limit: *limit, cost, mode, floor: None, ban: rule.ban() };
        let policy = LossPolicy {
            on_owner_loss: rule.on_owner_loss(),
            consistency: rule.consistency(),
            carved: rule.is_carved(),
            reserve: rule.reserve(),
            limit_ref: one.limit_ref,
        };
        if let Some(until) = one.until() {
            self.ends.add(self.charges.len(), until, now);
        }
        self.add(Some(rule.name()), charge, policy);
    }

    fn add_inline(&mut self, name: Option<&'r str>, key: KeyHash, limit: &Limit, cost: Cost) {
        let policy = LossPolicy {
            on_owner_loss: OnOwnerLoss::Share,
            consistency: Consistency::Available,
            carved: false,
            reserve: Reserve::of_inline(limit),
            limit_ref: LimitRef::INLINE,
        };
        let (rule, limit) = (RuleId::INLINE, *limit);
        self.add(
            name,
            Charge { key, rule, limit, cost, mode: Mode::Enforce, floor: None, ban: None },
            policy,
        );
    }

    fn add(&mut self, name: Option<&'r str>, charge: Charge, policy: LossPolicy) {
        self.names.push(name);
        self.charges.push(charge);
        self.policies.push(policy);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use tidegate_limiter::rules::HashSecret;

    use super::{
        super::request::{AttributeList, Costs},
        *,
    };

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
---
domain: sale
rules:
  - { name: always, key: [user], limit: 9/1h }
  - { name: sale, key: [user], limit: 2/1h, until: 1970-01-01T00:00:04Z }
";

    fn ruling(
        domain: &str,
        attributes: &[(&str, &str)],
        cost: u64,
        look: impl FnOnce(Ruling<'_>, &Charges<'_>),
    ) {
        let rules = Rules::from_yaml(RULES, &HashSecret::new([7; 16])).unwrap();
        let mut list = AttributeList::default();
        for (name, value) in attributes {
            list.insert(Cow::Borrowed(*name), Cow::Borrowed(*value)).unwrap();
        }
        let request = CheckRequest {
            domain: Cow::Borrowed(domain),
            subject: Subject::Attributes(list),
            cost: Cost::new(cost).unwrap(),
            costs: Costs::default(),
            id: None,
        };
        let mut limited = Charges::default();
        let ruling = rule(&rules, &request, Nanos::new(0), Purpose::Change, &mut limited);
        look(ruling, &limited);
    }

    #[test]
    fn each_rule_that_matches_is_charged() {
        ruling("default", &[("ip", "203.0.113.7"), ("path", "/a")], 3, |ruling, limited| {
            assert!(matches!(ruling, Ruling::Limited));
            let modes = limited.charges.iter().map(|charge| charge.mode);
            let names: Vec<_> = limited.names.iter().map(|name| name.unwrap()).zip(modes).collect();
            assert_eq!(names, [("per-ip", Mode::Enforce), ("watched", Mode::Shadow)]);
            let losses: Vec<_> = limited.policies.iter().map(|policy| policy.on_owner_loss).collect();
            assert_eq!(losses, [OnOwnerLoss::Share, OnOwnerLoss::Allow]);
            assert!(limited.charges.iter().all(|charge| charge.cost.get() == 3));
        });
    }

    #[test]
    fn a_limit_that_ends_by_itself_says_when() {
        ruling("sale", &[("user", "ada")], 1, |_, limited| {
            let ends = [0, 1, 2].map(|place| limited.ends.of(place).map(|rest| rest.as_secs()));
            assert_eq!(ends, [None, Some(4), None]);
        });
    }

    #[test]
    fn what_is_unlimited_is_not_charged_but_other_rules_are() {
        ruling("default", &[("ip", "10.1.2.3")], 1, |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: true, rule: Some("per-ip") }));
        });
        ruling("default", &[("ip", "10.1.2.3"), ("path", "/a")], 1, |ruling, limited| {
            assert!(matches!(ruling, Ruling::Limited));
            assert_eq!(limited.names[0], Some("watched"));
        });
    }

    #[test]
    fn a_domain_says_what_happens_to_the_unmatched() {
        let user = [("user", "x")];
        ruling("default", &user, 1, |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: true, rule: None }))
        });
        ruling("closed", &user, 1, |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: false, rule: None }));
        });
        ruling("nowhere", &user, 1, |ruling, _| {
            assert!(matches!(ruling, Ruling::Unlimited { allowed: true, rule: None }));
        });
    }
}
