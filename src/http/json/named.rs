//! The parts of a check that are objects by name: what single rules take, and limits that come with it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, Visitor},
};

use super::values::{Found, Text, Whole};
use crate::{
    check::{Costs, MAX_LIMITS, Problem, ProblemKind, echo},
    http::fields::LimitFields,
};

const LIMIT_FIELDS: &str = "limit, burst, algorithm, timezone";

pub(super) struct CostsSeed<'f>(pub(super) &'f Found);

impl<'de> DeserializeSeed<'de> for CostsSeed<'_> {
    type Value = Costs<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Costs<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for CostsSeed<'_> {
    type Value = Costs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of numbers by the names of rules, as in {\"tokens\": 500}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Costs<'de>, A::Error> {
        let mut costs = Costs::default();
        while let Some(Text(name)) = map.next_key()? {
            let Whole(units) =
                map.next_value().map_err(|error| self.0.at(format!("costs.{}", echo(&name)), error))?;
            costs.insert(name, units).map_err(|problem| self.0.keep(problem))?;
        }
        Ok(costs)
    }
}

pub(super) struct LimitsSeed<'f>(pub(super) &'f Found);

impl<'de> DeserializeSeed<'de> for LimitsSeed<'_> {
    type Value = Vec<(Cow<'de, str>, LimitFields<'de>)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LimitsSeed<'_> {
    type Value = Vec<(Cow<'de, str>, LimitFields<'de>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of limits by name, as in {\"per-second\": \"10/1s\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut limits = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if limits.len() == MAX_LIMITS {
                let detail = format!("there are more than {MAX_LIMITS} limits");
                return Err(self.0.keep(Problem::of_field(ProblemKind::ValueTooLarge, "limits", detail)));
            }
            let field = format!("limits.{}", echo(&name));
            let seed = LimitSeed { found: self.0, field: &field };
            let limit = map.next_value_seed(seed).map_err(|error| self.0.at(field.as_str(), error))?;
            limits.push((name, limit));
        }
        Ok(limits)
    }
}

/// One limit: its text, or an object.
struct LimitSeed<'f> {
    found: &'f Found,
    field: &'f str,
}

impl<'de> DeserializeSeed<'de> for LimitSeed<'_> {
    type Value = LimitFields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for LimitSeed<'_> {
    type Value = LimitFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a limit as in \"100/1m\", or an object with {LIMIT_FIELDS}")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(LimitFields { limit: Some(Cow::Borrowed(text)), ..LimitFields::default() })
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(LimitFields { limit: Some(Cow::Owned(text.to_owned())), ..LimitFields::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut limit = LimitFields::default();
        while let Some(Text(name)) = map.next_key()? {
            let field = format!("{}.{}", self.field, echo(&name));
            let at = |error| self.found.at(field.as_str(), error);
            let is_again = match &*name {
                "limit" => limit.limit.replace(map.next_value::<Text<'de>>().map_err(at)?.0).is_some(),
                "burst" => limit.burst.replace(map.next_value::<Whole>().map_err(at)?.0).is_some(),
                "algorithm" => {
                    limit.algorithm.replace(map.next_value::<Text<'de>>().map_err(at)?.0).is_some()
                }
                "timezone" => limit.timezone.replace(map.next_value::<Text<'de>>().map_err(at)?.0).is_some(),
                _ => {
                    let detail = format!("there is no field {:?}; a limit has {LIMIT_FIELDS}", echo(&name));
                    return Err(self.found.keep(Problem::of_field(ProblemKind::UnknownField, field, detail)));
                }
            };
            if is_again {
                let detail = format!("the field {:?} is given twice", echo(&name));
                return Err(self.found.keep(Problem::of_field(
                    ProblemKind::DuplicateParameter,
                    field,
                    detail,
                )));
            }
        }
        Ok(limit)
    }
}
