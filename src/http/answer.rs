//! The answer to a check: its JSON and its headers, written without a detour into one buffer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::{Body, problem};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static(problem::MEDIA_TYPE);
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Enough for an answer with one or two rules; more grows the buffer.
const USUAL_BYTES: usize = 512;
/// Headers of an answer, with those that hyper adds.
const HEADERS: usize = 12;

/// What a check is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) allowed: bool,
    /// The rule that binds most; none if no rule matched, or the check brought its limit with it.
    pub(crate) rule: Option<&'a str>,
    /// None if nothing limits the check.
    pub(crate) numbers: Option<Numbers>,
    pub(crate) decided_by: &'static str,
    pub(crate) node: &'a str,
    /// What the headers tell of: each enforced limit that was looked at.
    pub(crate) policies: &'a [Policy<'a>],
    /// What is added to `X-RateLimit-Reset`, in seconds; none: no headers of that kind.
    pub(crate) legacy: Option<u64>,
}

/// How far a limit is used up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) reset_after: Duration,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) delay: Duration,
}

/// One limit, for the `RateLimit` headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy<'a> {
    pub(crate) name: &'a str,
    /// Units in a window.
    pub(crate) count: u64,
    pub(crate) window: Duration,
    pub(crate) remaining: u64,
    /// Until there is more than that.
    pub(crate) more_after: Duration,
    /// It is this one that denied.
    pub(crate) denied: bool,
}

impl Answer<'_> {
    /// Appends the JSON.
    pub(super) fn write_json(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"allowed\":");
        out.extend_from_slice(if self.allowed { b"true" } else { b"false" });
        out.extend_from_slice(b",\"rule\":");
        match self.rule {
            Some(rule) => json_string(out, rule),
            None => out.extend_from_slice(b"null"),
        }
        let numbers = self.numbers;
        field(out, "limit", numbers.map(|n| n.limit));
        field(out, "remaining", numbers.map(|n| n.remaining));
        field(out, "reset_after_ms", numbers.map(|n| millis(n.reset_after)));
        let retry_after = if self.allowed { None } else { numbers.and_then(|n| n.retry_after) };
        field(out, "retry_after_ms", retry_after.map(millis));
        field(out, "delay_ms", Some(numbers.map_or(0, |n| millis(n.delay))));
        out.extend_from_slice(b",\"decided_by\":\"");
        out.extend_from_slice(self.decided_by.as_bytes());
        out.extend_from_slice(b"\",\"node\":");
        json_string(out, self.node);
        out.extend_from_slice(b"}");
    }

    /// The whole response.
    pub(super) fn to_response(self) -> Response<Body> {
        let mut out = BytesMut::with_capacity(USUAL_BYTES);
        self.write_json(&mut out);
        let status = if self.allowed { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        self.with_headers(out, Some(JSON), status)
    }

    /// The response to a proxy: nothing but headers, or the problem that a client can be told.
    pub(super) fn to_auth_response(self, denial: StatusCode) -> Response<Body> {
        if self.allowed {
            return self.with_headers(BytesMut::with_capacity(USUAL_BYTES), None, StatusCode::OK);
        }
        let mut out = BytesMut::with_capacity(2 * USUAL_BYTES);
        self.write_problem(&mut out, denial);
        self.with_headers(out, Some(PROBLEM_JSON), denial)
    }

    /// Appends the problem (RFC 9457) of a denial, of the types that the draft of the `RateLimit` headers has.
    fn write_problem(&self, out: &mut BytesMut, status: StatusCode) {
        let (kind, title) = match self.decided_by {
            "share" | "fallback" => (
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
                "The service can admit less than usual at the moment",
            ),
            "unmatched" => ("urn:tidegate:problem:no-rule-allows-it", "No rule allows this request"),
            _ => ("https://iana.org/assignments/http-problem-types#quota-exceeded", "Too many requests"),
        };
        let denied = || self.policies.iter().filter(|policy| policy.denied);
        let mut detail = String::new();
        for policy in denied() {
            let (name, count, seconds) = (policy.name, policy.count, policy.window.as_secs_f64());
            detail += &format!("{name} allows {count} in {seconds} s. ");
        }
        if let Some(wait) = self.numbers.and_then(|numbers| numbers.retry_after) {
            detail += &format!("Try again in {} s.", seconds(wait).max(1));
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"title\":\"");
        out.extend_from_slice(title.as_bytes());
        out.extend_from_slice(b"\"");
        field(out, "status", Some(status.as_u16().into()));
        if !detail.is_empty() {
            out.extend_from_slice(b",\"detail\":");
            json_string(out, detail.trim_end());
        }
        out.extend_from_slice(b",\"violated-policies\":[");
        for (place, policy) in denied().enumerate() {
            if place > 0 {
                out.extend_from_slice(b",");
            }
            // As the headers have them.
            json_string(out, &policy.name.chars().map(printable).collect::<String>());
        }
        out.extend_from_slice(b"]}");
    }

    /// The response with what is in `out` as its body.
    fn with_headers(
        self,
        mut out: BytesMut,
        media_type: Option<HeaderValue>,
        status: StatusCode,
    ) -> Response<Body> {
        let mut ends = Ends { json: out.len(), ..Ends::default() };
        if let Some(numbers) = self.numbers {
            for policy in self.policies {
                policy.write_state(&mut out);
            }
            ends.ratelimit = out.len();
            for policy in self.policies {
                policy.write(&mut out);
            }
            ends.policy = out.len();
            number(&mut out, numbers.limit);
            ends.limit = out.len();
            number(&mut out, numbers.remaining);
            ends.remaining = out.len();
            number(&mut out, seconds(numbers.reset_after).saturating_add(self.legacy.unwrap_or(0)));
            ends.reset = out.len();
            if let (false, Some(wait)) = (self.allowed, numbers.retry_after) {
                number(&mut out, seconds(wait).max(1));
            }
        }
        let bytes = out.freeze();
        let mut headers = HeaderMap::with_capacity(HEADERS);
        if let Some(media_type) = media_type {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        if self.numbers.is_some() {
            if !self.policies.is_empty() {
                insert(&mut headers, RATELIMIT, &bytes, ends.json + SEPARATOR, ends.ratelimit);
                insert(&mut headers, RATELIMIT_POLICY, &bytes, ends.ratelimit + SEPARATOR, ends.policy);
            }
            if self.legacy.is_some() {
                insert(&mut headers, X_RATELIMIT_LIMIT, &bytes, ends.policy, ends.limit);
                insert(&mut headers, X_RATELIMIT_REMAINING, &bytes, ends.limit, ends.remaining);
                insert(&mut headers, X_RATELIMIT_RESET, &bytes, ends.remaining, ends.reset);
            }
            if bytes.len() > ends.reset {
                insert(&mut headers, header::RETRY_AFTER, &bytes, ends.reset, bytes.len());
            }
        }
        let mut response = Response::new(Body::Left(bytes.slice(..ends.json).into()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Where the parts of the buffer end.
#[derive(Default)]
struct Ends {
    json: usize,
    ratelimit: usize,
    policy: usize,
    limit: usize,
    remaining: usize,
    reset: usize,
}

/// Each item of a list begins with its separator, which the first one's value leaves out.
const SEPARATOR: usize = ", ".len();

impl Policy<'_> {
    /// An item of `RateLimit`: `"login";r=3;t=12`.
    pub(crate) fn write_state(&self, out: &mut BytesMut) {
        self.write_name(out);
        out.extend_from_slice(b";r=");
        sf_integer(out, self.remaining);
        out.extend_from_slice(b";t=");
        sf_integer(out, seconds(self.more_after));
    }

    /// An item of `RateLimit-Policy`: `"login";q=5;w=60`. A window is told in whole seconds or not at all.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        self.write_name(out);
        out.extend_from_slice(b";q=");
        sf_integer(out, self.count);
        if self.window.subsec_nanos() == 0 {
            out.extend_from_slice(b";w=");
            sf_integer(out, self.window.as_secs());
        }
    }

    /// The name as a String of structured fields (RFC 9651), which is printable ASCII.
    fn write_name(&self, out: &mut BytesMut) {
        out.extend_from_slice(b", \"");
        if self.name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            out.extend_from_slice(self.name.as_bytes());
        } else {
            for character in self.name.chars().map(printable) {
                if matches!(character, '"' | '\\') {
                    out.extend_from_slice(b"\\");
                }
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        out.extend_from_slice(b"\"");
    }
}

/// What a String of structured fields can have.
fn printable(character: char) -> char {
    if matches!(character, ' '..='~') { character } else { '_' }
}

/// An Integer of structured fields, which has at most 15 digits.
fn sf_integer(out: &mut BytesMut, value: u64) {
    number(out, value.min(999_999_999_999_999));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, bytes: &Bytes, start: usize, end: usize) {
    let value = HeaderValue::from_maybe_shared(bytes.slice(start..end));
    headers.insert(name, value.expect("numbers and escaped names are printable"));
}

fn field(out: &mut BytesMut, name: &str, value: Option<u64>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    match value {
        Some(value) => number(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

pub(super) fn number(out: &mut BytesMut, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn json_string(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(b"\"");
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for character in text.chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                character if character < ' ' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                }
                character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.extend_from_slice(b"\"");
}

/// Rounded up: who waits so long waits long enough.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Rounded up.
pub(super) fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const POLICY: Policy<'static> = Policy {
        name: "login",
        count: 5,
        window: Duration::from_secs(60),
        remaining: 0,
        more_after: Duration::from_millis(59_001),
        denied: true,
    };

    const DENIED: Answer<'static> = Answer {
        allowed: false,
        rule: Some("login"),
        numbers: Some(Numbers {
            limit: 10,
            remaining: 0,
            reset_after: Duration::from_millis(59_001),
            retry_after: Some(Duration::from_micros(1_500)),
            delay: Duration::ZERO,
        }),
        decided_by: "owner",
        node: "n1",
        policies: &[POLICY],
        legacy: Some(0),
    };

    fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    async fn json(response: Response<Body>) -> serde_json::Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_denial_says_when_to_come_back() {
        let response = DENIED.to_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(header(&response, "retry-after"), Some("1"), "rounded up, and never 0");
        assert_eq!(header(&response, "ratelimit"), Some("\"login\";r=0;t=60"));
        assert_eq!(header(&response, "ratelimit-policy"), Some("\"login\";q=5;w=60"));
        assert_eq!(header(&response, "x-ratelimit-limit"), Some("10"));
        assert_eq!(header(&response, "x-ratelimit-remaining"), Some("0"));
        assert_eq!(header(&response, "x-ratelimit-reset"), Some("60"));
        let expected = serde_json::json!({
            "allowed": false, "rule": "login", "limit": 10, "remaining": 0, "reset_after_ms": 59_001,
            "retry_after_ms": 2, "delay_ms": 0, "decided_by": "owner", "node": "n1",
        });
        assert_eq!(json(response).await, expected);
    }

    #[test]
    fn waiting_that_never_helps_is_not_advised() {
        let numbers = DENIED.numbers.map(|numbers| Numbers { retry_after: None, ..numbers });
        let response = Answer { numbers, ..DENIED }.to_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(header(&response, "retry-after"), None);
    }

    #[test]
    fn each_rule_is_an_item_of_the_headers() {
        let other = Policy { name: "a \"b\"\n", window: Duration::from_millis(500), remaining: 7, ..POLICY };
        let response = Answer { allowed: true, policies: &[POLICY, other], ..DENIED }.to_response();
        assert_eq!(header(&response, "ratelimit"), Some("\"login\";r=0;t=60, \"a \\\"b\\\"_\";r=7;t=60"));
        assert_eq!(header(&response, "ratelimit-policy"), Some("\"login\";q=5;w=60, \"a \\\"b\\\"_\";q=5"));
        assert_eq!(header(&response, "retry-after"), None, "it was allowed");
    }

    #[tokio::test]
    async fn what_nothing_limits_has_no_numbers() {
        let answer = Answer { allowed: true, rule: None, numbers: None, policies: &[], ..DENIED };
        let response = answer.to_response();
        assert_eq!(header(&response, "ratelimit"), None);
        assert_eq!(header(&response, "x-ratelimit-limit"), None);
        let json = json(response).await;
        assert_eq!(json["limit"], serde_json::Value::Null);
        assert_eq!(json["allowed"], true);
    }

    #[test]
    fn any_text_is_written_as_json() {
        for text in ["plain", "a\"b\\c", "line\nfeed\u{1}", "ä 漢"] {
            let mut out = BytesMut::new();
            json_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
