//! The promise: a web page that somebody looks at beside a node operates no cluster and reads none, by whatever name its site
//! has; proxies, programs and pages of the node itself go on.

use crate::kit;
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, Settings},
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Sends a request with these lines as its head, `Host` among them.
fn send(cluster: &Cluster, first: &str, headers: &[String], body: &str) -> Response {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("{first} HTTP/1.1\r\n{lines}content-length: {}\r\n\r\n{body}", body.len());
    cluster.nodes[0].client(PATIENCE).send(request.as_bytes()).unwrap()
}

fn assert_problem(answer: &Response, kind: &str) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(answer.json()["type"], format!("urn:tidegate:problem:{kind}"));
}

#[test]
fn a_page_of_another_site_operates_no_cluster() {
    let cluster = kit::nodes(2, &kit::per_user("5/1h", 5, "share"));
    let own = format!("Host: {}", cluster.nodes[0].http);
    let changes = [
        ("POST /v1/cluster/drain/n2", ""),
        ("POST /v1/cluster/drain/n2?undo=true", ""),
        ("POST /v1/cluster/remove/n2", ""),
        ("PUT /v1/rules/default", "rules: []"),
        ("POST /v1/rules/default/rollback", "{\"revision\": 1}"),
        ("POST /v1/refund", "{\"attributes\": {\"user\": \"a\"}}"),
        ("POST /v1/reset", "{\"attributes\": {\"user\": \"a\"}}"),
    ];
    for (first, body) in changes {
        for foreign in [
            "Origin: http://evil.example",
            "Origin: null",
            "Origin: http://127.0.0.1:3000",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
        ] {
            let headers = [own.clone(), foreign.to_owned(), "Content-Type: text/plain".to_owned()];
            assert_problem(&send(&cluster, first, &headers, body), "foreign-origin");
        }
        let rebound = ["Host: evil.example:7800".to_owned(), "Origin: http://evil.example:7800".to_owned()];
        assert_problem(&send(&cluster, first, &rebound, body), "unknown-host");
    }
    for first in
        ["GET /v1/rules", "GET /v1/cluster", "GET /", "GET /openapi.json", "GET http://evil.example/v1/rules"]
    {
        assert_problem(&send(&cluster, first, &["Host: evil.example".to_owned()], ""), "unknown-host");
    }
    let members = send(&cluster, "GET /v1/cluster", std::slice::from_ref(&own), "").json();
    assert!(
        members["members"].as_array().unwrap().iter().all(|member| member["draining"] != true),
        "{members}"
    );
}

#[test]
fn programs_proxies_and_pages_of_the_node_go_on() {
    let cluster = kit::nodes(1, &kit::per_user("5/1h", 5, "share"));
    let address = cluster.nodes[0].http;
    let reset = ("POST /v1/reset", "{\"attributes\": {\"user\": \"a\"}}");
    for host in [
        address.to_string(),
        format!("localhost:{}", address.port()),
        "n1".to_owned(),
        "tidegate.prod.svc.cluster.local:7800".to_owned(),
    ] {
        for more in ["X-Nothing: here", &format!("Origin: http://{host}"), "Sec-Fetch-Site: same-origin"] {
            let headers = [format!("Host: {host}"), more.to_owned()];
            let answer = send(&cluster, reset.0, &headers, reset.1);
            assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
        }
    }
    // What proxies pass on of their clients.
    let clients = ["Host: shop.example", "Origin: https://other.example", "Sec-Fetch-Site: cross-site"]
        .map(str::to_owned);
    for first in [
        "GET /v1/auth",
        "POST /v1/auth",
        "GET /v1/check?user=b",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    ] {
        assert_eq!(send(&cluster, first, &clients, "").status, 200, "{first}");
    }
    let check = "{\"attributes\": {\"user\": \"b\"}}";
    assert_eq!(send(&cluster, "POST /v1/check", &clients, check).status, 200);
}

#[test]
fn a_name_can_be_allowed() {
    let flags = ["--allowed-hosts", "limits.example.com,*.ops.example.com"].map(str::to_owned).into();
    let cluster = Cluster::start(1, Settings { flags, ..kit::settings("rules: []") });
    let status = |host: &str| send(&cluster, "GET /v1/rules", &[format!("Host: {host}")], "").status;
    assert_eq!(["limits.example.com", "a.ops.example.com:443"].map(status), [200, 200]);
    assert_eq!(["other.example.com", "ops.example.com"].map(status), [403, 403]);
}

#[test]
fn a_page_of_another_site_gives_nothing_back_by_gubernators_call() {
    let cluster = kit::nodes(1, &kit::per_user("5/1h", 5, "share"));
    let own = format!("Host: {}", cluster.nodes[0].http);
    let batch = |hits: i64, behavior: u8| {
        format!(
            r#"{{"requests":[{{"name":"a","unique_key":"k","limit":5,"duration":3600000,"hits":{hits},"behavior":{behavior}}}]}}"#
        )
    };
    let ask = |headers: &[String], body: &str| send(&cluster, "POST /v1/GetRateLimits", headers, body);
    let plain = "Content-Type: text/plain".to_owned();
    for foreign in ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let headers = [own.clone(), foreign.to_owned(), plain.clone()];
        assert_eq!(ask(&headers, &batch(1, 0)).status, 200, "{foreign}: a hit is anybody's");
        for body in [batch(-1, 0), batch(1, 8), batch(0, 12)] {
            let answer = ask(&headers, &body);
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (403, &serde_json::json!(7)),
                "{}",
                answer.text()
            );
        }
    }
    let left = ask(std::slice::from_ref(&own), &batch(0, 0)).json();
    assert_eq!(left["responses"][0]["remaining"], "2", "{left}");
    for headers in [vec![own.clone()], vec![own.clone(), format!("Origin: http://{}", cluster.nodes[0].http)]]
    {
        assert_eq!(ask(&headers, &batch(-1, 0)).status, 200, "{headers:?}");
    }
}
