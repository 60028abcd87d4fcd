//! The tree of a rule file, whatever its shape: so that all that is wrong with the shape can be reported, not only the first.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Spanned,
    options::{DuplicateKeyPolicy, NonFiniteFloatPolicy},
};

use super::{
    RuleError,
    error::{self, Place},
};

/// Values, lists and maps of a rule file: about a hundred thousand rules. What else a file may have (depth, aliases) is
/// what the parser thinks enough.
const MAX_NODES: usize = 2_000_000;

/// A value of the file and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Where it is used: of an alias, the alias.
    pub(super) place: Place,
    /// Where its letters are.
    letters: Place,
}

#[derive(Debug)]
pub(super) enum Value {
    Nothing,
    Bool(bool),
    Whole(u64),
    /// Negative, or with a fraction.
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// With each field that is there twice.
    Map(Vec<(Node, Node)>),
}

/// The documents of a file, without those that are empty.
///
/// # Errors
/// The first thing that is no YAML: what comes after it has no certain meaning.
pub(super) fn read(text: &str) -> Result<Vec<Node>, RuleError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: MAX_NODES * 2, max_nodes: MAX_NODES },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error::of_syntax(text, &error))
}

impl Node {
    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Nothing => "nothing",
            Value::Bool(_) => "true or false",
            Value::Whole(_) | Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Where an error of it is shown: lists and maps can be long, so these by their beginning.
    pub(super) fn shown(&self) -> Place {
        match self.value {
            Value::List(_) | Value::Map(_) => self.place.start(),
            _ => self.place,
        }
    }

    /// What was written, if it is a single value: `404` and `1.10` are texts too, letter by letter.
    pub(super) fn into_text(self, file: &str) -> Result<String, Self> {
        let written = || match self.letters.slice(file) {
            // A tag can make a number of a quoted text.
            Some(letters) if !letters.starts_with(['"', '\'']) && !letters.is_empty() => {
                Some(letters.to_owned())
            }
            _ => None,
        };
        match self.value {
            Value::Text(text) => Ok(text),
            Value::Bool(value) => Ok(written().unwrap_or_else(|| value.to_string())),
            Value::Whole(value) => Ok(written().unwrap_or_else(|| value.to_string())),
            Value::Number(value) => Ok(written().unwrap_or_else(|| value.to_string())),
            Value::Nothing | Value::List(_) | Value::Map(_) => Err(self),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::deserialize(deserializer)?;
        Ok(Self { value, place: referenced.into(), letters: defined.into() })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Number(value as f64), Value::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(entry) = map.next_entry()? {
            nodes.push(entry);
        }
        Ok(Value::Map(nodes))
    }
}
