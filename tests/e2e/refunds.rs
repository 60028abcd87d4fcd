//! The promise: what is given back is there again, for the whole cluster, and never more than was taken; and a bucket that
//! is reset is full, whichever node is asked.

use crate::kit::{
    self,
    rules::{PATIENCE, SOON, put},
};
use serde_json::{Value, json};
use tidegate_jepsen::{
    cluster::{Cluster, Node, wait_for},
    history::monotonic,
};

const ALGORITHMS: [&str; 5] =
    ["token_bucket", "leaky_bucket", "fixed_window", "sliding_window", "sliding_log"];

fn rules() -> String {
    let rules = ALGORITHMS.map(|algorithm| {
        format!(
            "  - {{ name: {algorithm}, key: [user], limit: 10/1d, algorithm: {algorithm}, when: {{ by: {algorithm} }} }}\n"
        )
    });
    format!("rules:\n{}  - {{ name: all, key: [team], limit: 100/1d }}\n", rules.concat())
}

fn post(node: &Node, call: &str, body: &Value) -> (u16, Value) {
    let answer = node.client(PATIENCE).post(call, &body.to_string()).unwrap();
    (answer.status, answer.json())
}

fn check(node: &Node, algorithm: &str, user: &str, cost: u64) -> Value {
    let body = json!({ "attributes": { "by": algorithm, "user": user }, "cost": cost });
    post(node, "/v1/check", &body).1
}

fn amend(node: &Node, call: &str, algorithm: &str, user: &str, cost: u64) -> Value {
    let body = json!({ "attributes": { "by": algorithm, "user": user }, "cost": cost });
    let (status, answer) = post(node, call, &body);
    assert_eq!(status, 200, "{answer}");
    answer["buckets"][0].clone()
}

#[test]
fn what_is_given_back_is_there_again_at_every_node_in_every_algorithm() {
    let cluster = kit::patient_nodes(3, &rules());
    let mut by = Vec::new();
    for algorithm in ALGORITHMS {
        for user in 0..6 {
            let user = &format!("u{user}");
            let [a, b, c] = [0, 1, 2].map(|place| &cluster.nodes[place]);
            assert_eq!(check(a, algorithm, user, 8)["remaining"], 2, "{algorithm}");
            let refunded = amend(b, "/v1/refund", algorithm, user, 5);
            assert_eq!(
                (&refunded["applied"], &refunded["remaining"]),
                (&json!(true), &json!(7)),
                "{algorithm}"
            );
            by.push(refunded["decided_by"].clone());
            assert_eq!(check(c, algorithm, user, 7)["remaining"], 0, "{algorithm}");
            assert_eq!(check(b, algorithm, user, 1)["allowed"], false, "{algorithm}");
            // Never more than was taken.
            assert_eq!(amend(c, "/v1/refund", algorithm, user, 1_000)["remaining"], 10, "{algorithm}");
            assert_eq!(check(a, algorithm, user, 11)["allowed"], false, "{algorithm}");
            assert_eq!(check(a, algorithm, user, 10)["remaining"], 0, "{algorithm}");
            let reset = amend(a, "/v1/reset", algorithm, user, 1);
            assert_eq!(
                (&reset["remaining"], &reset["reset_after_ms"]),
                (&json!(10), &json!(0)),
                "{algorithm}"
            );
            assert_eq!(check(b, algorithm, user, 0)["remaining"], 10, "{algorithm}");
            // Of one that was never used.
            assert_eq!(amend(a, "/v1/refund", algorithm, &format!("{user}-new"), 3)["remaining"], 10);
        }
    }
    assert!(by.contains(&json!("owner")) && by.contains(&json!("forwarded")), "{by:?}");
}

#[test]
fn all_rules_that_match_are_given_back_or_one_of_them() {
    let cluster = kit::patient_nodes(3, &rules());
    let node = &cluster.nodes[0];
    let attributes = json!({ "by": "token_bucket", "user": "ada", "team": "blue" });
    // A rule that is not about the request has no bucket of it, and one that there is not is told so.
    let other = post(node, "/v1/refund?rule=leaky_bucket", &json!({ "attributes": attributes }));
    assert_eq!(other, (200, json!({ "buckets": [] })));
    let (status, unknown) = post(node, "/v1/refund?rule=nobody", &json!({ "attributes": attributes }));
    assert_eq!((status, &unknown["field"]), (404, &json!("rule")), "{unknown}");
    post(node, "/v1/check", &json!({ "attributes": attributes, "cost": 6 }));
    let remaining = |call: &str, cost: u64| -> Vec<(Value, Value)> {
        let (status, answer) = post(node, call, &json!({ "attributes": attributes, "cost": cost }));
        assert_eq!(status, 200, "{answer}");
        let buckets = answer["buckets"].as_array().unwrap();
        buckets.iter().map(|bucket| (bucket["rule"].clone(), bucket["remaining"].clone())).collect()
    };
    assert_eq!(remaining("/v1/refund", 2), [(json!("token_bucket"), json!(6)), (json!("all"), json!(96))]);
    assert_eq!(remaining("/v1/refund?rule=all", 1), [(json!("all"), json!(97))]);
    assert_eq!(remaining("/v1/reset?rule=all", 1), [(json!("all"), json!(100))]);
    assert_eq!(remaining("/v1/reset", 1), [(json!("token_bucket"), json!(10)), (json!("all"), json!(100))]);
    // A limit of one's own.
    let own = json!({ "key": "k", "limit": "5/1d", "cost": 4 });
    assert_eq!(post(node, "/v1/check", &own).1["remaining"], 1);
    assert_eq!(post(node, "/v1/refund", &own).1["buckets"][0]["remaining"], 5);
    // What nothing limits has nothing to give back.
    let free = json!({ "attributes": { "a": "b" } });
    assert_eq!(post(node, "/v1/reset", &free), (200, json!({ "buckets": [] })));
    let nothing = post(node, "/v1/refund", &json!({ "attributes": {}, "cost": 0 }));
    assert_eq!((nothing.0, &nothing.1["field"]), (400, &json!("cost")));
    assert_eq!(post(node, "/v1/refund?rules=x", &free).0, 400);
}

#[test]
fn a_reset_is_of_all_limits_that_a_rule_has_for_the_key() {
    let overrides: String =
        (0..150).map(|path| format!(", {{ when: {{ path: /{path} }}, limit: {}/1d }}", 20 + path)).collect();
    let text = format!(
        "rules: [{{ name: r, key: [user], limit: 9/1d, overrides: [{{ when: {{ path: /free }}, limit: unlimited }}{overrides}] }}]"
    );
    let cluster = kit::patient_nodes(3, &text);
    let at = |path: &str, cost: u64| json!({ "attributes": { "user": "ada", "path": path }, "cost": cost });
    let left = |node: usize, path: &str, cost: u64| -> Value {
        post(&cluster.nodes[node], "/v1/check", &at(path, cost)).1["remaining"].clone()
    };
    for asked in ["/", "/7", "/free"] {
        assert_eq!(
            (left(0, "/", 9), left(1, "/7", 27), left(2, "/149", 100)),
            (json!(0), json!(0), json!(69))
        );
        let (status, answer) = post(&cluster.nodes[0], "/v1/reset", &at(asked, 1));
        let buckets = answer["buckets"].as_array().unwrap();
        assert_eq!((status, buckets.len()), (200, 151), "{answer}");
        assert!(
            buckets.iter().all(|bucket| bucket["applied"] == true && bucket["limit"] == bucket["remaining"])
        );
        let first = if asked == "/7" { 27 } else { 9 };
        assert_eq!(buckets[0]["limit"], first, "that of the request comes first");
        assert_eq!(
            (left(1, "/", 0), left(2, "/7", 0), left(0, "/149", 0)),
            (json!(9), json!(27), json!(169))
        );
    }
    // What is given back goes where it was taken.
    left(0, "/7", 5);
    let (_, answer) = post(&cluster.nodes[0], "/v1/refund", &at("/7", 3));
    assert_eq!(
        (answer["buckets"].as_array().unwrap().len(), &answer["buckets"][0]["remaining"]),
        (1, &json!(25))
    );
    assert_eq!(left(1, "/", 0), 9);
}

#[test]
fn a_reset_counts_where_nothing_is_limited_at_that_moment() {
    let text = |limit: &str| format!("rules: [{{ name: r, key: [user], limit: {limit} }}]");
    let cluster = kit::patient_nodes(3, &text("10/1d"));
    let [a, b, c] = [0, 1, 2].map(|place| &cluster.nodes[place]);
    let of_ada = |cost: u64| json!({ "attributes": { "user": "ada" }, "cost": cost });
    for nothing in ["unlimited", "deny"] {
        assert_eq!(post(a, "/v1/check", &of_ada(10)).1["remaining"], 0);
        put(a, "default", &[], &text(nothing));
        wait_for("nothing is counted", SOON, || post(b, "/v1/check", &of_ada(1)).1["limit"] != 10);
        let (status, answer) = post(b, "/v1/reset", &of_ada(1));
        assert_eq!((status, &answer["buckets"][0]["remaining"]), (200, &json!(10)), "{nothing}: {answer}");
        put(a, "default", &[], &text("10/1d"));
        wait_for("the limit is back", SOON, || post(c, "/v1/check", &of_ada(0)).1["limit"] == 10);
        assert_eq!(post(c, "/v1/check", &of_ada(0)).1["remaining"], 10, "{nothing}");
    }
}

#[test]
fn without_an_owner_nothing_is_given_back_and_that_is_said() {
    let mut cluster: Cluster = kit::patient_nodes(3, &rules());
    let body = |user: u32| json!({ "attributes": { "by": "fixed_window", "user": format!("u{user}") } });
    let victim = cluster.nodes[2].name.clone();
    let of_victim =
        (0..200).find(|user| post(&cluster.nodes[0], "/v1/check", &body(*user)).1["node"] == *victim);
    let body = body(of_victim.unwrap());
    cluster.kill(&victim);
    let (status, problem) = post(&cluster.nodes[0], "/v1/refund", &body);
    // The next owner may be very quick.
    if status != 200 {
        assert_eq!(status, 503);
        assert_eq!(problem["type"], "urn:tidegate:problem:owner-unreachable");
        assert!(problem["applied"] == json!(false) || problem["applied"].is_null(), "{problem}");
        assert_eq!(problem["buckets"][0]["applied"], problem["applied"], "{problem}");
    }
    wait_for("the next owner gives it back", SOON, || post(&cluster.nodes[0], "/v1/refund", &body).0 == 200);
}

/// The same for each algorithm, in windows that end soon.
fn short() -> String {
    let rules = ALGORITHMS.map(|algorithm| {
        format!(
            "  - {{ name: {algorithm}, key: [user], limit: 10/2s, algorithm: {algorithm}, when: {{ by: {algorithm} }} }}\n"
        )
    });
    format!("rules:\n{}", rules.concat())
}

#[test]
fn a_refund_that_names_its_request_gives_back_what_that_still_weighs_and_once() {
    let cluster = kit::patient_nodes(3, &rules());
    let [a, b, c] = [0, 1, 2].map(|place| &cluster.nodes[place]);
    let body = |algorithm: &str, user: &str, cost: u64, id: &str| json!({ "attributes": { "by": algorithm, "user": user }, "cost": cost, "request_id": id });
    for algorithm in ALGORITHMS {
        for user in ["u1", "u2", "u3", "u4", "u5"] {
            let left = |node: &Node, call: &str, cost: u64, id: &str| {
                let (status, answer) = post(node, call, &body(algorithm, user, cost, id));
                assert!(status == 200 || status == 429, "{answer}");
                let told = if call == "/v1/check" { &answer } else { &answer["buckets"][0] };
                told["remaining"].as_u64().unwrap_or_else(|| panic!("{answer}"))
            };
            assert_eq!(left(a, "/v1/check", 6, "first"), 4, "{algorithm}");
            assert_eq!(left(b, "/v1/check", 4, "second"), 0, "{algorithm}");
            assert_eq!(left(c, "/v1/refund", 4, "first"), 4, "{algorithm}: a part of it");
            assert_eq!(left(a, "/v1/refund", 100, "first"), 6, "{algorithm}: and the rest");
            assert_eq!(left(b, "/v1/refund", 6, "first"), 6, "{algorithm}: but nothing twice");
            assert_eq!(left(c, "/v1/refund", 6, "third"), 6, "{algorithm}: and nothing that was not charged");
            assert_eq!(left(c, "/v1/check", 7, "denied"), 6, "{algorithm}");
            assert_eq!(left(c, "/v1/refund", 7, "denied"), 6, "{algorithm}: nor what was denied");
            post(b, "/v1/reset", &json!({ "attributes": { "by": algorithm, "user": user } }));
            assert_eq!(left(a, "/v1/check", 6, "third"), 4, "{algorithm}");
            assert_eq!(
                left(c, "/v1/refund", 4, "second"),
                4,
                "{algorithm}: nor what was charged before a reset"
            );
            let reset = json!({ "attributes": { "by": algorithm, "user": user }, "request_id": "first" });
            assert_eq!(post(a, "/v1/reset", &reset).0, 400);
        }
    }
    put(a, "default", &[], &short());
    for node in cluster.running() {
        wait_for("the limits are in force", SOON, || {
            check(node, "fixed_window", "nobody", 0)["reset_after_ms"].as_u64() < Some(2_001)
        });
    }
    for algorithm in ALGORITHMS {
        // Until one is as quick as that: meanwhile nothing comes back but what refills.
        let mut users = 0;
        wait_for("a test of a second", PATIENCE, || {
            users += 1;
            let user = &format!("w{users}");
            assert_eq!(
                post(a, "/v1/check", &body(algorithm, user, 10, "old")).1["remaining"],
                0,
                "{algorithm}"
            );
            wait_for("all of it is back", SOON, || {
                post(b, "/v1/check", &body(algorithm, user, 10, "new")).1["allowed"] == true
            });
            let taken = monotonic();
            let refunded = post(c, "/v1/refund", &body(algorithm, user, 10, "old")).1;
            let left = refunded["buckets"][0]["remaining"].as_u64().unwrap();
            let took = (monotonic() - taken) / 1_000_000;
            let is_quick = took < 700;
            assert!(!is_quick || left <= 4, "{algorithm}: {left} left after {took} ms");
            is_quick
        });
    }
}
