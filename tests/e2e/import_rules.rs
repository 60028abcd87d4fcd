//! The promise: rules that are made of another limiter's configuration decide as that limiter does, and what they cannot say
//! is told with its line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::kit::{self, rules::PATIENCE};
use serde_json::{Value, json};
use tidegate_jepsen::cluster::Cluster;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name)
}

fn import(arguments: &[&str], path: &Path) -> (i32, String, String) {
    let output =
        Command::new(kit::binary()).args(["rules", "import"]).args(arguments).arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The rules and the remarks are those that are written down; `UPDATE=1 cargo test --test import_rules` writes them down.
fn is_as_written(kind: &str, source: &str) -> String {
    let path = file(source);
    let (code, rules, remarks) = import(&["--from", kind], &path);
    assert_eq!(code, 0, "{remarks}");
    let remarks = remarks.replace(&path.display().to_string(), source);
    for (name, found) in [(format!("{kind}.rules.yaml"), &rules), (format!("{kind}.remarks.txt"), &remarks)] {
        if std::env::var_os("UPDATE").is_some() {
            fs::write(file(&name), found).unwrap();
        }
        assert_eq!(&fs::read_to_string(file(&name)).unwrap(), found, "tests/import/{name}");
    }
    rules
}

fn check(cluster: &Cluster, domain: &str, attributes: &Value) -> bool {
    let body = json!({ "domain": domain, "attributes": attributes }).to_string();
    let answer = cluster.nodes[0].client(PATIENCE).post("/v1/check", &body).unwrap();
    assert!([200, 429].contains(&answer.status), "{}", answer.text());
    answer.status == 200
}

/// Asks so often, and counts what is allowed.
fn allowed(cluster: &Cluster, domain: &str, attributes: &Value, times: usize) -> usize {
    (0..times).filter(|_| check(cluster, domain, attributes)).count()
}

#[test]
fn the_rules_of_envoyproxy_ratelimit_decide_as_it_does() {
    let rules = is_as_written("envoy", "envoy.yaml");
    let cluster = kit::nodes(1, &rules);
    // A descriptor, and how many of six requests envoyproxy/ratelimit lets through in one window of each unit.
    for (descriptor, expected) in [
        (json!({ "remote_address": "203.0.113.1" }), 3),
        (json!({ "remote_address": "203.0.113.2" }), 3),
        (json!({ "remote_address": "10.0.0.1" }), 6),
        (json!({ "remote_address": "10.0.0.2" }), 1),
        // No limit at this depth, though there are some deeper.
        (json!({ "path": "/login" }), 6),
        (json!({ "path": "/login", "remote_address": "203.0.113.3" }), 2),
        (json!({ "path": "/login", "remote_address": "203.0.113.4" }), 2),
        // In shadow mode nothing is denied.
        (json!({ "path": "/login", "tenant": "gold" }), 6),
        (json!({ "path": "/login", "tenant": "silver" }), 6),
        // A prefix: each value by itself. The exact value goes before it, and has no limit.
        (json!({ "path": "/api/a" }), 2),
        (json!({ "path": "/api/b" }), 2),
        (json!({ "path": "/api/free" }), 6),
        // All values together.
        (json!({ "path": "/shared/a" }), 2),
        (json!({ "path": "/shared/b" }), 0),
        // Without value: all others.
        (json!({ "path": "/else" }), 4),
        (json!({ "path": "/other" }), 4),
        (json!({ "path": "/else", "path.2": "twice" }), 1),
        (json!({ "path": "/more", "path.2": "thrice" }), 6),
        (json!({ "unknown": "x" }), 6),
    ] {
        // Windows can end meanwhile, all but that of the week seldom: then once more.
        let found = allowed(&cluster, "shop", &descriptor, 6);
        assert!(found == expected || found == (2 * expected).min(6), "{descriptor}: {found}, not {expected}");
    }
}

#[test]
fn the_rules_of_nginx_decide_as_it_does() {
    let rules = is_as_written("nginx", "nginx.conf");
    let cluster = kit::nodes(1, &rules);
    let shop =
        |path: &str, ip: &str| json!({ "host": "shop.example", "path": path, "ip": ip, "x-api-key": "k" });
    for (request, expected) in [
        // A burst of two and the one at the rate.
        (shop("/", "203.0.113.1"), 3),
        (shop("/cart", "203.0.113.1"), 0),
        (shop("/cart", "203.0.113.2"), 3),
        // Two zones: the stricter one decides.
        (shop("/login", "203.0.113.3"), 1),
        (shop("/loginx", "203.0.113.4"), 3),
        // A location of its own has its own limits, and no others.
        (shop("/search", "203.0.113.5"), 2),
        (shop("/search/deep/er", "203.0.113.6"), 0),
        (shop("/static/a", "203.0.113.7"), 6),
        // A dry run.
        (json!({ "host": "admin.example", "path": "/", "ip": "203.0.113.8" }), 6),
    ] {
        assert_eq!(allowed(&cluster, "default", &request, 6), expected, "{request}");
    }
}

#[test]
fn what_is_not_carried_over_is_told_and_can_be_a_failure() {
    let (code, rules, told) = import(&["--from", "nginx", "--strict"], &file("nginx.conf"));
    assert_eq!(code, 1, "{told}");
    assert!(rules.starts_with("domain: default"), "{rules}");
    assert!(told.contains("nginx.conf:7: not carried over: limit_req_zone: $limit_key"), "{told}");
    let (code, json, _) = import(&["--from", "envoy", "--output", "json"], &file("envoy.yaml"));
    assert_eq!(code, 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["yaml"].as_str().unwrap().starts_with("domain: shop\n"));
    assert_eq!(json["domains"][0]["domain"], "shop");
    let remarks = json["remarks"].as_array().unwrap();
    assert!(remarks.iter().any(|remark| remark["line"] == 41 && remark["lost"] == true), "{remarks:?}");

    let (code, _, told) = import(&["--from", "gubernator"], &file("envoy.yaml"));
    assert!(code == 2 && told.contains("Gubernator has no rules"), "{told}");
    let (code, _, told) = import(&["--from", "envoy"], &file("nginx.conf"));
    assert!(code == 1 && told.contains("nginx.conf: line "), "{told}");
    let (code, _, told) = import(&["--from", "nginx"], &file("nowhere"));
    assert!(code == 1 && told.contains("cannot read"), "{told}");
    let broken = tempfile::NamedTempFile::new().unwrap();
    fs::write(broken.path(), "http {\n  limit_req_zone $binary_remote_addr zone=a:1m\n}\n").unwrap();
    let (code, _, told) = import(&["--from", "nginx"], broken.path());
    assert!(code == 1 && told.contains("line 3"), "{told}");
}
