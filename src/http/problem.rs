//! A problem as HTTP tells it: a response with `application/problem+json` (RFC 9457).

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    response::Body,
    transport::{BodyError, HeadError, MAX_HEAD_BYTES, MAX_HEADERS, TransportError},
};
use crate::check::{Problem, ProblemKind};

pub(super) const MEDIA_TYPE: &str = "application/problem+json";

fn status_of(kind: ProblemKind) -> StatusCode {
    use ProblemKind as K;
    match kind {
        K::NotJson
        | K::InvalidUtf8
        | K::UnknownField
        | K::MissingField
        | K::InvalidValue
        | K::ValueTooLarge
        | K::DuplicateParameter
        | K::BodyIncomplete
        | K::BadHead => StatusCode::BAD_REQUEST,
        K::ForeignOrigin | K::UnknownHost | K::RoleMissing | K::DomainNotAllowed | K::AdminElsewhere => {
            StatusCode::FORBIDDEN
        }
        K::TokenNeeded | K::BadToken => StatusCode::UNAUTHORIZED,
        K::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
        K::EncodedBody => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        K::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
        K::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        K::BodyTimeout | K::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
        K::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        K::NoSuchCall
        | K::NoSuchDomain
        | K::NoSuchRevision
        | K::NoSuchNode
        | K::NoSuchRule
        | K::NoSuchToken => StatusCode::NOT_FOUND,
        K::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        K::NotReady | K::TooManyConnections | K::NoQuorum | K::OwnerUnreachable | K::Busy => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        K::RevisionMismatch => StatusCode::PRECONDITION_FAILED,
        K::KeyReused | K::InvalidRules | K::NoRoom => StatusCode::UNPROCESSABLE_ENTITY,
        K::NodeIsLive | K::TokenConflict => StatusCode::CONFLICT,
        K::NotEverywhereYet => StatusCode::GATEWAY_TIMEOUT,
    }
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        status_of(self.kind)
    }

    /// Whether the same request may work a little later.
    fn is_temporary(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Seconds until the same may work.
    fn retry_after(&self) -> Option<u64> {
        match self.kind {
            ProblemKind::TooManyFailures => self.members.as_ref()?.get("retry_after_s")?.as_u64(),
            _ => self.is_temporary().then_some(1),
        }
    }

    /// What a client that lacks a token is to present.
    fn challenge(&self) -> Option<&'static str> {
        match self.kind {
            ProblemKind::TokenNeeded => Some("Bearer realm=\"tidegate\""),
            ProblemKind::BadToken => Some("Bearer realm=\"tidegate\", error=\"invalid_token\""),
            _ => None,
        }
    }

    /// The document.
    pub(super) fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            line: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            column: Option<usize>,
            #[serde(flatten, skip_serializing_if = "Option::is_none")]
            members: Option<&'a Map<String, Value>>,
        }
        let document = Document {
            r#type: format!("urn:tidegate:problem:{}", self.kind.word()),
            title: self.kind.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
            members: self.members.as_deref(),
        };
        serde_json::to_vec(&document).expect("text and numbers can be written as JSON")
    }

    /// The response.
    pub(super) fn into_http(self) -> Response<Body> {
        let mut response = Response::builder()
            .status(self.status())
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::CACHE_CONTROL, "no-store");
        if let Some(after) = self.retry_after() {
            response = response.header(header::RETRY_AFTER, after);
        }
        if let Some(challenge) = self.challenge() {
            response = response.header(header::WWW_AUTHENTICATE, challenge);
        }
        // The rest of such a body is on its way, or never comes: the connection cannot be used again.
        if matches!(
            self.kind,
            ProblemKind::BodyTooLarge
                | ProblemKind::BodyTimeout
                | ProblemKind::BodyIncomplete
                | ProblemKind::EncodedBody
                | ProblemKind::UnknownCoding
                | ProblemKind::BadHead
                | ProblemKind::Busy
        ) {
            response = response.header(header::CONNECTION, "close");
        }
        if self.kind == ProblemKind::EncodedBody {
            response = response.header(header::ACCEPT_ENCODING, "identity");
        }
        response.body(Body::Left(self.to_json().into())).expect("the headers are valid")
    }

    /// The response where a call takes other methods: those of `allow`.
    pub(super) fn into_http_allowing(self, allow: &'static str) -> Response<Body> {
        let mut response = self.into_http();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        response
    }

    /// The response as bytes, for a connection that is closed after it.
    pub(super) fn into_final_response(self) -> Bytes {
        let body = self.to_json();
        let head =
            format!("{}content-length: {}\r\nconnection: close\r\n\r\n", self.first_lines(), body.len());
        [head.as_bytes(), &body].concat().into()
    }

    /// The beginning of the response, but for what depends on its body and on the connection.
    pub(super) fn first_lines(&self) -> String {
        let status = self.status();
        let retry = self.retry_after().map_or_else(String::new, |after| format!("retry-after: {after}\r\n"));
        let challenge = self
            .challenge()
            .map_or_else(String::new, |challenge| format!("www-authenticate: {challenge}\r\n"));
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncache-control: no-store\r\n{retry}{challenge}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
        )
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::TooLarge { .. } => ProblemKind::BodyTooLarge,
            BodyError::Timeout { .. } => ProblemKind::BodyTimeout,
            BodyError::Encoded => ProblemKind::EncodedBody,
            BodyError::Incomplete { .. } => ProblemKind::BodyIncomplete,
            BodyError::NoRoom => ProblemKind::Busy,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<HeadError> for Problem {
    fn from(error: HeadError) -> Self {
        let kind = match error {
            HeadError::NoHost | HeadError::TwoHosts | HeadError::NoName => ProblemKind::BadHead,
            HeadError::UnknownCoding => ProblemKind::UnknownCoding,
        };
        Self::new(kind, format!("{error}; the connection is closed"))
    }
}

impl From<TransportError> for Problem {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::TooManyConnections => Self::new(
                ProblemKind::TooManyConnections,
                "this node has as many connections as it takes (--max-connections); reuse them, or ask another node",
            ),
            TransportError::PlainText => Self::new(
                ProblemKind::BadHead,
                "this port speaks TLS: ask it by https://; the connection is closed",
            ),
            TransportError::HeadTooLarge => {
                let detail = format!(
                    "first line and headers have more than {MAX_HEAD_BYTES} bytes, or there are more than {MAX_HEADERS} headers; long values can be sent by POST; the connection is closed"
                );
                Self::new(ProblemKind::HeadTooLarge, detail)
            }
            TransportError::BadHead => Self::new(
                ProblemKind::BadHead,
                "the first line or a header is not HTTP/1.1; the connection is closed",
            ),
            TransportError::UnknownCoding => HeadError::UnknownCoding.into(),
            TransportError::SlowHead(patience) => {
                let detail = format!(
                    "the head was not complete after {} s; the connection is closed",
                    patience.as_secs()
                );
                Self::new(ProblemKind::HeadTimeout, detail)
            }
            TransportError::BrokenBody => Self::new(
                ProblemKind::BodyIncomplete,
                "the body broke off, or is not chunked as its header says; the connection is closed",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_field_and_place() {
        let problem = Problem {
            place: Some((1, 9)),
            ..Problem::of_field(ProblemKind::InvalidValue, "cost", "the cost \"x\" is no number")
        };
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(json["type"], "urn:tidegate:problem:invalid-value");
        assert_eq!(json["status"], 400);
        assert_eq!(json["field"], "cost");
        assert_eq!(json["line"], 1);
        assert_eq!(json["column"], 9);
        assert_eq!(json["detail"], "the cost \"x\" is no number");
    }

    #[test]
    fn who_lacks_a_token_is_told_what_to_present_on_both_ways() {
        for (problem, header, value) in [
            (Problem::new(ProblemKind::TokenNeeded, "none"), "www-authenticate", "Bearer realm=\"tidegate\""),
            (
                Problem::new(ProblemKind::BadToken, "another's"),
                "www-authenticate",
                "Bearer realm=\"tidegate\", error=\"invalid_token\"",
            ),
            (Problem::new(ProblemKind::TooManyFailures, "ten").with("retry_after_s", 7), "retry-after", "7"),
            (Problem::new(ProblemKind::NotReady, "yet"), "retry-after", "1"),
        ] {
            assert!(problem.first_lines().contains(&format!("{header}: {value}\r\n")), "{problem:?}");
            assert_eq!(problem.into_http().headers()[header], value);
        }
    }
}
