//! The promise: what a rule denies is denied by whichever node is asked, with nothing to wait for, whoever owns the bucket or
//! lives; and everything else goes on.

use crate::kit::{
    self,
    rules::{PATIENCE, SOON, write},
};
use serde_json::{Value, json};
use tidegate_jepsen::{
    client::Response,
    cluster::{Node, wait_for},
};

const RULES: &str = "
rules:
  - { name: closed, when: { path: /closed }, key: [user], limit: deny, on_owner_loss: allow }
  - { name: per-user, key: [user], limit: 5/1h, overrides: [{ when: { user: mallory }, limit: 0/1m }] }
  - { name: watched, when: { path: /watched }, key: [], limit: deny, mode: shadow }
  - { name: open-to-root, when: { path: /admin }, key: [], limit: 0/1h, overrides: [{ when: { user: root }, limit: unlimited }] }
";

fn ask(node: &Node, path: &str, user: &str) -> Response {
    node.client(PATIENCE).get(&format!("/v1/check?path={path}&user={user}")).unwrap()
}

fn allowed(node: &Node, path: &str, user: &str) -> usize {
    (0..8).filter(|_| ask(node, path, user).status == 200).count()
}

fn assert_denied_for_ever(answer: &Response, rule: &Value) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    let json = answer.json();
    let expected = json!({
        "allowed": false, "rule": rule, "limit": 0, "remaining": 0, "reset_after_ms": null,
        "retry_after_ms": null, "delay_ms": 0, "decided_by": "owner", "node": json["node"],
    });
    assert_eq!(json, expected);
    for name in ["retry-after", "x-ratelimit-reset"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-ratelimit-limit"), Some("0"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
}

#[test]
fn each_node_denies_whoever_owns_the_bucket_and_charges_nothing_else() {
    let mut cluster = kit::patient_nodes(3, RULES);
    for node in cluster.running() {
        for user in ["a", "b", "c", "d"] {
            let denied = ask(node, "/closed", user);
            assert_denied_for_ever(&denied, &json!("closed"));
            assert_eq!(denied.header("ratelimit"), Some("\"closed\";r=0"));
            assert_eq!(denied.header("ratelimit-policy"), Some("\"closed\";q=0;w=1"));
        }
        assert_denied_for_ever(&ask(node, "/", "mallory"), &json!("per-user"));
        assert_denied_for_ever(&ask(node, "/admin", "ada"), &json!("open-to-root"));
    }
    let [a, b, c] = [0, 1, 2].map(|place| &cluster.nodes[place]);
    assert_eq!(allowed(a, "/", "a"), 5, "what was denied took nothing of the other rule");
    assert_eq!(allowed(b, "/watched", "b"), 5, "a rule in shadow mode denies nothing");
    assert_eq!(allowed(c, "/admin", "root"), 5);
    // A request id, a batch, and a refund and a reset of what has no bucket.
    let check = json!({ "attributes": { "path": "/closed", "user": "e" } });
    let with_id = json!({ "attributes": check["attributes"], "request_id": "one" });
    for node in cluster.running() {
        let mut client = node.client(PATIENCE);
        assert_denied_for_ever(&client.post("/v1/check", &with_id.to_string()).unwrap(), &json!("closed"));
        let batch = json!({ "checks": [check, check] }).to_string();
        let batch = client.post("/v1/check/batch", &batch).unwrap();
        assert!(batch.text().matches("\"allowed\":false").count() == 2, "{}", batch.text());
        for call in ["/v1/refund", "/v1/reset"] {
            let amended = client.post(call, &check.to_string()).unwrap();
            assert_eq!(amended.status, 200, "{call}: {}", amended.text());
        }
        assert_denied_for_ever(&ask(node, "/closed", "e"), &json!("closed"));
    }
    // `on_owner_loss: allow` is for those whose count nobody knows.
    for name in ["n2", "n3"] {
        cluster.kill(name);
    }
    for user in ["a", "b", "c", "d", "e", "f"] {
        assert_denied_for_ever(&ask(cluster.node("n1"), "/closed", user), &json!("closed"));
    }
}

#[test]
fn a_limit_of_nothing_that_comes_with_the_check_denies() {
    let cluster = kit::patient_nodes(2, "rules: []\n");
    for node in cluster.running() {
        for (limit, algorithm) in
            [("0/1m", "token_bucket"), ("deny", "sliding_log"), ("0/1h", "fixed_window")]
        {
            let body = json!({ "key": "k", "limit": limit, "algorithm": algorithm }).to_string();
            let denied = node.client(PATIENCE).post("/v1/check", &body).unwrap();
            assert_denied_for_ever(&denied, &Value::Null);
        }
        let burst = json!({ "key": "k", "limit": "deny", "burst": 3 }).to_string();
        let refused = node.client(PATIENCE).post("/v1/check", &burst).unwrap();
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains("has no burst"), "{}", refused.text());
    }
}

#[test]
fn a_proxy_is_told_that_a_rule_denies() {
    let cluster = kit::patient_nodes(1, RULES);
    let mut client = cluster.nodes[0].client(PATIENCE);
    let denied = client
        .request("GET", "/v1/auth?user=ada&deny_status=403", &[("X-Forwarded-Uri", "/closed")], "")
        .unwrap();
    let expected = json!({
        "type": "urn:tidegate:problem:denied-by-rule", "title": "A rule denies this request", "status": 403,
        "detail": "closed denies.", "violated-policies": ["closed"],
    });
    assert_eq!((denied.status, denied.json()), (403, expected));
    assert_eq!(denied.header("retry-after"), None);
}

#[test]
fn a_rule_begins_and_ends_to_deny_while_it_is_in_use() {
    let cluster = kit::patient_nodes(3, "rules: []\n");
    let per_user = |limit: &str| format!("rules: [{{ name: per-user, key: [user], limit: {limit} }}]\n");
    let everywhere = |status: u16| {
        for node in cluster.running() {
            wait_for("the rules are in force", SOON, || {
                ["a", "b", "c"].iter().all(|user| ask(node, "/", user).status == status)
            });
        }
    };
    for (limit, status) in [("1000/1h", 200), ("deny", 429), ("1000/1h", 200), ("0/1h", 429)] {
        write(&cluster.nodes[1], "default", &per_user(limit));
        everywhere(status);
    }
}

#[test]
fn what_a_rule_denies_takes_no_memory() {
    let cluster = kit::patient_nodes(1, RULES);
    let mut client = cluster.nodes[0].client(PATIENCE);
    for user in 0..200 {
        assert_eq!(client.get(&format!("/v1/check?path=/closed&user=u{user}")).unwrap().status, 429);
    }
    let metrics = client.get("/metrics").unwrap().text();
    let buckets = metrics.lines().find(|line| line.starts_with("tidegate_buckets ")).unwrap();
    assert_eq!(buckets, "tidegate_buckets 0");
}

#[test]
fn a_refund_or_reset_of_what_is_denied_tells_of_nothing_that_comes_back() {
    let cluster = kit::nodes(1, RULES);
    let body = json!({ "attributes": { "path": "/closed", "user": "a" } }).to_string();
    for call in ["/v1/refund?rule=closed", "/v1/reset?rule=closed"] {
        let told = cluster.nodes[0].client(PATIENCE).post(call, &body).unwrap();
        let told_of = told.json();
        let buckets = told_of["buckets"].as_array().unwrap();
        let comes_back = |bucket: &Value| bucket["limit"] != json!(0) || !bucket["reset_after_ms"].is_null();
        assert!(told.status == 200 && !buckets.iter().any(comes_back), "{told_of}");
    }
    let own = json!({ "key": "k", "limits": { "x": "5/1h", "y": "9/1h" } }).to_string();
    let told = cluster.nodes[0].client(PATIENCE).post("/v1/reset?rule=z", &own).unwrap();
    assert!(told.status == 404 && told.text().contains("the request brings no limit"), "{}", told.text());
}
