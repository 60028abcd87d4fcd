//! The promise: at `/v1/auth` another spelling of a path or a method does not get past a rule, as far as docs/http.md says.

use crate::kit::{self, rules::PATIENCE};
use tidegate_jepsen::client::{Client, Response};

const RULES: &str = "
rules:
  - { name: login, when: { path: /login, method: POST }, key: [ip], limit: 1/1d }
  - { name: folder, when: { path: /folder/ }, key: [], limit: 1/1d }
  - { name: download, when: { path: { like: '/api/*/download' } }, key: [], limit: 1/1d }
  - { name: each, when: { path: /each/* }, key: [path], limit: 1/1d }
";

fn ask(client: &mut Client, query: &str, method: &str, target: &str) -> Response {
    let headers = [("X-Original-Method", method), ("X-Original-URI", target)];
    client.request("GET", &format!("/v1/auth{query}"), &headers, "").unwrap()
}

#[test]
fn another_spelling_does_not_get_past_a_rule() {
    let cluster = kit::nodes(1, RULES);
    let mut client = cluster.nodes[0].client(PATIENCE);
    assert_eq!(ask(&mut client, "", "POST", "/login").status, 200);
    for method in ["POST", "post", "Post", " pOST "] {
        for target in [
            "/login",
            "/login/",
            "/login//",
            "/login?x=/",
            "/login#x",
            "//login",
            "/./login/.",
            "/a/../login",
            "/%6cogin",
            "/%256Cogin",
            "/login%2f",
            "/login%252F",
            "/%2flogin",
            "/%2e/login",
            "/login;jsessionid=1",
            "/login/;a=b",
            "/login%3bx",
            "/login%00",
            "/login%00.png",
            "\\login\\",
            "/login%5c",
            "https://shop.example/login",
        ] {
            assert_eq!(ask(&mut client, "", method, target).status, 429, "{method} {target}");
        }
        for target in [
            "/free/..%2flogin",
            "/free/..;/login",
            "/free\\..\\login",
            "/free/%252e%252e/login",
            "/x#/../login",
            "/x%00/../login",
        ] {
            let answer = ask(&mut client, "", method, target);
            assert_eq!(answer.status, 400, "{method} {target}: {}", answer.text());
            assert_eq!(answer.json()["field"], "x-original-uri");
        }
        for target in ["/LOGIN", "/Login/", "/%4CoGiN;x"] {
            assert_eq!(ask(&mut client, "", method, target).status, 200, "{target} may be another one");
            assert_eq!(ask(&mut client, "?path_case=lower", method, target).status, 429, "{method} {target}");
        }
    }
    assert_eq!(ask(&mut client, "", "GET", "/login").status, 200);
    assert_eq!(ask(&mut client, "?path_case=upper", "GET", "/login").status, 400);
}

#[test]
fn a_slash_at_the_end_makes_no_other_path_of_rule_or_request() {
    let cluster = kit::nodes(1, RULES);
    let mut client = cluster.nodes[0].client(PATIENCE);
    let mut statuses = |targets: [&str; 4]| targets.map(|target| ask(&mut client, "", "GET", target).status);
    assert_eq!(statuses(["/folder", "/folder/", "/folder//", "/folders"]), [200, 429, 429, 200]);
    assert_eq!(statuses(["/each/a/", "/each/a", "/each/b", "/each/b;x/"]), [200, 429, 200, 429]);
    assert_eq!(statuses(["/each/", "/each//", "/each/%2f", "/each"]), [200, 429, 429, 200]);
}

#[test]
fn a_slash_at_the_end_does_not_get_past_a_pattern_with_stars() {
    let cluster = kit::nodes(1, RULES);
    let mut client = cluster.nodes[0].client(PATIENCE);
    assert_eq!(ask(&mut client, "", "GET", "/api/x/download").status, 200);
    for target in ["/api/x/download", "/api/x/download/", "/api/y/download/.", "/api/x/download//"] {
        assert_eq!(ask(&mut client, "", "GET", target).status, 429, "{target}");
    }
    assert_eq!(ask(&mut client, "", "GET", "/api/x/download/more").status, 200);
}
