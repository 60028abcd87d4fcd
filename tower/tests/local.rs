//! The promise: a limiter inside the process answers as a node would, to HTTP and to gRPC.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use axum::{Extension, Router, body::Body, routing::get};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tidegate_limiter::{Algorithm, Limit, Limiter, NewRule};
use tidegate_tower::{Answer, Tidegate};
use tower::{Layer as _, ServiceExt as _};

fn limiter(limit: &str, burst: Option<u64>, algorithm: Algorithm) -> Limiter {
    let limit = Limit::parse(limit, burst, algorithm).unwrap();
    let rule = NewRule::new("per-user", limit).key("user").unlimited_when("user", ["root"]);
    Limiter::builder().rule(rule).build().unwrap()
}

fn app(limiter: Limiter) -> Router {
    let remaining = async |Extension(answer): Extension<Answer>| format!("{:?}", answer.remaining);
    let limited = Tidegate::local(limiter).header("x-user", "user").build().unwrap();
    Router::new().route("/", get(remaining)).layer(limited)
}

fn of(user: &str) -> Request<Body> {
    Request::get("/").header("x-user", user).body(Body::empty()).unwrap()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

async fn body(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn each_user_has_so_many_requests_and_is_told() {
    let app = app(limiter("2/1m", None, Algorithm::TokenBucket));
    for left in [1, 0] {
        let response = app.clone().oneshot(of("ada")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let state = format!("\"per-user\";r={left};t={}", 30 * (2 - left));
        assert_eq!(text(response.headers(), "ratelimit"), Some(&*state));
        assert_eq!(text(response.headers(), "ratelimit-policy"), Some("\"per-user\";q=2;w=60"));
        assert_eq!(text(response.headers(), "x-ratelimit-limit"), Some("2"));
        assert_eq!(text(response.headers(), "retry-after"), None);
        assert_eq!(body(response).await, format!("Some({left})"));
    }
    let denied = app.clone().oneshot(of("ada")).await.unwrap();
    assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(text(denied.headers(), "retry-after"), Some("30"));
    assert_eq!(text(denied.headers(), "content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_str(&body(denied).await).unwrap();
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"], serde_json::json!(["per-user"]));

    assert_eq!(app.clone().oneshot(of("grace")).await.unwrap().status(), StatusCode::OK);
    for _ in 0..5 {
        let response = app.clone().oneshot(of("root")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response.headers(), "ratelimit"), None, "nothing limits it");
    }
}

#[tokio::test]
async fn a_service_answers_refused_requests_in_its_own_words_and_callers_still_hear_when_to_try_again() {
    let builder = Tidegate::local(limiter("1/1m", None, Algorithm::TokenBucket)).header("x-user", "user");
    let limited = builder.on_refused(|refusal| {
        let (path, rule) = (refusal.request().uri.path(), refusal.answer().unwrap().rule.as_deref());
        let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        response.header("x-ratelimit-limit", "secret").body(format!("{path} {rule:?}").into()).unwrap()
    });
    let app = Router::new().route("/", get(async || "run")).layer(limited.build().unwrap());
    assert_eq!(app.clone().oneshot(of("ada")).await.unwrap().status(), StatusCode::OK);
    let denied = app.oneshot(of("ada")).await.unwrap();
    assert_eq!(denied.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text(denied.headers(), "retry-after"), Some("60"));
    assert_eq!(text(denied.headers(), "ratelimit-policy"), Some("\"per-user\";q=1;w=60"));
    assert_eq!(text(denied.headers(), "x-ratelimit-limit"), Some("secret"), "what the service says counts");
    assert_eq!(denied.headers().get_all("x-ratelimit-limit").iter().count(), 1);
    assert_eq!(body(denied).await, "/ Some(\"per-user\")");
}

#[tokio::test]
async fn a_leaky_bucket_holds_requests_back_until_their_turn() {
    let app = app(limiter("20/1s", Some(2), Algorithm::LeakyBucket));
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(app.clone().oneshot(of("ada")).await.unwrap().status(), StatusCode::OK);
    }
    assert!(begun.elapsed() >= Duration::from_millis(95), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn grpc_hears_its_own_status() {
    let limited = Tidegate::local(limiter("1/1m", None, Algorithm::TokenBucket)).header("x-user", "user");
    let (_reporter, health) = tonic_health::server::health_reporter();
    let service = limited.build().unwrap().layer(health);
    let check = || {
        let request = Request::post("http://localhost/grpc.health.v1.Health/Check");
        let request = request.header("content-type", "application/grpc").header("x-user", "ada");
        // A frame of an empty message.
        request.body(tonic::body::Body::new(http_body_util::Full::new(vec![0u8; 5].into()))).unwrap()
    };
    let allowed = service.clone().oneshot(check()).await.unwrap();
    let trailers = allowed.into_body().collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(text(&trailers, "grpc-status"), Some("0"));

    let denied = service.oneshot(check()).await.unwrap();
    assert_eq!(denied.status(), StatusCode::OK);
    assert_eq!(text(denied.headers(), "content-type"), Some("application/grpc"));
    assert_eq!(text(denied.headers(), "grpc-status"), Some("8"));
    assert_eq!(text(denied.headers(), "retry-after"), Some("60"));
    assert!(text(denied.headers(), "grpc-message").unwrap().contains("try again"));
}
