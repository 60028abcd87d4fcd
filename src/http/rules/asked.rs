//! What is asked of the rules: the options of a call, and what its headers say.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use serde::Deserialize;
use tidegate_cluster::{
    ids::Revision,
    state::{Expected, MAX_REMARK_BYTES},
};
use tokio::time::Instant;

use crate::check::{Problem, ProblemKind, echo};

/// For a change to be written, and for a consistent read, unless the caller says another.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_KEY_CHARS: usize = 128;
const MAX_REMARK_CHARS: usize = 200;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a read asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReadOptions {
    #[serde(default)]
    pub(super) consistent: bool,
    pub(super) revision: Option<u64>,
    pub(super) timeout_ms: Option<u64>,
}

/// What a change asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct WriteOptions {
    #[serde(default)]
    pub(super) author: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) dry_run: bool,
    pub(super) wait: Option<Wait>,
    pub(super) timeout_ms: Option<u64>,
}

impl WriteOptions {
    /// Whether nothing is to be changed.
    pub(in crate::http) fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wait {
    All,
}

/// What the history asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct HistoryOptions {
    pub(super) limit: Option<usize>,
    #[serde(default)]
    pub(super) consistent: bool,
    pub(super) timeout_ms: Option<u64>,
}

pub(super) fn deadline(timeout_ms: Option<u64>) -> Result<Instant, Problem> {
    let timeout = timeout_ms.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    if timeout > MAX_TIMEOUT {
        let detail = format!("timeout_ms is at most {}", MAX_TIMEOUT.as_millis());
        return Err(Problem::of_field(ProblemKind::ValueTooLarge, "timeout_ms", detail));
    }
    Ok(Instant::now() + timeout)
}

/// What the headers say that must be there.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expected::Any),
        (None, Some("*")) => Ok(Expected::Absent),
        (Some(tag), None) => {
            let number = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(tag);
            number.parse().map(|revision| Expected::At(Revision::new(revision))).map_err(|_| {
                let detail = format!("If-Match takes a revision, as in \"812\", not {:?}", echo(tag));
                Problem::of_field(ProblemKind::InvalidValue, "If-Match", detail)
            })
        }
        (None, Some(_)) => Err(Problem::of_field(
            ProblemKind::InvalidValue,
            "If-None-Match",
            "If-None-Match takes only * here",
        )),
        (Some(_), Some(_)) => Err(Problem::of_field(
            ProblemKind::InvalidValue,
            "If-Match",
            "If-Match and If-None-Match exclude each other",
        )),
    }
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > MAX_KEY_CHARS || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = format!("an Idempotency-Key has 1 to {MAX_KEY_CHARS} visible ASCII characters");
        return Err(Problem::of_field(ProblemKind::InvalidValue, "Idempotency-Key", detail));
    }
    Ok(Some(key.to_owned()))
}

pub(super) fn remark(field: &'static str, text: &str) -> Result<String, Problem> {
    if text.chars().count() > MAX_REMARK_CHARS || text.len() > MAX_REMARK_BYTES {
        let detail = format!("{field} has at most {MAX_REMARK_CHARS} characters");
        return Err(Problem::of_field(ProblemKind::ValueTooLarge, field, detail));
    }
    if text.chars().any(char::is_control) {
        let detail = format!("{field} is one line without control characters");
        return Err(Problem::of_field(ProblemKind::InvalidValue, field, detail));
    }
    Ok(text.to_owned())
}
