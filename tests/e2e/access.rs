//! The promise: who may do what. A token that is made at one node counts at all, and one that is revoked at none; each call
//! needs its role; what is written down names who proved it.

use std::{thread, time::Duration};

use serde_json::{Value, json};
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, Node, free_ports, wait_for},
    history::monotonic,
};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON, await_voters, keeping, limit},
};

pub(super) const ADMIN: &str = "e2e-admin-token-0123456789abcdef0123456789";
const RULES: &str = "domain: default\nrules:\n  - { name: per-user, key: [user], limit: 1000/1m }\n---\ndomain: shop\nrules:\n  - { name: per-user, key: [user], limit: 1000/1m }\n";

pub(super) fn ask(node: &Node, method: &str, path: &str, token: Option<&str>, body: &str) -> Response {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|value| ("authorization", value)));
    node.client(PATIENCE).request(method, path, &headers, body).unwrap()
}

/// One node that finds this in its environment, ready.
pub(super) fn guarded(environment: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::empty(kit::settings(RULES));
    for (name, value) in environment {
        cluster.set_environment(name, value);
    }
    let port = free_ports();
    cluster.spawn(port, &[port], &[]);
    wait_for("the node is ready", SOON, || cluster.nodes[0].is_ready());
    cluster
}

/// A new token: its id and its text.
pub(super) fn make(node: &Node, by: Option<&str>, body: Value) -> (String, String) {
    let answer = ask(node, "POST", "/v1/tokens", by, &body.to_string());
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let made = answer.json();
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

fn word(answer: &Response) -> String {
    let kind = answer.json()["type"].as_str().unwrap_or_default().to_owned();
    kind.rsplit(':').next().unwrap_or_default().to_owned()
}

#[test]
fn a_token_made_at_one_node_counts_at_all_and_revoked_at_none() {
    let mut cluster = Cluster::start(3, keeping());
    await_voters(&cluster, 3);
    let nodes: Vec<usize> = (0..3).collect();
    let at = |cluster: &Cluster, place: usize, token: Option<&str>| {
        ask(&cluster.nodes[place], "GET", "/v1/rules", token, "").status
    };
    // Until the first one there is, all is open on loopback.
    assert!(nodes.iter().all(|node| at(&cluster, *node, None) == 200));
    let refused =
        ask(&cluster.nodes[0], "POST", "/v1/tokens", None, r#"{"name": "shop", "roles": ["check"]}"#);
    assert_eq!((refused.status, &*word(&refused)), (409, "token-conflict"), "nobody could administer");
    let (_, ops) = make(&cluster.nodes[0], None, json!({"name": "ops", "roles": ["admin"]}));
    let (ci_id, ci) = make(&cluster.nodes[0], Some(&ops), json!({"name": "ci", "roles": ["read"]}));
    for node in &nodes {
        wait_for("each node knows the token", SOON, || at(&cluster, *node, Some(&ci)) == 200);
        assert_eq!(at(&cluster, *node, None), 401);
        assert_eq!(at(&cluster, *node, Some("tg_0000000000000000_00")), 401);
    }
    let needed = ask(&cluster.nodes[1], "GET", "/v1/rules", None, "");
    assert_eq!(needed.header("www-authenticate"), Some("Bearer realm=\"tidegate\""));
    assert_eq!(needed.header("content-type"), Some("application/problem+json"));
    let lacks = ask(&cluster.nodes[1], "PUT", "/v1/rules/d?author=root", Some(&ci), &limit("5/1m"));
    assert_eq!((lacks.status, lacks.json()["role"].as_str()), (403, Some("admin")), "{}", lacks.text());
    // A dry run only looks.
    let dry = ask(&cluster.nodes[1], "PUT", "/v1/rules/d?dry_run=true", Some(&ci), &limit("5/1m"));
    assert_eq!(dry.status, 200, "{}", dry.text());

    let written = ask(&cluster.nodes[2], "PUT", "/v1/rules/d?author=mallory", Some(&ops), &limit("5/1m"));
    assert_eq!(written.status, 200, "{}", written.text());
    let history = ask(&cluster.nodes[2], "GET", "/v1/rules/d/history", Some(&ops), "").json();
    assert_eq!(history["revisions"][0]["author"], "token ops", "what was proved, not what was claimed");

    // Checks need one now, too, and each node takes it.
    cluster.set_environment("TIDEGATE_REQUIRE_TOKEN", "all");
    for name in ["n1", "n2", "n3"] {
        cluster.terminate(name);
        cluster.restart(name);
        wait_for("it is ready again", SOON, || cluster.node(name).is_ready());
    }
    let (shop_id, shop) = make(&cluster.nodes[1], Some(&ops), json!({"name": "shop", "roles": ["check"]}));
    let check = |cluster: &Cluster, place: usize, token: Option<&str>| {
        ask(&cluster.nodes[place], "GET", "/v1/check?domain=d&user=a&cost=0", token, "").status
    };
    let mut kept: Vec<_> = nodes.iter().map(|node| cluster.nodes[*node].client(PATIENCE)).collect();
    let bearer = format!("Bearer {shop}");
    let mut check_kept = |place: usize| {
        let headers = [("authorization", &*bearer)];
        kept[place].request("GET", "/v1/check?domain=d&user=a&cost=0", &headers, "").unwrap().status
    };
    for node in &nodes {
        wait_for("each node takes the token", SOON, || check(&cluster, *node, Some(&shop)) == 200);
        assert_eq!(check_kept(*node), 200);
        assert_eq!(check_kept(*node), 200, "what is known of a connection counts as long as the token does");
        assert_eq!(check(&cluster, *node, None), 401);
        assert_eq!(check(&cluster, *node, Some(&ci)), 403);
    }
    for id in [&shop_id, &ci_id] {
        let gone = ask(&cluster.nodes[0], "DELETE", &format!("/v1/tokens/{id}"), Some(&ops), "");
        assert_eq!(gone.status, 200, "{}", gone.text());
        assert_eq!(gone.json()["applied_by"].as_array().unwrap().len(), 3, "{}", gone.text());
    }
    for node in &nodes {
        assert_eq!(check(&cluster, *node, Some(&shop)), 401, "at once, at each node");
        assert_eq!(check_kept(*node), 401, "on connections that were there, too");
        assert_eq!(at(&cluster, *node, Some(&ci)), 401);
    }
    let again = ask(&cluster.nodes[0], "DELETE", &format!("/v1/tokens/{shop_id}"), Some(&ops), "");
    assert_eq!((again.status, &*word(&again)), (404, "no-such-token"));

    let trail = ask(&cluster.nodes[2], "GET", "/v1/audit", Some(&ops), "").json();
    let entries = trail["entries"].as_array().unwrap();
    let told: Vec<(&str, &str, Option<&str>)> = entries
        .iter()
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap();
            (text("action"), text("target"), entry["identity"]["name"].as_str())
        })
        .collect();
    let ops_has = |action, target| (action, target, Some("ops"));
    assert_eq!(
        told[..5],
        [
            ops_has("token.revoke", "ci"),
            ops_has("token.revoke", "shop"),
            ops_has("token.create", "shop"),
            ops_has("rules.apply", "d"),
            ops_has("token.create", "ci"),
        ]
    );
    assert_eq!(told[5], ("token.create", "ops", None), "nothing had to be proved then");
    assert!(entries[3]["detail"].as_str().unwrap().contains("says to be mallory"));
    assert_eq!(
        (entries[3]["address"].as_str(), entries[3]["outcome"].as_str()),
        (Some("127.0.0.1"), Some("done"))
    );
    // What is kept and what is told has no secret in it.
    let listed = ask(&cluster.nodes[0], "GET", "/v1/tokens", Some(&ops), "").text();
    for node in &cluster.nodes {
        for token in [&ops, &ci, &shop] {
            let secret = &token[20..];
            assert!(!listed.contains(secret) && !node.log().contains(secret));
        }
    }
}

/// Each call with what it needs: none where it needs nothing.
const CALLS: [(&str, &str, &str, Option<&str>); 27] = [
    ("GET", "/v1/check?user=a&cost=0", "", Some("check")),
    ("POST", "/v1/check", r#"{"attributes": {"user": "a"}, "cost": 0}"#, Some("check")),
    ("POST", "/v1/check/batch", r#"{"checks": []}"#, Some("check")),
    ("GET", "/v1/auth?user=a&cost=0", "", Some("check")),
    ("DELETE", "/v1/auth?user=a&cost=0", "", Some("check")),
    ("POST", "/v1/refund", r#"{"attributes": {"user": "a"}}"#, Some("check")),
    ("POST", "/v1/reset", r#"{"attributes": {"user": "a"}}"#, Some("operate")),
    ("POST", "/v1/GetRateLimits", r#"{"requests": []}"#, Some("check")),
    ("GET", "/v1/HealthCheck", "", Some("check")),
    ("GET", "/v1/LiveCheck", "", None),
    (
        "POST",
        "/throttle",
        r#"{"key": "a", "max_burst": 5, "count_per_period": 5, "period": 5}"#,
        Some("check"),
    ),
    ("GET", "/v1/explain?user=a", "", Some("read")),
    ("POST", "/v1/explain", r#"{"attributes": {"user": "a"}}"#, Some("read")),
    ("GET", "/v1/cluster", "", Some("read")),
    ("POST", "/v1/cluster/drain/nobody", "", Some("operate")),
    ("POST", "/v1/cluster/remove/nobody", "", Some("operate")),
    ("GET", "/v1/rules", "", Some("read")),
    ("GET", "/v1/rules/default", "", Some("read")),
    ("PUT", "/v1/rules/default", "rules: [nonsense]", Some("admin")),
    ("PUT", "/v1/rules/default?dry_run=true", "rules: [nonsense]", Some("read")),
    ("GET", "/v1/rules/default/history", "", Some("read")),
    ("POST", "/v1/rules/default/rollback", r#"{"revision": 999999}"#, Some("admin")),
    ("GET", "/v1/tokens", "", Some("admin")),
    ("POST", "/v1/tokens", "{}", Some("admin")),
    ("DELETE", "/v1/tokens/nobodys", "", Some("admin")),
    ("GET", "/v1/audit", "", Some("read")),
    ("GET", "/metrics", "", Some("read")),
];

#[test]
fn each_call_needs_its_role_and_no_other_suffices() {
    for (require, checks_are_open) in [("all", false), ("admin", true)] {
        let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", require)]);
        let node = &cluster.nodes[0];
        let roles = ["check", "read", "operate", "admin"];
        let tokens = roles.map(|role| make(node, Some(ADMIN), json!({"name": role, "roles": [role]})).1);
        for (method, path, body, needed) in CALLS {
            let is_open = needed.is_none() || needed == Some("check") && checks_are_open;
            let status = |token| ask(node, method, path, token, body).status;
            let nobody = status(None);
            assert_eq!(nobody != 401 && nobody != 403, is_open, "{require}: {method} {path}: {nobody}");
            let unknown = status(Some("tg_0000000000000000_00"));
            // After some it is 429.
            assert_eq!(![401, 403, 429].contains(&unknown), is_open, "{require}: {method} {path}: {unknown}");
            for (role, token) in roles.iter().zip(&tokens) {
                let suffices = is_open
                    || *role == "admin"
                    || needed == Some(*role)
                    || needed == Some("read") && *role == "operate";
                let status = status(Some(token));
                assert_eq!(status != 403, suffices, "{require}: {method} {path} as {role}: {status}");
                assert_ne!(status, 401, "{require}: {method} {path} as {role}");
            }
        }
        for path in ["/healthz", "/readyz", "/openapi.json", "/"] {
            assert_eq!(ask(node, "GET", path, None, "").status, 200, "{path}");
        }
        assert_eq!(ask(node, "GET", "/nowhere", None, "").status, 404);
    }
}

#[test]
fn a_token_may_be_for_some_domains_and_for_some_time() {
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", "all")]);
    let node = &cluster.nodes[0];
    let shop = json!({"name": "shop", "roles": ["check"], "domains": ["shop"], "expires_in_s": 600});
    let (_, shop) = make(node, Some(ADMIN), shop);
    let by = Some(&*shop);
    for (domain, status) in [("shop", 200), ("default", 403), ("nowhere", 403)] {
        let query = format!("/v1/check?domain={domain}&user=a&cost=0");
        let body = json!({"domain": domain, "attributes": {"user": "a"}});
        assert_eq!(ask(node, "GET", &query, by, "").status, status, "{domain}");
        // What the fast path leaves to others.
        let headers = [("x-tidegate-token", &*shop), ("connection", "close")];
        assert_eq!(node.client(PATIENCE).request("GET", &query, &headers, "").unwrap().status, status);
        assert_eq!(ask(node, "POST", "/v1/check", by, &body.to_string()).status, status, "{domain}");
        assert_eq!(ask(node, "POST", "/v1/refund", by, &body.to_string()).status, status, "{domain}");
        let auth = format!("/v1/auth?domain={domain}&user=a");
        assert_eq!(ask(node, "GET", &auth, by, "").status, status, "{domain}");
        let inline = json!({"domain": domain, "key": "k", "limit": "5/1m"});
        assert_eq!(ask(node, "POST", "/v1/check", by, &inline.to_string()).status, status, "{domain}");
        let batch = json!({"checks": [{"domain": domain, "attributes": {"user": "a"}}, {"domain": "shop", "attributes": {"user": "a"}}]});
        let answers = ask(node, "POST", "/v1/check/batch", by, &batch.to_string()).json();
        assert_eq!(answers["answers"][0]["status"].as_u64(), (status != 200).then_some(403), "{answers}");
        assert_eq!(answers["answers"][1]["allowed"], true, "one does not disturb the others");
        let theirs = json!({"requests": [{"name": domain, "unique_key": "a", "limit": 5, "duration": 60_000, "hits": 0}]});
        let theirs = ask(node, "POST", "/v1/GetRateLimits", by, &theirs.to_string()).json();
        let error = theirs["responses"][0]["error"].as_str().unwrap_or_default();
        assert_eq!(error.is_empty(), status == 200, "{theirs}");
    }
    // These have the domain that they have.
    let crab = r#"{"key": "a", "max_burst": 5, "count_per_period": 5, "period": 5}"#;
    assert_eq!(ask(node, "POST", "/throttle", by, crab).status, 403);

    let (_, short) = make(node, Some(ADMIN), json!({"name": "short", "roles": ["check"], "expires_in_s": 2}));
    let mut kept = node.client(PATIENCE);
    let bearer = format!("Bearer {short}");
    let mut check =
        || kept.request("GET", "/v1/check?user=a&cost=0", &[("authorization", &*bearer)], "").unwrap();
    assert_eq!(check().status, 200);
    wait_for("it expires", Duration::from_secs(5), || check().status == 401);
    assert!(check().text().contains("has expired"));
    let listed = ask(node, "GET", "/v1/tokens", Some(ADMIN), "").json();
    let of = |name: &str| {
        listed["tokens"].as_array().unwrap().iter().find(|token| token["name"] == name).unwrap().clone()
    };
    assert_eq!((&of("short")["expired"], &of("shop")["expired"]), (&json!(true), &json!(false)));
    assert_eq!(of("shop")["created_by"], "admin token of n1");
    // Of a proxy that passes the Authorization of its client on.
    let headers = [("authorization", "Bearer of-a-user"), ("x-tidegate-token", &*shop)];
    let answer = node.client(PATIENCE).request("GET", "/v1/auth?domain=shop&user=a", &headers, "").unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn who_tries_secrets_is_told_and_keeps_nobody_out_who_shares_the_address() {
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", "all")]);
    let node = &cluster.nodes[0];
    let (_, shop) = make(node, Some(ADMIN), json!({"name": "shop", "roles": ["check", "read"]}));
    let status = |guess: &str| ask(node, "GET", "/v1/rules", Some(guess), "");
    let tried: Vec<Response> = (0..40).map(|guess| status(&format!("guess-{guess:032}"))).collect();
    assert!(tried[..10].iter().all(|answer| answer.status == 401));
    assert!(tried[20..].iter().all(|answer| answer.status == 429));
    assert!(tried[39].header("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    assert_eq!(status(ADMIN).status, 200, "in an emergency it is all that is left");
    assert_eq!(status(&shop).status, 200, "a token of the cluster counts from wherever it comes");
    assert_eq!(ask(node, "GET", "/v1/check?user=a", Some(&shop), "").status, 200);
    let long = "x".repeat(8_000);
    assert_eq!(status(&long).status, 429);
}

#[test]
fn what_was_waited_for_is_told_by_the_tokens_that_came_with_it() {
    let mut cluster = Cluster::start(2, keeping());
    await_voters(&cluster, 2);
    make(&cluster.nodes[0], None, json!({"name": "ops", "roles": ["admin"]}));
    cluster.kill("n1");
    cluster.kill("n2");
    // Alone it knows of no token, and has no quorum that could tell: who asks waits for one.
    cluster.restart("n1");
    let mut client = cluster.node("n1").client(PATIENCE);
    let asking = thread::spawn(move || {
        let deadline = monotonic() + SOON.as_nanos() as u64;
        let mut heard = Vec::new();
        while !matches!(heard.last(), Some(200 | 401)) {
            assert!(monotonic() < deadline, "{heard:?}");
            match client.get("/v1/backup") {
                Ok(answer) => heard.push(answer.status),
                // It is not up yet.
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        heard
    });
    wait_for("n1 is up", SOON, || cluster.node("n1").client(PATIENCE).get("/healthz").is_ok());
    cluster.restart("n2");
    let heard = asking.join().unwrap();
    assert!(!heard.contains(&200), "the hashes of tokens are for administrators: {heard:?}");
}
