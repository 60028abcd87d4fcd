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
    outgoing::{Backlog, Outgoing},
    refusal::refused,
    stream::{self, Incoming, NotWhole},
    unary,
};
use crate::{
    access::{self, Caller, Door, Grant, Needs, Presented},
    check::Problem,
    gubernator,
    node::Node,
    parts::Room,
    tls::Certificate,
    turns::{Turn, Turns, Whose},
};

/// Where Envoy asks.
const ENVOY: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// Where clients of Gubernator ask.
const GUBERNATOR: &str = "/pb.gubernator.V1/";
/// Where load balancers ask.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// Where they hear of each change.
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
/// Where clients without our definitions ask for them.
const REFLECTION: &str = "/grpc.reflection.";
/// Bytes of one request of Envoy's.
const MAX_ENVOY_BYTES: usize = 64 << 10;
/// Bytes of one message to health or reflection.
const MAX_SMALL_BYTES: usize = 4 << 10;
/// Bytes that one stream of reflection may ask with, behind its first message: some hundreds of questions.
const REFLECTION_BYTES: usize = 32 << 10;
/// Requests that one worker thread answers at a time, of all connections. Only those count that have come as a whole: who sends
/// headers alone takes no place.
const MAX_OPEN: usize = 16 << 10;
/// Bytes of requests of one worker thread that have not come as a whole, of all clients.
const ARRIVING_BYTES: usize = 64 << 20;
/// The same of one client.
const CLIENT_ARRIVING_BYTES: usize = ARRIVING_BYTES / 8;
/// For the rest of such a request.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);
/// Streams of health and reflection of one worker thread: they live as long as their clients like.
const MAX_LONG: usize = 1024;
/// The same of one client.
const CLIENT_MAX_LONG: usize = MAX_LONG / 8;
/// The same of one connection.
const CONNECTION_MAX_LONG: usize = 8;
/// For one request that has come, to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Front {
    node: Arc<Node>,
    worker: usize,
    /// Who is at the other end of the connection.
    peer: IpAddr,
    /// What it has shown.
    certificate: Option<Arc<Certificate>>,
    /// Whose part is taken; none: of a proxy.
    client: Option<IpAddr>,
    /// Of the connection: what its requests take is counted there.
    turn: Arc<Turn>,
    envoy: Arc<Envoy>,
    gubernator: V1Server<Gubernator>,
    /// What is not asked often.
    others: Routes,
    open: Arc<AtomicUsize>,
    arriving: Arc<Room>,
    /// Answers that are not taken, of all worker threads.
    unsent: Arc<Room>,
    /// What h2 has of the connection's answers.
    backlog: Arc<Backlog>,
    long: Arc<Room>,
    /// Long streams of the connection.
    long_here: Arc<AtomicUsize>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Envoy,
    Gubernator,
    /// It is always answered: what asks for health is to hear of this node's, not of its other clients.
    HealthCheck,
    /// It is one message, and its answer goes on and on.
    HealthWatch,
    /// Both go on and on.
    Reflection,
    /// There is none of that name.
    Unknown,
}

/// How often a client asks in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Once,
    AgainAndAgain,
}

impl Front {
    pub(super) fn new(node: Arc<Node>, worker: usize, unsent: Arc<Room>) -> Self {
        let envoy = Arc::new(Envoy::new(Arc::clone(&node), worker));
        let gubernator = V1Server::new(Gubernator::new(Arc::clone(&node), worker))
            .max_decoding_message_size(gubernator::MAX_BYTES);
        let health = HealthServer::new(NodeHealth::new(Arc::clone(&node)));
        let others = Routes::new(health.max_decoding_message_size(MAX_SMALL_BYTES));
        let described = || {
            Reflection::configure()
                .register_encoded_file_descriptor_set(DEFINITIONS)
                .register_encoded_file_descriptor_set(HEALTH)
        };
        let others = match (described().build_v1(), described().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => others
                .add_service(v1.max_decoding_message_size(MAX_SMALL_BYTES))
                .add_service(v1alpha.max_decoding_message_size(MAX_SMALL_BYTES)),
            // Only if the definitions could not be read, which a test sees.
            _ => others,
        };
        Self {
            node,
            worker,
            peer: Ipv4Addr::UNSPECIFIED.into(),
            certificate: None,
            client: None,
            turn: Turns::new().of(Whose::Clients, Ipv4Addr::UNSPECIFIED.into()),
            envoy,
            gubernator,
            others: others.prepare(),
            open: Arc::default(),
            arriving: Room::new(ARRIVING_BYTES, CLIENT_ARRIVING_BYTES),
            unsent,
            backlog: Arc::default(),
            long: Room::new(MAX_LONG, CLIENT_MAX_LONG),
            long_here: Arc::default(),
        }
    }

    /// The front of a connection.
    pub(super) fn of(self, peer: IpAddr, certificate: Option<Arc<Certificate>>) -> Self {
        let client = self.node.client(peer);
        Self { peer, certificate, client, long_here: Arc::default(), backlog: Arc::default(), ..self }
    }

    /// The client has sent too much that asks for nothing.
    pub(super) fn count_noisy(&self) {
        self.node.grpc.count_noisy("gRPC", self.peer);
    }

    /// The front of a connection whose client has this turn.
    pub(super) fn in_turn(self, turn: Arc<Turn>) -> Self {
        Self { turn, ..self }
    }

    /// Whether the client may make this call.
    fn admit(&self, request: &Request<RecvStream>) -> Result<Grant, Problem> {
        let access = &self.node.access;
        let needs = needs_of(request.uri().path());
        if needs == Needs::Role(Role::Check) && !access.guards_checks() {
            return Ok(Grant::Nobody);
        }
        let token = access::of_headers(request.headers());
        let presented = Presented { token, certificate: self.certificate.as_deref() };
        access.admit(needs, Door::Public, presented, self.peer)
    }

    /// Answers a request: at once if that is a check that has come as a whole and is decided here, else in a task of its own.
    pub(super) fn answer(
        &self,
        mut request: Request<RecvStream>,
        mut respond: SendResponse<Outgoing>,
        cx: &mut Context<'_>,
    ) {
        let call = Call::of(request.uri().path());
        let grant = match self.admit(&request) {
            Ok(grant) => grant,
            Err(problem) => {
                unary::refuse(&mut respond, refused(&self.node, self.worker, &problem));
                return;
            }
        };
        let mut read = None;
        if call == Call::Envoy {
            match unary::whole(&mut request, MAX_ENVOY_BYTES, cx) {
                Ok(message) => {
                    let Some(open) = Open::count(&self.open, MAX_OPEN) else {
                        unary::refuse(&mut respond, busy());
                        return;
                    };
                    match self.envoy.begin(message, &grant) {
                        Begun::Decided(answer) => {
                            if let Some(unsent) = unary::send(&mut respond, &answer, &self.backlog) {
                                let part = self.unsent.part(self.client);
                                tokio::spawn(self.turn.count(unsent.send(part)));
                            }
                        }
                        Begun::Waits(rest) => self.spawn_unary(open, respond, rest),
                    }
                    return;
                }
                Err(begun) => read = begun,
            }
        }
        let mut request = request.map(|stream| Incoming::new(read, stream));
        let token = access::of_headers(request.headers()).map(Box::from);
        let (certificate, address, door) = (self.certificate.clone(), self.peer, Door::Public);
        let caller = Caller { grant, token, certificate, address, door };
        request.extensions_mut().insert(caller);
        let open = Some(&self.open);
        match call {
            Call::Envoy => {
                let service = RateLimitServiceServer::from_arc(Arc::clone(&self.envoy));
                let mut service = service.max_decoding_message_size(MAX_ENVOY_BYTES);
                self.spawn(request, respond, MAX_ENVOY_BYTES, open, move |request| service.call(request));
            }
            Call::Gubernator => {
                let mut service = self.gubernator.clone();
                let max = gubernator::MAX_BYTES;
                self.spawn(request, respond, max, open, move |request| service.call(request));
            }
            Call::HealthCheck => {
                let mut service = self.others.clone();
                self.spawn(request, respond, MAX_SMALL_BYTES, None, move |request| service.call(request));
            }
            Call::HealthWatch => self.spawn_long(request, respond, Asks::Once),
            Call::Reflection => {
                let request = request.map(|body| body.bounded(REFLECTION_BYTES));
                self.spawn_long(request, respond, Asks::AgainAndAgain);
            }
            Call::Unknown => unary::refuse(&mut respond, Status::unimplemented("there is no such call")),
        }
    }

    /// Answers as a service of tonic's does, as soon as the request has come as a whole. It counts as one of those that are `open`
    /// until there is an answer.
    fn spawn<F>(
        &self,
        mut request: Request<Incoming>,
        mut respond: SendResponse<Outgoing>,
        max: usize,
        open: Option<&Arc<AtomicUsize>>,
        call: impl FnOnce(Request<Incoming>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let (mut part, open) = (self.arriving.part(self.client), open.map(Arc::clone));
        let (unsent, backlog) = (self.unsent.part(self.client), Arc::clone(&self.backlog));
        let turn = Arc::clone(&self.turn);
        tokio::spawn(self.turn.count(async move {
            let answer = async {
                arrived(request.body_mut().gather(max, &mut part), max).await?;
                // A batch of two kilobytes is a millisecond of work, so it waits for a turn of its own where other clients are there, in
                // the room of its client.
                if open.is_some() && turn.has_to_wait() {
                    if !request.body().keep(&mut part) {
                        return Err(no_room());
                    }
                    turn.take(async {}).await;
                }
                drop(part);
                let _open = match &open {
                    Some(open) => Some(Open::count(open, MAX_OPEN).ok_or_else(busy)?),
                    None => None,
                };
                let answer = call(request);
                in_time(async { Ok(answer.await.unwrap_or_else(|never| match never {})) }).await
            };
            // What is answered waits for the client, and may not keep others out: it does not count any more.
            if let Some(answer) = unless_reset(&mut respond, answer).await {
                stream::send(answer.unwrap_or_else(Status::into_http), respond, &backlog, unsent).await;
            }
        }));
    }

    /// The same where the answer may go on for as long as the client likes. It counts until its end, and its service is asked only when
    /// the first message is there.
    fn spawn_long(&self, mut request: Request<Incoming>, mut respond: SendResponse<Outgoing>, asks: Asks) {
        let mut long = self.long.part(self.client);
        let here = Open::count(&self.long_here, CONNECTION_MAX_LONG);
        let Some(here) = here.filter(|_| long.grow_to(1)) else {
            let busy = Status::resource_exhausted(
                "this node has as many streams of health and reflection as it can have, or as one client can have; end one",
            );
            unary::refuse(&mut respond, busy);
            return;
        };
        let mut others = self.others.clone();
        let (mut part, unsent) = (self.arriving.part(self.client), self.unsent.part(self.client));
        let backlog = Arc::clone(&self.backlog);
        tokio::spawn(self.turn.count(async move {
            let _until_its_end = (here, long);
            let answer = async {
                let (body, max) = (request.body_mut(), MAX_SMALL_BYTES);
                match asks {
                    Asks::Once => arrived(body.gather(max, &mut part), max).await?,
                    Asks::AgainAndAgain => arrived(body.gather_first(max, &mut part), max).await?,
                }
                drop(part);
                let answer: Result<Response<Body>, Infallible> = others.call(request).await;
                Ok::<_, Status>(answer.unwrap_or_else(|never| match never {}))
            };
            if let Some(answer) = unless_reset(&mut respond, answer).await {
                stream::send(answer.unwrap_or_else(Status::into_http), respond, &backlog, unsent).await;
            }
        }));
    }

    /// Answers with one message.
    fn spawn_unary<M: Message + 'static>(
        &self,
        open: Open,
        mut respond: SendResponse<Outgoing>,
        answer: impl Future<Output = Result<M, Status>> + Send + 'static,
    ) {
        let (part, backlog) = (self.unsent.part(self.client), Arc::clone(&self.backlog));
        tokio::spawn(self.turn.count(async move {
            let answer = unless_reset(&mut respond, in_time(answer)).await;
            // What is answered waits for the client, and may not keep others out: it does not count any more.
            drop(open);
            if let Some(unsent) = answer.and_then(|answer| unary::send(&mut respond, &answer, &backlog)) {
                unsent.send(part).await;
            }
        }));
    }
}

impl Call {
    fn of(path: &str) -> Self {
        match path {
            ENVOY => Self::Envoy,
            HEALTH_CHECK => Self::HealthCheck,
            HEALTH_WATCH => Self::HealthWatch,
            path if path.starts_with(GUBERNATOR) => Self::Gubernator,
            path if path.starts_with(REFLECTION) => Self::Reflection,
            _ => Self::Unknown,
        }
    }
}

fn no_room() -> Status {
    Status::resource_exhausted(
        "this node has as many requests before it as it has room for, or as one client can send at a time; try again",
    )
}

fn busy() -> Status {
    Status::resource_exhausted("this node answers as many requests as it can; try again")
}

/// Waits until a request is there, with messages of at most `max` bytes.
async fn arrived(gathers: impl Future<Output = Result<(), NotWhole>>, max: usize) -> Result<(), Status> {
    match timeout(ARRIVES_WITHIN, gathers).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(NotWhole::NoRoom)) => Err(no_room()),
        Ok(Err(NotWhole::TooLong)) => {
            Err(Status::out_of_range(format!("the request is too large: the limit is {max} bytes")))
        }
        Ok(Err(NotWhole::BrokenOff)) => Err(Status::cancelled("the request broke off")),
        Err(_elapsed) => {
            let late = format!("the request was not complete after {} s", ARRIVES_WITHIN.as_secs());
            Err(Status::deadline_exceeded(late))
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
        path if path.starts_with("/grpc.health.v1.Health/") || path.starts_with(REFLECTION) => Needs::Nothing,
        _ => Needs::Role(Role::Admin),
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(REQUEST_TIMEOUT, answer).await.unwrap_or_else(|_elapsed| {
        let late = format!("the request was not answered after {} s", REQUEST_TIMEOUT.as_secs());
        Err(Status::deadline_exceeded(late))
    })
}

/// `None`: the client does not want the answer any more.
async fn unless_reset<T>(respond: &mut SendResponse<Outgoing>, answer: impl Future<Output = T>) -> Option<T> {
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
