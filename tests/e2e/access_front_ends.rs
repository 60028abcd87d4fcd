//! The promise: whichever protocol a client speaks, it needs the same token for the same thing. Real clients present it as they
//! present passwords elsewhere.

use std::{path::Path, process::Command};

use serde_json::json;
use tidegate_jepsen::cluster::wait_for;

use super::{
    access::{ADMIN, ask, guarded, make},
    grpc,
};
use crate::kit::{resp::Client, rules::SOON};

const THROTTLE: [&str; 5] = ["CL.THROTTLE", "k", "9", "10", "60"];
const RESET: [&str; 5] = ["CL.RESET", "k", "9", "10", "60"];

#[test]
fn the_redis_protocol_asks_for_a_token_as_redis_asks_for_a_password() {
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", "all")]);
    let node = &cluster.nodes[0];
    let of = |body| make(node, Some(ADMIN), body);
    let (shop_id, shop) = of(json!({"name": "shop", "roles": ["check"]}));
    let (_, other) = of(json!({"name": "other", "roles": ["check"], "domains": ["elsewhere"]}));
    let (_, reader) = of(json!({"name": "reader", "roles": ["read"]}));
    let (_, operator) = of(json!({"name": "operator", "roles": ["operate", "check"]}));
    let (_, resetter) = of(json!({"name": "resetter", "roles": ["operate"]}));
    let mut client = Client::new(node.resp);
    for command in [&["PING"][..], &THROTTLE, &["INFO"], &["CLIENT", "SETNAME", "x"], &["MULTI"]] {
        let said = client.ask(command);
        assert!(said.starts_with("-NOAUTH "), "{command:?}: {said}");
    }
    assert!(client.ask(&["AUTH", "nonsense"]).starts_with("-WRONGPASS "));
    assert!(client.ask(&THROTTLE).starts_with("-NOAUTH "));
    assert_eq!(client.ask(&["AUTH", &shop]), "+OK");
    assert!(client.ask(&THROTTLE).starts_with("[:0 "));
    assert!(client.ask(&RESET).starts_with("-NOPERM "), "that is no check");
    assert_eq!(client.ask(&["AUTH", "default", &operator]), "+OK");
    assert!(client.ask(&RESET).starts_with("[:0 "));
    assert_eq!(client.ask(&["AUTH", &resetter]), "+OK");
    assert!(client.ask(&RESET).starts_with("[:0 "), "as over HTTP, without the role of checks");
    for (token, says) in
        [(&other, "elsewhere"), (&reader, "this needs check"), (&resetter, "this needs check")]
    {
        assert_eq!(client.ask(&["AUTH", token]), "+OK");
        let said = client.ask(&THROTTLE);
        assert!(said.starts_with("-NOPERM ") && said.contains(says), "{said}");
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
    assert_eq!(client.ask(&["RESET"]), "+RESET");
    assert!(client.ask(&["PING"]).starts_with("-NOAUTH "), "as in Redis");
    // In one write, as clients do it.
    client.say(&format!(
        "HELLO 2 AUTH default {shop} SETNAME me\r\nMULTI\r\nCL.THROTTLE k 9 10 60\r\nEXEC\r\n"
    ));
    assert!(client.answer().contains("tidegate"));
    assert_eq!((client.answer(), client.answer()), ("+OK".to_owned(), "+QUEUED".to_owned()));
    assert!(client.answer().starts_with("[[:0 "));
    assert_eq!(ask(node, "DELETE", &format!("/v1/tokens/{shop_id}"), Some(ADMIN), "").status, 200);
    assert!(client.ask(&THROTTLE).starts_with("-NOAUTH "), "the connection is as good as its token");
    assert!(client.ask(&["AUTH", &shop]).starts_with("-WRONGPASS "));
}

#[test]
fn without_tokens_for_checks_the_redis_protocol_guards_what_is_none() {
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN)]);
    let of = |body| make(&cluster.nodes[0], Some(ADMIN), body).1;
    let reader = of(json!({"name": "reader", "roles": ["read"]}));
    let checker = of(json!({"name": "checker", "roles": ["check"]}));
    let mut client = Client::new(cluster.nodes[0].resp);
    assert!(client.ask(&THROTTLE).starts_with("[:0 "));
    assert!(client.ask(&RESET).starts_with("-NOAUTH "));
    assert_eq!(client.ask(&["MULTI"]), "+OK");
    assert!(client.ask(&RESET).starts_with("-NOAUTH "), "it is told when it is queued");
    assert!(client.ask(&["EXEC"]).starts_with("-EXECABORT "));
    assert_eq!(client.ask(&["AUTH", ADMIN]), "+OK");
    assert!(client.ask(&RESET).starts_with("[:0 "));
    // Nor is the node shown to anybody: clients learn what they need to begin.
    let mut client = Client::new(cluster.nodes[0].resp);
    let name = |id: &str| {
        id.ends_with(&cluster.nodes[0].name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    for (token, sees) in [(None, false), (Some(&checker), false), (Some(&reader), true)] {
        if let Some(token) = token {
            assert_eq!(client.ask(&["AUTH", token]), "+OK");
        }
        let info = client.ask(&["INFO"]);
        for field in ["redis_version:", "loading:0", "role:master", "cluster_enabled:1"] {
            assert!(info.contains(field), "{field}: {info}");
        }
        for field in
            ["process_id:", "run_id:", "node_name:", "used_memory:", "keys=", "uptime", "connected_clients:"]
        {
            assert_eq!(info.contains(field), sees, "{field}: {info}");
        }
        assert_eq!(name(&client.ask(&["CLUSTER", "MYID"])), sees);
        assert!(client.ask(&["CLUSTER", "SLOTS"]).contains("127.0.0.1"));
        assert!(client.ask(&["ROLE"]).contains("master"));
    }
    // Nor does Gubernator's way reset for anybody.
    let body = json!({"requests": [{"name": "a", "unique_key": "a", "limit": 5, "duration": 60_000, "hits": 1, "behavior": 8}]});
    let reset = |token| ask(&cluster.nodes[0], "POST", "/v1/GetRateLimits", token, &body.to_string()).json();
    assert!(reset(None)["responses"][0]["error"].as_str().unwrap().contains("operate"), "{}", reset(None));
    let done = reset(Some(ADMIN));
    assert_eq!(done["responses"][0]["error"].as_str().unwrap_or_default(), "", "{done}");
}

#[test]
fn calls_of_others_are_refused_without_a_token_in_the_form_that_their_clients_read() {
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", "all")]);
    let node = &cluster.nodes[0];
    let (_, reader) = make(node, Some(ADMIN), json!({"name": "reader", "roles": ["read"]}));
    for (token, status, code) in [(None, 401, 16), (Some(&*reader), 403, 7)] {
        let told = ask(node, "POST", "/throttle", token, "{}");
        assert!(told.status == status && told.json()["error"].is_string(), "{}", told.text());
        let told = ask(node, "POST", "/v1/GetRateLimits", token, "{}");
        let json = told.json();
        assert_eq!(
            (told.status, &json["code"], &json["details"]),
            (status, &json!(code), &json!([])),
            "{json}"
        );
        assert!(json["message"].is_string(), "{json}");
    }
}

#[test]
fn redis_py_presents_a_token_as_its_password() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/redis-py/bin/python");
    if !python.exists() {
        println!("NOT TESTED: redis-py is not installed (bash .ci/tools-redis)");
        return;
    }
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", "all")]);
    let node = &cluster.nodes[0];
    let (_, token) = make(node, Some(ADMIN), json!({"name": "shop", "roles": ["check"]}));
    let script = format!(
        r#"
import redis
port, token = {port}, "{token}"
for protocol in (2, 3):
    for name in (None, "default", "shop"):
        client = redis.Redis(port=port, protocol=protocol, username=name, password=token)
        assert client.execute_command("CL.THROTTLE", "k", 99, 100, 60)[0] == 0
        pipeline = client.pipeline()
        pipeline.execute_command("CL.THROTTLE", "k", 99, 100, 60)
        assert pipeline.execute()[0][0] == 0
        try:
            client.execute_command("CL.RESET", "k", 99, 100, 60)
            raise SystemExit("it may not")
        except redis.exceptions.NoPermissionError as error:
            assert "operate" in str(error), error
    try:
        redis.Redis(port=port, protocol=protocol).execute_command("CL.THROTTLE", "k", 99, 100, 60)
        raise SystemExit("without a token")
    except redis.exceptions.AuthenticationError as error:
        pass
    try:
        redis.Redis(port=port, protocol=protocol, password=token[:-1] + "x").ping()
        raise SystemExit("with another token")
    except redis.exceptions.AuthenticationError as error:
        pass
print("fine")
"#,
        port = node.resp.port()
    );
    let output = Command::new(python).args(["-c", &script]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "fine",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn grpc_takes_a_token_from_its_metadata() {
    let Some(python) = grpc::python() else { return };
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", "all")]);
    let node = &cluster.nodes[0];
    let of = |body| make(node, Some(ADMIN), body).1;
    let shop = of(json!({"name": "shop", "roles": ["check"], "domains": ["shop"]}));
    let reader = of(json!({"name": "reader", "roles": ["read"]}));
    let made = grpc::made_of_definitions(&python);
    let output = Command::new(&python)
        .arg(grpc::root().join("tests/python/ask_with_tokens.py"))
        .arg(made.path())
        .arg(node.grpc.port().to_string())
        .args([&shop, &reader, ADMIN])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "fine",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    wait_for("it lives", SOON, || node.is_ready());
}
