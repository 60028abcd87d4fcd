//! The service around a service.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Either, Full};
use tower_service::Service;

use crate::{
    answer::Answer,
    layer::{OnFailure, Tidegate},
    refusal::{Refusal, is_grpc},
};

/// A service whose requests are limited; made by the layer [`Tidegate`].
#[derive(Debug, Clone)]
pub struct Limited<S> {
    inner: S,
    tidegate: Tidegate,
}

/// The body of an answer: the service's own, or what a request that did not run is answered.
pub type LimitedBody<B> = Either<B, Full<Bytes>>;

impl<S> Limited<S> {
    pub(crate) fn new(inner: S, tidegate: Tidegate) -> Self {
        Self { inner, tidegate }
    }
}

impl<S> tower_layer::Layer<S> for Tidegate {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited::new(inner, self.clone())
    }
}

impl<S, B, R> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: 'static,
{
    type Response = Response<LimitedBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is taken; its clone may have to become so.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let tidegate = self.tidegate.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let grpc = is_grpc(&parts.headers);
            let answer = match tidegate.check(&parts).await {
                Ok(answer) => answer,
                Err(_) if tidegate.on_failure() == OnFailure::Allow => {
                    return Ok(inner.call(Request::from_parts(parts, body)).await?.map(Either::Left));
                }
                Err(_) => return Ok(refused(tidegate.response(&Refusal::new(&parts, None, grpc)))),
            };
            if !answer.allowed {
                return Ok(refused(tidegate.response(&Refusal::new(&parts, Some(&answer), grpc))));
            }
            if !answer.delay.is_zero() {
                // A leaky bucket is a queue: it is charged, and it is not its turn yet.
                tokio::time::sleep(answer.delay).await;
            }
            let headers = answer.headers().clone();
            parts.extensions.insert::<Answer>(answer);
            let mut response = inner.call(Request::from_parts(parts, body)).await?;
            response.headers_mut().extend(headers);
            Ok(response.map(Either::Left))
        })
    }
}

fn refused<R>(response: Response<Bytes>) -> Response<LimitedBody<R>> {
    response.map(|body| Either::Right(Full::new(body)))
}
