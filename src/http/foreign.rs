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

use super::{json, transport::read};
use crate::{
    access::Caller,
    check::{Problem, ProblemKind, echo},
    gubernator,
    node::Node,
    throttle::json as throttlecrab,
};

#[derive(Clone)]
struct Worker {
    node: Arc<Node>,
    number: usize,
}

/// The routes of one worker.
pub(super) fn router(node: Arc<Node>, worker: usize) -> Router {
    Router::new()
        .route("/v1/GetRateLimits", post(gubernator_limits).fallback(no_such_method))
        .route("/v1/HealthCheck", get(gubernator_health).fallback(no_such_method))
        .route("/v1/LiveCheck", get(gubernator_live).fallback(no_such_method))
        .route("/throttle", post(throttle).fallback(only_post))
        .with_state(Worker { node, number: worker })
}

async fn gubernator_limits(
    State(worker): State<Worker>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let decide = async {
        let text = read(request, gubernator::MAX_BYTES, worker.node.body_part(caller.address)).await?;
        let batch = gubernator::json::read(json::utf8(&text)?).map_err(|error| json::problem_of(&error))?;
        gubernator::decide(&worker.node, worker.number, &batch, &caller).await
    };
    match decide.await {
        Ok(answers) => Json(gubernator::json::Responses::from(answers)).into_response(),
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
            ProblemKind::RoleMissing | ProblemKind::DomainNotAllowed => PERMISSION_DENIED,
            ProblemKind::TooManyFailures => RESOURCE_EXHAUSTED,
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

    /// The response of a problem, with another body.
    fn refuse(&self, problem: Problem, body: &impl Serialize) -> Response {
        self.node.metrics[self.number].count_problem(problem.kind);
        let mut response = problem.into_http().map(|_| axum::body::Body::empty());
        match serde_json::to_vec(body) {
            Ok(json) => *response.body_mut() = json.into(),
            Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
