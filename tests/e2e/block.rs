//! The promise: what a domain blocks is denied before anything is charged, by whichever node is asked, until the instant that
//! its entry names.

use std::{fmt::Write as _, time::Duration};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON, get, put, write},
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::json;
use tidegate_jepsen::{
    client::Response,
    cluster::{Node, wait_for},
};

fn ask(node: &Node, query: &str) -> Response {
    node.client(PATIENCE).get(&format!("/v1/check?{query}")).unwrap()
}

/// The node's time, later by so many seconds, as rules have it.
fn later(node: &Node, seconds: i64) -> String {
    let answer = node.client(PATIENCE).get("/healthz").unwrap();
    let now: DateTime<Utc> = DateTime::parse_from_rfc2822(answer.header("date").unwrap()).unwrap().to_utc();
    (now + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Secs, true)
}

const PER_IP: &str = "rules: [{ name: per-ip, key: [ip], limit: 3/1h }]\n";

#[test]
fn an_address_is_blocked_at_each_node_until_its_time_is_over_and_nothing_was_charged() {
    let cluster = kit::patient_nodes(3, PER_IP);
    let [a, b, c] = [0, 1, 2].map(|place| &cluster.nodes[place]);
    // Long enough for a busy machine to ask all of it before.
    let until = later(a, 25);
    let list = format!(
        "block:
  - {{ when: {{ ip: 203.0.113.7 }}, until: {until} }}
  - {{ when: {{ ip: 198.51.100.0/24 }}, name: scrapers }}
  - {{ when: {{ user: [mallory] }}, until: 2001-01-01T00:00:00Z }}
  - {{ when: {{ user: eve }}, name: users }}
"
    );
    write(b, "default", &format!("{list}{PER_IP}"));
    for node in cluster.running() {
        wait_for("the list is in force", SOON, || ask(node, "ip=198.51.100.77").json()["rule"] == "scrapers");
        let blocked = ask(node, "ip=203.0.113.7");
        assert_eq!(blocked.status, 429, "{}", blocked.text());
        assert_eq!((blocked.json()["rule"].as_str(), blocked.header("retry-after")), (Some("block"), None));
        assert_eq!(ask(node, "ip=198.51.100.1").json()["rule"], "scrapers");
        assert_eq!(ask(node, "ip=192.0.2.1&user=mallory").status, 200, "that is over");
    }
    let denied = a.client(PATIENCE).get("/v1/auth?user=eve&deny_status=403").unwrap();
    assert_eq!((denied.status, denied.json()["violated-policies"].clone()), (403, json!(["users"])));
    for node in [a, b, c] {
        wait_for("the entry is over", Duration::from_secs(60), || {
            ask(node, "ip=203.0.113.7&cost=0").status == 200
        });
    }
    let admitted = (0..6).filter(|n| ask(&cluster.nodes[n % 3], "ip=203.0.113.7").status == 200).count();
    assert_eq!(admitted, 3, "what was blocked took nothing");

    let told = get(a, "/default").json();
    let block = &told["block"];
    assert_eq!(block[0], json!({ "name": "block", "when": { "ip": ["203.0.113.7"] }, "until": until }));
    assert_eq!(block[1], json!({ "name": "scrapers", "when": { "ip": ["198.51.100.0/24"] } }));
    let diff = put(c, "default?dry_run=true", &[], PER_IP).json();
    assert_eq!(diff["diff"]["unblocked"].as_array().unwrap().len(), 4, "{diff}");
}

#[test]
fn a_list_of_ten_thousand_entries_is_taken_and_a_wrong_one_is_refused_with_what_to_write() {
    let cluster = kit::patient_nodes(2, PER_IP);
    let until = later(&cluster.nodes[0], 3_600);
    let mut list = "block:\n".to_owned();
    for number in 0..10_000 {
        let _ = writeln!(
            list,
            "  - {{ when: {{ ip: 10.{}.{}.7 }}, until: {until} }}",
            number / 250,
            number % 250
        );
    }
    write(&cluster.nodes[1], "default", &format!("{list}{PER_IP}"));
    for node in cluster.running() {
        // Until then the rule counts, and denies too in the end.
        wait_for("the list is in force", SOON, || ask(node, "ip=10.39.249.7").json()["rule"] == "block");
        assert_eq!(
            [ask(node, "ip=10.0.0.7"), ask(node, "ip=10.0.0.8")].map(|answer| answer.status),
            [429, 200]
        );
    }
    for (entry, says) in [
        ("{ when: { ip: 10.0.0.1 }, until: 2026-12-31 }", "2026-12-31T00:00:00Z"),
        ("{ when: { ip: 10.0.0.0/99 } }", "no network"),
        ("{ when: {}, until: 2026-12-31T00:00:00Z }", "would block every request"),
        ("{ ip: 10.0.0.1 }", "an entry of `block` has: when, until, name"),
        ("{ when: { ip: 10.0.0.1 }, name: per-ip }", "is the name of a rule"),
    ] {
        let refused = put(&cluster.nodes[0], "default", &[], &format!("block: [{entry}]\n{PER_IP}"));
        assert_eq!(refused.status, 422, "{entry}: {}", refused.text());
        assert!(refused.text().contains(says), "{entry}: {}", refused.text());
    }
}
