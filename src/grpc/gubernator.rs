//! Gubernator's service over gRPC.

use std::sync::Arc;

use tidegate_proto::{
    batch::Batch,
    grpc::pb::gubernator::{
        GetRateLimitsResp, HealthCheckReq, HealthCheckResp, LiveCheckReq, LiveCheckResp, v1_server::V1,
    },
};
use tonic::{Request, Response, Status};

use super::refusal::refused;
use crate::{access::Caller, check::ProblemKind, gubernator, node::Node};

/// The service of one worker.
pub(super) struct Gubernator {
    node: Arc<Node>,
    worker: usize,
}

impl Gubernator {
    pub(super) fn new(node: Arc<Node>, worker: usize) -> Self {
        Self { node, worker }
    }
}

#[tonic::async_trait]
impl V1 for Gubernator {
    async fn get_rate_limits(&self, request: Request<Batch>) -> Result<Response<GetRateLimitsResp>, Status> {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return Err(Status::internal("nobody has said who asks"));
        };
        let decided = gubernator::decide(&self.node, self.worker, request.get_ref(), caller).await;
        decided.map(Response::new).map_err(|problem| {
            let status = refused(&self.node, self.worker, &problem);
            // The code that clients of Gubernator know for it.
            if problem.kind == ProblemKind::ValueTooLarge {
                Status::out_of_range(status.message())
            } else {
                status
            }
        })
    }

    async fn health_check(
        &self,
        _request: Request<HealthCheckReq>,
    ) -> Result<Response<HealthCheckResp>, Status> {
        let health = gubernator::health(&self.node);
        health.map(Response::new).map_err(|problem| refused(&self.node, self.worker, &problem))
    }

    async fn live_check(&self, _request: Request<LiveCheckReq>) -> Result<Response<LiveCheckResp>, Status> {
        Ok(Response::new(LiveCheckResp {}))
    }
}
