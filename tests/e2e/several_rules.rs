//! The promise: of several rules that match, all that are enforced count for what a caller is told, whichever binds and
//! whichever node owns its bucket; one in shadow mode changes nothing; and one check takes of each rule what it says.

use std::{collections::BTreeMap, process::Command};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON},
};
use serde_json::{Value, json};
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, wait_for},
};

const RULES: &str = r#"
rules:
  - { name: queue, when: { for: delays }, key: [svc], limit: 1/1s, burst: 20, algorithm: leaky_bucket }
  - { name: per-user, when: { for: delays }, key: [user], limit: 5/1h }
  - { name: watched-queue, when: { for: delays }, key: [svc], limit: 1/10s, burst: 20, algorithm: leaky_bucket, mode: shadow }
  - { name: watched, when: { for: watching }, key: [], limit: 1/10s, burst: 3, algorithm: leaky_bucket, mode: shadow }
  - { name: free, when: { for: free }, key: [], limit: unlimited }
  - { name: watched-free, when: { for: free }, key: [], limit: 1/1h, mode: shadow }
  - { name: minute, when: { for: denials }, key: [client], limit: 5/1m }
  - { name: day, when: { for: denials }, key: [client], limit: 5/1d }
  - { name: mine, when: { for: left }, key: [client], limit: 3/1d }
  - { name: shared, when: { for: left }, key: [group], limit: 100/1d, algorithm: sliding_window }
  - { name: burst, when: { for: bursts }, key: [client], limit: 10/1m, burst: 100 }
  - { name: short, when: { for: bursts }, key: [client], limit: 100/1m, burst: 20 }
---
domain: llm
rules:
  - { name: requests, key: [user], limit: 10/1d }
  - { name: tokens, key: [user], limit: 1000/1d }
  - { name: team-tokens, key: [team], limit: 5000/1d, cost: tokens }
  - { name: exports, key: [user], when: { path: /export }, limit: 20/1d, cost: 5 }
"#;

fn get(cluster: &Cluster, node: usize, call: &str) -> Response {
    cluster.nodes[node].client(PATIENCE).get(call).unwrap()
}

fn post(cluster: &Cluster, node: usize, call: &str, body: &Value) -> (u16, Value) {
    let answer = cluster.nodes[node].client(PATIENCE).post(call, &body.to_string()).unwrap();
    (answer.status, answer.json())
}

/// The items of a header: name and parameters.
fn items(answer: &Response, header: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let list = answer.header(header).unwrap_or_default();
    let item = |item: &str| {
        let mut parts = item.split(';');
        let name = parts.next().unwrap().trim().trim_matches('"').to_owned();
        let number = |part: &str| {
            let (key, value) = part.split_once('=').unwrap();
            (key.to_owned(), value.parse().unwrap())
        };
        (name, parts.map(number).collect())
    };
    list.split(',').filter(|item| !item.is_empty()).map(item).collect()
}

#[test]
fn the_longest_delay_of_the_enforced_rules_holds_whichever_binds() {
    let cluster = kit::nodes(1, RULES);
    for _ in 0..5 {
        get(&cluster, 0, "/v1/check?for=delays&svc=pay");
    }
    let answer = get(&cluster, 0, "/v1/check?for=delays&svc=pay&user=u1").json();
    assert_eq!(answer["rule"], "per-user", "{answer}");
    let delay = answer["delay_ms"].as_u64().unwrap();
    assert!((3_500..=5_000).contains(&delay), "not the 50 s of the rule that only watches: {answer}");
    // A denial has no turn to wait for.
    let denied = get(&cluster, 0, "/v1/check?for=delays&svc=pay&user=u1&cost=5").json();
    assert_eq!((&denied["allowed"], &denied["delay_ms"]), (&json!(false), &json!(0)), "{denied}");
}

#[test]
fn a_shadow_rule_reaches_no_client() {
    let cluster = kit::nodes(3, RULES);
    let nothing = |body: &Value| {
        json!({ "allowed": true, "rule": null, "limit": null, "remaining": null, "reset_after_ms": null,
            "retry_after_ms": null, "delay_ms": 0, "decided_by": "unmatched", "node": body["node"] })
    };
    for round in 0..9 {
        let node = round % 3;
        for call in ["/v1/check?for=watching", "/v1/auth?for=watching"] {
            let answer = get(&cluster, node, call);
            assert_eq!(answer.status, 200);
            for header in
                ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "retry-after"]
            {
                assert_eq!(answer.header(header), None, "{call} {header}");
            }
            if call.starts_with("/v1/check") {
                let body = answer.json();
                assert_eq!(body, nothing(&body), "round {round}");
            }
        }
        let batch = json!({ "checks": [{ "attributes": { "for": "watching" } }] });
        let (_, answer) = post(&cluster, node, "/v1/check/batch", &batch);
        assert_eq!(answer["answers"][0], nothing(&answer["answers"][0]));
        // Beside a rule that says `unlimited` it changes nothing either.
        assert_eq!(get(&cluster, node, "/v1/check?for=free").json()["rule"], "free");
    }
}

#[test]
fn a_denial_names_the_longest_wait_of_all_rules_that_deny_and_the_headers_all_rules() {
    let cluster = kit::patient_nodes(3, RULES);
    for key in 0..150 {
        let call = format!("/v1/check?for=denials&client=c{key}");
        for round in 0..5 {
            let answer = get(&cluster, (key + round) % 3, &call);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(items(&answer, "ratelimit").len(), 2);
        }
        for node in 0..3 {
            let denied = get(&cluster, node, &call);
            let wait: u64 = denied.header("retry-after").unwrap().parse().unwrap();
            assert!((17_270..=17_280).contains(&wait), "c{key} at {node}: {wait}");
            assert_eq!(denied.json()["rule"], "day");
            for header in ["ratelimit", "ratelimit-policy"] {
                let names: Vec<String> = items(&denied, header).into_keys().collect();
                assert_eq!(names, ["day", "minute"], "c{key} at {node}: {header}");
            }
        }
    }
}

#[test]
fn what_is_left_of_a_rule_that_allows_is_not_what_a_denied_check_would_have_left() {
    let cluster = kit::patient_nodes(3, RULES);
    for key in 0..40 {
        let call = format!("/v1/check?for=left&client=c{key}&group=g{key}");
        for round in 0..3 {
            assert_eq!(get(&cluster, (key + round) % 3, &call).status, 200);
        }
        for round in 0..6 {
            // What another node has charged for the check before this one may still be on its way back.
            wait_for(&format!("key {key}, round {round}: 97 are left"), SOON, || {
                let denied = get(&cluster, round % 3, &format!("{call}&cost=2"));
                assert_eq!(denied.status, 429);
                let left = items(&denied, "ratelimit");
                (left["shared"]["r"], left["mine"]["r"]) == (97, 0)
            });
        }
        assert_eq!(get(&cluster, 0, &format!("/v1/check?for=left&group=g{key}&cost=97")).status, 200);
    }
}

#[test]
fn a_policy_says_what_the_remaining_units_count_against() {
    let cluster = kit::nodes(1, RULES);
    let answer = get(&cluster, 0, "/v1/check?for=bursts&client=c");
    let (left, policy) = (items(&answer, "ratelimit"), items(&answer, "ratelimit-policy"));
    assert_eq!((left["burst"]["r"], policy["burst"]["q"], policy["burst"]["w"]), (99, 100, 600));
    assert_eq!((left["short"]["r"], policy["short"]["q"], policy["short"]["w"]), (19, 20, 12));
}

#[test]
fn one_check_takes_of_each_rule_what_it_says_and_a_refund_gives_that_back() {
    let cluster = kit::patient_nodes(3, RULES);
    let body = |more: Value| {
        let mut body = json!({ "domain": "llm", "attributes": { "user": "ada", "team": "a" } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let left = |node: usize| {
        let answer = get(&cluster, node, "/v1/check?domain=llm&user=ada&team=a&cost=0");
        let left = items(&answer, "ratelimit");
        ["requests", "tokens", "team-tokens"].map(|name| left[name]["r"])
    };
    let (status, answer) = post(&cluster, 0, "/v1/check", &body(json!({ "costs": { "tokens": 400 } })));
    assert_eq!(status, 200, "{answer}");
    for node in 0..3 {
        assert_eq!(left(node), [9, 600, 4600]);
    }
    // By query, too; and one of them by its own name.
    let answer =
        get(&cluster, 1, "/v1/check?domain=llm&user=ada&team=a&costs=tokens:500,team-tokens:600,requests:2");
    assert_eq!(answer.status, 200);
    assert_eq!(left(2), [7, 100, 4000]);
    // What one of them denies takes nothing of the others.
    let (status, denied) = post(&cluster, 2, "/v1/check", &body(json!({ "costs": { "tokens": 101 } })));
    assert_eq!((status, &denied["rule"]), (429, &json!("tokens")), "{denied}");
    // What another node has charged for the denied check may still be on its way back.
    wait_for("it has given back what it took", SOON, || left(0) == [7, 100, 4000]);

    // A request that is asked again is charged once.
    let again = body(json!({ "costs": { "tokens": 50 }, "request_id": "r1" }));
    for node in [0, 1, 2, 0] {
        assert_eq!(post(&cluster, node, "/v1/check", &again).0, 200);
    }
    assert_eq!(left(1), [6, 50, 3950]);

    // A refund of what was not needed, and of nothing else.
    let (status, refunded) =
        post(&cluster, 1, "/v1/refund", &body(json!({ "cost": 0, "costs": { "tokens": 30 } })));
    assert_eq!(status, 200, "{refunded}");
    let names: Vec<&str> =
        refunded["buckets"].as_array().unwrap().iter().filter_map(|one| one["rule"].as_str()).collect();
    assert_eq!(names, ["tokens", "team-tokens"], "{refunded}");
    assert_eq!(left(0), [6, 80, 3980]);

    // What a request costs more of, by the rule itself.
    let (_, answer) = post(
        &cluster,
        0,
        "/v1/check",
        &json!({ "domain": "llm", "attributes": { "user": "bob", "path": "/export" } }),
    );
    assert_eq!((&answer["rule"], &answer["remaining"]), (&json!("requests"), &json!(9)), "{answer}");
    let exports = |cost: u64| {
        let answer = get(&cluster, 1, &format!("/v1/check?domain=llm&user=bob&path=/export&cost={cost}"));
        (answer.status, items(&answer, "ratelimit")["exports"]["r"])
    };
    assert_eq!((exports(0), exports(3), exports(1)), ((200, 15), (200, 0), (429, 0)));

    let node = format!("http://{}", cluster.nodes[2].http);
    let output = Command::new(kit::binary())
        .args(["check", "--node", &node, "--domain", "llm", "--output", "json", "user=eve"])
        .args(["--costs", "tokens=999,requests=2"])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["rule"], &answer["remaining"]), (&json!("tokens"), &json!(1)), "{answer}");
}

#[test]
fn a_check_can_bring_several_limits_along() {
    let cluster = kit::patient_nodes(3, RULES);
    for key in 0..20 {
        let body = |tokens: u64| {
            json!({ "key": format!("k{key}"), "costs": { "tokens": tokens },
                "limits": { "requests": "3/1d", "tokens": { "limit": "1000/1d", "burst": 500 }, "other": "3/1d" } })
        };
        let check = |node: usize, tokens: u64| {
            let answer =
                cluster.nodes[node].client(PATIENCE).post("/v1/check", &body(tokens).to_string()).unwrap();
            let left = items(&answer, "ratelimit");
            (
                answer.status,
                answer.json()["rule"].clone(),
                ["requests", "tokens", "other"].map(|name| left[name]["r"]),
            )
        };
        assert_eq!(check(key % 3, 400), (200, json!("other"), [2, 100, 2]), "two names are two buckets");
        assert_eq!(check((key + 1) % 3, 101), (429, json!("tokens"), [2, 100, 2]));
        // What was charged for it elsewhere is on its way back.
        let look = json!({ "key": format!("k{key}"), "cost": 0, "limits": body(0)["limits"] });
        wait_for("all of it is given back", SOON, || {
            let answer =
                cluster.nodes[key % 3].client(PATIENCE).post("/v1/check", &look.to_string()).unwrap();
            let left = items(&answer, "ratelimit");
            ["requests", "tokens", "other"].map(|name| left[name]["r"]) == [2, 100, 2]
        });
        assert_eq!(check((key + 2) % 3, 100), (200, json!("tokens"), [1, 0, 1]));
        let (status, refunded) = post(&cluster, key % 3, "/v1/refund?rule=tokens", &body(50));
        assert_eq!((status, &refunded["buckets"][0]["remaining"]), (200, &json!(50)), "{refunded}");
    }
}

#[test]
fn a_cost_of_a_rule_that_is_not_there_is_refused_with_the_names_there_are() {
    let cluster = kit::nodes(1, RULES);
    let refused = |body: Value| {
        let (status, problem) = post(&cluster, 0, "/v1/check", &body);
        assert_eq!(status, 400, "{problem}");
        problem
    };
    let problem =
        refused(json!({ "domain": "llm", "attributes": { "user": "ada" }, "costs": { "token": 5 } }));
    assert_eq!(problem["field"], "costs.token");
    for name in ["requests", "tokens", "team-tokens", "exports"] {
        assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
    }
    // A rule that is there, and not about this request, is no mistake.
    let (status, _) = post(
        &cluster,
        0,
        "/v1/check",
        &json!({ "domain": "llm", "attributes": { "user": "ada" }, "costs": { "exports": 5 } }),
    );
    assert_eq!(status, 200);
    let problem =
        refused(json!({ "domain": "nowhere", "attributes": { "user": "ada" }, "costs": { "token": 5 } }));
    assert!(problem["detail"].as_str().unwrap().contains("no rules"), "{problem}");
    let problem = refused(json!({ "key": "k", "limit": "5/1m", "costs": { "tokens": 5 } }));
    assert_eq!(problem["field"], "costs");
    // In a batch it is the answer of that check.
    let batch = json!({ "checks": [
        { "domain": "llm", "attributes": { "user": "ada" }, "costs": { "token": 5 } },
        { "domain": "llm", "attributes": { "user": "ada" }, "costs": { "tokens": 5 } },
    ] });
    let (_, answer) = post(&cluster, 0, "/v1/check/batch", &batch);
    assert_eq!(
        (&answer["answers"][0]["status"], &answer["answers"][1]["allowed"]),
        (&json!(400), &json!(true))
    );
    let refused = get(&cluster, 0, "/v1/auth?domain=llm&costs=token:5");
    assert_eq!(refused.status, 400);
}
