//! The fields of a check as a body or a query gives them, before they are looked at together: both make a [`CheckRequest`].

use std::borrow::Cow;

use tidegate_limiter::{
    Algorithm, Cost, Limit,
    cluster::{DEFAULT_DOMAIN, is_valid_name},
    rules::{LimitError, Zone},
};

use crate::check::{
    AttributeList, CheckRequest, Costs, MAX_LIMITS, MAX_NAME_BYTES, MAX_VALUE_BYTES, Problem, ProblemKind,
    Subject, echo, too_long,
};

/// Bytes of a request's id.
const MAX_ID_BYTES: usize = 128;

/// What was given.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) domain: Option<Cow<'a, str>>,
    pub(super) attributes: Option<AttributeList<'a>>,
    pub(super) cost: Option<u64>,
    pub(super) costs: Option<Costs<'a>>,
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) limit: LimitFields<'a>,
    pub(super) limits: Option<Vec<(Cow<'a, str>, LimitFields<'a>)>>,
    pub(super) request_id: Option<Cow<'a, str>>,
}

/// What says a limit.
#[derive(Debug, Default)]
pub(super) struct LimitFields<'a> {
    pub(super) limit: Option<Cow<'a, str>>,
    pub(super) burst: Option<u64>,
    pub(super) algorithm: Option<Cow<'a, str>>,
    pub(super) timezone: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// Makes a check of them, if they are one.
    pub(super) fn into_request(self) -> Result<CheckRequest<'a>, Problem> {
        let cost = match self.cost {
            None => Cost::ONE,
            Some(units) => Cost::new(units)
                .map_err(|error| Problem::of_field(ProblemKind::ValueTooLarge, "cost", error.to_string()))?,
        };
        let costs = self.costs.unwrap_or_default();
        let domain = self.domain.unwrap_or(Cow::Borrowed(DEFAULT_DOMAIN));
        if domain.is_empty() {
            // No rule file has such a domain: nothing would be limited.
            let detail = format!("the domain is empty; leave it out for {DEFAULT_DOMAIN:?}, or name one");
            return Err(Problem::of_field(ProblemKind::InvalidValue, "domain", detail));
        }
        too_long("the domain", || "domain".to_owned(), &domain, MAX_NAME_BYTES)?;
        let stray = self.limit.stray();
        let subject = match (self.attributes, self.key, &self.limit.limit, self.limits) {
            (Some(attributes), None, None, None) => {
                if let Some(field) = stray {
                    let detail = format!(
                        "{field} belongs to a check with key and limit; with attributes the rules say it"
                    );
                    return Err(Problem::of_field(ProblemKind::InvalidValue, field, detail));
                }
                Subject::Attributes(attributes)
            }
            (None, Some(_), Some(_), None) if !costs.is_empty() => {
                let detail =
                    "costs are by name, of rules or of `limits`; a check with key and limit has one cost";
                return Err(Problem::of_field(ProblemKind::InvalidValue, "costs", detail));
            }
            (None, Some(key), Some(_), None) => {
                Subject::Inline { key: fitting(key)?, limit: self.limit.parse("")? }
            }
            (None, Some(key), None, Some(limits)) => {
                if let Some(field) = stray {
                    let detail = format!(
                        "{field} belongs to one of the limits: {{\"limits\": {{\"a\": {{\"limit\": \"5/1s\", \"{field}\": ..}}}}}}"
                    );
                    return Err(Problem::of_field(ProblemKind::InvalidValue, field, detail));
                }
                Subject::Named { key: fitting(key)?, limits: named(limits, &costs)? }
            }
            (None, _, Some(_), Some(_)) => {
                let detail = "a check has either limit, or limits by name, not both";
                return Err(Problem::of_field(ProblemKind::InvalidValue, "limits", detail));
            }
            (Some(_), ..) => {
                let detail = "a check has either attributes, which rules match, or key and limit, not both";
                return Err(Problem::of_field(ProblemKind::InvalidValue, "attributes", detail));
            }
            (None, Some(_), None, None) => {
                let detail = "a check by key says its limit, as in \"limit\": \"100/1m\"";
                return Err(Problem::of_field(ProblemKind::MissingField, "limit", detail));
            }
            (None, None, Some(_), None) | (None, None, None, Some(_)) => {
                let detail =
                    "a check with a limit of its own says what is limited, as in \"key\": \"user-42\"";
                return Err(Problem::of_field(ProblemKind::MissingField, "key", detail));
            }
            (None, None, None, None) => return Err(no_attributes()),
        };
        if let Some(id) = &self.request_id {
            if id.is_empty() {
                // All requests without a name would be one, and charged once.
                let detail = "the request id is empty; leave it out, or give each request its own";
                return Err(Problem::of_field(ProblemKind::InvalidValue, "request_id", detail));
            }
            too_long("the request id", || "request_id".to_owned(), id, MAX_ID_BYTES)?;
        }
        Ok(CheckRequest { domain, subject, cost, costs, id: self.request_id })
    }
}

/// The problem of a check that says nothing about the request it is for.
pub(super) fn no_attributes() -> Problem {
    let detail = "a check needs attributes for the rules to match, as in {\"attributes\": {\"ip\": \"203.0.113.7\"}} or ?ip=203.0.113.7; or key and limit";
    Problem::of_field(ProblemKind::MissingField, "attributes", detail)
}

fn fitting(key: Cow<'_, str>) -> Result<Cow<'_, str>, Problem> {
    too_long("the key", || "key".to_owned(), &key, MAX_VALUE_BYTES)?;
    Ok(key)
}

/// Limits by name, when each can be one and each cost is of one.
fn named<'a>(
    given: Vec<(Cow<'a, str>, LimitFields<'a>)>,
    costs: &Costs<'_>,
) -> Result<Vec<(Cow<'a, str>, Limit)>, Problem> {
    if given.is_empty() || given.len() > MAX_LIMITS {
        let detail = format!("a check brings 1 to {MAX_LIMITS} limits along, here are {}", given.len());
        return Err(Problem::of_field(ProblemKind::InvalidValue, "limits", detail));
    }
    let mut limits: Vec<(Cow<'_, str>, Limit)> = Vec::with_capacity(given.len());
    for (name, fields) in given {
        let field = format!("limits.{}", echo(&name));
        if !is_valid_name(&name) {
            let detail = format!("{:?} cannot name a limit: use letters, digits and - _ . / :", echo(&name));
            return Err(Problem::of_field(ProblemKind::InvalidValue, field, detail));
        }
        if limits.iter().any(|(known, _)| *known == name) {
            let detail = format!("the limit {:?} is given twice", echo(&name));
            return Err(Problem::of_field(ProblemKind::DuplicateParameter, field, detail));
        }
        let limit = fields.parse(&format!("{field}."))?;
        limits.push((name, limit));
    }
    if let Some(name) = costs.names().find(|name| limits.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = limits.iter().map(|(name, _)| &**name).collect();
        let name = echo(name);
        let detail = format!("no limit of the check is called {name:?}; there are: {}", known.join(", "));
        return Err(Problem::of_field(ProblemKind::InvalidValue, format!("costs.{name}"), detail));
    }
    Ok(limits)
}

impl LimitFields<'_> {
    /// What says nothing without a limit.
    fn stray(&self) -> Option<&'static str> {
        let algorithm = self.algorithm.as_ref().map(|_| "algorithm");
        let timezone = self.timezone.as_ref().map(|_| "timezone");
        self.burst.map(|_| "burst").or(algorithm).or(timezone).filter(|_| self.limit.is_none())
    }

    /// The limit. `within` stands before the names of its fields.
    fn parse(&self, within: &str) -> Result<Limit, Problem> {
        let field = |name: &str| format!("{within}{name}");
        let algorithm = match self.algorithm.as_deref() {
            None => None,
            Some(word) => Some(Algorithm::from_name(word).ok_or_else(|| {
                let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
                let detail = format!("there is no algorithm {:?}; there is: {known}", echo(word));
                Problem::of_field(ProblemKind::InvalidValue, field("algorithm"), detail)
            })?),
        };
        let Some(text) = &self.limit else {
            let detail = "it says no limit, as in {\"limit\": \"100/1m\", \"burst\": 20}";
            return Err(Problem::of_field(ProblemKind::MissingField, field("limit"), detail));
        };
        let invalid =
            |name: &str, error: String| Problem::of_field(ProblemKind::InvalidValue, field(name), error);
        let limit =
            Limit::parse(text, self.burst, algorithm).map_err(|error| invalid("limit", error.to_string()))?;
        // Time zones are few, whatever clients ask for; dates would not be, so a check brings none.
        let Some(zone) = &self.timezone else { return Ok(limit) };
        let zone = Zone::named(zone).map_err(|error| invalid("timezone", error.to_string()))?;
        limit.placed(Some(zone), None).map_err(|error| {
            let detail = match error {
                // A check has no `starts`.
                LimitError::ZoneOfLength(period) => format!(
                    "{period} has a length, which no time zone changes: write day, week, month or year, or leave timezone out"
                ),
                error => error.to_string(),
            };
            invalid("timezone", detail)
        })
    }
}
