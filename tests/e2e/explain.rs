//! The promise: whoever asks why something is denied finds out by one call at any node, and nothing is counted for it.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tidegate_jepsen::{
    client::Response,
    cluster::{Node, wait_for},
};

use crate::kit::{self, rules::PATIENCE};

const RULES: &str = r#"
rules:
  - { name: per-user, key: [user], limit: 3/1h, overrides: [{ when: { tier: gold }, limit: 30/1h }, { when: { tier: staff }, limit: unlimited }] }
  - { name: logins, when: { path: /login, method: '!GET' }, key: [ip], limit: 5/1m, algorithm: sliding_window }
  - { name: watched, key: [user], limit: 1/1h, mode: shadow }
  - { name: closed, when: { path: /closed }, key: [], limit: deny }
  - { name: over, key: [user], limit: 1/1s, until: 2020-01-01T00:00:00Z }
block:
  - { when: { ip: 192.0.2.9 }, name: a-bad-host }
---
domain: strict
unmatched: deny
rules:
  - { name: one, key: [user], limit: 2/1h, on_owner_loss: deny }
"#;

fn explain(node: &Node, query: &str) -> Value {
    let answer = node.client(PATIENCE).get(&format!("/v1/explain?{query}")).unwrap();
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

fn check(node: &Node, query: &str) -> Response {
    node.client(PATIENCE).get(&format!("/v1/check?{query}")).unwrap()
}

fn of<'v>(explained: &'v Value, rule: &str) -> &'v Value {
    let limits = explained["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["rule"] == rule).unwrap_or_else(|| panic!("{rule}: {explained}"))
}

fn because(explained: &Value, rule: &str) -> String {
    let others = explained["other_rules"].as_array().unwrap();
    let other = others.iter().find(|other| other["rule"] == rule);
    other.unwrap_or_else(|| panic!("{rule}: {explained}"))["because"].as_str().unwrap().to_owned()
}

#[test]
fn any_node_says_which_rule_denies_and_why_the_others_do_not_and_counts_nothing() {
    let cluster = kit::patient_nodes(3, RULES);
    for _ in 0..3 {
        assert_eq!(check(&cluster.nodes[0], "user=ada&path=/x").status, 200);
    }
    let mut owners = Vec::new();
    for node in &cluster.nodes {
        for _ in 0..4 {
            let told = explain(node, "user=ada&path=/x&ip=203.0.113.7");
            assert_eq!((&told["allowed"], &told["domain"]), (&json!(false), &json!("default")), "{told}");
            let denies = of(&told, "per-user");
            assert_eq!(
                (&denies["allowed"], &denies["remaining"], &denies["quota"]),
                (&json!(false), &json!(0), &json!(3))
            );
            assert_eq!((&denies["limit"], &denies["key"]), (&json!("3/1h"), &json!({ "user": "ada" })));
            assert!(
                told["because"].as_str().unwrap().starts_with("per-user has 0 of 3 left; enough for"),
                "{told}"
            );
            let wait = denies["retry_after_ms"].as_u64().unwrap();
            assert!((1_100_000..=1_200_000).contains(&wait), "{wait}");
            assert_eq!(of(&told, "watched")["mode"], "shadow");
            assert_eq!(because(&told, "logins"), "path is \"/x\"; it wants /login");
            assert_eq!(because(&told, "closed"), "path is \"/x\"; it wants /closed");
            assert_eq!(because(&told, "over"), "it was in force until 2020-01-01T00:00:00Z");
            assert_eq!(told["other_rules_count"], 3);
            owners.push(denies["owner"].as_str().unwrap().to_owned());
            assert_eq!(denies["owner"], denies["decides"], "{denies}");
        }
    }
    owners.dedup();
    assert_eq!(owners.len(), 1, "all name the same owner");
    // What was never asked for has all of its units, however often it is explained.
    for node in cluster.nodes.iter().cycle().take(12) {
        let told = explain(node, "user=bob&cost=3");
        assert_eq!(
            (&told["allowed"], &of(&told, "per-user")["remaining"]),
            (&json!(true), &json!(3)),
            "{told}"
        );
    }
    assert_eq!(check(&cluster.nodes[1], "user=bob&cost=3").status, 200);
}

#[test]
fn overrides_block_lists_denials_and_domains_are_named() {
    let cluster = kit::patient_nodes(1, RULES);
    let node = &cluster.nodes[0];
    let gold = explain(node, "user=ada&tier=gold");
    assert_eq!(
        (&of(&gold, "per-user")["override"], &of(&gold, "per-user")["quota"]),
        (&json!("tier=gold"), &json!(30))
    );
    let staff = explain(node, "user=ada&tier=staff");
    assert_eq!((&of(&staff, "per-user")["limit"], &staff["allowed"]), (&json!("unlimited"), &json!(true)));
    let blocked = explain(node, "user=ada&ip=192.0.2.9");
    assert_eq!((&blocked["blocked_by"], &blocked["allowed"]), (&json!("a-bad-host"), &json!(false)));
    let closed = explain(node, "user=ada&path=/closed");
    assert_eq!((&closed["because"], &closed["allowed"]), (&json!("closed denies everything"), &json!(false)));
    let unmatched = explain(node, "domain=strict&ip=203.0.113.7");
    assert_eq!(unmatched["allowed"], false);
    assert!(unmatched["because"].as_str().unwrap().contains("denies what none is about"), "{unmatched}");
    assert_eq!(because(&unmatched, "one"), "the request has no user, by which the rule counts");
    let nowhere = explain(node, "domain=nowhere&user=ada");
    assert_eq!(
        (&nowhere["allowed"], &nowhere["because"]),
        (&json!(true), &json!("there is no domain \"nowhere\", and so no rule"))
    );
    // A limit that comes with the check.
    let body = json!({ "key": "k", "limit": "2/1m", "cost": 3 }).to_string();
    let told = node.client(PATIENCE).post("/v1/explain", &body).unwrap().json();
    assert_eq!(
        (&told["allowed"], &told["limits"][0]["retry_after_ms"]),
        (&json!(false), &Value::Null),
        "{told}"
    );
    for (query, status) in [("", 400), ("cost=x&user=a", 400), ("user=a&costs=nothing:1", 400)] {
        assert_eq!(
            node.client(PATIENCE).get(&format!("/v1/explain?{query}")).unwrap().status,
            status,
            "{query}"
        );
    }
}

#[test]
fn an_owner_that_is_not_heard_is_said() {
    let cluster = kit::patient_nodes(3, RULES);
    let asked = &cluster.nodes[0];
    let user = (0..100)
        .map(|n| format!("domain=strict&user=u{n}"))
        .find(|query| of(&explain(asked, query), "one")["owner"] == "n3");
    let user = user.expect("a third of all are its own");
    cluster.nodes[2].pause();
    let told = explain(asked, &user);
    cluster.nodes[2].resume();
    let one = of(&told, "one");
    assert_eq!(
        (&told["allowed"], &one["decided_by"], &one["owner"]),
        (&json!(false), &json!("fallback"), &json!("n3")),
        "{told}"
    );
    wait_for("it is heard again", PATIENCE, || explain(asked, &user)["allowed"] == true);
}

fn tidegate(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(kit::binary());
    command.args(arguments).env("TIDEGATE_NODE", format!("http://{}", node.http)).output().unwrap()
}

#[test]
fn the_command_line_tells_it_to_people() {
    let cluster = kit::patient_nodes(1, RULES);
    let node = &cluster.nodes[0];
    for _ in 0..3 {
        assert_eq!(check(node, "user=ada").status, 200);
    }
    let told = tidegate(node, &["explain", "user=ada", "path=/x"]);
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(3), "{text}");
    for line in [
        "would be denied: per-user has 0 of 3 left; enough for a cost of 1 in ",
        "per-user: denies, 0 of 3 left, again in ",
        "  counted by user=ada\n",
        "owned by n1",
        "watched: denies, in shadow mode, which keeps nobody out",
        "not about it:\n  logins: path is \"/x\"; it wants /login\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let told = tidegate(node, &["explain", "user=bob", "--output", "json"]);
    assert_eq!(told.status.code(), Some(0));
    let json: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(json["allowed"], true);
    let fault = tidegate(node, &["explain", "user=bob", "--costs", "nothing=1"]);
    assert_eq!(fault.status.code(), Some(1));
    assert!(
        String::from_utf8(fault.stderr).unwrap().contains("no rule of the domain"),
        "what was wrong is said"
    );
}
