//! Envoy's rate limit service: each descriptor of a request is decided by itself, and the request is over the limit if one
//! of them is.
//!
//! - `descriptor`: a descriptor as a check.
//! - `status`: the answer to a check as the status of a descriptor, with the headers.

mod descriptor;
mod status;

use std::sync::Arc;

use futures_util::future;
use smallvec::SmallVec;
use tidegate_proto::grpc::envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
    rate_limit_service_server::RateLimitService,
};
use tonic::{Request, Response, Status};

use self::{
    descriptor::Asked,
    status::{Headers, Told},
};
use super::refused;
use crate::{
    config::EnvoyHeaders,
    http::{Problem, check, check_here},
    node::Node,
};

/// Descriptors of a request.
const MAX_DESCRIPTORS: usize = 128;

/// The service of one lane.
pub(super) struct Envoy {
    node: Arc<Node>,
    lane: usize,
}

impl Envoy {
    pub(super) fn new(node: Arc<Node>, lane: usize) -> Self {
        Self { node, lane }
    }

    async fn decide(&self, request: &RateLimitRequest) -> Result<RateLimitResponse, Problem> {
        // What is wrong is told before anything is charged.
        let asked = descriptor::read(request)?;
        let with_headers = self.node.envoy_headers == EnvoyHeaders::Ratelimit;
        let mut told: SmallVec<[Option<Told>; 4]> = SmallVec::new();
        let mut waiting = Vec::new();
        for (place, asked) in asked.iter().enumerate() {
            let here = match asked {
                Asked::Never(limit) => Some(Ok(Told::never(limit))),
                Asked::Check(request) => {
                    check_here(&self.node, self.lane, request, |answer| Told::of(&answer, with_headers))
                }
            };
            if here.is_none() {
                waiting.push(place);
            }
            told.push(here.transpose()?);
        }
        if !waiting.is_empty() {
            // All at the same time: what several descriptors ask of one node goes there in one write.
            let elsewhere = waiting.iter().map(|place| async {
                let Asked::Check(request) = &asked[*place] else { return Ok(None) };
                check(&self.node, self.lane, request, |answer| Told::of(&answer, with_headers))
                    .await
                    .map(Some)
            });
            for (place, one) in waiting.iter().zip(future::join_all(elsewhere).await) {
                told[*place] = one?;
            }
        }
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
        Ok(response)
    }
}

#[tonic::async_trait]
impl RateLimitService for Envoy {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.decide(request.get_ref())
            .await
            .map(Response::new)
            .map_err(|problem| refused(&self.node, self.lane, &problem))
    }
}
