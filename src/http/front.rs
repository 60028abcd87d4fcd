//! The front door: `/v1/check` is served right here, everything else by the router.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use bytes::Bytes;
use hyper::{
    Method, Request, Response,
    body::{Body as HttpBody, Incoming},
    service::Service,
};
use tower::ServiceExt as _;

use super::{
    Body,
    answer::Answer,
    body::{self, MAX_CHECK_BYTES},
    check::check,
    json,
    problem::{Kind, Problem},
    query, routes,
};
use crate::node::Node;

/// The hot call.
pub(super) const CHECK_PATH: &str = "/v1/check";
/// Its methods.
pub(super) const CHECK_METHODS: &str = "GET, POST";

/// The service of one lane.
#[derive(Clone)]
pub(crate) struct Front {
    node: Arc<Node>,
    lane: usize,
    router: axum::Router,
}

impl Front {
    pub(crate) fn new(node: Arc<Node>, lane: usize) -> Self {
        let router = routes::router(Arc::clone(&node), lane);
        Self { node, lane, router }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if request.uri().path() == CHECK_PATH {
            let node = Arc::clone(&self.node);
            let lane = self.lane;
            return Box::pin(async move { Ok(serve_check(&node, lane, request).await) });
        }
        let router = self.router.clone();
        Box::pin(async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            Ok(response.map(Body::Right))
        })
    }
}

async fn serve_check<B>(node: &Node, lane: usize, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let answer = match *request.method() {
        Method::GET => match query::parse(request.uri().query()) {
            Ok(asked) => check(node, lane, &asked, |answer: Answer<'_>| answer.to_response()).await,
            Err(problem) => Err(problem),
        },
        Method::POST => match body::read(request.into_body(), MAX_CHECK_BYTES).await {
            Ok(text) => match json::parse(&text) {
                Ok(asked) => check(node, lane, &asked, |answer: Answer<'_>| answer.to_response()).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        },
        _ => Err(Problem {
            allow: Some(CHECK_METHODS),
            ..Problem::new(
                Kind::MethodNotAllowed,
                "a check is asked by GET with a query, or by POST with JSON",
            )
        }),
    };
    answer.unwrap_or_else(|problem| {
        node.metrics[lane].count_problem(problem.kind);
        problem.into_http()
    })
}
