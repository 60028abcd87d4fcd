//! The promise: a bad request is told what is wrong with it, and disturbs nobody.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{client::Response, cluster::Cluster, history::monotonic};

const PATIENCE: Duration = Duration::from_secs(10);

fn node() -> Cluster {
    kit::nodes(1, &kit::per_user("1000/1s", 1000, "share"))
}

/// The answer must be a problem with this status whose text names the fault; after it, a good check is answered.
fn assert_refused(cluster: &Cluster, answer: &Response, status: u16, words: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
    for word in words {
        assert!(answer.text().contains(word), "{word:?} is not in {problem}");
    }
    assert_answers(cluster);
}

fn assert_answers(cluster: &Cluster) {
    let good = cluster.nodes[0].client(PATIENCE).get("/v1/check?user=good").unwrap();
    assert_eq!(good.status, 200, "{}", good.text());
}

fn post(cluster: &Cluster, body: &[u8]) -> Response {
    let head = format!("POST /v1/check HTTP/1.1\r\nhost: n\r\ncontent-length: {}\r\n\r\n", body.len());
    cluster.nodes[0].client(PATIENCE).send(&[head.as_bytes(), body].concat()).unwrap()
}

/// Each was 200 for ever, or charged something else, in whichever way one came to write it.
#[test]
fn a_check_whose_form_says_something_that_does_not_count() {
    let cluster = node();
    let get = |query: &str| cluster.nodes[0].client(PATIENCE).get(&format!("/v1/check?{query}")).unwrap();
    for query in ["key=k9&limit=1/1h", "key=k9&limit=nonsense", "user=a&limit=100%2F1m"] {
        assert_refused(&cluster, &get(query), 400, &["POST /v1/check", "\"field\":\"limit\""]);
    }
    assert_refused(&cluster, &get("domain=&user=a"), 400, &["\"field\":\"domain\""]);
    let auth = cluster.nodes[0].client(PATIENCE).get("/v1/auth?domain=&user=a").unwrap();
    assert_refused(&cluster, &auth, 400, &["\"field\":\"domain\""]);
    assert_refused(
        &cluster,
        &post(&cluster, br#"{"attributes":{},"domain":""}"#),
        400,
        &["the domain is empty"],
    );
    let body = r#"{"attributes":{"user":"a"}}"#;
    let both = cluster.nodes[0].client(PATIENCE).post("/v1/check?cost=5", body).unwrap();
    assert_refused(&cluster, &both, 400, &["takes no parameters", "\"field\":\"cost\""]);
    assert_eq!(get("key=k9&user=a&limit=50").status, 400, "both");
    assert_eq!(get("key=k9&user=a").status, 200);
    assert_eq!(get("user=a&limit=50").status, 200);
}

#[test]
fn a_body_that_is_not_json() {
    let cluster = node();
    assert_refused(&cluster, &post(&cluster, b"hello"), 400, &["JSON", "\"line\":1"]);
    assert_refused(&cluster, &post(&cluster, b"{\"attributes\": {\"user\": \"a\"}"), 400, &["JSON"]);
    assert_refused(&cluster, &post(&cluster, b""), 400, &["JSON"]);
    assert_refused(&cluster, &post(&cluster, b"[1, 2]"), 400, &["line"]);
}

#[test]
fn an_unknown_field() {
    let cluster = node();
    let answer = post(&cluster, br#"{"attributes": {"user": "a"}, "costs": 2}"#);
    assert_refused(&cluster, &answer, 400, &["costs", "cost"]);
}

#[test]
fn missing_attributes() {
    let cluster = node();
    assert_refused(&cluster, &post(&cluster, b"{}"), 400, &["attributes"]);
    let answer = cluster.nodes[0].client(PATIENCE).get("/v1/check").unwrap();
    assert_refused(&cluster, &answer, 400, &["attributes"]);
}

#[test]
fn a_cost_that_is_none() {
    let cluster = node();
    for (cost, words) in
        [("-1", "negative"), ("9007199254740993", "2^53"), ("1e400", "cost"), ("1.5", "fraction")]
    {
        let body = format!(r#"{{"attributes": {{"user": "a"}}, "cost": {cost}}}"#);
        let answer = post(&cluster, body.as_bytes());
        assert_eq!(answer.status, 400, "{cost}: {}", answer.text());
        assert!(answer.text().contains(words) || cost == "1e400", "{cost}: {}", answer.text());
        let answer = cluster.nodes[0].client(PATIENCE).get(&format!("/v1/check?user=a&cost={cost}")).unwrap();
        assert_refused(&cluster, &answer, 400, &["cost"]);
    }
}

#[test]
fn a_cost_above_the_limit_is_no_fault_but_never_passes() {
    let cluster = node();
    let answer = cluster.nodes[0].client(PATIENCE).get("/v1/check?user=a&cost=9007199254740992").unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["retry_after_ms"], serde_json::Value::Null);
    assert_eq!(answer.json()["remaining"], 1000);
}

#[test]
fn a_body_of_two_megabytes() {
    let cluster = node();
    assert_refused(&cluster, &post(&cluster, &vec![b' '; 2 << 20]), 413, &["bytes"]);
}

#[test]
fn ten_thousand_headers() {
    let cluster = node();
    let mut request = b"GET /v1/check?user=a HTTP/1.1\r\nhost: n\r\n".to_vec();
    (0..10_000).for_each(|n| request.extend_from_slice(format!("x-{n}: y\r\n").as_bytes()));
    request.extend_from_slice(b"\r\n");
    let answer = cluster.nodes[0].client(PATIENCE).send(&request).unwrap();
    assert_refused(&cluster, &answer, 431, &["headers"]);
}

#[test]
fn a_key_of_a_hundred_kilobytes() {
    let cluster = node();
    let body =
        |bytes: usize| format!(r#"{{"attributes": {{"user": "{}"}}}}"#, "x".repeat(bytes)).into_bytes();
    assert_refused(&cluster, &post(&cluster, &body(100_000)), 413, &["bytes"]);
    assert_refused(&cluster, &post(&cluster, &body(50_000)), 400, &["attributes.user", "50000"]);
    let long = format!("/v1/check?user={}", "x".repeat(5_000));
    let answer = cluster.nodes[0].client(PATIENCE).get(&long).unwrap();
    assert_refused(&cluster, &answer, 400, &["user", "5000"]);
}

#[test]
fn text_that_is_not_utf8() {
    let cluster = node();
    assert_refused(&cluster, &post(&cluster, b"{\"attributes\": {\"user\": \"\xff\"}}"), 400, &["UTF-8"]);
    let answer = cluster.nodes[0].client(PATIENCE).get("/v1/check?user=%ff%fe").unwrap();
    assert_refused(&cluster, &answer, 400, &["UTF-8", "user"]);
}

#[test]
fn another_method_and_another_path() {
    let cluster = node();
    let answer =
        cluster.nodes[0].client(PATIENCE).send(b"DELETE /v1/check HTTP/1.1\r\nhost: n\r\n\r\n").unwrap();
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("POST")));
    assert_refused(&cluster, &answer, 405, &["POST"]);
    let answer = cluster.nodes[0].client(PATIENCE).get("/v1/chekc").unwrap();
    assert_refused(&cluster, &answer, 404, &["/v1/check"]);
}

#[test]
fn bytes_that_are_not_http() {
    let cluster = node();
    let mut stream = TcpStream::connect(cluster.nodes[0].http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0, 0xff, 0, 0, 0, b'\r', b'\n', b'\r', b'\n']).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    assert_answers(&cluster);
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let cluster = node();
    let mut stream = TcpStream::connect(cluster.nodes[0].http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"GET /v1/check?user=a HTTP/1.1\r\nhost: n\r\n").unwrap();
    let started = monotonic();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let waited = Duration::from_nanos(monotonic() - started);
    assert!(waited < Duration::from_secs(15), "cut off after {waited:?}");
    assert_answers(&cluster);
}

#[test]
fn a_rule_of_a_refund_or_reset_that_there_is_not() {
    let rules: String =
        (0..30).map(|n| format!("  - {{ name: rule-{n}, key: [user], limit: 500/1h }}\n")).collect();
    let cluster =
        kit::nodes(1, &format!("rules:\n{rules}  - {{ name: other, key: [path], limit: 500/1h }}\n"));
    let mut client = cluster.nodes[0].client(PATIENCE);
    let user = r#"{"attributes": {"user": "good"}}"#;
    for call in ["/v1/refund", "/v1/reset"] {
        let answer = client.post(&format!("{call}?rule=rule-99"), user).unwrap();
        assert_eq!(answer.json()["field"], "rule");
        assert_refused(&cluster, &answer, 404, &["no-such-rule", "rule-99", "rule-0, rule-1", "and 11 more"]);
        assert!(answer.body.len() < 1_000, "{}", answer.text());
        let elsewhere =
            client.post(&format!("{call}?rule=a"), r#"{"domain": "none", "attributes": {}}"#).unwrap();
        assert_refused(&cluster, &elsewhere, 404, &["no-such-rule", "it has none"]);
        let inline = client.post(&format!("{call}?rule=rule-1"), r#"{"key": "k", "limit": "5/1s"}"#).unwrap();
        assert_refused(&cluster, &inline, 400, &["belongs to no rule"]);
        assert_eq!(
            client.post(&format!("{call}?rule=rule-1"), user).unwrap().json()["buckets"][0]["rule"],
            "rule-1"
        );
        let not_about = client.post(&format!("{call}?rule=other"), user).unwrap();
        assert_eq!((not_about.status, &not_about.json()["buckets"]), (200, &serde_json::json!([])));
    }
}

#[test]
fn a_batch_that_is_too_long_and_one_with_a_bad_item() {
    let cluster = node();
    let many = vec![r#"{"attributes": {"user": "a"}}"#; 1_001].join(",");
    let mut client = cluster.nodes[0].client(PATIENCE);
    let answer = client.post("/v1/check/batch", &format!(r#"{{"checks": [{many}]}}"#)).unwrap();
    assert_refused(&cluster, &answer, 400, &["1001", "1000"]);

    let answer = client
        .post("/v1/check/batch", r#"{"checks": [{"attributes": {"user": "a"}}, {"attributes": {"user": "a"}, "cost": -2}, {"attributes": {"user": "b"}}]}"#)
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answers = answer.json()["answers"].as_array().unwrap().clone();
    assert_eq!(answers.len(), 3);
    assert_eq!((&answers[0]["allowed"], &answers[2]["allowed"]), (&true.into(), &true.into()));
    assert!(answers[1]["detail"].as_str().unwrap().contains("negative"), "{}", answers[1]);
}
