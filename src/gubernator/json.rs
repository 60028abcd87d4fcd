//! Requests and answers as proto3 JSON: 64 bit numbers are strings (read as numbers too, `10.0` and `1e1` as 10), enums have their
//! names (or numbers), fields are read in both spellings and written as they are in the definition, `null` is a field that was
//! left out: as Gubernator's gateway does. It ignores the name of an enum that it does not know, which is an error here: the
//! request would be limited otherwise than it asks for.

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
    requests: Option<Vec<&'a RawValue>>,
}

/// Reads a batch. No text at all is an empty one.
pub(crate) fn read(text: &str) -> Result<Batch, serde_json::Error> {
    if text.trim_ascii().is_empty() {
        return Ok(Batch::default());
    }
    let Requests { requests } = object(text)?;
    let requests = requests.unwrap_or_default();
    let has_too_many = requests.len() > MAX_REQUESTS;
    let requests =
        requests.iter().take(MAX_REQUESTS).map(|raw| object::<Request>(raw.get()).map(Request::into));
    Ok(Batch { requests: requests.collect::<Result<_, _>>()?, has_too_many })
}

/// Reads an object. (What is derived takes an array for one, too, by the order of its fields.)
fn object<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, serde_json::Error> {
    if text.trim_ascii_start().starts_with('[') {
        return Err(serde_json::Error::custom("an object is expected, not an array"));
    }
    serde_json::from_str(text)
}

/// Each field may be `null`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a request: an object with name, unique_key, hits, limit, duration")]
struct Request {
    name: Option<String>,
    #[serde(alias = "uniqueKey")]
    unique_key: Option<String>,
    hits: Option<Number>,
    limit: Option<Number>,
    duration: Option<Number>,
    algorithm: Option<Word<Algorithm>>,
    behavior: Option<Word<Behavior>>,
    burst: Option<Number>,
    metadata: Option<HashMap<String, String>>,
    #[serde(alias = "createdAt")]
    created_at: Option<Number>,
}

impl From<Request> for theirs::RateLimitReq {
    fn from(one: Request) -> Self {
        let number = |field: Option<Number>| field.unwrap_or_default().0;
        Self {
            name: one.name.unwrap_or_default(),
            unique_key: one.unique_key.unwrap_or_default(),
            hits: number(one.hits),
            limit: number(one.limit),
            duration: number(one.duration),
            algorithm: one.algorithm.unwrap_or_default().number,
            behavior: one.behavior.unwrap_or_default().number,
            burst: number(one.burst),
            metadata: one.metadata.unwrap_or_default(),
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
    local_peers: Vec<Peer>,
    region_peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
struct Peer {
    grpc_address: String,
    data_center: String,
}

impl From<theirs::PeerHealthResp> for Peer {
    fn from(peer: theirs::PeerHealthResp) -> Self {
        Self { grpc_address: peer.grpc_address, data_center: peer.data_center }
    }
}

impl From<theirs::HealthCheckResp> for Health {
    fn from(answer: theirs::HealthCheckResp) -> Self {
        let theirs::HealthCheckResp {
            status,
            message,
            peer_count,
            advertise_address,
            local_peers,
            region_peers,
        } = answer;
        let peers = |all: Vec<theirs::PeerHealthResp>| all.into_iter().map(Peer::from).collect();
        let (local_peers, region_peers) = (peers(local_peers), peers(region_peers));
        Self { status, message, peer_count, advertise_address, local_peers, region_peers }
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

            fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
                whole(number)
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Float(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                // A string holds what could stand without its quotes.
                let number: Result<serde_json::Number, _> = text.parse();
                let number = number.ok().and_then(|number| {
                    number.as_i64().or_else(|| if number.is_f64() { whole(number.as_f64()?) } else { None })
                });
                number.map(Number).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// The whole number that this is, as far as every one has a neighbour at a distance of 1.
fn whole(number: f64) -> Option<i64> {
    const MOST: f64 = (1_u64 << 53) as f64;
    (number.fract() == 0.0 && number.abs() <= MOST).then_some(number as i64)
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
            Number(Number),
        }
        let number = match Either::deserialize(deserializer)? {
            Either::Number(Number(number)) => i32::try_from(number)
                .map_err(|_| D::Error::custom(format_args!("{number} has more than 32 bits")))?,
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
        let floats = r#"{"requests": [{"hits": 10.0, "limit": "1e2", "burst": 1E1, "behavior": 32.0}]}"#;
        let float = &read(floats)[0];
        assert_eq!((float.hits, float.limit, float.burst, float.behavior), (10, 100, 10, 32));
        let most = read(r#"{"requests": [{"hits": "9223372036854775807", "limit": 9223372036854775807}]}"#);
        assert_eq!((most[0].hits, most[0].limit), (i64::MAX, i64::MAX));
        let nulls = r#"{"requests": [{"name": null, "unique_key": null, "hits": null, "limit": null, "duration": null,
            "algorithm": null, "behavior": null, "burst": null, "metadata": null, "created_at": null}]}"#;
        assert_eq!(read(nulls), [theirs::RateLimitReq::default()]);
        assert_eq!(read(r#"{"requests": null}"#), []);
        assert_eq!(read(" "), []);
        for bad in [
            r#"{"requests": [{"hits": "many"}]}"#,
            r#"{"requests": [{"hits": " 1"}]}"#,
            r#"{"requests": [{"hits": "1.5"}]}"#,
            r#"{"requests": [{"hits": ""}]}"#,
            r#"{"requests": [{"hits": 1e300}]}"#,
            r#"{"requests": [{"behavior": 4294967296}]}"#,
            r#"{"requests": [null]}"#,
            r#"{"requests": [{"unique_key": "a", "uniqueKey": "b"}]}"#,
            "null",
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
