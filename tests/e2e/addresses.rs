//! The promise: one client is one client, however its address is written and whichever call has it; a pattern of an address
//! is compared as one; and as much of an address counts as the rule says, or else the node.

use crate::kit::{self, rules::PATIENCE};
use serde_json::{Value, json};
use tidegate_jepsen::{
    client::{Client, Response},
    cluster::{Cluster, Settings},
};

const RULES: &str = r#"
rules:
  - { name: per-ip, when: { at: key }, key: [ip], limit: 1000/1h }
  - { name: one, when: { at: [one, /one], ip: "203.0.113.5" }, key: [], limit: 1000/1h }
  - { name: six, when: { ip: "2001:db8:0:1::5", path: /six }, key: [], limit: 1000/1h }
  - { name: wide, when: { at: wide }, key: [ip], ip_prefix: { v4: 24, v6: 56 }, limit: 1000/1h }
  - { name: narrow, when: { path: /narrow }, key: [ip], ip_prefix: { v6: 128 }, limit: 1000/1h }
  - { name: usual, when: { path: /usual }, key: [ip], limit: 1000/1h }
"#;

/// Each line is one client.
const SPELLINGS: &[&[&str]] = &[
    &[
        "198.51.100.7",
        "198.51.100.7:1001",
        "198.51.100.7:1002",
        "\"198.51.100.7:80\"",
        " 198.51.100.7 ",
        "::ffff:198.51.100.7",
        "::FFFF:c633:6407",
        "[::ffff:198.51.100.7]:443",
        "64:ff9b::198.51.100.7",
        "[64:FF9B::c633:6407]:80",
    ],
    &[
        "2001:db8::5",
        "2001:DB8:0:0::5",
        "2001:0db8:0000:0000:0000:0000:0000:0005",
        "[2001:db8::5]",
        "\"[2001:db8::5]:47011\"",
        "2001:db8::5%eth0",
        "2001:db8::ffff:ffff:ffff:ffff",
    ],
];

const NO_ADDRESSES: [&str; 9] = [
    "",
    "unknown",
    "198.51.100.007",
    "198.51.100",
    "198.51.100.7:",
    "198.51.100.7/32",
    "2001:db8:::5",
    "[198.51.100.7]",
    "a, b",
];

fn nodes(flags: &[&str]) -> Cluster {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Cluster::start(1, Settings { flags, ..kit::settings(RULES) })
}

fn in_query(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn auth(client: &mut Client, path: &str, forwarded_for: &str) -> Response {
    let headers = [("X-Forwarded-Uri", path), ("X-Forwarded-For", forwarded_for)];
    client.request("GET", "/v1/auth?at=key", &headers, "").unwrap()
}

#[test]
fn one_client_is_one_client_in_each_call() {
    let cluster = nodes(&["--trusted-proxies", "127.0.0.1"]);
    let mut client = cluster.nodes[0].client(PATIENCE);
    for spellings in SPELLINGS {
        let mut left = 1000;
        let mut takes_one = |answer: &Value, how: &str| {
            left -= 1;
            assert_eq!(answer["remaining"], left, "{how}: {answer}");
        };
        for spelling in *spellings {
            let by_query = client.get(&format!("/v1/check?at=key&ip={}", in_query(spelling))).unwrap();
            takes_one(&by_query.json(), spelling);
            let attributes = json!({ "attributes": { "ip": spelling, "at": "key" } });
            takes_one(&client.post("/v1/check", &attributes.to_string()).unwrap().json(), spelling);
            let batch =
                client.post("/v1/check/batch", &json!({ "checks": [attributes] }).to_string()).unwrap();
            takes_one(&batch.json()["answers"][0], spelling);
            let asked = auth(&mut client, "/", spelling);
            takes_one(
                &json!({ "remaining": asked.header("x-ratelimit-remaining").unwrap().parse::<u64>().unwrap() }),
                spelling,
            );
        }
        for spelling in *spellings {
            let attributes = json!({ "attributes": { "ip": spelling, "at": "key" } }).to_string();
            let refunded = client.post("/v1/refund", &attributes).unwrap().json();
            left += 1;
            assert_eq!(refunded["buckets"][0]["remaining"], left, "{spelling}");
        }
        let attributes = json!({ "attributes": { "ip": spellings[1], "at": "key" } }).to_string();
        let reset = client.post("/v1/reset", &attributes).unwrap().json();
        assert_eq!(reset["buckets"][0]["remaining"], 1000);
    }
}

#[test]
fn what_is_no_address_is_told_so() {
    let cluster = nodes(&[]);
    let mut client = cluster.nodes[0].client(PATIENCE);
    let assert_refused = |answer: &Value, text: &str| {
        assert_eq!(
            (&answer["status"], &answer["field"]),
            (&json!(400), &json!("attributes.ip")),
            "{text:?}: {answer}"
        );
        assert!(answer["detail"].as_str().unwrap().contains("no address"), "{answer}");
    };
    for text in NO_ADDRESSES {
        let answer = client.get(&format!("/v1/check?ip={}", in_query(text))).unwrap();
        assert_eq!(answer.status, 400);
        assert_refused(&answer.json(), text);
        let check = json!({ "attributes": { "ip": text } });
        for path in ["/v1/check", "/v1/refund", "/v1/reset"] {
            assert_refused(&client.post(path, &check.to_string()).unwrap().json(), text);
        }
        let good = json!({ "attributes": { "ip": "192.0.2.1" } });
        let batch = client.post("/v1/check/batch", &json!({ "checks": [check, good] }).to_string()).unwrap();
        assert_refused(&batch.json()["answers"][0], text);
        assert_eq!(batch.json()["answers"][1]["allowed"], true);
    }
    // Other names take what is written.
    assert_eq!(client.get("/v1/check?address=unknown&client=198.51.100.007").unwrap().status, 200);
}

#[test]
fn a_pattern_of_an_address_is_compared_as_one() {
    let cluster = nodes(&["--trusted-proxies", "127.0.0.1"]);
    let mut client = cluster.nodes[0].client(PATIENCE);
    for spelling in ["203.0.113.5", "::ffff:203.0.113.5", "203.0.113.5:80", "64:ff9b::cb00:7105"] {
        let answer = client.get(&format!("/v1/check?at=one&ip={}", in_query(spelling))).unwrap().json();
        assert_eq!(answer["rule"], "one", "{spelling}");
    }
    assert_eq!(client.get("/v1/check?at=one&ip=203.0.113.6").unwrap().json()["rule"], Value::Null);
    for (address, is_about) in
        [("2001:db8:0:1::5", true), ("2001:DB8:0:1:0:0:0:5", true), ("2001:db8:0:1::6", false)]
    {
        let answer = auth(&mut client, "/six", address);
        let rules = answer.header("ratelimit-policy").unwrap();
        assert_eq!(rules.contains("\"six\""), is_about, "{address}: {rules}");
    }
}

const BY_TEXT: &str = r#"
rules:
  - name: a
    when: { at: text }
    key: [user]
    limit: 100/1h
    overrides:
      - { when: { ip: "2001:D*" }, limit: 1/1h }
      - { when: { ip: { like: "2002:DB9:*:5" } }, limit: 2/1h }
      - { when: { ip: "64:ff9b::/96" }, limit: 3/1h }
block:
  - { when: { ip: { like: "2001:dbb:*:5" } } }
  - { when: { ip: "2003:fe*" } }
"#;

#[test]
fn a_pattern_of_a_text_sees_each_spelling_of_an_address_as_its_shortest_one() {
    let cluster = Cluster::start(1, kit::settings(BY_TEXT));
    let mut client = cluster.nodes[0].client(PATIENCE);
    let mut limit = |ip: &str| {
        let asked = client.get(&format!("/v1/check?at=text&user=u&cost=0&ip={}", in_query(ip))).unwrap();
        if asked.status == 429 { 0 } else { asked.json()["limit"].as_u64().unwrap() }
    };
    for (expected, spellings) in [
        (0, &["2001:dbb::5", "2001:DBB::5", "2001:0dbb::5", "2001:dbb::0005", "[2001:dbb:0::5]:80"][..]),
        (0, &["2003:fe8::1", "2003:FE8::1", "2003:0fe8::1", "[2003:0fe8::1]"]),
        (1, &["2001:db8::1", "2001:DB8::1", "2001:0db8:0::1"]),
        (2, &["2002:db9::5", "2002:DB9:0:0:0:0:0:0005"]),
        (3, &["64:ff9b::cb00:7105", "64:FF9B::203.0.113.5", "[64:ff9b::1]:80"]),
        (100, &["203.0.113.5", "::ffff:203.0.113.5", "2004::1"]),
    ] {
        for spelling in spellings {
            assert_eq!(limit(spelling), expected, "{spelling}");
        }
    }
    for pattern in ["::ffff:10.*", "64:ff9b::*", "[2001:db8:*", "2001:0d*", "2001:db8:0d*"] {
        let rules = format!("rules: [{{ name: r, when: {{ ip: \"{pattern}\" }}, key: [], limit: 1/1s }}]");
        let refused = client.request("PUT", "/v1/rules/other?dry_run=true", &[], &rules).unwrap();
        assert_eq!(refused.status, 422, "{pattern}: {}", refused.text());
    }
}

#[test]
fn a_limit_that_was_meant_is_no_attribute_of_a_proxys_request() {
    let cluster = Cluster::start(1, kit::settings("rules: []\n"));
    let mut client = cluster.nodes[0].client(PATIENCE);
    for query in ["key=k9&limit=1/1h", "limit=1/1h", "key=k&limits=a"] {
        let refused = client.get(&format!("/v1/auth?{query}")).unwrap();
        assert_eq!(refused.status, 400, "{query}");
    }
    assert_eq!(client.get("/v1/auth?limit=50").unwrap().status, 200);
}

#[test]
fn as_many_bits_count_as_the_rule_says_and_else_the_node() {
    let left = |answer: &Response| answer.header("x-ratelimit-remaining").unwrap().parse::<u64>().unwrap();
    for (bits, flags) in [
        (64, &[][..]),
        (48, &["--ipv6-prefix", "48"]),
        (96, &["--ipv6-prefix", "96"]),
        (128, &["--ipv6-prefix=128"]),
    ] {
        let cluster = nodes(&[&["--trusted-proxies", "127.0.0.1"], flags].concat());
        let mut client = cluster.nodes[0].client(PATIENCE);
        // Each differs from the first in its last bit that is one.
        let others = [
            (49, "2001:db8:0:8000::"),
            (64, "2001:db8:0:1::"),
            (65, "2001:db8::8000:0:0:0"),
            (96, "2001:db8::1:0:0"),
            (97, "2001:db8::8000:0"),
            (128, "2001:db8::1"),
        ];
        assert_eq!(left(&auth_only(&mut client, "/usual", "2001:db8::")), 999);
        let mut same = 999;
        for (bit, other) in others {
            let now = left(&auth_only(&mut client, "/usual", other));
            if bit > bits {
                same -= 1;
                assert_eq!(now, same, "{other} of /{bits}");
            } else {
                assert_eq!(now, 999, "{other} of /{bits}");
            }
            // The rule's own number goes first.
            assert_eq!(left(&auth_only(&mut client, "/narrow", other)), 999, "{other}");
        }
        let mut check =
            |ip: &str| client.get(&format!("/v1/check?at=wide&ip={ip}")).unwrap().json()["remaining"].clone();
        let all =
            ["192.0.2.1", "192.0.2.200", "192.0.3.1", "2001:db8::1", "2001:db8:0:ff::1", "2001:db8:0:100::1"];
        assert_eq!(all.map(&mut check), [999, 998, 999, 999, 998, 999].map(Value::from));
    }
    let described = nodes(&[]).nodes[0].client(PATIENCE).get("/v1/rules/default").unwrap().json();
    assert_eq!(described["rules"][3]["ip_prefix"], json!({ "v4": 24, "v6": 56 }));
    assert_eq!(described["rules"][5]["ip_prefix"], Value::Null);
}

/// Of a path, where only one rule is about the request.
fn auth_only(client: &mut Client, path: &str, forwarded_for: &str) -> Response {
    let headers = [("X-Forwarded-Uri", path), ("X-Forwarded-For", forwarded_for)];
    client.request("GET", "/v1/auth", &headers, "").unwrap()
}
