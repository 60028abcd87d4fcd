//! Every call but the check itself: the batch, the rules, the state of node and cluster, the metrics.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tidegate_cluster::{Amendment, Readiness, state::MAX_RULES_BYTES};

use super::{
    amend::{self, AmendOptions},
    batch,
    calls::{self, MAX_CHECK_BYTES},
    json,
    members::{self, DrainOptions, Wanted},
    openapi,
    response::Body,
    rules::{self, HistoryOptions, ReadOptions, WriteOptions},
    transport::read,
};
use crate::{
    check::{Problem, ProblemKind, echo},
    gubernator,
    metrics::{self, Sources},
    node::Node,
};

/// Bytes of the body of a rollback.
const MAX_ROLLBACK_BYTES: usize = 4096;

/// The query of a call.
type Asked<T> = Result<Query<T>, QueryRejection>;

#[derive(Clone)]
struct Lane {
    node: Arc<Node>,
    number: usize,
}

/// The routes of one lane.
pub(super) fn router(node: Arc<Node>, lane: usize) -> Router {
    Router::new()
        .route("/v1/check/batch", post(check_batch))
        .route("/v1/refund", post(refund))
        .route("/v1/reset", post(reset))
        .route("/v1/GetRateLimits", post(gubernator_limits))
        .route("/v1/HealthCheck", get(gubernator_health))
        .route("/v1/LiveCheck", get(gubernator_live))
        .route("/v1/cluster", get(cluster))
        .route("/v1/cluster/drain/{node}", post(drain))
        .route("/v1/cluster/remove/{node}", post(remove))
        .route("/v1/rules", get(all_rules))
        .route("/v1/rules/{domain}", get(rules_of_domain).put(put_rules))
        .route("/v1/rules/{domain}/history", get(rules_history))
        .route("/v1/rules/{domain}/rollback", post(roll_back_rules))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/openapi.json", get(openapi))
        .route("/", get(index))
        .fallback(no_such_call)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Lane { node, number: lane })
}

async fn check_batch(State(lane): State<Lane>, request: Request) -> Response {
    let decide = async {
        let text = read(request.into_body(), batch::MAX_BYTES).await?;
        batch::decide(&lane.node, lane.number, &text).await
    };
    match decide.await {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(problem) => lane.refuse(problem),
    }
}

async fn refund(State(lane): State<Lane>, wanted: Asked<AmendOptions>, request: Request) -> Response {
    lane.amend(Amendment::Refund, wanted, request).await
}

async fn reset(State(lane): State<Lane>, wanted: Asked<AmendOptions>, request: Request) -> Response {
    lane.amend(Amendment::Reset, wanted, request).await
}

async fn cluster(State(lane): State<Lane>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    match wanted {
        Ok(Query(wanted)) => Json(members::view(&lane.node.cluster, &wanted)).into_response(),
        Err(fault) => lane.refuse(Problem::new(ProblemKind::InvalidValue, fault.body_text())),
    }
}

async fn drain(State(lane): State<Lane>, Path(name): Path<String>, wanted: Asked<DrainOptions>) -> Response {
    let options = lane.query(wanted);
    lane.json(async { members::drain(&lane.node.cluster, &name, &options?).await }).await
}

async fn remove(State(lane): State<Lane>, Path(name): Path<String>) -> Response {
    lane.json(members::remove(&lane.node.cluster, &name)).await
}

/// Gubernator's calls, as its HTTP gateway has them.
async fn gubernator_limits(State(lane): State<Lane>, request: Request) -> Response {
    let decide = async {
        let text = read(request.into_body(), gubernator::MAX_BYTES).await?;
        let batch = gubernator::json::read(json::utf8(&text)?).map_err(|error| json::problem_of(&error))?;
        gubernator::decide(&lane.node, lane.number, &batch).await
    };
    match decide.await {
        Ok(answers) => Json(gubernator::json::Responses::from(answers)).into_response(),
        Err(problem) => lane.refuse(problem),
    }
}

async fn gubernator_health(State(lane): State<Lane>) -> Response {
    Json(gubernator::json::Health::from(gubernator::health(&lane.node))).into_response()
}

async fn gubernator_live() -> Response {
    Json(json!({})).into_response()
}

async fn all_rules(State(lane): State<Lane>, wanted: Asked<ReadOptions>) -> Response {
    let options = lane.query(wanted);
    lane.rules(async { rules::all(&lane.node, &options?).await }).await
}

async fn rules_of_domain(
    State(lane): State<Lane>,
    Path(domain): Path<String>,
    wanted: Asked<ReadOptions>,
    headers: HeaderMap,
) -> Response {
    let options = lane.query(wanted);
    lane.rules(async { rules::one(&lane.node, &domain, &options?, &headers).await }).await
}

async fn rules_history(
    State(lane): State<Lane>,
    Path(domain): Path<String>,
    wanted: Asked<HistoryOptions>,
) -> Response {
    let options = lane.query(wanted);
    lane.rules(async { rules::history(&lane.node, &domain, &options?).await }).await
}

async fn put_rules(
    State(lane): State<Lane>,
    Path(domain): Path<String>,
    wanted: Asked<WriteOptions>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let options = lane.query(wanted);
    let put = async {
        let text = read(request.into_body(), MAX_RULES_BYTES).await?;
        rules::put(&lane.node, &domain, &options?, &headers, &text).await
    };
    lane.rules(put).await
}

async fn roll_back_rules(
    State(lane): State<Lane>,
    Path(domain): Path<String>,
    wanted: Asked<WriteOptions>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let options = lane.query(wanted);
    let roll_back = async {
        let text = read(request.into_body(), MAX_ROLLBACK_BYTES).await?;
        rules::rollback(&lane.node, &domain, &options?, &headers, &text).await
    };
    lane.rules(roll_back).await
}

async fn healthz(State(lane): State<Lane>) -> Response {
    Json(json!({ "alive": true, "node": lane.node.name })).into_response()
}

async fn readyz(State(lane): State<Lane>) -> Response {
    match lane.node.cluster.readiness() {
        Readiness::Ready => match lane.node.cluster.ledger().foreign_cluster() {
            None => Json(json!({ "ready": true, "node": lane.node.name })).into_response(),
            Some(trouble) => {
                let ready = json!({ "ready": true, "node": lane.node.name, "trouble": trouble });
                Json(ready).into_response()
            }
        },
        Readiness::NotReady(reason) => Problem::new(ProblemKind::NotReady, reason).into_response(),
    }
}

async fn metrics_page(State(lane): State<Lane>) -> Response {
    let node = &*lane.node;
    let rules = node.rules.load();
    let page = metrics::render(&Sources {
        lanes: &node.metrics,
        http: &node.http,
        grpc: &node.grpc,
        resp: &node.resp,
        cluster: &node.cluster,
        router: &node.router,
        store: &node.store,
        rules: &rules,
    });
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], page).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::DOCUMENT).into_response()
}

async fn index() -> Response {
    let calls: Vec<String> = calls::all().map(|(methods, path)| format!("{methods} {path}")).collect();
    Json(json!({ "name": "tidegate", "version": env!("CARGO_PKG_VERSION"), "calls": calls })).into_response()
}

async fn no_such_call(State(lane): State<Lane>, uri: Uri) -> Response {
    let calls: Vec<String> = calls::all().map(|(methods, path)| format!("{methods} {path}")).collect();
    let detail = format!("there is no {:?}; there are: {}", echo(uri.path()), calls.join("; "));
    lane.refuse(Problem::new(ProblemKind::NoSuchCall, detail))
}

async fn method_not_allowed(State(lane): State<Lane>, method: Method, uri: Uri) -> Response {
    let allowed =
        calls::all().find(|(_, path)| calls::fits(path, uri.path())).map_or("GET", |(methods, _)| *methods);
    let detail = format!("{} takes {allowed}, not {:?}", uri.path(), echo(method.as_str()));
    let problem = Problem::new(ProblemKind::MethodNotAllowed, detail);
    lane.count(&problem);
    of_axum(problem.into_http_allowing(allowed))
}

impl Lane {
    fn query<T>(&self, wanted: Asked<T>) -> Result<T, Problem> {
        wanted
            .map(|Query(options)| options)
            .map_err(|fault| Problem::new(ProblemKind::InvalidValue, fault.body_text()))
    }

    async fn amend(&self, amendment: Amendment, wanted: Asked<AmendOptions>, request: Request) -> Response {
        let options = self.query(wanted);
        let change = async {
            let text = read(request.into_body(), MAX_CHECK_BYTES).await?;
            amend::amend(&self.node, self.number, amendment, &options?, &text).await
        };
        self.json(change).await
    }

    async fn rules(&self, answer: impl Future<Output = Result<rules::Answer, Problem>>) -> Response {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(problem) => return self.refuse(problem),
        };
        let mut response = match answer.yaml {
            Some(text) => ([(header::CONTENT_TYPE, "application/yaml")], text.to_string()).into_response(),
            None => ([(header::CONTENT_TYPE, "application/json")], answer.json).into_response(),
        };
        if let Some(tag) =
            answer.revision.and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok())
        {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    async fn json(&self, answer: impl Future<Output = Result<serde_json::Value, Problem>>) -> Response {
        match answer.await {
            Ok(answer) => Json(answer).into_response(),
            Err(problem) => self.refuse(problem),
        }
    }

    fn refuse(&self, problem: Problem) -> Response {
        self.count(&problem);
        problem.into_response()
    }

    fn count(&self, problem: &Problem) {
        self.node.metrics[self.number].count_problem(problem.kind);
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        of_axum(self.into_http())
    }
}

fn of_axum(response: hyper::Response<Body>) -> Response {
    response.map(axum::body::Body::new)
}
