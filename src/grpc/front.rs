//! The services of one worker thread.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::Service,
};
use pin_project_lite::pin_project;
use tidegate_proto::grpc::{
    DEFINITIONS, envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer,
    pb::gubernator::v1_server::V1Server,
};
use tokio::time::timeout;
use tonic::{Status, body::Body, service::Routes};
use tonic_health::pb::{FILE_DESCRIPTOR_SET as HEALTH, health_server::HealthServer};
use tonic_reflection::server::Builder as Reflection;
use tower::Service as _;

use super::{envoy::Envoy, gubernator::Gubernator, health::NodeHealth};
use crate::{gubernator, node::Node};

/// Where Envoy asks.
const ENVOY: &str = "/envoy.service.ratelimit.v3.RateLimitService/";
/// Where clients of Gubernator ask.
const GUBERNATOR: &str = "/pb.gubernator.V1/";
/// Bytes of one request of Envoy's.
const MAX_ENVOY_BYTES: usize = 64 << 10;
/// Requests that one worker thread answers at a time, of all connections: each can hold its headers in memory.
const MAX_OPEN: usize = 16 << 10;
/// The same of what is not asked often: streams of health and reflection live as long as the client likes.
const MAX_OPEN_OTHERS: usize = 256;
/// For one request, from its headers to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Front {
    envoy: RateLimitServiceServer<Envoy>,
    gubernator: V1Server<Gubernator>,
    /// What is not asked often.
    others: Routes,
    open: Arc<AtomicUsize>,
    open_others: Arc<AtomicUsize>,
}

impl Front {
    pub(super) fn new(node: Arc<Node>, lane: usize) -> Self {
        let envoy = RateLimitServiceServer::new(Envoy::new(Arc::clone(&node), lane))
            .max_decoding_message_size(MAX_ENVOY_BYTES);
        let gubernator = V1Server::new(Gubernator::new(Arc::clone(&node), lane))
            .max_decoding_message_size(gubernator::MAX_BYTES);
        let others = Routes::new(HealthServer::new(NodeHealth::new(node)));
        let described = || {
            Reflection::configure()
                .register_encoded_file_descriptor_set(DEFINITIONS)
                .register_encoded_file_descriptor_set(HEALTH)
        };
        let others = match (described().build_v1(), described().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => others.add_service(v1).add_service(v1alpha),
            // Only if the definitions could not be read, which a test sees.
            _ => others,
        };
        Self {
            envoy,
            gubernator,
            others: others.prepare(),
            open: Arc::default(),
            open_others: Arc::default(),
        }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        let (is_envoy, is_gubernator) = (path.starts_with(ENVOY), path.starts_with(GUBERNATOR));
        let (counter, max) = if is_envoy || is_gubernator {
            (&self.open, MAX_OPEN)
        } else {
            (&self.open_others, MAX_OPEN_OTHERS)
        };
        let Some(open) = Open::count(counter, max) else {
            let busy = Status::resource_exhausted("this node answers as many requests as it can; try again");
            return Box::pin(async { Ok(busy.into_http()) });
        };
        if is_envoy {
            return in_time(open, self.envoy.clone().call(request));
        }
        if is_gubernator {
            return in_time(open, self.gubernator.clone().call(request));
        }
        let answer = self.others.clone().call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Held { body, _open: open }))) })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn in_time(open: Open, answer: Answer) -> Answer {
    Box::pin(async move {
        let _open = open;
        timeout(REQUEST_TIMEOUT, answer).await.unwrap_or_else(|_elapsed| {
            let late = format!("the request was not complete after {} s", REQUEST_TIMEOUT.as_secs());
            Ok(Status::deadline_exceeded(late).into_http())
        })
    })
}

/// A request that is being answered.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        // Only this worker thread counts here.
        if open.load(Relaxed) >= max {
            return None;
        }
        open.fetch_add(1, Relaxed);
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

pin_project! {
    /// An answer that is counted until its end.
    struct Held {
        #[pin]
        body: Body,
        _open: Open,
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
