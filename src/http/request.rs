//! What a check asks, from the body of a `POST` or the query of a `GET`. Both make a [`CheckRequest`], which borrows
//! from the request's bytes what it can.

use std::borrow::Cow;

use smallvec::SmallVec;
use tidegate_limiter::{Algorithm, Attributes, Cost, DEFAULT_DOMAIN, Limit, Rule};

use super::problem::{Kind, Problem, echo};

/// Attributes of a check.
pub(crate) const MAX_ATTRIBUTES: usize = 64;
/// Bytes of an attribute's name, and of a domain.
pub(crate) const MAX_NAME_BYTES: usize = 256;
/// Bytes of an attribute's value, and of the key of a check without a rule.
pub(crate) const MAX_VALUE_BYTES: usize = 4 << 10;

/// Bytes of a request's id.
const MAX_ID_BYTES: usize = 128;

/// What a check asks.
#[derive(Debug)]
pub(crate) struct CheckRequest<'a> {
    pub(crate) domain: Cow<'a, str>,
    pub(crate) subject: Subject<'a>,
    pub(crate) cost: Cost,
    /// What the asker calls the request that the check is for: asked again under this id, it is charged once.
    pub(crate) id: Option<Cow<'a, str>>,
}

/// What limits it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
pub(crate) enum Subject<'a> {
    /// The rules of the domain that match these.
    Attributes(AttributeList<'a>),
    /// A limit that the check brings with it.
    Inline { key: Cow<'a, str>, limit: Limit },
}

/// A check's attributes, by name; there are few, so they are searched one by one.
#[derive(Debug, Default)]
pub(crate) struct AttributeList<'a> {
    list: SmallVec<[(Cow<'a, str>, Cow<'a, str>); 8]>,
    meant: Meant,
}

/// Which rules attributes are meant for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meant {
    /// All that match some of them.
    #[default]
    ForAny,
    /// Those that name each of them, and those that require none: as Envoy's descriptors are.
    AsWhole,
}

impl Attributes for AttributeList<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn may_match(&self, rule: &Rule) -> bool {
        self.meant == Meant::ForAny
            || !rule.requires_attributes()
            || self.list.iter().all(|(name, _)| rule.names(name))
    }
}

impl<'a> AttributeList<'a> {
    /// None yet.
    pub(crate) fn meant(meant: Meant) -> Self {
        Self { list: SmallVec::new(), meant }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Takes in one more.
    pub(crate) fn insert(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Problem> {
        let field = || format!("attributes.{}", echo(&name));
        if name.is_empty() {
            return Err(Problem::of_field(
                Kind::InvalidValue,
                "attributes",
                "an attribute has an empty name",
            ));
        }
        too_long("the attribute's name", field, &name, MAX_NAME_BYTES)?;
        too_long("the attribute", field, &value, MAX_VALUE_BYTES)?;
        if self.get(&name).is_some() {
            let detail = format!("the attribute {:?} is given twice", echo(&name));
            return Err(Problem::of_field(Kind::DuplicateParameter, field(), detail));
        }
        if self.list.len() == MAX_ATTRIBUTES {
            let detail = format!("there are more than {MAX_ATTRIBUTES} attributes");
            return Err(Problem::of_field(Kind::ValueTooLarge, "attributes", detail));
        }
        self.list.push((name, value));
        Ok(())
    }
}

/// The fields of a check as they were given, before they are looked at together.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) domain: Option<Cow<'a, str>>,
    pub(super) attributes: Option<AttributeList<'a>>,
    pub(super) cost: Option<u64>,
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
                .map_err(|error| Problem::of_field(Kind::ValueTooLarge, "cost", error.to_string()))?,
        };
        let domain = self.domain.unwrap_or(Cow::Borrowed(DEFAULT_DOMAIN));
        too_long("the domain", || "domain".to_owned(), &domain, MAX_NAME_BYTES)?;
        let subject = match (self.attributes, self.key, self.limit) {
            (Some(attributes), None, None) => {
                let stray = self.burst.map(|_| "burst").or(self.algorithm.as_ref().map(|_| "algorithm"));
                if let Some(field) = stray {
                    let detail = format!(
                        "{field} belongs to a check with key and limit; with attributes the rules say it"
                    );
                    return Err(Problem::of_field(Kind::InvalidValue, field, detail));
                }
                Subject::Attributes(attributes)
            }
            (None, Some(key), Some(limit)) => {
                too_long("the key", || "key".to_owned(), &key, MAX_VALUE_BYTES)?;
                Subject::Inline { key, limit: parse_limit(&limit, self.burst, self.algorithm.as_deref())? }
            }
            (Some(_), _, _) => {
                let detail = "a check has either attributes, which rules match, or key and limit, not both";
                return Err(Problem::of_field(Kind::InvalidValue, "attributes", detail));
            }
            (None, Some(_), None) => {
                let detail = "a check by key says its limit, as in \"limit\": \"100/1m\"";
                return Err(Problem::of_field(Kind::MissingField, "limit", detail));
            }
            (None, None, Some(_)) => {
                let detail =
                    "a check with a limit of its own says what is limited, as in \"key\": \"user-42\"";
                return Err(Problem::of_field(Kind::MissingField, "key", detail));
            }
            (None, None, None) => return Err(no_attributes()),
        };
        if let Some(id) = &self.request_id {
            if id.is_empty() {
                // All requests without a name would be one, and charged once.
                let detail = "the request id is empty; leave it out, or give each request its own";
                return Err(Problem::of_field(Kind::InvalidValue, "request_id", detail));
            }
            too_long("the request id", || "request_id".to_owned(), id, MAX_ID_BYTES)?;
        }
        Ok(CheckRequest { domain, subject, cost, id: self.request_id })
    }
}

/// The problem of a check that says nothing about the request it is for.
pub(super) fn no_attributes() -> Problem {
    let detail = "a check needs attributes for the rules to match, as in {\"attributes\": {\"ip\": \"203.0.113.7\"}} or ?ip=203.0.113.7; or key and limit";
    Problem::of_field(Kind::MissingField, "attributes", detail)
}

fn parse_limit(text: &str, burst: Option<u64>, algorithm: Option<&str>) -> Result<Limit, Problem> {
    let algorithm = match algorithm {
        None => Algorithm::TokenBucket,
        Some(word) => Algorithm::from_name(word).ok_or_else(|| {
            let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
            let detail = format!("there is no algorithm {:?}; there is: {known}", echo(word));
            Problem::of_field(Kind::InvalidValue, "algorithm", detail)
        })?,
    };
    Limit::parse(text, burst, algorithm)
        .map_err(|error| Problem::of_field(Kind::InvalidValue, "limit", error.to_string()))
}

fn too_long(what: &str, field: impl Fn() -> String, text: &str, max: usize) -> Result<(), Problem> {
    if text.len() <= max {
        return Ok(());
    }
    let detail = format!("{what} has {} bytes, at most {max} are allowed", text.len());
    Err(Problem::of_field(Kind::ValueTooLarge, field(), detail))
}
