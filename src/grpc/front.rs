//! The services of one worker thread.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response};
use prost::Message;
use tidegate_cluster::state::Role;
use tidegate_proto::grpc::{
    DEFINITIONS, envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer,
    pb::gubernator::v1_server::V1Server,
};
use tokio::time::timeout;
use tonic::{Status, body::Body, service::Routes};
use tonic_health::pb::{FILE_DESCRIPTOR_SET as HEALTH, health_server::HealthServer};
use tonic_reflection::server::Builder as Reflection;
use tower::Service as _;

use super::{
    envoy::{Begun, Envoy},
    gubernator::Gubernator,
    health::NodeHealth,
    refusal::refused,
    stream::{self, Incoming},
    unary,
};
use crate::{
    access::{self, Caller, Door, Grant, Needs},
    check::Problem,
    gubernator,
    node::Node,
};

/// Where Envoy asks.
const ENVOY: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
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
    node: Arc<Node>,
    worker: usize,
    /// Who is at the other end of the connection.
    peer: IpAddr,
    envoy: Arc<Envoy>,
    gubernator: V1Server<Gubernator>,
    /// What is not asked often.
    others: Routes,
    open: Arc<AtomicUsize>,
    open_others: Arc<AtomicUsize>,
}

impl Front {
    pub(super) fn new(node: Arc<Node>, worker: usize) -> Self {
        let envoy = Arc::new(Envoy::new(Arc::clone(&node), worker));
        let gubernator = V1Server::new(Gubernator::new(Arc::clone(&node), worker))
            .max_decoding_message_size(gubernator::MAX_BYTES);
        let others = Routes::new(HealthServer::new(NodeHealth::new(Arc::clone(&node))));
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
            node,
            worker,
            peer: Ipv4Addr::UNSPECIFIED.into(),
            envoy,
            gubernator,
            others: others.prepare(),
            open: Arc::default(),
            open_others: Arc::default(),
        }
    }

    /// The front of a connection.
    pub(super) fn of(self, peer: IpAddr) -> Self {
        Self { peer, ..self }
    }

    /// Whether the client may make this call.
    fn admit(&self, request: &Request<RecvStream>) -> Result<Grant, Problem> {
        let access = &self.node.access;
        let needs = needs_of(request.uri().path());
        if needs == Needs::Role(Role::Check) && !access.guards_checks() {
            return Ok(Grant::Nobody);
        }
        access.admit(needs, Door::Public, access::of_headers(request.headers()), self.peer)
    }

    /// Answers a request: at once if that is a check that has come as a whole and is decided here, else in a task of its own.
    pub(super) fn answer(
        &self,
        mut request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        let path = request.uri().path();
        let (is_envoy, is_gubernator) = (path == ENVOY, path.starts_with(GUBERNATOR));
        let (counter, max) = if is_envoy || is_gubernator {
            (&self.open, MAX_OPEN)
        } else {
            (&self.open_others, MAX_OPEN_OTHERS)
        };
        let Some(open) = Open::count(counter, max) else {
            let busy = Status::resource_exhausted("this node answers as many requests as it can; try again");
            unary::send(&mut respond, &Err::<(), _>(busy));
            return;
        };
        let grant = match self.admit(&request) {
            Ok(grant) => grant,
            Err(problem) => {
                let status = refused(&self.node, self.worker, &problem);
                unary::send(&mut respond, &Err::<(), _>(status));
                return;
            }
        };
        let mut read = None;
        if is_envoy {
            match unary::whole(&mut request, MAX_ENVOY_BYTES, cx) {
                Ok(message) => {
                    match self.envoy.begin(message, &grant) {
                        Begun::Decided(answer) => unary::send(&mut respond, &answer),
                        Begun::Waits(rest) => spawn_unary(open, respond, rest),
                    }
                    return;
                }
                Err(begun) => read = begun,
            }
        }
        let mut request = request.map(|stream| Incoming::new(read, stream));
        let presented = access::of_headers(request.headers()).map(Box::from);
        let caller = Caller { grant, presented, address: self.peer, door: Door::Public };
        request.extensions_mut().insert(caller);
        if is_envoy {
            let service = RateLimitServiceServer::from_arc(Arc::clone(&self.envoy));
            spawn(open, respond, service.max_decoding_message_size(MAX_ENVOY_BYTES).call(request));
        } else if is_gubernator {
            spawn(open, respond, self.gubernator.clone().call(request));
        } else {
            let answer = self.others.clone().call(request);
            tokio::spawn(async move {
                // Until its end.
                let _open = open;
                if let Some(Ok(answer)) = unless_reset(&mut respond, answer).await {
                    stream::send(answer, respond).await;
                }
            });
        }
    }
}

/// What a call needs. **One that is not named here needs all.**
fn needs_of(path: &str) -> Needs {
    match path {
        ENVOY => Needs::Role(Role::Check),
        "/pb.gubernator.V1/GetRateLimits" => Needs::Role(Role::Check),
        // It names all nodes.
        "/pb.gubernator.V1/HealthCheck" => Needs::Role(Role::Check),
        "/pb.gubernator.V1/LiveCheck" => Needs::Nothing,
        path if path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.") => {
            Needs::Nothing
        }
        _ => Needs::Role(Role::Admin),
    }
}

/// Answers as a service of tonic's does.
fn spawn(
    open: Open,
    mut respond: SendResponse<Bytes>,
    answer: impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
) {
    tokio::spawn(async move {
        let answer = async { Ok(answer.await.unwrap_or_else(|never| match never {})) };
        let answer = unless_reset(&mut respond, in_time(answer)).await;
        // What is answered waits for the client, and may not keep others out.
        drop(open);
        if let Some(answer) = answer {
            stream::send(answer.unwrap_or_else(Status::into_http), respond).await;
        }
    });
}

/// Answers with one message.
fn spawn_unary<M: Message>(
    open: Open,
    mut respond: SendResponse<Bytes>,
    answer: impl Future<Output = Result<M, Status>> + Send + 'static,
) {
    tokio::spawn(async move {
        let _open = open;
        if let Some(answer) = unless_reset(&mut respond, in_time(answer)).await {
            unary::send(&mut respond, &answer);
        }
    });
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(REQUEST_TIMEOUT, answer).await.unwrap_or_else(|_elapsed| {
        let late = format!("the request was not complete after {} s", REQUEST_TIMEOUT.as_secs());
        Err(Status::deadline_exceeded(late))
    })
}

/// `None`: the client does not want the answer any more.
async fn unless_reset<T>(respond: &mut SendResponse<Bytes>, answer: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        answer = answer => Some(answer),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => None,
    }
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
