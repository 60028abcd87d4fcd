//! The answer as a response for hyper: its body and the values of its headers are parts of one buffer.

use std::time::Duration;

use bytes::BytesMut;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use smallvec::SmallVec;

use crate::{
    check::CheckAnswer,
    http::{problem, response::Body},
    rate_limit_headers::{self, HeaderSink, Name},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static(problem::MEDIA_TYPE);
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Enough for an answer with one or two rules; more grows the buffer.
const USUAL_BYTES: usize = 512;
/// Headers of an answer, with those that hyper adds.
const HEADERS: usize = 12;

impl CheckAnswer<'_> {
    /// The whole response. `legacy` is as the headers take it.
    pub(in crate::http) fn to_response(self, legacy: Option<Duration>) -> Response<Body> {
        let mut out = BytesMut::with_capacity(USUAL_BYTES);
        self.write_json(&mut out);
        let status = if self.allowed { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        self.with_headers(legacy, out, Some(JSON), status)
    }

    /// The response to a proxy: nothing but headers, or the problem that a client can be told.
    pub(in crate::http) fn to_auth_response(
        self,
        legacy: Option<Duration>,
        denial: StatusCode,
    ) -> Response<Body> {
        if self.allowed {
            let nothing = BytesMut::with_capacity(USUAL_BYTES);
            return self.with_headers(legacy, nothing, None, StatusCode::OK);
        }
        let mut out = BytesMut::with_capacity(2 * USUAL_BYTES);
        self.write_problem(&mut out, denial);
        self.with_headers(legacy, out, Some(PROBLEM_JSON), denial)
    }

    /// The response with what is in `out` as its body.
    fn with_headers(
        self,
        legacy: Option<Duration>,
        out: BytesMut,
        media_type: Option<HeaderValue>,
        status: StatusCode,
    ) -> Response<Body> {
        let body = out.len();
        let mut values = Values { out, ends: SmallVec::new() };
        rate_limit_headers::write(&self, legacy, &mut values);
        let Values { out, ends } = values;
        let bytes = out.freeze();
        let mut headers = HeaderMap::with_capacity(HEADERS);
        if let Some(media_type) = media_type {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        let mut start = body;
        for (name, end) in ends {
            let value = HeaderValue::from_maybe_shared(bytes.slice(start..end));
            headers.insert(name.name.clone(), value.expect("numbers and escaped names are printable"));
            start = end;
        }
        let mut response = Response::new(Body::Left(bytes.slice(..body).into()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The values of headers, one behind the other.
struct Values {
    out: BytesMut,
    ends: SmallVec<[(&'static Name, usize); 6]>,
}

impl HeaderSink for Values {
    fn header(&mut self, name: &'static Name, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.out);
        self.ends.push((name, self.out.len()));
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::check::{Decider, Numbers, Policy};

    const POLICY: Policy<'static> = Policy {
        name: "login",
        count: 5,
        window: Duration::from_secs(60),
        quota: 5,
        quota_window: Duration::from_secs(60),
        remaining: 0,
        more_after: Duration::from_millis(59_001),
        denied: true,
        banned: false,
    };

    const DENIED: CheckAnswer<'static> = CheckAnswer {
        allowed: false,
        rule: Some("login"),
        numbers: Some(Numbers {
            limit: 10,
            remaining: 0,
            reset_after: Duration::from_millis(59_001),
            retry_after: Some(Duration::from_micros(1_500)),
            delay: Duration::ZERO,
            banned: false,
        }),
        decided_by: Decider::Owner,
        node: "n1",
        policies: &[POLICY],
        shadow: None,
    };

    fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    async fn json(response: Response<Body>) -> serde_json::Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_denial_says_when_to_come_back() {
        let response = DENIED.to_response(Some(Duration::ZERO));
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
        let response = CheckAnswer { numbers, ..DENIED }.to_response(Some(Duration::ZERO));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(header(&response, "retry-after"), None);
    }

    #[test]
    fn each_rule_is_an_item_of_the_headers() {
        let other =
            Policy { name: "a \"b\"\n", quota_window: Duration::from_millis(500), remaining: 7, ..POLICY };
        let response = CheckAnswer { allowed: true, policies: &[POLICY, other], ..DENIED }
            .to_response(Some(Duration::ZERO));
        assert_eq!(header(&response, "ratelimit"), Some("\"login\";r=0;t=60, \"a \\\"b\\\"_\";r=7;t=60"));
        assert_eq!(header(&response, "ratelimit-policy"), Some("\"login\";q=5;w=60, \"a \\\"b\\\"_\";q=5"));
        assert_eq!(header(&response, "retry-after"), None, "it was allowed");
    }

    #[tokio::test]
    async fn what_nothing_limits_has_no_numbers() {
        let answer = CheckAnswer { allowed: true, rule: None, numbers: None, policies: &[], ..DENIED };
        let response = answer.to_response(Some(Duration::ZERO));
        assert_eq!(header(&response, "ratelimit"), None);
        assert_eq!(header(&response, "x-ratelimit-limit"), None);
        let json = json(response).await;
        assert_eq!(json["limit"], serde_json::Value::Null);
        assert_eq!(json["allowed"], true);
    }
}
