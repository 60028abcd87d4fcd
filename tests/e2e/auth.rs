//! The promise: what a proxy asks at `/v1/auth` is answered with headers and problems as the standards write them, about the
//! address that trusted proxies name and nobody else.

use crate::kit::{self, rules::PATIENCE};
use serde_json::json;
use sfv::{BareItem, List, ListEntry, Parser};
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, Settings},
};

const RULES: &str = r#"
rules:
  - { name: per-ip, key: [ip], limit: 2/1m, when: { path: /shop } }
  - { name: very/large, key: [ip], limit: 900000000000000/1d, burst: 9007199254740992, when: { path: /shop } }
  - { name: short, key: [ip], limit: 7/500ms, when: { path: /shop } }
  - { name: unseen, key: [], limit: 1/1h, when: { path: /shop }, mode: shadow }
  - { name: windows, key: [ip], limit: 3/1h, algorithm: fixed_window, when: { path: /windows } }
  - { name: per-user, key: [user], limit: 1/1h, when: { path: /users } }
---
domain: closed
unmatched: deny
rules: []
"#;

fn nodes(flags: &[&str]) -> Cluster {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Cluster::start(1, Settings { flags, ..kit::settings(RULES) })
}

fn ask(cluster: &Cluster, query: &str, headers: &[(&str, &str)]) -> Response {
    cluster.nodes[0].client(PATIENCE).request("GET", &format!("/v1/auth{query}"), headers, "").unwrap()
}

/// The items of a list of structured fields, with their parameters that are integers.
fn items(response: &Response, name: &str) -> Vec<(String, Vec<(String, i64)>)> {
    let field = response.header(name).unwrap_or_else(|| panic!("no {name}: {response:?}"));
    let list: List = Parser::new(field).parse().unwrap_or_else(|fault| panic!("{field}: {fault}"));
    list.into_iter()
        .map(|entry| {
            let ListEntry::Item(item) = entry else { panic!("{field}") };
            let BareItem::String(name) = item.bare_item else {
                panic!("a policy's name is a String: {field}")
            };
            let parameters = item.params.into_iter().map(|(key, value)| {
                let BareItem::Integer(value) = value else { panic!("{field}") };
                (key.as_str().to_owned(), value.into())
            });
            (name.as_str().to_owned(), parameters.collect())
        })
        .collect()
}

fn parameter(parameters: &[(String, i64)], name: &str) -> Option<i64> {
    parameters.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}

#[test]
fn headers_are_structured_fields_as_the_draft_has_them() {
    let cluster = nodes(&[]);
    let shop = [("X-Forwarded-Uri", "/shop")];
    for round in 0..3 {
        let answer = ask(&cluster, "", &shop);
        assert_eq!(answer.status, if round < 2 { 200 } else { 429 });
        let (policies, limits) = (items(&answer, "ratelimit-policy"), items(&answer, "ratelimit"));
        let names: Vec<&str> = policies.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["per-ip", "very/large", "short"], "nobody is told of shadow rules");
        assert_eq!(limits.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), names);
        for (_, parameters) in &policies {
            assert!(parameter(parameters, "q").unwrap() > 0);
            assert!(parameters.iter().all(|(name, _)| ["q", "w"].contains(&&**name)));
        }
        for (_, parameters) in &limits {
            assert!(parameter(parameters, "r").unwrap() >= 0 && parameter(parameters, "t").unwrap() >= 0);
        }
        assert_eq!(parameter(&policies[0].1, "w"), Some(60));
        assert_eq!(parameter(&policies[2].1, "w"), None, "there is no half second in the draft");
        assert_eq!(parameter(&limits[1].1, "r"), Some(999_999_999_999_999), "an Integer has 15 digits");
        if let Some(wait) = answer.header("retry-after") {
            let wait: i64 = wait.parse().unwrap();
            assert!((1..=30).contains(&wait));
            assert!(
                wait >= parameter(&limits[0].1, "t").unwrap(),
                "not before the end of the effective window"
            );
        }
    }
    let check = cluster.nodes[0].client(PATIENCE).get("/v1/check?path=/shop&ip=192.0.2.1").unwrap();
    assert_eq!(items(&check, "ratelimit").len(), 3);
    assert_eq!(
        parameter(&items(&check, "ratelimit")[0].1, "t"),
        Some(30),
        "until the next one, not until all"
    );
}

#[test]
fn a_denial_is_a_problem_that_names_the_policies() {
    let cluster = nodes(&[]);
    let shop = [("X-Forwarded-Uri", "/shop")];
    assert_eq!(ask(&cluster, "", &shop).body, b"");
    ask(&cluster, "", &shop);
    for (query, status) in [("", 429), ("?deny_status=403", 403), ("?deny_status=401", 401)] {
        let answer = ask(&cluster, query, &shop);
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&wait));
        let problem = answer.json();
        assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
        assert_eq!(problem["title"], "Too many requests");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["violated-policies"], json!(["per-ip"]));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("per-ip allows 2 in 60 s. Try again in "), "{detail}");
    }
    // Where nothing will ever be allowed, nobody is told to wait.
    let closed = ask(&cluster, "?domain=closed", &[]);
    assert_eq!((closed.status, closed.header("retry-after")), (429, None));
    assert_eq!(closed.json()["violated-policies"], json!([]));
    let never = ask(&cluster, "?cost=4", &[("X-Forwarded-Uri", "/windows")]);
    assert_eq!((never.status, never.header("retry-after")), (429, None));
    // By any method, with any body.
    let mut client = cluster.nodes[0].client(PATIENCE);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = client.request(method, "/v1/auth", &shop, "a=b").unwrap();
        assert_eq!(answer.status, 429, "{method}");
    }
    let wrong = ask(&cluster, "?deny_status=200", &shop);
    assert_eq!((wrong.status, &wrong.json()["field"]), (400, &json!("deny_status")));
}

#[test]
fn headers_count_from_trusted_proxies_only() {
    let shop = ("X-Forwarded-Uri", "/windows");
    let statuses = |flags: &[&str], name: &str| {
        let cluster = nodes(flags);
        let ask = |address| ask(&cluster, "", &[shop, (name, address)]).status;
        ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"].map(ask)
    };
    let trusted = ["--trusted-proxies", "10.0.0.0/8,127.0.0.1"];
    assert_eq!(statuses(&[], "X-Forwarded-For"), [200, 200, 200, 429]);
    assert_eq!(statuses(&["--trusted-proxies", "10.0.0.0/8"], "X-Forwarded-For"), [200, 200, 200, 429]);
    assert_eq!(statuses(&trusted, "X-Forwarded-For"), [200; 4]);
    assert_eq!(statuses(&trusted, "Forwarded"), [200, 200, 200, 429]);
    let forwarded = [&trusted[..], &["--forwarded-header", "forwarded"]].concat();
    let cluster = nodes(&forwarded);
    let mut all = Vec::new();
    for address in [
        "for=203.0.113.1",
        "for=203.0.113.2",
        "for=\"[2001:db8::1]:80\"",
        "for=\"[2001:db8::2]\"",
        "for=\"[2001:db8::3]\"",
        "for=\"[2001:db8::4]\"",
        "for=\"[2001:db8:1::]\"",
    ] {
        all.push(
            ask(&cluster, "", &[shop, ("Forwarded", address), ("X-Forwarded-For", "203.0.113.1")]).status,
        );
    }
    assert_eq!(all, [200, 200, 200, 200, 200, 429, 200], "the addresses of one network are one client");
}

#[test]
fn a_chosen_header_is_an_attribute() {
    let cluster = nodes(&[]);
    let ask = |keys: &[&str]| {
        let keys = keys.iter().map(|key| ("X-Api-Key", *key));
        let headers: Vec<_> = keys.chain([("X-Forwarded-Uri", "/users")]).collect();
        ask(&cluster, "?header=x-api-key:user", &headers).status
    };
    assert_eq!([ask(&["a"]), ask(&["a"]), ask(&["b"]), ask(&["b"])], [200, 429, 200, 429]);
    assert_eq!(ask(&[]), 200, "a rule does not apply without its key");
    assert_eq!(ask(&["b", "c"]), 400, "nobody knows which one counts");
}

#[test]
fn the_proxy_protocol_counts_from_trusted_proxies_only() {
    let version_2 = |last: u8| {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        bytes.extend([203, 0, 113, last, 127, 0, 0, 1, 0x9c, 0x40, 0x1e, 0x78]);
        bytes
    };
    let version_1 = |last: u8| format!("PROXY TCP4 203.0.113.{last} 127.0.0.1 40000 7800\r\n").into_bytes();
    let request = b"GET /v1/auth HTTP/1.1\r\nhost: a\r\nx-forwarded-uri: /windows\r\n\r\n";
    let speak = |cluster: &Cluster, head: Vec<u8>| {
        cluster.nodes[0].client(PATIENCE).send(&[&head, &request[..]].concat()).map(|answer| answer.status)
    };
    let cluster = nodes(&["--trusted-proxies=127.0.0.1", "--proxy-protocol"]);
    for last in 1..=4 {
        assert_eq!(speak(&cluster, version_1(last)).unwrap(), 200);
        assert_eq!(speak(&cluster, version_2(last)).unwrap(), 200);
        assert_eq!(speak(&cluster, version_2(last)).unwrap(), 200);
        assert_eq!(speak(&cluster, version_1(last)).unwrap(), 429);
    }
    // The proxy itself, and one that has nothing to say.
    assert_eq!(speak(&cluster, b"PROXY UNKNOWN\r\n".to_vec()).unwrap(), 200);
    assert_eq!(speak(&cluster, Vec::new()).unwrap(), 200);
    // In pieces.
    let mut stream = std::net::TcpStream::connect(cluster.nodes[0].http).unwrap();
    for piece in [&version_1(9)[..9], &version_1(9)[9..], &request[..]] {
        std::io::Write::write_all(&mut stream, piece).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // What is none ends the connection.
    for broken in [
        "PROXY TCP4 203.0.113.9\r\n\r\n",
        "PROXY nonsense and more of it\r\n",
        "PROXY TCP4 1.2.3.4.5 127.0.0.1 1 2\r\n",
    ] {
        assert!(speak(&cluster, broken.as_bytes().to_vec()).is_err(), "{broken}");
    }
    for flags in [&["--trusted-proxies=10.0.0.1", "--proxy-protocol"][..], &["--trusted-proxies=127.0.0.1"]] {
        let cluster = nodes(flags);
        assert_eq!(speak(&cluster, version_1(1)).unwrap(), 400, "{flags:?}");
        assert_eq!(speak(&cluster, Vec::new()).unwrap(), 200);
    }
}

#[test]
fn the_legacy_headers_are_as_one_wants_them() {
    let reset = |flags: &[&str]| {
        let cluster = nodes(flags);
        let answer = ask(&cluster, "", &[("X-Forwarded-Uri", "/shop")]);
        let check = cluster.nodes[0].client(PATIENCE).get("/v1/check?path=/shop&ip=192.0.2.1").unwrap();
        assert_eq!(answer.header("x-ratelimit-limit"), check.header("x-ratelimit-limit"));
        assert!(answer.header("ratelimit").is_some());
        answer.header("x-ratelimit-reset").map(|value| value.parse::<u64>().unwrap())
    };
    assert_eq!(reset(&[]), Some(30));
    assert_eq!(reset(&["--legacy-headers", "seconds"]), Some(30));
    assert_eq!(reset(&["--legacy-headers", "off"]), None);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let unix = reset(&["--legacy-headers=unix-time"]).unwrap();
    assert!((now + 30..now + 31 + PATIENCE.as_secs()).contains(&unix), "{unix} {now}");
}
