//! The promise: body and headers of an answer, and what `tidegate check` makes of it.

use std::{process::Command, time::Duration};

use crate::kit;
use serde_json::{Value, json};
use tidegate_jepsen::cluster::Cluster;

const PATIENCE: Duration = Duration::from_secs(10);

const RULES: &str = r#"
rules:
  - name: login-per-ip
    when: { path: "/login", method: POST }
    key: [ip]
    limit: 5/1m
    overrides:
      - { when: { ip: "10.0.0.0/8" }, limit: unlimited }
  - { name: watch, when: { path: "/watched" }, key: [ip], limit: 1/1h, mode: shadow }
---
domain: closed
unmatched: deny
rules: []
"#;

const LOGIN: &str = "/v1/check?path=/login&method=POST&ip=203.0.113.7";

fn node() -> Cluster {
    kit::nodes(1, RULES)
}

fn check(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let url = format!("http://{}", cluster.nodes[0].http);
    let output =
        Command::new(kit::binary()).arg("check").args(["--node", &url]).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn an_allowed_check_says_what_is_left_and_a_denied_one_how_long_to_wait() {
    let cluster = node();
    let mut client = cluster.nodes[0].client(PATIENCE);
    let answer = client.get(LOGIN).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "allowed": true, "rule": "login-per-ip", "limit": 5, "remaining": 4, "reset_after_ms": 12_000,
            "retry_after_ms": null, "delay_ms": 0, "decided_by": "owner", "node": "n1",
        })
    );
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""login-per-ip";q=5;w=60"#));
    assert_eq!(answer.header("ratelimit"), Some(r#""login-per-ip";r=4;t=12"#));
    assert_eq!(answer.header("x-ratelimit-limit"), Some("5"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("4"));
    assert_eq!(answer.header("x-ratelimit-reset"), Some("12"));
    assert_eq!(answer.header("retry-after"), None);

    for _ in 0..4 {
        assert_eq!(client.get(LOGIN).unwrap().status, 200);
    }
    let denied = client.get(LOGIN).unwrap();
    assert_eq!(denied.status, 429);
    let body = denied.json();
    assert_eq!((&body["allowed"], &body["remaining"]), (&json!(false), &json!(0)));
    let wait = body["retry_after_ms"].as_u64().unwrap();
    assert!((10_000..=12_000).contains(&wait), "{wait}");
    let seconds: u64 = denied.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(seconds, wait.div_ceil(1_000));
}

#[test]
fn get_post_batch_and_a_limit_of_ones_own_are_the_same_check() {
    let cluster = node();
    let mut client = cluster.nodes[0].client(PATIENCE);
    let body = r#"{"attributes": {"path": "/login", "method": "POST", "ip": "203.0.113.7"}, "cost": 2}"#;
    assert_eq!(client.post("/v1/check", body).unwrap().json()["remaining"], 3);
    assert_eq!(client.get(LOGIN).unwrap().json()["remaining"], 2);
    let batch = client.post("/v1/check/batch", &format!(r#"{{"checks": [{body}, {body}]}}"#)).unwrap().json();
    assert_eq!(
        (&batch["answers"][0]["remaining"], &batch["answers"][1]["allowed"]),
        (&json!(0), &json!(false))
    );

    let own = r#"{"key": "job-7", "limit": "2/1m", "burst": 3}"#;
    let answers: Vec<Value> = (0..4).map(|_| client.post("/v1/check", own).unwrap().json()).collect();
    assert_eq!(answers[0]["remaining"], 2);
    assert_eq!((&answers[2]["allowed"], &answers[3]["allowed"]), (&json!(true), &json!(false)));
}

#[test]
fn a_look_costs_nothing() {
    let cluster = node();
    let mut client = cluster.nodes[0].client(PATIENCE);
    for _ in 0..10 {
        let answer = client.get(&format!("{LOGIN}&cost=0")).unwrap();
        assert_eq!((answer.status, &answer.json()["remaining"]), (200, &json!(5)));
    }
}

#[test]
fn unmatched_unlimited_and_shadow() {
    let cluster = node();
    let mut client = cluster.nodes[0].client(PATIENCE);
    let unmatched = client.get("/v1/check?path=/other").unwrap();
    assert_eq!(unmatched.status, 200);
    let body = unmatched.json();
    assert_eq!((&body["rule"], &body["decided_by"]), (&Value::Null, &json!("unmatched")));
    let closed = client.get("/v1/check?domain=closed&path=/other").unwrap();
    assert_eq!((closed.status, &closed.json()["decided_by"]), (429, &json!("unmatched")));
    for _ in 0..10 {
        assert_eq!(client.get("/v1/check?path=/login&method=POST&ip=10.1.2.3").unwrap().status, 200);
        assert_eq!(
            client.get("/v1/check?path=/watched&ip=10.1.2.3").unwrap().status,
            200,
            "shadow never denies"
        );
    }
    assert_eq!(
        cluster.nodes[0].metric("tidegate_shadow_denied_total"),
        Some(9.0),
        "one of ten is within 1/1h"
    );
}

#[test]
fn the_check_command_tells_by_its_exit_code() {
    let cluster = node();
    let login = ["path=/login", "method=POST", "ip=203.0.113.9"];
    let (code, output, _) = check(&cluster, &[&login[..], &["--cost", "5", "--output", "json"]].concat());
    assert_eq!(code, 0, "{output}");
    let answer: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&answer["allowed"], &answer["remaining"]), (&json!(true), &json!(0)));
    let (code, output, _) = check(&cluster, &login);
    assert_eq!(code, 3, "{output}");
    assert!(output.contains("login-per-ip"), "{output}");

    let (code, _, error) = check(&cluster, &["no-equals-sign"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("no-equals-sign"), "{error}");
    let (code, _, error) = check(&cluster, &["a=b", "--node", "http://127.0.0.1:1"]);
    assert_ne!(code, 0);
    assert!(!error.is_empty());
}

#[test]
fn the_metrics_count_what_was_answered() {
    let cluster = node();
    let mut client = cluster.nodes[0].client(PATIENCE);
    (0..7).for_each(|_| _ = client.get(LOGIN).unwrap());
    let metrics = client.get("/metrics").unwrap();
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    let text = metrics.text();
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned());
    assert_eq!(value(r#"tidegate_checks_total{result="allowed",decided_by="owner"}"#).as_deref(), Some("5"));
    assert_eq!(value(r#"tidegate_checks_total{result="denied",decided_by="owner"}"#).as_deref(), Some("2"));
    assert_eq!(value("tidegate_check_duration_seconds_count").as_deref(), Some("7"));
}

#[test]
fn each_metric_is_documented_by_its_whole_name() {
    let cluster = node();
    let page = cluster.nodes[0].client(PATIENCE).get("/metrics").unwrap().text();
    let documented = include_str!("../../docs/http.md");
    let is_part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names: std::collections::HashSet<&str> = documented.split(|c| !is_part_of_name(c)).collect();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let own: Vec<&str> = types.filter(|name| name.starts_with("tidegate_")).collect();
    assert!(own.len() > 50, "{own:?}");
    let missing: Vec<&&str> = own.iter().filter(|name| !names.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/http.md does not list {missing:?}");
}
