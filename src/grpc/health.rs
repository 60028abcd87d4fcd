//! `grpc.health.v1`: whether this node can decide, for load balancers and orchestrators.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tidegate_cluster::Readiness;
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use crate::node::Node;

/// How often the node looks for those who watch.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Services that can be asked about; the empty name is the node as a whole.
const SERVICES: [&str; 3] = ["", "envoy.service.ratelimit.v3.RateLimitService", "pb.gubernator.V1"];

pub(super) struct NodeHealth(Arc<Node>);

impl NodeHealth {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }
}

fn status_of(node: &Node, service: &str) -> ServingStatus {
    if !SERVICES.contains(&service) {
        return ServingStatus::ServiceUnknown;
    }
    match node.readiness() {
        Readiness::Ready => ServingStatus::Serving,
        Readiness::NotReady(_) => ServingStatus::NotServing,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for NodeHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match status_of(&self.0, &request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "there is no such service; there are: {}",
                SERVICES[1..].join(", ")
            ))),
            status => Ok(Response::new(answer(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Says how it is, and then each time that it has changed.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (node, service) = (Arc::clone(&self.0), request.into_inner().service);
        let changes = stream::unfold(None, move |told| {
            let (node, service) = (Arc::clone(&node), service.clone());
            async move {
                loop {
                    let status = status_of(&node, &service);
                    if told != Some(status) {
                        return Some((Ok(answer(status)), Some(status)));
                    }
                    sleep(LOOK_EVERY).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
