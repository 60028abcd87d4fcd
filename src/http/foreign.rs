//! Calls of other limiters' clients: Gubernator's HTTP gateway, and throttlecrab's server. What is wrong with a request is told
//! in the form that these clients read.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Extension, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use serde_json::json;
use tidegate_limiter::cluster::DEFAULT_DOMAIN;

use super::{answers, guard, json, response::Body, transport::read};
use crate::{
    access::Caller,
    check::{Problem, ProblemKind, echo},
    gubernator,
    node::Node,
    throttle::json as throttlecrab,
};

/// Bytes of the gateway's answer to one check, about.
const GUBERNATOR_ANSWER_BYTES: usize = 192;
const THROTTLE_PATH: &str = "/throttle";
/// Paths of the gateway: its calls, in the order of `router`.
const GATEWAY_PATHS: [&str; 3] = ["/v1/GetRateLimits", "/v1/HealthCheck", "/v1/LiveCheck"];

#[derive(Clone)]
struct Worker {
    node: Arc<Node>,
    number: usize,
}

/// The routes of one worker.
pub(super) fn router(node: Arc<Node>, worker: usize) -> Router {
    Router::new()
        .route(GATEWAY_PATHS[0], post(gubernator_limits).fallback(no_such_method))
        .route(GATEWAY_PATHS[1], get(gubernator_health).fallback(no_such_method))
        .route(GATEWAY_PATHS[2], get(gubernator_live).fallback(no_such_method))
        .route(THROTTLE_PATH, post(throttle).fallback(only_post))
        .with_state(Worker { node, number: worker })
}

async fn gubernator_limits(
    State(worker): State<Worker>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let decide = async {
        let of_page = guard::page_refusal(&request, &worker.node.allowed_hosts);
        let text = read(request, gubernator::MAX_BYTES, worker.node.body_part(caller.address)).await?;
        let batch = gubernator::json::read(json::utf8(&text)?).map_err(|error| json::problem_of(&error))?;
        // Hits of a page are like those of any client; what gives units back is not.
        if let Some(problem) = of_page.filter(|_| gubernator::gives_back(&batch)) {
            return Err(problem);
        }
        let length = GUBERNATOR_ANSWER_BYTES * batch.requests.len();
        let room = answers::reserve(worker.node.untaken_part(caller.address), length)?;
        Ok((gubernator::decide(&worker.node, worker.number, &batch, &caller).await?, room))
    };
    match decide.await {
        Ok((answers, room)) => {
            (Extension(room), Json(gubernator::json::Responses::from(answers))).into_response()
        }
        Err(problem) => worker.gateway_error(problem),
    }
}

async fn gubernator_health(State(worker): State<Worker>) -> Response {
    match gubernator::health(&worker.node) {
        Ok(health) => Json(gubernator::json::Health::from(health)).into_response(),
        Err(problem) => worker.gateway_error(problem),
    }
}

async fn gubernator_live() -> Response {
    Json(json!({})).into_response()
}

/// Its gateway says so with 501.
async fn no_such_method(method: Method, uri: Uri) -> Response {
    let message = format!("Method Not Allowed: {} does not take {:?}", uri.path(), echo(method.as_str()));
    (StatusCode::NOT_IMPLEMENTED, Json(GatewayError::new(UNIMPLEMENTED, message))).into_response()
}

async fn throttle(
    State(worker): State<Worker>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let decide = async {
        caller.may_ask(DEFAULT_DOMAIN)?;
        let text = read(request, throttlecrab::MAX_BYTES, worker.node.body_part(caller.address)).await?;
        throttlecrab::decide(&worker.node, worker.number, json::utf8(&text)?).await
    };
    match decide.await {
        Ok(answer) => Json(answer).into_response(),
        Err(problem) => {
            let body = throttlecrab::Refusal::of(&problem);
            worker.refuse(problem, &body)
        }
    }
}

async fn only_post() -> Response {
    let error = json!({ "error": "/throttle is asked by POST, with JSON" });
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], Json(error)).into_response()
}

/// Codes of gRPC.
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// An error as a gateway from HTTP to gRPC writes it.
#[derive(Debug, Serialize)]
struct GatewayError {
    code: i32,
    message: String,
    details: [(); 0],
}

impl GatewayError {
    fn new(code: i32, message: String) -> Self {
        Self { code, message, details: [] }
    }

    fn of(problem: &Problem) -> Self {
        let code = match problem.kind {
            ProblemKind::NotReady | ProblemKind::OwnerUnreachable => UNAVAILABLE,
            ProblemKind::ValueTooLarge | ProblemKind::BodyTooLarge => OUT_OF_RANGE,
            ProblemKind::BodyTimeout => DEADLINE_EXCEEDED,
            ProblemKind::TokenNeeded | ProblemKind::BadToken => UNAUTHENTICATED,
            ProblemKind::RoleMissing
            | ProblemKind::DomainNotAllowed
            | ProblemKind::ForeignOrigin
            | ProblemKind::UnknownHost => PERMISSION_DENIED,
            ProblemKind::UnknownCoding => UNIMPLEMENTED,
            ProblemKind::TooManyFailures | ProblemKind::Busy => RESOURCE_EXHAUSTED,
            _ => INVALID_ARGUMENT,
        };
        let place = problem.place.map(|(line, column)| format!(" (line {line}, column {column})"));
        Self::new(code, format!("{}{}", problem.detail, place.unwrap_or_default()))
    }
}

impl Worker {
    fn gateway_error(&self, problem: Problem) -> Response {
        let body = GatewayError::of(&problem);
        self.refuse(problem, &body)
    }

    fn refuse(&self, problem: Problem, body: &impl Serialize) -> Response {
        self.node.metrics[self.number].count_problem(problem.kind);
        with_body(problem, body)
    }
}

/// The response of a problem at a path, whosever calls are there.
pub(super) fn response_at(path: &str, problem: Problem) -> hyper::Response<Body> {
    if path == THROTTLE_PATH {
        let body = throttlecrab::Refusal::of(&problem);
        return with_body(problem, &body).map(Body::Right);
    }
    if GATEWAY_PATHS.contains(&path) {
        let body = GatewayError::of(&problem);
        return with_body(problem, &body).map(Body::Right);
    }
    problem.into_http()
}

/// The response of a problem, with another body.
fn with_body(problem: Problem, body: &impl Serialize) -> Response {
    let mut response = problem.into_http().map(|_| axum::body::Body::empty());
    match serde_json::to_vec(body) {
        Ok(json) => *response.body_mut() = json.into(),
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn told(path: &str, kind: ProblemKind) -> (u16, String, serde_json::Value) {
        let response = response_at(path, Problem::new(kind, "because"));
        let (head, body) = response.into_parts();
        let form = head.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), form, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn whatever_refuses_a_call_of_others_does_it_in_their_form() {
        let (status, form, body) = told("/throttle", ProblemKind::TokenNeeded).await;
        assert_eq!((status, &*form, body), (401, "application/json", json!({ "error": "because" })));
        for path in GATEWAY_PATHS {
            for (kind, status, code) in [
                (ProblemKind::TokenNeeded, 401, UNAUTHENTICATED),
                (ProblemKind::RoleMissing, 403, PERMISSION_DENIED),
                (ProblemKind::ForeignOrigin, 403, PERMISSION_DENIED),
                (ProblemKind::TooManyFailures, 429, RESOURCE_EXHAUSTED),
            ] {
                let expected = json!({ "code": code, "message": "because", "details": [] });
                assert_eq!(
                    told(path, kind).await,
                    (status, "application/json".to_owned(), expected),
                    "{path}"
                );
            }
        }
        let (status, form, body) = told("/v1/rules", ProblemKind::TokenNeeded).await;
        assert_eq!((status, &*form, &body["detail"]), (401, "application/problem+json", &json!("because")));
    }
}
