//! What goes wrong, told as `application/problem+json` (RFC 9457).

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use hyper::{Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Body;

/// Bytes of a request's first line and headers.
pub(super) const MAX_HEAD_BYTES: usize = 16 << 10;
/// Headers of a request.
pub(super) const MAX_HEADERS: usize = 64;
/// Characters of a client's text that are repeated to it.
const MAX_ECHO: usize = 80;

pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// The kinds of problems. Clients can tell them apart by `type`, which is `urn:tidegate:problem:` and the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NotJson,
    InvalidUtf8,
    UnknownField,
    MissingField,
    InvalidValue,
    ValueTooLarge,
    DuplicateParameter,
    BodyTooLarge,
    BodyTimeout,
    BodyIncomplete,
    BadHead,
    HeadTooLarge,
    HeadTimeout,
    NoSuchCall,
    MethodNotAllowed,
    NotReady,
    TooManyConnections,
    NoSuchDomain,
    NoSuchRevision,
    RevisionMismatch,
    KeyReused,
    InvalidRules,
    NoRoom,
    NoQuorum,
    NotEverywhereYet,
    NoSuchNode,
    NodeIsLive,
    OwnerUnreachable,
}

impl Kind {
    pub(crate) const ALL: [Self; 28] = [
        Self::NotJson,
        Self::InvalidUtf8,
        Self::UnknownField,
        Self::MissingField,
        Self::InvalidValue,
        Self::ValueTooLarge,
        Self::DuplicateParameter,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BodyIncomplete,
        Self::BadHead,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::NoSuchCall,
        Self::MethodNotAllowed,
        Self::NotReady,
        Self::TooManyConnections,
        Self::NoSuchDomain,
        Self::NoSuchRevision,
        Self::RevisionMismatch,
        Self::KeyReused,
        Self::InvalidRules,
        Self::NoRoom,
        Self::NoQuorum,
        Self::NotEverywhereYet,
        Self::NoSuchNode,
        Self::NodeIsLive,
        Self::OwnerUnreachable,
    ];

    /// The word for it: the end of `type`, and a label in the metrics.
    pub(crate) fn word(self) -> &'static str {
        self.parts().0
    }

    fn title(self) -> &'static str {
        self.parts().1
    }

    fn status(self) -> StatusCode {
        self.parts().2
    }

    fn parts(self) -> (&'static str, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Self::NotJson => ("not-json", "The body is not JSON", S::BAD_REQUEST),
            Self::InvalidUtf8 => ("invalid-utf8", "The text is not UTF-8", S::BAD_REQUEST),
            Self::UnknownField => ("unknown-field", "There is no such field", S::BAD_REQUEST),
            Self::MissingField => ("missing-field", "A field is missing", S::BAD_REQUEST),
            Self::InvalidValue => ("invalid-value", "A value can not be", S::BAD_REQUEST),
            Self::ValueTooLarge => ("value-too-large", "A value is too large", S::BAD_REQUEST),
            Self::DuplicateParameter => ("duplicate-parameter", "A parameter is given twice", S::BAD_REQUEST),
            Self::BodyTooLarge => ("body-too-large", "The body is too large", S::PAYLOAD_TOO_LARGE),
            Self::BodyTimeout => ("body-timeout", "The body took too long", S::REQUEST_TIMEOUT),
            Self::BodyIncomplete => ("body-incomplete", "The body broke off", S::BAD_REQUEST),
            Self::BadHead => ("bad-request", "The request is not HTTP/1.1", S::BAD_REQUEST),
            Self::HeadTooLarge => {
                ("head-too-large", "The request's head is too large", S::REQUEST_HEADER_FIELDS_TOO_LARGE)
            }
            Self::HeadTimeout => ("head-timeout", "The request's head took too long", S::REQUEST_TIMEOUT),
            Self::NoSuchCall => ("no-such-call", "There is no such call", S::NOT_FOUND),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "The call has another method", S::METHOD_NOT_ALLOWED)
            }
            Self::NotReady => ("not-ready", "This node can not decide yet", S::SERVICE_UNAVAILABLE),
            Self::TooManyConnections => {
                ("too-many-connections", "Too many connections", S::SERVICE_UNAVAILABLE)
            }
            Self::NoSuchDomain => ("no-such-domain", "The domain has no rules", S::NOT_FOUND),
            Self::NoSuchRevision => ("no-such-revision", "There is no such revision", S::NOT_FOUND),
            Self::RevisionMismatch => {
                ("revision-mismatch", "The rules have changed meanwhile", S::PRECONDITION_FAILED)
            }
            Self::KeyReused => {
                ("key-reused", "The idempotency key was used for another write", S::UNPROCESSABLE_ENTITY)
            }
            Self::InvalidRules => ("invalid-rules", "The rules can not be used", S::UNPROCESSABLE_ENTITY),
            Self::NoRoom => ("no-room", "There is no room for these rules", S::UNPROCESSABLE_ENTITY),
            Self::NoQuorum => ("no-quorum", "Most voters can not be reached", S::SERVICE_UNAVAILABLE),
            Self::NoSuchNode => ("no-such-node", "There is no such node", S::NOT_FOUND),
            Self::NodeIsLive => ("node-is-live", "The node is alive", S::CONFLICT),
            Self::OwnerUnreachable => {
                ("owner-unreachable", "The owner of a bucket can not be reached", S::SERVICE_UNAVAILABLE)
            }
            Self::NotEverywhereYet => {
                ("not-everywhere-yet", "Written, but not yet in force everywhere", S::GATEWAY_TIMEOUT)
            }
        }
    }

    /// Whether the same request may work a little later.
    fn is_temporary(self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }
}

/// One problem.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) detail: Cow<'static, str>,
    /// The field or parameter it is about, as in `attributes.ip`.
    pub(crate) field: Option<String>,
    /// Where in the body, from 1.
    pub(crate) place: Option<(usize, usize)>,
    /// For [`Kind::MethodNotAllowed`].
    pub(crate) allow: Option<&'static str>,
    /// What else there is to say, for programs.
    pub(crate) members: Option<Box<Map<String, Value>>>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), field: None, place: None, allow: None, members: None }
    }

    /// The problem of a request that hyper can not parse. The connection is closed after it.
    pub(super) fn of_head(error: &hyper::Error) -> Option<Self> {
        if error.is_parse_too_large() {
            let detail = format!(
                "first line and headers have more than {MAX_HEAD_BYTES} bytes, or there are more than {MAX_HEADERS} headers; long values can be sent by POST; the connection is closed"
            );
            return Some(Self::new(Kind::HeadTooLarge, detail));
        }
        let detail = "the first line or a header is not HTTP/1.1; the connection is closed";
        error.is_parse().then(|| Self::new(Kind::BadHead, detail))
    }

    /// The problem of a request whose body ended before its end, or is not chunked as it should be.
    pub(super) fn of_broken_body() -> Self {
        Self::new(
            Kind::BodyIncomplete,
            "the body broke off, or is not chunked as its header says; the connection is closed",
        )
    }

    /// The problem of a request whose head does not end.
    pub(super) fn of_slow_head(patience: Duration) -> Self {
        let detail =
            format!("the head was not complete after {} s; the connection is closed", patience.as_secs());
        Self::new(Kind::HeadTimeout, detail)
    }

    /// With one more member in the document.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// A problem with a field or parameter.
    pub(crate) fn of_field(
        kind: Kind,
        field: impl Into<String>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: Some(field.into()), ..Self::new(kind, detail) }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The document.
    pub(crate) fn to_json(&self) -> Vec<u8> {
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
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
            members: self.members.as_deref(),
        };
        serde_json::to_vec(&document).expect("text and numbers can be written as JSON")
    }

    /// The answer.
    pub(crate) fn into_http(self) -> Response<Body> {
        let mut response = Response::builder()
            .status(self.status())
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::CACHE_CONTROL, "no-store");
        if let Some(allow) = self.allow {
            response = response.header(header::ALLOW, allow);
        }
        if self.kind.is_temporary() {
            response = response.header(header::RETRY_AFTER, "1");
        }
        // The rest of such a body is on its way, or never comes: the connection can not be used again.
        if matches!(self.kind, Kind::BodyTooLarge | Kind::BodyTimeout | Kind::BodyIncomplete) {
            response = response.header(header::CONNECTION, "close");
        }
        response.body(Body::Left(self.to_json().into())).expect("the headers are valid")
    }

    /// The answer as bytes, for a connection that is closed after it.
    pub(super) fn into_last_words(self) -> Bytes {
        let body = self.to_json();
        let head =
            format!("{}content-length: {}\r\nconnection: close\r\n\r\n", self.first_lines(), body.len());
        [head.as_bytes(), &body].concat().into()
    }

    /// The beginning of the response, but for what depends on its body and on the connection.
    pub(super) fn first_lines(&self) -> String {
        let status = self.status();
        let retry = if self.kind.is_temporary() { "retry-after: 1\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncache-control: no-store\r\n{retry}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
        )
    }
}

/// A client's text, short enough to be repeated to it.
pub(crate) fn echo(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_ECHO) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// The answer to a connection above the cap.
pub(super) fn too_many_connections() -> Bytes {
    let detail =
        "this node has as many connections as it takes (--max-connections); reuse them, or ask another node";
    Problem::new(Kind::TooManyConnections, detail).into_last_words()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_field_and_place() {
        let problem = Problem {
            place: Some((1, 9)),
            ..Problem::of_field(Kind::InvalidValue, "cost", "the cost \"x\" is no number")
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
    fn each_kind_has_a_word_of_its_own() {
        let mut words: Vec<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(echo("short"), "short");
        let long = "ä".repeat(100);
        assert_eq!(echo(&long).chars().count(), MAX_ECHO + 1);
    }
}
