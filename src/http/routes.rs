//! Every call but the check itself: the batch, the rules, the state of node and cluster, the metrics.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Extension, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use tidegate_cluster::{
    Amendment, Readiness,
    state::{MAX_RULES_BYTES, Role},
};

use super::{
    amend::{self, AmendOptions},
    audit::{self, AuditOptions},
    backup::{self, SlotOptions},
    batch,
    calls::{self, MAX_CHECK_BYTES},
    explain, foreign, json,
    members::{self, DrainOptions, Wanted},
    openapi, query,
    response::Body,
    rules::{self, HistoryOptions, ReadOptions, WriteOptions},
    tokens,
    transport::read,
};
use crate::{
    access::Caller,
    check::{Problem, ProblemKind, echo},
    metrics::{self, Sources},
    node::Node,
    parts::Part,
};

/// Bytes of the body of a rollback.
const MAX_ROLLBACK_BYTES: usize = 4096;
/// Bytes of the body of a call that makes a token.
const MAX_TOKEN_BYTES: usize = 32 << 10;

/// The query of a call.
type Asked<T> = Result<Query<T>, QueryRejection>;

#[derive(Clone)]
struct OnWorker {
    node: Arc<Node>,
    number: usize,
}

/// The routes of one worker.
pub(super) fn router(node: Arc<Node>, worker: usize) -> Router {
    Router::new()
        .route("/v1/check/batch", post(check_batch))
        .route("/v1/refund", post(refund))
        .route("/v1/reset", post(reset))
        .route("/v1/explain", get(explain_query).post(explain_body))
        .route("/v1/cluster", get(cluster))
        .route("/v1/cluster/drain/{node}", post(drain))
        .route("/v1/cluster/remove/{node}", post(remove))
        .route("/v1/tokens", get(all_tokens).post(make_token))
        .route("/v1/tokens/{token}", delete(revoke_token))
        .route("/v1/audit", get(audit_trail))
        .route("/v1/backup", get(backup_beginning))
        .route("/v1/backup/buckets", get(backup_buckets))
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
        .with_state(OnWorker { node: Arc::clone(&node), number: worker })
        .merge(foreign::router(node, worker))
}

async fn check_batch(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let decide = async {
        let text = read(request, batch::MAX_BYTES, worker.node.body_part(caller.address)).await?;
        let room = worker.node.untaken_part(caller.address);
        batch::decide(&worker.node, worker.number, &text, &caller.grant, room).await
    };
    match decide.await {
        Ok((json, room)) => {
            (Extension(room), [(header::CONTENT_TYPE, "application/json")], json).into_response()
        }
        Err(problem) => worker.refuse(problem),
    }
}

async fn refund(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    wanted: Asked<AmendOptions>,
    request: Request,
) -> Response {
    worker.amend(Amendment::Refund, &caller, wanted, request).await
}

async fn reset(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    wanted: Asked<AmendOptions>,
    request: Request,
) -> Response {
    worker.amend(Amendment::Reset, &caller, wanted, request).await
}

async fn explain_query(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    let explained = async { explain::view(&worker.node, worker.number, &query::parse(uri.query())?).await };
    worker.json(worker.told_to(&caller, Role::Read, explained)).await
}

async fn explain_body(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let explained = async {
        query::none_beside_body(request.uri().query())?;
        let text = read(request, MAX_CHECK_BYTES, worker.node.body_part(caller.address)).await?;
        explain::view(&worker.node, worker.number, &json::parse(&text)?).await
    };
    worker.json(worker.told_to(&caller, Role::Read, explained)).await
}

async fn cluster(State(worker): State<OnWorker>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    match wanted {
        Ok(Query(wanted)) => {
            Json(members::view(&worker.node.cluster, worker.node.readiness(), &wanted)).into_response()
        }
        Err(fault) => worker.refuse(Problem::new(ProblemKind::InvalidValue, fault.body_text())),
    }
}

async fn drain(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    wanted: Asked<DrainOptions>,
) -> Response {
    let options = worker.query(wanted);
    worker.json(async { members::drain(&worker.node.cluster, &name, &options?, caller.actor()).await }).await
}

async fn remove(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Response {
    worker.json(members::remove(&worker.node.cluster, &name, caller.actor())).await
}

async fn all_tokens(State(worker): State<OnWorker>, Extension(caller): Extension<Caller>) -> Response {
    worker.json(worker.told_to(&caller, Role::Admin, async { Ok(tokens::all(&worker.node)) })).await
}

async fn make_token(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let make = async {
        let part = worker.node.administrative_body_part(caller.address);
        let text = read(request, MAX_TOKEN_BYTES, part).await?;
        tokens::make(&worker.node, &caller, &text).await
    };
    match make.await {
        // It is told once, and is nothing for a cache.
        Ok(made) => (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response(),
        Err(problem) => worker.refuse(problem),
    }
}

async fn revoke_token(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    Path(token): Path<String>,
) -> Response {
    worker.json(tokens::revoke(&worker.node, &caller, &token)).await
}

async fn audit_trail(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    wanted: Asked<AuditOptions>,
) -> Response {
    let options = worker.query(wanted);
    let view = async {
        let options = options?;
        let applied = worker.node.cluster.ledger().applied();
        Ok(audit::view(&worker.node.name, &applied, &options))
    };
    match worker.told_to(&caller, Role::Read, view).await {
        Ok(view) => Json(view).into_response(),
        Err(problem) => worker.refuse(problem),
    }
}

async fn backup_beginning(State(worker): State<OnWorker>, Extension(caller): Extension<Caller>) -> Response {
    worker.bytes(worker.told_to(&caller, Role::Admin, backup::beginning(&worker.node))).await
}

async fn backup_buckets(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    wanted: Asked<SlotOptions>,
) -> Response {
    let options = worker.query(wanted);
    let buckets = async { backup::buckets(&worker.node, &options?).await };
    worker.bytes(worker.told_to(&caller, Role::Admin, buckets)).await
}

async fn all_rules(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    wanted: Asked<ReadOptions>,
) -> Response {
    let options = worker.query(wanted);
    let all = async { rules::all(&worker.node, &options?).await };
    worker.rules(worker.told_to(&caller, Role::Read, all)).await
}

async fn rules_of_domain(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    Path(domain): Path<String>,
    wanted: Asked<ReadOptions>,
    headers: HeaderMap,
) -> Response {
    let options = worker.query(wanted);
    let one = async { rules::one(&worker.node, &domain, &options?, &headers).await };
    worker.rules(worker.told_to(&caller, Role::Read, one)).await
}

async fn rules_history(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    Path(domain): Path<String>,
    wanted: Asked<HistoryOptions>,
) -> Response {
    let options = worker.query(wanted);
    let history = async { rules::history(&worker.node, &domain, &options?).await };
    worker.rules(worker.told_to(&caller, Role::Read, history)).await
}

async fn put_rules(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    Path(domain): Path<String>,
    wanted: Asked<WriteOptions>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let options = worker.query(wanted);
    let put = async {
        let part = worker.rules_part(&caller, &options);
        let text = read(request, MAX_RULES_BYTES, part).await?;
        rules::put(&worker.node, &domain, &options?, &headers, &text, caller.actor()).await
    };
    worker.rules(put).await
}

async fn roll_back_rules(
    State(worker): State<OnWorker>,
    Extension(caller): Extension<Caller>,
    Path(domain): Path<String>,
    wanted: Asked<WriteOptions>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let options = worker.query(wanted);
    let roll_back = async {
        let part = worker.rules_part(&caller, &options);
        let text = read(request, MAX_ROLLBACK_BYTES, part).await?;
        rules::rollback(&worker.node, &domain, &options?, &headers, &text, caller.actor()).await
    };
    worker.rules(roll_back).await
}

async fn healthz(State(worker): State<OnWorker>) -> Response {
    Json(serde_json::json!({ "alive": true, "node": worker.node.name })).into_response()
}

async fn readyz(State(worker): State<OnWorker>) -> Response {
    match worker.node.readiness() {
        Readiness::Ready => match worker.node.cluster.ledger().foreign_cluster() {
            None => Json(serde_json::json!({ "ready": true, "node": worker.node.name })).into_response(),
            Some(trouble) => {
                let ready =
                    serde_json::json!({ "ready": true, "node": worker.node.name, "trouble": trouble });
                Json(ready).into_response()
            }
        },
        Readiness::NotReady(reason) => Problem::new(ProblemKind::NotReady, reason).into_response(),
    }
}

async fn metrics_page(State(worker): State<OnWorker>) -> Response {
    let node = &*worker.node;
    let rules = node.rules.load();
    let page = metrics::render(&Sources {
        workers: &node.metrics,
        http: &node.http,
        grpc: &node.grpc,
        resp: &node.resp,
        readiness: node.readiness(),
        cluster: &node.cluster,
        router: &node.router,
        store: &node.store,
        rules: &rules,
        certificates: &node.certificates,
        now: node.clock.unix_millis(),
    });
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], page).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::DOCUMENT).into_response()
}

async fn index() -> Response {
    let calls: Vec<String> = calls::all().map(|(methods, path)| format!("{methods} {path}")).collect();
    Json(serde_json::json!({ "name": "tidegate", "version": env!("CARGO_PKG_VERSION"), "calls": calls }))
        .into_response()
}

async fn no_such_call(State(worker): State<OnWorker>, uri: Uri) -> Response {
    let calls: Vec<String> = calls::all().map(|(methods, path)| format!("{methods} {path}")).collect();
    let detail = format!("there is no {:?}; there are: {}", echo(uri.path()), calls.join("; "));
    worker.refuse(Problem::new(ProblemKind::NoSuchCall, detail))
}

async fn method_not_allowed(State(worker): State<OnWorker>, method: Method, uri: Uri) -> Response {
    let allowed =
        calls::all().find(|(_, path)| calls::fits(path, uri.path())).map_or("GET", |(methods, _)| *methods);
    let detail = format!("{} takes {allowed}, not {:?}", uri.path(), echo(method.as_str()));
    let problem = Problem::new(ProblemKind::MethodNotAllowed, detail);
    worker.count(&problem);
    of_axum(problem.into_http_allowing(allowed))
}

impl OnWorker {
    fn query<T>(&self, wanted: Asked<T>) -> Result<T, Problem> {
        wanted
            .map(|Query(options)| options)
            .map_err(|fault| Problem::new(ProblemKind::InvalidValue, fault.body_text()))
    }

    /// What the node knows, for a caller that may be told it when it is there: not as the call was admitted, but by the tokens of the
    /// state that the answer may be of.
    async fn told_to<T>(
        &self,
        caller: &Caller,
        role: Role,
        answer: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let answer = answer.await?;
        // No older than what was answered, and maybe newer than what has been published.
        self.node.access.publish(&self.node.cluster.ledger().applied());
        caller.may(role, &self.node.access)?;
        Ok(answer)
    }

    /// Room for the body of a call that changes rules, or only tries to, which more clients may.
    fn rules_part(&self, caller: &Caller, options: &Result<WriteOptions, Problem>) -> Part {
        match options {
            Ok(options) if !options.is_dry_run() => self.node.administrative_body_part(caller.address),
            Ok(_) | Err(_) => self.node.body_part(caller.address),
        }
    }

    async fn amend(
        &self,
        amendment: Amendment,
        caller: &Caller,
        wanted: Asked<AmendOptions>,
        request: Request,
    ) -> Response {
        let options = self.query(wanted);
        let change = async {
            let part = match amendment {
                Amendment::Reset => self.node.administrative_body_part(caller.address),
                Amendment::Refund | Amendment::RefundOf(_) => self.node.body_part(caller.address),
            };
            let text = read(request, MAX_CHECK_BYTES, part).await?;
            amend::amend(&self.node, self.number, amendment, &options?, &text, caller).await
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

    async fn bytes(&self, answer: impl Future<Output = Result<Vec<u8>, Problem>>) -> Response {
        let headers =
            [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
        match answer.await {
            Ok(bytes) => (headers, bytes).into_response(),
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
