//! The fields of a check as a body or a query gives them, before they are looked at together: both make a [`CheckRequest`].

use std::borrow::Cow;

use tidegate_limiter::{Algorithm, Cost, Limit, cluster::DEFAULT_DOMAIN};

use crate::check::{
    AttributeList, CheckRequest, Costs, MAX_NAME_BYTES, MAX_VALUE_BYTES, Problem, ProblemKind, Subject, echo,
    too_long,
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
    pub(super) limit: Option<Cow<'a, str>>,
    pub(super) burst: Option<u64>,
    pub(super) algorithm: Option<Cow<'a, str>>,
    pub(super) request_id: Option<Cow<'a, str>>,
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
        too_long("the domain", || "domain".to_owned(), &domain, MAX_NAME_BYTES)?;
        let subject = match (self.attributes, self.key, self.limit) {
            (Some(attributes), None, None) => {
                let stray = self.burst.map(|_| "burst").or(self.algorithm.as_ref().map(|_| "algorithm"));
                if let Some(field) = stray {
                    let detail = format!(
                        "{field} belongs to a check with key and limit; with attributes the rules say it"
                    );
                    return Err(Problem::of_field(ProblemKind::InvalidValue, field, detail));
                }
                Subject::Attributes(attributes)
            }
            (None, Some(_), Some(_)) if !costs.is_empty() => {
                let detail = "costs are of rules, by their names; a check with key and limit has one cost";
                return Err(Problem::of_field(ProblemKind::InvalidValue, "costs", detail));
            }
            (None, Some(key), Some(limit)) => {
                too_long("the key", || "key".to_owned(), &key, MAX_VALUE_BYTES)?;
                Subject::Inline { key, limit: parse_limit(&limit, self.burst, self.algorithm.as_deref())? }
            }
            (Some(_), _, _) => {
                let detail = "a check has either attributes, which rules match, or key and limit, not both";
                return Err(Problem::of_field(ProblemKind::InvalidValue, "attributes", detail));
            }
            (None, Some(_), None) => {
                let detail = "a check by key says its limit, as in \"limit\": \"100/1m\"";
                return Err(Problem::of_field(ProblemKind::MissingField, "limit", detail));
            }
            (None, None, Some(_)) => {
                let detail =
                    "a check with a limit of its own says what is limited, as in \"key\": \"user-42\"";
                return Err(Problem::of_field(ProblemKind::MissingField, "key", detail));
            }
            (None, None, None) => return Err(no_attributes()),
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

fn parse_limit(text: &str, burst: Option<u64>, algorithm: Option<&str>) -> Result<Limit, Problem> {
    let algorithm = match algorithm {
        None => Algorithm::TokenBucket,
        Some(word) => Algorithm::from_name(word).ok_or_else(|| {
            let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
            let detail = format!("there is no algorithm {:?}; there is: {known}", echo(word));
            Problem::of_field(ProblemKind::InvalidValue, "algorithm", detail)
        })?,
    };
    Limit::parse(text, burst, algorithm)
        .map_err(|error| Problem::of_field(ProblemKind::InvalidValue, "limit", error.to_string()))
}
