//! Envoy's rate limit service: each descriptor of a request is decided by itself, and the request is over the limit if one
//! of them is. In a domain with `all_or_nothing` they are decided as one.
//!
//! - `descriptor`: a descriptor as a check.
//! - `status`: the answer to a check as the status of a descriptor, with the headers.

mod descriptor;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod status;

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures_util::future;
use prost::Message as _;
use smallvec::SmallVec;
use tidegate_cluster::Amendment;
use tidegate_proto::grpc::envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
    rate_limit_service_server::RateLimitService,
};
use tonic::{Request, Response, Status};

use self::{
    descriptor::Asked,
    status::{Headers, Told},
};
use super::refusal::refused;
use crate::{
    access::{Caller, Grant},
    check::{
        CheckAnswer, CheckRequest, FirstLook, Prepared, Problem, amend_as_check, check, check_group_here,
        check_here, check_together,
    },
    config::EnvoyHeaders,
    node::Node,
};

type Answer = Result<RateLimitResponse, Status>;
/// What is told of each descriptor.
type All = SmallVec<[Option<Told>; 1]>;
/// The checks that others decide, in their order.
type Elsewhere = SmallVec<[Box<Prepared>; 1]>;

/// A request of which everything is done that needs no waiting.
pub(super) enum Begun<W> {
    Decided(Answer),
    /// Other nodes are to be asked.
    Waits(W),
}

/// The service of one worker.
pub(super) struct Envoy {
    node: Arc<Node>,
    worker: usize,
}

impl Envoy {
    pub(super) fn new(node: Arc<Node>, worker: usize) -> Self {
        Self { node, worker }
    }

    /// Decides what is decided here, without waiting.
    pub(super) fn begin(
        self: &Arc<Self>,
        message: Bytes,
        grant: &Grant,
    ) -> Begun<impl Future<Output = Answer> + use<>> {
        let request = match RateLimitRequest::decode(message) {
            Ok(request) => request,
            Err(error) => return Begun::Decided(Err(Status::internal(error.to_string()))),
        };
        let mut elsewhere = Elsewhere::new();
        match self.decide_here(&request, grant, &mut elsewhere) {
            Err(problem) => Begun::Decided(Err(self.refused(&problem))),
            Ok(told) if told.iter().all(Option::is_some) => Begun::Decided(Ok(self.put_together(told))),
            Ok(told) => {
                let envoy = Arc::clone(self);
                Begun::Waits(async move { envoy.decide_rest(&request, told, elsewhere).await })
            }
        }
    }

    /// What is told of each descriptor, `None` of those that others decide.
    fn decide_here(
        &self,
        request: &RateLimitRequest,
        grant: &Grant,
        elsewhere: &mut Elsewhere,
    ) -> Result<All, Problem> {
        grant.may_ask(&request.domain)?;
        // What is wrong is told before anything is charged.
        let asked = descriptor::read(request, self.node.rules.load().ip_prefix())?;
        let with_headers = self.with_headers();
        let render = |answer: CheckAnswer<'_>| Told::of(&answer, with_headers);
        let mut group = Vec::new().into_iter();
        let asked_many = asked.len() > 1;
        if asked_many && self.decides_together(request) {
            return Ok(asked.iter().map(|_| None).collect());
        }
        if asked_many {
            let checks = asked.iter().filter_map(|asked| match asked {
                Asked::Check(request) => Some(request),
                Asked::Refund(_) | Asked::Never(_) => None,
            });
            group = check_group_here(&self.node, self.worker, checks, render, elsewhere).into_iter();
        }
        let here = |asked: &Asked<'_>| match asked {
            Asked::Check(_) if asked_many => group.next().flatten(),
            Asked::Check(request) => match check_here(&self.node, self.worker, request, render) {
                FirstLook::Decided(decided) => Some(decided),
                FirstLook::Elsewhere(found) => {
                    elsewhere.push(found);
                    None
                }
            },
            Asked::Refund(_) => None,
            Asked::Never(limit) => Some(Ok(Told::never(limit))),
        };
        asked.iter().map(here).map(Option::transpose).collect()
    }

    async fn decide_rest(&self, request: &RateLimitRequest, mut told: All, elsewhere: Elsewhere) -> Answer {
        let with_headers = self.with_headers();
        let asked = descriptor::read(request, self.node.rules.load().ip_prefix())
            .map_err(|problem| self.refused(&problem))?;
        let is_untold = elsewhere.is_empty() && told.iter().all(Option::is_none);
        if asked.len() > 1 && is_untold && self.decides_together(request) {
            self.decide_together(&asked, &mut told).await.map_err(|problem| self.refused(&problem))?;
        }
        // All at the same time: what several descriptors ask of one node goes there in one write.
        let waiting = asked.iter().zip(&mut told).filter(|(_, told)| told.is_none());
        let mut elsewhere = elsewhere.into_iter();
        let rest = waiting.map(|(asked, told)| {
            let found = if let Asked::Check(_) = asked { elsewhere.next() } else { None };
            async move {
                let (node, worker) = (&self.node, self.worker);
                let render = |answer: CheckAnswer<'_>| Told::of(&answer, with_headers);
                *told = Some(match asked {
                    Asked::Check(request) => check(node, worker, request, found, render).await?,
                    Asked::Refund(request) => {
                        amend_as_check(node, worker, Amendment::Refund, request, render).await?
                    }
                    Asked::Never(limit) => Told::never(limit),
                });
                Ok(())
            }
        });
        future::try_join_all(rest).await.map_err(|problem| self.refused(&problem))?;
        Ok(self.put_together(told))
    }

    fn decides_together(&self, request: &RateLimitRequest) -> bool {
        self.node.rules.load().is_all_or_nothing(&request.domain)
    }

    /// Charges all descriptors that ask for something, or none of them. Those that give back do so by themselves.
    async fn decide_together(&self, asked: &[Asked<'_>], told: &mut All) -> Result<(), Problem> {
        let with_headers = self.with_headers();
        let checks: SmallVec<[&CheckRequest<'_>; 4]> = asked
            .iter()
            .filter_map(|asked| match asked {
                Asked::Check(request) => Some(request),
                Asked::Refund(_) | Asked::Never(_) => None,
            })
            .collect();
        let is_denied = asked.iter().any(|asked| matches!(asked, Asked::Never(_)));
        let render = |answer: CheckAnswer<'_>| Told::of(&answer, with_headers);
        let mut decided =
            check_together(&self.node, self.worker, &checks, is_denied, render).await?.into_iter();
        for (asked, told) in asked.iter().zip(told) {
            if let Asked::Check(_) = asked {
                *told = decided.next();
            }
        }
        Ok(())
    }

    fn put_together(&self, told: All) -> RateLimitResponse {
        let with_headers = self.with_headers();
        let told = told.into_iter().flatten();
        let mut response = RateLimitResponse::default();
        let mut headers = Headers::default();
        let mut overall = Code::Ok;
        for one in told {
            if one.status.code() == Code::OverLimit {
                overall = Code::OverLimit;
            }
            headers.add(&one);
            response.statuses.push(one.status);
        }
        response.set_overall_code(overall);
        if with_headers {
            response.response_headers_to_add = headers.finish();
        }
        response
    }

    fn with_headers(&self) -> bool {
        self.node.envoy_headers == EnvoyHeaders::Ratelimit
    }

    fn refused(&self, problem: &Problem) -> Status {
        refused(&self.node, self.worker, problem)
    }
}

#[tonic::async_trait]
impl RateLimitService for Envoy {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return Err(Status::internal("nobody has said who asks"));
        };
        let grant = caller.grant.clone();
        let request = request.get_ref();
        let mut elsewhere = Elsewhere::new();
        let told =
            self.decide_here(request, &grant, &mut elsewhere).map_err(|problem| self.refused(&problem))?;
        self.decide_rest(request, told, elsewhere).await.map(Response::new)
    }
}
