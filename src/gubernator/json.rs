//! Requests and answers as proto3 JSON: 64 bit numbers are strings (read as numbers too), enums have their names (or
//! numbers), fields are read in both spellings and written as they are in the definition, as Gubernator's gateway does.

use std::{collections::HashMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};
use serde_json::value::RawValue;
use tidegate_proto::{
    batch::{Batch, MAX_REQUESTS},
    grpc::pb::gubernator::{self as theirs, Algorithm, Behavior, Status},
};

use crate::check::echo;

/// A batch as it came: what its requests say is looked at only when it is known that there are not too many. What it has
/// beyond this is ignored, as the gateway does.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "an object with requests: {\"requests\": [{\"name\": \"requests\"}]}")]
struct Requests<'a> {
    #[serde(borrow)]
    requests: Vec<&'a RawValue>,
}

/// Reads a batch.
pub(crate) fn read(text: &str) -> Result<Batch, serde_json::Error> {
    let Requests { requests } = serde_json::from_str(text)?;
    let has_too_many = requests.len() > MAX_REQUESTS;
    let requests =
        requests.iter().take(MAX_REQUESTS).map(|raw| serde_json::from_str(raw.get()).map(Request::into));
    Ok(Batch { requests: requests.collect::<Result<_, _>>()?, has_too_many })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    name: String,
    #[serde(alias = "uniqueKey")]
    unique_key: String,
    hits: Number,
    limit: Number,
    duration: Number,
    algorithm: Word<Algorithm>,
    behavior: Word<Behavior>,
    burst: Number,
    metadata: HashMap<String, String>,
    #[serde(alias = "createdAt")]
    created_at: Option<Number>,
}

impl From<Request> for theirs::RateLimitReq {
    fn from(one: Request) -> Self {
        Self {
            name: one.name,
            unique_key: one.unique_key,
            hits: one.hits.0,
            limit: one.limit.0,
            duration: one.duration.0,
            algorithm: one.algorithm.number,
            behavior: one.behavior.number,
            burst: one.burst.0,
            metadata: one.metadata,
            created_at: one.created_at.map(|number| number.0),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Responses {
    responses: Vec<Response>,
}

#[derive(Debug, Serialize)]
struct Response {
    status: &'static str,
    limit: Number,
    remaining: Number,
    reset_time: Number,
    error: String,
    metadata: HashMap<String, String>,
}

impl From<theirs::GetRateLimitsResp> for Responses {
    fn from(answers: theirs::GetRateLimitsResp) -> Self {
        let response = |one: theirs::RateLimitResp| Response {
            status: Status::try_from(one.status).unwrap_or_default().as_str_name(),
            limit: Number(one.limit),
            remaining: Number(one.remaining),
            reset_time: Number(one.reset_time),
            error: one.error,
            metadata: one.metadata,
        };
        Self { responses: answers.responses.into_iter().map(response).collect() }
    }
}

/// A health check's answer.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    status: String,
    message: String,
    peer_count: i32,
    advertise_address: String,
}

impl From<theirs::HealthCheckResp> for Health {
    fn from(answer: theirs::HealthCheckResp) -> Self {
        let theirs::HealthCheckResp { status, message, peer_count, advertise_address } = answer;
        Self { status, message, peer_count, advertise_address }
    }
}

/// An int64.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Number(i64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of 64 bits, or a string with one")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
                i64::try_from(number)
                    .map(Number)
                    .map_err(|_| E::custom(format_args!("{number} has more than 64 bits")))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                text.parse()
                    .map(Number)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// The value of an enum. It may be a number that has no name.
#[derive(Debug)]
struct Word<E> {
    number: i32,
    kind: PhantomData<E>,
}

impl<E> Default for Word<E> {
    fn default() -> Self {
        Self { number: 0, kind: PhantomData }
    }
}

/// An enum whose values have names.
trait Named {
    fn number_of(name: &str) -> Option<i32>;
}

impl Named for Algorithm {
    fn number_of(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(i32::from)
    }
}

impl Named for Behavior {
    fn number_of(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(i32::from)
    }
}

impl<'de, E: Named> Deserialize<'de> for Word<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "the name of a value, or its number")]
        enum Either {
            Name(String),
            Number(i32),
        }
        let number = match Either::deserialize(deserializer)? {
            Either::Number(number) => number,
            Either::Name(name) => E::number_of(&name)
                .ok_or_else(|| D::Error::custom(format_args!("there is no value {:?}", echo(&name))))?,
        };
        Ok(Self { number, kind: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<theirs::RateLimitReq> {
        super::read(text).unwrap().requests
    }

    #[test]
    fn both_spellings_and_both_forms_of_numbers_are_read() {
        let one = read(
            r#"{"requests": [{"name": "n", "uniqueKey": "k", "hits": "1", "limit": "10", "duration": "60000",
                "algorithm": "LEAKY_BUCKET", "behavior": "DRAIN_OVER_LIMIT", "createdAt": "5"}]}"#,
        );
        let other = read(
            r#"{"requests": [{"name": "n", "unique_key": "k", "hits": 1, "limit": 10, "duration": 60000,
                "algorithm": 1, "behavior": 32, "created_at": 5, "new": {}}]}"#,
        );
        assert_eq!(one, other);
        assert_eq!(one[0].hits, 1);
        assert_eq!(read("{}"), []);
        assert_eq!(read(r#"{"requests": [{"hits": "-3", "behavior": 33}]}"#)[0].behavior, 33);
        for bad in [
            r#"{"requests": [{"hits": "many"}]}"#,
            r#"{"requests": [{"hits": 1.5}]}"#,
            r#"{"requests": [{"hits": 9223372036854775808}]}"#,
            r#"{"requests": [{"algorithm": "SLIDING"}]}"#,
        ] {
            super::read(bad).unwrap_err();
        }
    }

    #[test]
    fn answers_are_written_as_the_gateway_writes_them() {
        let answer = theirs::RateLimitResp { limit: 10, reset_time: 1_690_855_128_786, ..Default::default() };
        let json =
            serde_json::to_value(Responses::from(theirs::GetRateLimitsResp { responses: vec![answer] }));
        let expected = serde_json::json!({"responses": [{
            "status": "UNDER_LIMIT", "limit": "10", "remaining": "0", "reset_time": "1690855128786",
            "error": "", "metadata": {},
        }]});
        assert_eq!(json.unwrap(), expected);
    }
}
