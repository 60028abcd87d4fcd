//! Asks Tidegate nodes by HTTP, over connections that stay open.

mod choice;
mod client;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use self::{
    choice::{Health, choose},
    client::{HttpClient, NodeClient, Resolver},
};
use crate::{
    answer::{Answer, PASSED_ON},
    facts::Facts,
};

/// Bytes of an answer to a check.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// For so long a node may say that it cannot decide before its name is resolved again: it may have been replaced.
const REPLACED_AFTER: Duration = Duration::from_secs(1);
/// A node, and another one if that does not answer: more would only add load where there is trouble.
const ATTEMPTS: usize = 2;

/// Why a request has no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// No node that could be asked has answered, or all of them rest after they did not.
    #[error("no Tidegate node answers: {0}")]
    Nobody(String),
    /// The time was over.
    #[error("no Tidegate node has answered in time")]
    Late,
    /// So many requests wait already.
    #[error("too many requests wait for a decision")]
    Busy,
    /// A node says that the check is wrong; asking again would not help.
    #[error("a Tidegate node refuses the check: {0}")]
    Refused(String),
}

#[derive(Debug)]
pub(crate) struct Nodes {
    calls: Vec<Uri>,
    clients: Vec<NodeClient>,
    health: Vec<Health>,
    domain: String,
    timeout: Duration,
    max_in_flight: usize,
    charge_once: bool,
    /// What is presented.
    token: Option<HeaderValue>,
    in_flight: AtomicUsize,
    /// A check that was refused has been logged: all others of this layer are likely to be, and one line is enough.
    refusal_logged: AtomicBool,
    /// When the layer was made.
    start: Instant,
}

#[derive(Serialize)]
struct Question<'q> {
    domain: &'q str,
    attributes: BTreeMap<&'q str, &'q str>,
    cost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    allowed: bool,
    rule: Option<String>,
    limit: Option<u64>,
    remaining: Option<u64>,
    retry_after_ms: Option<u64>,
    #[serde(default)]
    delay_ms: u64,
    decided_by: String,
}

/// Why one node gave no decision.
enum Fault {
    /// Another one may.
    Node(String),
    /// Another one may. It says so itself: its connections are good.
    Answered(String),
    /// No other one would.
    Check(String),
}

impl Nodes {
    pub(crate) fn new(
        calls: Vec<Uri>,
        domain: String,
        timeout: Duration,
        max_in_flight: usize,
        charge_once: bool,
    ) -> Self {
        Self::resolved_by(&Resolver::default(), calls, domain, timeout, max_in_flight, charge_once)
    }

    /// Presents this with each check.
    pub(crate) fn presenting(self, token: Option<HeaderValue>) -> Self {
        Self { token, ..self }
    }

    fn resolved_by(
        resolver: &Resolver,
        calls: Vec<Uri>,
        domain: String,
        timeout: Duration,
        max_in_flight: usize,
        charge_once: bool,
    ) -> Self {
        let clients = calls.iter().map(|_| NodeClient::new(resolver.clone(), timeout)).collect();
        let health = calls.iter().map(|_| Health::default()).collect();
        Self {
            calls,
            clients,
            health,
            domain,
            timeout,
            max_in_flight,
            charge_once,
            token: None,
            in_flight: AtomicUsize::new(0),
            refusal_logged: AtomicBool::new(false),
            start: Instant::now(),
        }
    }

    pub(crate) async fn ask(&self, facts: &Facts) -> Result<Answer, Unanswered> {
        let _place = Place::take(&self.in_flight, self.max_in_flight).ok_or(Unanswered::Busy)?;
        let deadline = Instant::now() + self.timeout;
        let attributes =
            facts.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request_id = self.charge_once.then(|| format!("{:032x}", fastrand::u128(..)));
        let question = Question { domain: &self.domain, attributes, cost: facts.cost, request_id };
        let body = serde_json::to_vec(&question).map_err(|error| Unanswered::Refused(error.to_string()))?;
        let body = Bytes::from(body);
        let (mut tried, mut reason) = (None, "all of them rest after they did not".to_owned());
        for _ in 0..ATTEMPTS {
            let Some(place) =
                choose(&self.health, tried, self.start.elapsed(), |below| fastrand::usize(..below))
            else {
                break;
            };
            tried = Some(place);
            let _asking = self.health[place].begin();
            let client = self.clients[place].current();
            let began = self.start.elapsed();
            match timeout_at(deadline, self.ask_one(&client, place, body.clone())).await {
                Ok(Ok(answer)) => {
                    self.clients[place].answered();
                    if self.health[place].answered() {
                        info!(node = %self.calls[place], "a Tidegate node answers again");
                    }
                    return Ok(answer);
                }
                Ok(Err(Fault::Check(why))) => {
                    self.clients[place].answered();
                    if !self.refusal_logged.swap(true, SeqCst) {
                        error!(node = %self.calls[place], why, "a Tidegate node refuses checks: the layer is set up wrongly");
                    }
                    return Err(Unanswered::Refused(why));
                }
                Ok(Err(Fault::Node(why))) => {
                    self.clients[place].failed(&client, began, self.start.elapsed(), Duration::ZERO);
                    self.note_failure(place, &why);
                    reason = why;
                }
                Ok(Err(Fault::Answered(why))) => {
                    self.clients[place].failed(&client, began, self.start.elapsed(), REPLACED_AFTER);
                    self.note_failure(place, &why);
                    reason = why;
                }
                Err(_elapsed) => {
                    // The time that the node before it has taken is not this one's fault.
                    let now = self.start.elapsed();
                    if now.saturating_sub(began) >= self.timeout / 2 {
                        self.clients[place].failed(&client, began, now, Duration::ZERO);
                        self.note_failure(place, "it has not answered in time");
                    }
                    return Err(Unanswered::Late);
                }
            }
        }
        Err(Unanswered::Nobody(reason))
    }

    async fn ask_one(&self, client: &HttpClient, place: usize, body: Bytes) -> Result<Answer, Fault> {
        let node = |error: &dyn std::fmt::Display| Fault::Node(error.to_string());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.calls[place].clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        let response = client.request(request).await.map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            Fault::Node(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| node(&error))?;
        let body = body.to_bytes();
        match head.status {
            StatusCode::OK | StatusCode::TOO_MANY_REQUESTS => {
                let told: Told = serde_json::from_slice(&body).map_err(|error| node(&error))?;
                Ok(told.with(&head.headers))
            }
            // It says what is wrong, in text that is for people. Whoever says so otherwise is no node: its address may be
            // somebody else's by now.
            status if status.is_client_error() && is_problem(&head.headers) => {
                Err(Fault::Check(format!("{status}: {}", String::from_utf8_lossy(&body))))
            }
            status if is_problem(&head.headers) => Err(Fault::Answered(format!("it answers {status}"))),
            status => Err(Fault::Node(format!("it answers {status}"))),
        }
    }

    fn note_failure(&self, place: usize, reason: &str) {
        if self.health[place].failed(self.start.elapsed()) {
            warn!(node = %self.calls[place], reason, "a Tidegate node does not answer: it is left alone for a while");
        }
    }
}

/// Whether it is a problem as nodes tell it (RFC 9457).
fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/problem+json"))
}

impl Told {
    fn with(self, headers: &HeaderMap) -> Answer {
        let passed_on = PASSED_ON.into_iter().filter_map(|name| {
            let value = headers.get(&name)?.clone();
            Some((name, value))
        });
        Answer {
            allowed: self.allowed,
            rule: self.rule,
            limit: self.limit,
            remaining: self.remaining,
            retry_after: self.retry_after_ms.map(Duration::from_millis),
            delay: Duration::from_millis(self.delay_ms),
            decided_by: self.decided_by,
            headers: passed_on.collect(),
        }
    }
}

/// One of so many that may wait; given back when it is dropped.
struct Place<'p>(&'p AtomicUsize);

impl<'p> Place<'p> {
    fn take(taken: &'p AtomicUsize, most: usize) -> Option<Self> {
        if taken.fetch_add(1, SeqCst) < most {
            return Some(Self(taken));
        }
        taken.fetch_sub(1, SeqCst);
        None
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests;
