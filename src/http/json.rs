//! The JSON of `POST /v1/check`: read in one pass, borrowing the strings that have no escapes, and with faults that
//! name their field and place.

mod named;
mod values;

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};

pub(super) use self::values::problem_of;
use self::{
    named::{CostsSeed, LimitsSeed},
    values::{Found, Text, Whole},
};
use super::fields::Fields;
use crate::check::{AttributeList, CheckRequest, Problem, ProblemKind, echo};

const FIELDS: &str =
    "domain, attributes, cost, costs, key, limit, burst, algorithm, timezone, limits, request_id";

/// Reads the body of a check.
pub(super) fn parse(body: &[u8]) -> Result<CheckRequest<'_>, Problem> {
    parse_text(utf8(body)?)
}

/// Reads the text of a check.
pub(super) fn parse_text(text: &str) -> Result<CheckRequest<'_>, Problem> {
    let found = Found::default();
    let mut json = serde_json::Deserializer::from_str(text);
    FieldsSeed(&found)
        .deserialize(&mut json)
        .and_then(|fields| json.end().map(|()| fields))
        .map_err(|error| found.into_problem(&error))?
        .into_request()
}

/// The body as text.
pub(super) fn utf8(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        Problem::new(
            ProblemKind::InvalidUtf8,
            format!("byte {} of the body is not UTF-8", error.valid_up_to() + 1),
        )
    })
}

struct FieldsSeed<'f>(&'f Found);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {FIELDS}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "domain" => self.text(&mut map, "domain", &mut fields.domain)?,
                "key" => self.text(&mut map, "key", &mut fields.key)?,
                "limit" => self.text(&mut map, "limit", &mut fields.limit.limit)?,
                "algorithm" => self.text(&mut map, "algorithm", &mut fields.limit.algorithm)?,
                "timezone" => self.text(&mut map, "timezone", &mut fields.limit.timezone)?,
                "request_id" => self.text(&mut map, "request_id", &mut fields.request_id)?,
                "cost" => self.number(&mut map, "cost", &mut fields.cost)?,
                "burst" => self.number(&mut map, "burst", &mut fields.limit.burst)?,
                "limits" => {
                    self.is_first("limits", &fields.limits)?;
                    let limits = map.next_value_seed(OrNull(LimitsSeed(self.0)));
                    fields.limits = limits.map_err(|e| self.0.at("limits", e))?;
                }
                "costs" => {
                    self.is_first("costs", &fields.costs)?;
                    let costs = map.next_value_seed(OrNull(CostsSeed(self.0)));
                    fields.costs = costs.map_err(|e| self.0.at("costs", e))?;
                }
                "attributes" => {
                    self.is_first("attributes", &fields.attributes)?;
                    let attributes = map.next_value_seed(OrNull(AttributesSeed(self.0)));
                    fields.attributes = attributes.map_err(|e| self.0.at("attributes", e))?;
                }
                _ => {
                    let detail = format!("there is no field {:?}; there are {FIELDS}", echo(&name));
                    return Err(self.0.keep(Problem::of_field(
                        ProblemKind::UnknownField,
                        echo(&name),
                        detail,
                    )));
                }
            }
        }
        Ok(fields)
    }
}

impl FieldsSeed<'_> {
    fn is_first<T, E: Error>(&self, name: &'static str, field: &Option<T>) -> Result<(), E> {
        if field.is_none() {
            return Ok(());
        }
        let detail = format!("the field {name:?} is given twice");
        Err(self.0.keep(Problem::of_field(ProblemKind::DuplicateParameter, name, detail)))
    }

    fn text<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        name: &'static str,
        field: &mut Option<Cow<'de, str>>,
    ) -> Result<(), A::Error> {
        self.is_first(name, field)?;
        let text: Option<Text<'de>> = map.next_value().map_err(|error| self.0.at(name, error))?;
        *field = text.map(|text| text.0);
        Ok(())
    }

    fn number<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        name: &'static str,
        field: &mut Option<u64>,
    ) -> Result<(), A::Error> {
        self.is_first(name, field)?;
        let number: Option<Whole> = map.next_value().map_err(|error| self.0.at(name, error))?;
        *field = number.map(|number| number.0);
        Ok(())
    }
}

/// A field that may be `null`, as if it was left out: programs write so what they do not have.
struct OrNull<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for OrNull<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for OrNull<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

struct AttributesSeed<'f>(&'f Found);

impl<'de> DeserializeSeed<'de> for AttributesSeed<'_> {
    type Value = AttributeList<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<AttributeList<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AttributesSeed<'_> {
    type Value = AttributeList<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings, as in {\"ip\": \"203.0.113.7\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AttributeList<'de>, A::Error> {
        let mut attributes = AttributeList::default();
        while let Some(Text(name)) = map.next_key()? {
            let Text(value) =
                map.next_value().map_err(|error| self.0.at(format!("attributes.{}", echo(&name)), error))?;
            attributes.insert(name, value).map_err(|problem| self.0.keep(problem))?;
        }
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{Cost, rules::Attributes as _};

    use super::*;
    use crate::check::Subject;

    fn fault(body: &str) -> (ProblemKind, Option<String>, String) {
        let problem = parse(body.as_bytes()).unwrap_err();
        (problem.kind, problem.field, problem.detail.into_owned())
    }

    #[test]
    fn a_check_borrows_from_its_body() {
        let body = r#"{"domain":"shop","attributes":{"ip":"203.0.113.7","q":"a\nb"},"cost":2}"#;
        let request = parse(body.as_bytes()).unwrap();
        assert!(matches!(request.domain, Cow::Borrowed("shop")));
        assert_eq!(request.cost, Cost::new(2).unwrap());
        let Subject::Attributes(attributes) = request.subject else { panic!("attributes are given") };
        assert_eq!(attributes.get("ip"), Some("203.0.113.7"));
        assert_eq!(attributes.get("q"), Some("a\nb"));
        assert_eq!(attributes.get("user"), None);
    }

    #[test]
    fn costs_are_of_rules_by_their_names() {
        let body = r#"{"attributes":{},"costs":{"tokens":500,"requests":0}}"#;
        let request = parse(body.as_bytes()).unwrap();
        let named = |name| request.costs.get(name).map(Cost::get);
        assert_eq!((named("tokens"), named("requests"), named("other")), (Some(500), Some(0), None));
        assert_eq!(request.cost, Cost::ONE);
    }

    #[test]
    fn a_check_can_bring_its_limit() {
        let body = r#"{"key":"k","limit":"100/1m","burst":20,"algorithm":"token_bucket","cost":null,
            "costs":null,"limits":null,"attributes":null,"timezone":null}"#;
        let request = parse(body.as_bytes()).unwrap();
        assert_eq!(request.cost, Cost::ONE);
        let Subject::Inline { key, limit } = request.subject else { panic!("a limit is given") };
        assert_eq!((&*key, limit.burst_size()), ("k", 20));
    }

    #[test]
    fn a_check_can_bring_several_limits_by_name() {
        let body = r#"{"key":"k","limits":{"a":"10/1s","b":{"limit":"100/1m","burst":20}},"costs":{"b":5}}"#;
        let request = parse(body.as_bytes()).unwrap();
        let Subject::Named { key, limits } = request.subject else { panic!("limits are given") };
        let told: Vec<_> = limits.iter().map(|(name, limit)| (&**name, limit.burst_size())).collect();
        assert_eq!((&*key, &told[..]), ("k", &[("a", 10), ("b", 20)][..]));
        assert_eq!(request.costs.get("b").map(Cost::get), Some(5));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let problem = parse(b"{\"attributes\": {\"ip\": }}").unwrap_err();
        assert_eq!((problem.kind, problem.place), (ProblemKind::NotJson, Some((1, 23))));
        assert_eq!(fault("").0, ProblemKind::NotJson);
        assert_eq!(fault("{} {}").0, ProblemKind::NotJson);
        assert_eq!(parse(b"{\"a\xff\"").unwrap_err().kind, ProblemKind::InvalidUtf8);
        let deep = "[".repeat(100_000);
        assert_eq!(fault(&deep).0, ProblemKind::InvalidValue);
    }

    #[test]
    fn faults_name_the_field() {
        let field = |body: &str| fault(body).1.unwrap();
        assert_eq!(field(r#"{"attributs":{}}"#), "attributs");
        assert_eq!(field(r#"{}"#), "attributes");
        assert_eq!(field(r#"{"attributes":5}"#), "attributes");
        assert_eq!(field(r#"{"attributes":null}"#), "attributes");
        assert_eq!(field(r#"{"attributes":{"user":5}}"#), "attributes.user");
        assert_eq!(field(r#"{"attributes":{"a":"1","a":"2"}}"#), "attributes.a");
        assert_eq!(field(r#"{"attributes":{},"attributes":{}}"#), "attributes");
        assert_eq!(field(r#"{"attributes":{},"burst":1}"#), "burst");
        assert_eq!(field(r#"{"attributes":{},"key":"k"}"#), "attributes");
        assert_eq!(field(r#"{"key":"k"}"#), "limit");
        assert_eq!(field(r#"{"limit":"1/1s"}"#), "key");
        assert_eq!(field(r#"{"key":"k","limit":"often"}"#), "limit");
        assert_eq!(field(r#"{"key":"k","limit":"1/1s","algorithm":"guess"}"#), "algorithm");
        assert_eq!(field(r#"{"attributes":{},"domain":[]}"#), "domain");
        assert_eq!(field(r#"{"attributes":{},"domain":""}"#), "domain");
        assert_eq!(field(r#"{"key":"k","limit":"1/1s","domain":""}"#), "domain");
        assert_eq!(field(r#"{"attributes":{},"costs":5}"#), "costs");
        assert_eq!(field(r#"{"attributes":{},"costs":{"a":-5}}"#), "costs.a");
        assert_eq!(field(r#"{"attributes":{},"costs":{"a":9007199254740993}}"#), "costs.a");
        assert_eq!(field(r#"{"attributes":{},"costs":{"a":1,"a":1}}"#), "costs.a");
        assert_eq!(field(r#"{"attributes":{},"costs":{},"costs":{}}"#), "costs");
        assert_eq!(field(r#"{"key":"k","limit":"1/1s","costs":{"a":1}}"#), "costs");
        for (limits, at) in [
            ("5", "limits"),
            ("{}", "limits"),
            (r#"{"a b":"1/1s"}"#, "limits.a b"),
            (r#"{"a":"1/1s","a":"1/1s"}"#, "limits.a"),
            (r#"{"a":"often"}"#, "limits.a.limit"),
            (r#"{"a":7}"#, "limits.a"),
            (r#"{"a":{"burst":7}}"#, "limits.a.limit"),
            (r#"{"a":{"limit":"1/1s","algorithm":"guess"}}"#, "limits.a.algorithm"),
            (r#"{"a":{"limit":"1/1s","brust":7}}"#, "limits.a.brust"),
            (r#"{"a":{"limit":"1/1s","burst":-7}}"#, "limits.a.burst"),
            (r#"{"a":"1/1s"},"limit":"1/1s""#, "limits"),
            (r#"{"a":"1/1s"},"burst":5"#, "burst"),
            (r#"{"a":"1/1s"},"costs":{"b":5}"#, "costs.b"),
            (r#"{"a":"1/1s"},"attributes":{}"#, "attributes"),
        ] {
            assert_eq!(field(&format!(r#"{{"key":"k","limits":{limits}}}"#)), at, "{limits}");
        }
        assert_eq!(field(r#"{"limits":{"a":"1/1s"}}"#), "key");
        for cost in ["-1", "1.5", "1e3", "1e300", "18446744073709551616", "9007199254740993", "\"1\"", "[]"] {
            assert_eq!(field(&format!(r#"{{"attributes":{{}},"cost":{cost}}}"#)), "cost", "{cost}");
        }
        assert!(fault(r#"{"attributes":{},"cost":-1}"#).2.contains("negative"));
        let long = format!(r#"{{"attributes":{{"user":"{}"}}}}"#, "x".repeat(5000));
        assert_eq!(fault(&long).0, ProblemKind::ValueTooLarge);
    }
}
