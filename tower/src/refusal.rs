//! What a request that does not run is answered: problem+json (RFC 9457), or a gRPC status where the caller speaks gRPC.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::json;

use crate::answer::{Answer, retry_after};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// The problem type of draft-ietf-httpapi-ratelimit-headers.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// gRPC's `RESOURCE_EXHAUSTED` and `UNAVAILABLE`.
const RESOURCE_EXHAUSTED: u16 = 8;
const UNAVAILABLE: u16 = 14;
/// When no node answers: how soon to try again.
const SOON: Duration = Duration::from_secs(1);

/// Whether the caller speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    // Not gRPC-Web, which has its own framing of trailers.
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A request that does not run, as the code that answers it sees it: see [`Builder::on_refused`](crate::Builder::on_refused).
#[derive(Debug)]
pub struct Refusal<'r> {
    request: &'r Parts,
    answer: Option<&'r Answer>,
    grpc: bool,
}

impl<'r> Refusal<'r> {
    /// Without an answer: no node has decided.
    pub(crate) fn new(request: &'r Parts, answer: Option<&'r Answer>, grpc: bool) -> Self {
        Self { request, answer, grpc }
    }

    /// The request.
    pub fn request(&self) -> &Parts {
        self.request
    }

    /// What was decided about it; `None` when no node has answered in time, and requests must not run then.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer
    }

    /// Whether the caller speaks gRPC, and wants its status in the headers of a response without a body.
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// What is answered unless something else is said.
    pub fn response(&self) -> Response<Bytes> {
        self.complete(match self.answer {
            Some(answer) => over_limit(answer, self.grpc),
            None => undecided(self.grpc),
        })
    }

    /// With the headers about limits, and about when to try again, where it has none.
    pub(crate) fn complete(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        let headers = response.headers_mut();
        for (name, value) in self.answer.into_iter().flat_map(Answer::headers) {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if self.answer.is_none() {
            headers.entry(header::RETRY_AFTER).or_insert_with(|| retry_after(SOON));
        }
        response
    }
}

/// The answer to a request over its limit.
fn over_limit(answer: &Answer, grpc: bool) -> Response<Bytes> {
    let rule = answer.rule.as_deref();
    let detail = match answer.retry_after {
        Some(wait) => format!("try again in {:.3} s", wait.as_secs_f64()),
        None => "the request costs more than the limit ever allows, or is not allowed at all".to_owned(),
    };
    if grpc {
        return status(RESOURCE_EXHAUSTED, &format!("over the limit: {detail}"));
    }
    let violated: Vec<_> = rule.into_iter().collect();
    problem(
        StatusCode::TOO_MANY_REQUESTS,
        &json!({
            "type": QUOTA_EXCEEDED, "title": "over the limit", "status": 429, "detail": detail,
            "violated-policies": violated,
        }),
    )
}

/// The answer when nobody could decide and requests must not run then.
fn undecided(grpc: bool) -> Response<Bytes> {
    let detail = "the rate limiter does not answer";
    if grpc {
        return status(UNAVAILABLE, detail);
    }
    let problem_of =
        json!({ "type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": detail });
    problem(StatusCode::SERVICE_UNAVAILABLE, &problem_of)
}

fn problem(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
    response
}

/// A response of trailers only: the status stands in the headers. `message` is printable ASCII without a `%`.
fn status(code: u16, message: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert("grpc-status", code.into());
    if let Ok(message) = HeaderValue::from_str(message) {
        headers.insert("grpc-message", message);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let is = |kind: &'static str| {
            is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("application/json"));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
