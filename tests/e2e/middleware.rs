//! The promise: a service with our middleware has the limits of the cluster, and goes on when nodes die.

use std::time::Duration;

use crate::kit;
use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use tidegate_tower::{OnFailure, Tidegate};
use tokio::time::Instant;
use tower::ServiceExt as _;

/// What a request may take when a node has just died: the layer's own timeout, and this machine.
const AT_MOST: Duration = Duration::from_millis(150).saturating_add(kit::SCHEDULING_SLACK);

fn app(nodes: &[String], on_failure: OnFailure) -> Router {
    let limited = Tidegate::nodes(nodes).header("x-user", "user").on_failure(on_failure);
    // Of one node alone each answer counts here.
    let limited = if nodes.len() == 1 { limited.timeout(Duration::from_secs(5)) } else { limited };
    let limited = limited.build().unwrap();
    Router::new().route("/", get(|| async { "hello" })).layer(limited)
}

async fn ask(app: &Router, user: &str) -> (StatusCode, Option<String>) {
    let request = Request::get("/").header("x-user", user).body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let state = response.headers().get("ratelimit").map(|state| state.to_str().unwrap().to_owned());
    (response.status(), state)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_share_the_limits_of_the_cluster_and_go_on_when_nodes_die() {
    let mut cluster = kit::patient_nodes(2, &kit::per_user("5/1h", 5, "share"));
    let nodes: Vec<String> = cluster.nodes.iter().map(|node| format!("http://{}", node.http)).collect();
    // Two instances of a service, each beside another node.
    let services = [app(&nodes[..1], OnFailure::Allow), app(&nodes[1..], OnFailure::Deny)];
    let mut admitted = 0;
    for turn in 0..12 {
        let (status, state) = ask(&services[turn % 2], "ada").await;
        admitted += u32::from(status == StatusCode::OK);
        assert!(state.unwrap().starts_with("\"per-user\";r="), "the caller is told");
    }
    assert_eq!(admitted, 5, "one limit for both");

    let both = app(&nodes, OnFailure::Deny);
    cluster.kill("n1");
    for number in 0..50 {
        let begun = Instant::now();
        let (status, _) = ask(&both, &format!("after-{number}")).await;
        assert_ne!(status, StatusCode::SERVICE_UNAVAILABLE, "the other node answers");
        assert!(begun.elapsed() < AT_MOST, "{:?}", begun.elapsed());
    }
    assert_eq!(ask(&services[0], "grace").await, (StatusCode::OK, None), "nobody could say no");

    cluster.kill("n2");
    assert_eq!(ask(&both, "grace").await.0, StatusCode::SERVICE_UNAVAILABLE);
    // Nobody is waited for who has just not answered.
    let begun = Instant::now();
    for _ in 0..20 {
        ask(&both, "grace").await;
    }
    assert!(begun.elapsed() < AT_MOST, "{:?}", begun.elapsed());
}
