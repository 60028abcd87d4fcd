//! What was decided about a request.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The headers that a node's answer has and the caller of the service gets, too.
pub(crate) const PASSED_ON: [HeaderName; 6] = [
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    header::RETRY_AFTER,
];

/// What was decided about a request. Handlers find it in the extensions of a request that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Whether the request may run.
    pub allowed: bool,
    /// The rule that binds most; none if no rule is about the request.
    pub rule: Option<String>,
    /// Units that the rule's bucket holds when it is full.
    pub limit: Option<u64>,
    /// Units that it holds now.
    pub remaining: Option<u64>,
    /// When the same request would be allowed; none if it was, or never will be.
    pub retry_after: Option<Duration>,
    /// How long the request was held back, or would have been (the queue of a leaky bucket).
    pub delay: Duration,
    /// Who decided: `owner`, `forwarded`, `share`, `fallback`, `unmatched`, or `local` without a node.
    pub decided_by: String,
    pub(crate) headers: HeaderMap,
}

impl Answer {
    /// The headers for the caller: `RateLimit`, `RateLimit-Policy`, `X-RateLimit-*`, `Retry-After`.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// Whole seconds, rounded up, so that a caller that waits for them waits long enough.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// The value of `Retry-After` (RFC 9110, 10.2.3): whole seconds, never 0.
pub(crate) fn retry_after(time: Duration) -> HeaderValue {
    seconds(time).max(1).into()
}
