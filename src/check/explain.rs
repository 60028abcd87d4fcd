//! Why a check would be decided as it would be now: each rule, whether it is about the request and why not, and what the owners of the
//! buckets say. Nothing is taken.

use tidegate_cluster::{CheckOptions, Look};
use tidegate_limiter::{
    Decision, Limit, Nanos,
    cluster::{About, NotAbout, OverrideDescription, Rules, conditions_text},
    rules::{Attributes as _, Mode, Rule},
};

use super::{
    charges::{Charges, Purpose, Ruling, no_such_cost, rule},
    decide::not_ready,
    problem::Problem,
    request::{AttributeList, CheckRequest, Subject},
};
use crate::node::Node;

/// Rules that are not about the request: as many are named.
const NAMED_AT_MOST: usize = 200;

/// Why a check would be decided so.
pub(crate) struct Explanation {
    /// Of the rules that were asked.
    pub(crate) revision: u64,
    /// Whether it would be allowed; `None`: who owns one of the buckets does not say.
    pub(crate) allowed: Option<bool>,
    /// Whether there is such a domain.
    pub(crate) has_domain: bool,
    /// The entry of the block list that denies it.
    pub(crate) blocked_by: Option<String>,
    /// The limits that are about it.
    pub(crate) limits: Vec<Limited>,
    /// Rules that are not, by name and with the reason; the first ones.
    pub(crate) others: Vec<(String, String)>,
    /// How many rules there are of that kind.
    pub(crate) other_count: usize,
}

/// A limit that is about the request.
pub(crate) struct Limited {
    /// The rule, or the name of a limit that came with the check; `None`: it has none.
    pub(crate) name: Option<String>,
    /// `None`: unlimited.
    pub(crate) limit: Option<Limit>,
    /// The override that it comes from, by its condition.
    pub(crate) special: Option<String>,
    pub(crate) mode: Mode,
    /// What makes the bucket, by attribute.
    pub(crate) key: Vec<(String, String)>,
    /// What the check takes of it.
    pub(crate) cost: u64,
    /// The bucket's name among all; and what its owner says. `None`: unlimited.
    pub(crate) look: Option<Look>,
}

/// Explains a check.
///
/// # Errors
/// When the check cannot be charged as it says, or this node cannot decide yet.
pub(crate) async fn explain(
    node: &Node,
    worker: usize,
    request: &CheckRequest<'_>,
) -> Result<Explanation, Problem> {
    let (rules, now, deadline) = (node.rules.load_full(), node.clock.now(), node.router.deadline());
    if !node.router.has_routes() {
        return Err(not_ready(node));
    }
    let mut charges = Charges::default();
    let (mut found, allow_unmatched) = match &request.subject {
        Subject::Attributes(attributes) => {
            if let Some(problem) = no_such_cost(&rules, request) {
                return Err(problem);
            }
            (
                of_rules(&rules, request, attributes, now, &mut charges),
                rules.allows_unmatched(&request.domain),
            )
        }
        Subject::Inline { .. } | Subject::Named { .. } => {
            if let Ruling::Refused(problem) = rule(&rules, request, now, Purpose::Decision, &mut charges) {
                return Err(*problem);
            }
            (of_limits(request, &charges, rules.revision()), true)
        }
    };
    let options = CheckOptions { revision: rules.revision(), request: None, deadline };
    let looks =
        node.router.look_at_each(worker, &node.name, &mut charges.charges, &charges.policies, options, now);
    let mut looks = looks.await.map_err(|_| not_ready(node))?.into_iter();
    let limits = found.limits.iter_mut().filter(|limited| limited.limit.is_some());
    for (place, limited) in limits.enumerate() {
        limited.look = looks.next();
        let answer = limited.look.as_mut().and_then(|look| look.answer.as_mut());
        if let (Some(rest), Some(answer)) = (charges.ends.of(place), answer) {
            let decision = answer.decision.in_force_for(rest);
            answer.decision = Decision { reset_after: decision.reset_after.min(rest), ..decision };
        }
    }
    found.allowed = if found.blocked_by.is_some() {
        Some(false)
    } else if found.limits.is_empty() {
        Some(allow_unmatched)
    } else {
        allowed(&found.limits)
    };
    Ok(found)
}

/// One that denies is enough; for a yes, all have to say it.
fn allowed(limits: &[Limited]) -> Option<bool> {
    let enforced = limits.iter().filter(|limited| limited.mode == Mode::Enforce && limited.limit.is_some());
    let said = enforced.map(|limited| Some(limited.look.as_ref()?.answer.as_ref()?.decision.allowed));
    let said: Vec<Option<bool>> = said.collect();
    if said.contains(&Some(false)) {
        Some(false)
    } else {
        said.into_iter().collect::<Option<Vec<_>>>().map(|_| true)
    }
}

fn of_rules<'r>(
    rules: &'r Rules,
    request: &'r CheckRequest<'_>,
    attributes: &AttributeList<'_>,
    now: Nanos,
    charges: &mut Charges<'r>,
) -> Explanation {
    let findings = rules.findings(&request.domain, attributes, now);
    let mut explanation = Explanation {
        revision: rules.revision(),
        allowed: None,
        has_domain: findings.is_some(),
        blocked_by: None,
        limits: Vec::new(),
        others: Vec::new(),
        other_count: 0,
    };
    let Some(findings) = findings else { return explanation };
    explanation.blocked_by = findings.blocked_by.map(str::to_owned);
    for finding in findings.rules {
        match finding.about {
            Ok(about) => {
                let limited = Limited::of(finding.rule, &about, request, attributes);
                if let Some(limit) = about.matched.limit {
                    charges.add_matched(&about.matched, limit, request, now);
                }
                explanation.limits.push(limited);
            }
            Err(why) => {
                explanation.other_count += 1;
                if explanation.others.len() < NAMED_AT_MOST {
                    explanation.others.push((finding.rule.name().to_owned(), in_words(&why, attributes)));
                }
            }
        }
    }
    explanation
}

fn of_limits(request: &CheckRequest<'_>, charges: &Charges<'_>, revision: u64) -> Explanation {
    let key = match &request.subject {
        Subject::Inline { key, .. } | Subject::Named { key, .. } => vec![("key".to_owned(), key.to_string())],
        Subject::Attributes(_) => Vec::new(),
    };
    let limits = charges.charges.iter().zip(&charges.names).map(|(charge, name)| Limited {
        name: name.map(str::to_owned),
        limit: Some(charge.limit),
        special: None,
        mode: charge.mode,
        key: key.clone(),
        cost: charge.cost.get(),
        look: None,
    });
    Explanation {
        revision,
        allowed: None,
        has_domain: true,
        blocked_by: None,
        limits: limits.collect(),
        others: Vec::new(),
        other_count: 0,
    }
}

impl Limited {
    fn of(
        rule: &Rule,
        about: &About<'_>,
        request: &CheckRequest<'_>,
        attributes: &AttributeList<'_>,
    ) -> Self {
        let when = |special: &OverrideDescription| conditions_text(&special.when);
        let value = |name: &str| (name.to_owned(), attributes.get(name).unwrap_or_default().to_owned());
        Self {
            name: Some(rule.name().to_owned()),
            limit: about.matched.limit.copied(),
            special: about.special.as_ref().map(when),
            mode: rule.mode(),
            key: rule.key().map(value).collect(),
            cost: rule.cost_of(request.cost, |name| request.costs.get(name)).get(),
            look: None,
        }
    }
}

/// As one would say it.
fn in_words(why: &NotAbout<'_>, attributes: &AttributeList<'_>) -> String {
    match why {
        NotAbout::NotInForce { from, until } => match (from, until) {
            (Some(from), Some(until)) => format!("it is in force from {from} until {until}"),
            (Some(from), None) => format!("it is in force from {from} on"),
            (None, Some(until)) => format!("it was in force until {until}"),
            (None, None) => "it is not in force".to_owned(),
        },
        NotAbout::Condition { attribute, wants } => {
            let wants: Vec<String> = wants.patterns().iter().map(ToString::to_string).collect();
            let wants = wants.join(", ");
            match attributes.get(attribute) {
                Some(value) => format!("{attribute} is {value:?}; it wants {wants}"),
                None => format!("the request has no {attribute}; it wants {wants}"),
            }
        }
        NotAbout::OtherAttributes => "it does not look at all attributes of the request".to_owned(),
        NotAbout::NoKey { attribute } => {
            format!("the request has no {attribute}, by which the rule counts")
        }
        NotAbout::EmptyKey => "the request has nothing of what the rule counts by".to_owned(),
    }
}
