//! The front door: `/v1/check` and `/v1/auth` are served right here, everything else by the routes.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Method, Request, Response,
    body::{Body as HttpBody, Incoming},
    service::Service,
};
use tidegate_cluster::state::Role;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::{
    answers, auth,
    calls::{AUTH_PATH, CHECK_METHODS, CHECK_PATH, MAX_CHECK_BYTES},
    foreign, guard, json, needs, query,
    response::Body,
    routes,
    transport::{ConnectionService, Credentials, FastPath, Question, Replies, TransportError, examine, read},
};
use crate::{
    access::{self, Caller, Door, Grant, Needs, Presented},
    check::{
        Begun, CheckAnswer, CheckRequest, FirstLook, Problem, ProblemKind, begin_check, check, check_here,
    },
    client_address::{NoAddress, announced},
    connections::client_of,
    node::Node,
    seats::{Seat, Seats},
    tls::Certificate,
};

/// The service of one worker.
#[derive(Clone)]
pub(crate) struct Front {
    node: Arc<Node>,
    worker: usize,
    router: axum::Router,
    /// Who is at the other end of the connection.
    peer: IpAddr,
    /// A proxy has said so.
    is_announced: bool,
    /// Where that came in.
    door: Door,
    /// What was presented last with a check on this connection, and what it is; only where checks need a token.
    known: Option<Arc<Mutex<Option<Known>>>>,
    /// What it has shown.
    certificate: Option<Arc<Certificate>>,
    /// Where connections need a seat, all of them, and the one of this connection.
    seats: Option<Arc<Seats>>,
    seat: Option<Arc<Seat>>,
}

/// A token that was looked up, or, without one, a certificate. It has no `Debug`, which would print the token.
struct Known {
    token: Option<Vec<u8>>,
    grant: Grant,
}

impl Front {
    pub(crate) fn new(node: Arc<Node>, worker: usize, door: Door) -> Self {
        let router = routes::router(Arc::clone(&node), worker);
        let peer = Ipv4Addr::UNSPECIFIED.into();
        Self {
            node,
            worker,
            router,
            peer,
            is_announced: false,
            door,
            known: None,
            certificate: None,
            seats: None,
            seat: None,
        }
    }

    /// Where connections need one of these seats.
    pub(crate) fn with_seats(self, seats: Arc<Seats>) -> Self {
        Self { seats: Some(seats), ..self }
    }

    fn seat(&self, peer: IpAddr, stream: &TcpStream) -> Option<Option<Arc<Seat>>> {
        let Some(seats) = &self.seats else { return Some(None) };
        let connection = stream.as_fd().try_clone_to_owned().ok()?;
        let seat = seats.enter(peer, self.node.trust.is_proxy(peer), connection)?;
        Some(Some(Arc::new(seat)))
    }
}

impl ConnectionService for Front {
    const FAST_PATH: Option<FastPath> = Some(FastPath { path: CHECK_PATH, max_body_bytes: MAX_CHECK_BYTES });

    async fn begin(&self, stream: &mut TcpStream) -> Option<Self> {
        let mut peer = stream.peer_addr().ok()?.ip();
        let mut is_announced = false;
        let seat = self.seat(peer, stream)?;
        if self.node.trust.expects_proxy_protocol(peer) {
            match announced(stream).await {
                Ok(announced) => {
                    is_announced = announced.is_some();
                    peer = announced.unwrap_or(peer);
                }
                Err(NoAddress::Io(_)) => return None,
                Err(fault) => {
                    tracing::debug!(from = %peer, %fault, "a connection is closed");
                    return None;
                }
            }
        }
        let known = self.node.access.guards_checks().then(Arc::default);
        Some(Self { peer, is_announced, known, seat, ..self.clone() })
    }

    fn announced(&self) -> Option<IpAddr> {
        self.is_announced.then(|| client_of(self.peer))
    }

    fn identified(self, certificate: Option<Arc<Certificate>>) -> Self {
        Self { certificate, ..self }
    }

    async fn answer(&self, question: Question<'_>, credentials: Credentials<'_>, replies: &mut Replies) {
        let parse = || match question {
            Question::Query(query) => query::parse(query),
            Question::Body(text) => json::parse(text),
        };
        let asked = match self.known {
            None => parse(),
            Some(_) => self.admit_check(token_in(credentials)).and_then(|grant| within(parse()?, &grant)),
        };
        let (node, worker) = (&*self.node, self.worker);
        let decided = match &asked {
            Ok(asked) => {
                let render = |answer: CheckAnswer<'_>| {
                    answer.write_to(replies, legacy(node), node.clock.unix_millis());
                };
                match begin_check(node, worker, asked, render) {
                    Begun::Decided(decided) => decided,
                    Begun::Waits(decided) => decided.await,
                }
            }
            Err(problem) => Err(problem.clone()),
        };
        if let Err(problem) = decided {
            node.metrics[worker].count_problem(problem.kind);
            problem.write_to(replies, node.clock.unix_millis());
        }
    }

    fn final_response(error: TransportError) -> Bytes {
        Problem::from(error).into_final_response()
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = FrontFuture;

    fn call(&self, request: Request<Incoming>) -> FrontFuture {
        let examined = examine(&request).map_err(Problem::from);
        if let Err(problem) =
            examined.and(guard::refusal(&request, &self.node.allowed_hosts).map_or(Ok(()), Err))
        {
            return self.refused(request.uri().path(), problem);
        }
        let needs = needs::of(request.method(), request.uri().path(), request.uri().query());
        let grant = match self.admit(needs, access::of_headers(request.headers())) {
            Ok(grant) => grant,
            Err(problem) => return self.refused(request.uri().path(), problem),
        };
        if let (Some(seat), Needs::Role(Role::Read | Role::Operate | Role::Admin)) = (&self.seat, needs) {
            seat.prove();
        }
        if request.uri().path() == CHECK_PATH {
            return match *request.method() {
                Method::GET => self.check_query(request, grant),
                Method::POST => self.check_body(request, grant),
                _ => {
                    let detail = "a check is asked by GET with a query, or by POST with JSON";
                    let problem = Problem::new(ProblemKind::MethodNotAllowed, detail);
                    self.node.metrics[self.worker].count_problem(problem.kind);
                    FrontFuture::Ready(Some(problem.into_http_allowing(CHECK_METHODS)))
                }
            };
        }
        if request.uri().path() == AUTH_PATH {
            return self.auth(request, grant);
        }
        let mut request = request;
        let token = access::of_headers(request.headers()).map(Box::from);
        let (certificate, address, door) = (self.certificate.clone(), self.peer, self.door);
        request.extensions_mut().insert(Caller { grant, token, certificate, address, door });
        let (node, worker, router) = (Arc::clone(&self.node), self.worker, self.router.clone());
        FrontFuture::later(async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            let answer = answers::in_room(response, node.untaken_part(address)).await;
            respond(&node, worker, answer)
        })
    }
}

/// The token that the head of a request of the fast path presents.
fn token_in(credentials: Credentials<'_>) -> Option<&[u8]> {
    access::of_values(credentials.token, credentials.authorization)
}

/// The check, if its domain is one that may be asked about.
fn within<'a>(asked: CheckRequest<'a>, grant: &Grant) -> Result<CheckRequest<'a>, Problem> {
    grant.may_ask(&asked.domain)?;
    Ok(asked)
}

/// As long for texts that differ as for those that do not.
fn are_same(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl Front {
    /// Whether a call may be made here by who presents this token, or none.
    fn admit(&self, needs: Needs, token: Option<&[u8]>) -> Result<Grant, Problem> {
        match needs {
            Needs::Role(Role::Check) => self.admit_check(token),
            needs => self.node.access.admit(needs, self.door, self.with(token), self.peer),
        }
    }

    /// What came last on this connection need not be looked up again as long as the tokens are the same.
    fn admit_check(&self, token: Option<&[u8]>) -> Result<Grant, Problem> {
        let Some(known) = &self.known else { return Ok(Grant::Nobody) };
        let access = &self.node.access;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known
            && are_same(token, known.token.as_deref())
            && access.still_counts(&known.grant)
        {
            return Ok(known.grant.clone());
        }
        let grant = access.admit(Needs::Role(Role::Check), self.door, self.with(token), self.peer)?;
        *known = Some(Known { token: token.map(<[u8]>::to_vec), grant: grant.clone() });
        Ok(grant)
    }

    fn with<'a>(&'a self, token: Option<&'a [u8]>) -> Presented<'a> {
        Presented { token, certificate: self.certificate.as_deref() }
    }

    fn check_query<B: Send + 'static>(&self, request: Request<B>, grant: Grant) -> FrontFuture {
        let asked = match query::parse(request.uri().query()).and_then(|asked| within(asked, &grant)) {
            Ok(asked) => asked,
            Err(problem) => return self.ready(Err(problem)),
        };
        let found = match check_here(&self.node, self.worker, &asked, to_response(&self.node)) {
            FirstLook::Decided(answer) => return self.ready(answer),
            FirstLook::Elsewhere(found) => found,
        };
        drop(asked);
        let (node, worker, uri) = (Arc::clone(&self.node), self.worker, request.into_parts().0.uri);
        FrontFuture::later(async move {
            let answer = match query::parse(uri.query()) {
                Ok(asked) => check(&node, worker, &asked, Some(found), to_response(&node)).await,
                Err(problem) => Err(problem),
            };
            respond(&node, worker, answer)
        })
    }

    fn check_body<B>(&self, request: Request<B>, grant: Grant) -> FrontFuture
    where
        B: HttpBody<Data = Bytes, Error: Send> + Send + Unpin + 'static,
    {
        if let Err(problem) = query::none_beside_body(request.uri().query()) {
            return self.ready(Err(problem));
        }
        let (node, worker, part) = (Arc::clone(&self.node), self.worker, self.node.body_part(self.peer));
        FrontFuture::later(async move {
            let answer = match read(request, MAX_CHECK_BYTES, part).await {
                Ok(text) => decide(&node, worker, &text, &grant).await,
                Err(error) => Err(error.into()),
            };
            respond(&node, worker, answer)
        })
    }

    fn auth<B>(&self, request: Request<B>, grant: Grant) -> FrontFuture {
        let head = request.into_parts().0;
        let asked = match auth::read(&head, self.peer, &self.node.trust) {
            Ok(asked) => asked,
            Err(problem) => return self.ready(Err(problem)),
        };
        if let Err(problem) = grant.may_ask(&asked.check.domain) {
            return self.ready(Err(problem));
        }
        let denial = asked.denial;
        let render = |answer: CheckAnswer<'_>| answer.to_auth_response(legacy(&self.node), denial);
        let found = match check_here(&self.node, self.worker, &asked.check, render) {
            FirstLook::Decided(answer) => return self.ready(answer),
            FirstLook::Elsewhere(found) => found,
        };
        drop(asked);
        let (node, worker, peer) = (Arc::clone(&self.node), self.worker, self.peer);
        FrontFuture::later(async move {
            let answer = match auth::read(&head, peer, &node.trust) {
                Ok(asked) => {
                    let render = |answer: CheckAnswer<'_>| answer.to_auth_response(legacy(&node), denial);
                    check(&node, worker, &asked.check, Some(found), render).await
                }
                Err(problem) => Err(problem),
            };
            respond(&node, worker, answer)
        })
    }

    /// A request that comes to no call, in the form that the clients of the call read.
    fn refused(&self, path: &str, problem: Problem) -> FrontFuture {
        self.node.metrics[self.worker].count_problem(problem.kind);
        FrontFuture::Ready(Some(foreign::response_at(path, problem)))
    }

    fn ready(&self, answer: Result<Response<Body>, Problem>) -> FrontFuture {
        FrontFuture::Ready(Some(respond(&self.node, self.worker, answer)))
    }
}

async fn decide(node: &Node, worker: usize, text: &[u8], grant: &Grant) -> Result<Response<Body>, Problem> {
    let asked = within(json::parse(text)?, grant)?;
    match begin_check(node, worker, &asked, to_response(node)) {
        Begun::Decided(answer) => answer,
        Begun::Waits(answer) => answer.await,
    }
}

fn to_response(node: &Node) -> impl Fn(CheckAnswer<'_>) -> Response<Body> {
    move |answer| answer.to_response(legacy(node))
}

/// What is added to `X-RateLimit-Reset`; none: there are no headers of that kind.
fn legacy(node: &Node) -> Option<Duration> {
    node.legacy_headers.offset(node.clock)
}

fn respond(node: &Node, worker: usize, answer: Result<Response<Body>, Problem>) -> Response<Body> {
    answer.unwrap_or_else(|problem| {
        node.metrics[worker].count_problem(problem.kind);
        problem.into_http()
    })
}

/// An answer that is there, or will be. A check decided here costs neither a box nor a state to move around.
pub(crate) enum FrontFuture {
    Ready(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl FrontFuture {
    fn later(future: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl Future for FrontFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(answer) => {
                Poll::Ready(Ok(answer.take().expect("it is polled until it is ready, not after")))
            }
            Self::Later(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}
