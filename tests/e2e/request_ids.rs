//! The promise: a check that says which request it is for is charged once, however often and wherever it is asked.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::cluster::Cluster;

/// They differ in their consistency, so that a node asks for them apart, also where one owner has both buckets.
const RULES: &str = "rules:
  - { name: user, key: [user], limit: 1/1d, burst: 100 }
  - { name: path, key: [path], limit: 1/1d, burst: 1000, consistency: strict }
";

/// What remains of the user's limit after a check, which must be allowed.
fn ask(cluster: &Cluster, node: &str, user: u32, id: &str) -> u64 {
    let body = format!(r#"{{"attributes":{{"user":"u{user}","path":"/p{user}"}},"request_id":"{id}"}}"#);
    let answer = cluster.node(node).client(Duration::from_secs(5)).post("/v1/check", &body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["remaining"].as_u64().unwrap()
}

fn left(cluster: &Cluster, attribute: &str, value: &str) -> u64 {
    let path = format!("/v1/check?{attribute}={value}&cost=0");
    let answer = cluster.node("n1").client(Duration::from_secs(5)).get(&path).unwrap();
    answer.json()["remaining"].as_u64().unwrap()
}

#[test]
fn a_request_that_is_asked_again_is_charged_once_through_whatever_node() {
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(3, RULES);
    for user in 0..12 {
        // All at once, and one after the other; the buckets of the two rules have different owners mostly.
        thread::scope(|scope| {
            for node in ["n1", "n2", "n3", "n1", "n2", "n3"] {
                let cluster = &cluster;
                scope.spawn(move || assert_eq!(ask(cluster, node, user, "first"), 99));
            }
        });
        for node in ["n3", "n2", "n1"] {
            assert_eq!(ask(&cluster, node, user, "first"), 99);
        }
        assert_eq!(left(&cluster, "user", &format!("u{user}")), 99);
        assert_eq!(left(&cluster, "path", &format!("/p{user}")), 999);
        assert_eq!(ask(&cluster, "n2", user, "second"), 98, "another request");
    }
    let repeated: f64 =
        cluster.running().map(|node| node.metric("tidegate_requests_repeated_total").unwrap()).sum();
    assert!(repeated >= 12.0 * 8.0, "{repeated}");
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(ask(&cluster, "n1", 0, "first"), 97, "two seconds later it is another request");
}

#[test]
fn with_another_path_or_cost_it_is_another_request_at_each_owner() {
    let cluster = kit::patient_nodes(3, RULES);
    for user in 0..12 {
        let mut client = cluster.node("n1").client(Duration::from_secs(5));
        for (path, costs) in [("a", "user:1"), ("b", "user:1"), ("b", "user:1,path:5")] {
            let path = format!("/v1/check?user=u{user}&path=/{path}{user}&costs={costs}&request_id=one");
            assert_eq!(client.get(&path).unwrap().status, 200);
        }
        assert_eq!(left(&cluster, "user", &format!("u{user}")), 97);
    }
}

/// One that fills up between two looks by nothing.
const COUNTED: &str = "rules:
  - { name: user, key: [user], limit: 100000/month, algorithm: fixed_window, on_owner_loss: deny }
";

#[test]
fn a_slot_that_moves_by_plan_takes_along_what_was_charged() {
    const USERS: u32 = 40;
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(3, COUNTED);
    let wanted = AtomicBool::new(true);
    let rounds = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut clients = ["n1", "n3"].map(|node| cluster.node(node).client(Duration::from_secs(5)));
            let mut rounds = 0_u64;
            while wanted.load(Relaxed) {
                // First all at one node, then all at the other one: meanwhile slots move.
                let [first, second] = clients.each_mut().map(|client| {
                    let ask = |user| {
                        let path = format!("/v1/check?user=u{user}&request_id={rounds}-{user}");
                        let answer = client.get(&path).unwrap();
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        answer.json()["remaining"].as_u64().unwrap()
                    };
                    (0..USERS).map(ask).collect::<Vec<_>>()
                });
                assert_eq!(first, second, "round {rounds}");
                rounds += 1;
            }
            rounds
        });
        let end = kit::EndOnDrop(&wanted);
        for undo in [&[][..], &["--undo"]] {
            let node = format!("http://{}", cluster.node("n1").http);
            let drain = ["cluster", "drain", "n2", "--node", &node];
            let ended = Command::new(kit::binary()).args(drain).args(undo).output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            if undo.is_empty() {
                assert!(cluster.node("n1").slot_owners().iter().all(|owner| owner != "n2"));
            }
        }
        cluster.await_ready();
        drop(end);
        asking.join().unwrap()
    });
    for user in 0..USERS {
        assert_eq!(left(&cluster, "user", &format!("u{user}")), 100_000 - rounds, "of {rounds} rounds");
    }
    assert!(rounds > 10, "{rounds}");
}

#[test]
fn batches_proxies_and_queries_have_request_ids_and_wrong_ones_are_refused() {
    let cluster = kit::patient_nodes(2, RULES);
    let mut client = cluster.node("n1").client(Duration::from_secs(5));
    let checks: Vec<String> = (0..60)
        .map(|place| {
            let user = place % 30;
            format!(r#"{{"attributes":{{"user":"b{user}"}},"request_id":"b{user}"}}"#)
        })
        .collect();
    for _ in 0..2 {
        let answer =
            client.post("/v1/check/batch", &format!(r#"{{"checks":[{}]}}"#, checks.join(","))).unwrap();
        let answers = answer.json()["answers"].as_array().unwrap().clone();
        assert_eq!(answers.len(), 60);
        assert!(answers.iter().all(|answer| answer["remaining"] == 99), "{}", answer.text());
    }
    let auth = ["/v1/auth?user=p&request_id=1"; 3].map(|path| client.get(path).unwrap());
    assert!(auth.iter().all(|answer| answer.header("x-ratelimit-remaining") == Some("99")));
    for _ in 0..3 {
        let answer = client.get("/v1/check?key=x&user=q&request_id=1").unwrap();
        assert_eq!(answer.json()["remaining"], 99, "{}", answer.text());
    }
    let other = client.get("/v1/check?user=q&request_id=1&cost=2").unwrap();
    assert_eq!(other.json()["remaining"], 97, "another cost is another request");
    let look = client.get("/v1/check?user=q&request_id=1&cost=0").unwrap();
    assert_eq!(look.json()["remaining"], 97, "a look tells what is so");
    let unmatched = client.get("/v1/check?nobody=q&request_id=1").unwrap();
    assert_eq!(unmatched.json()["decided_by"], "unmatched");

    let long = format!("/v1/check?user=q&request_id={}", "x".repeat(129));
    for path in ["/v1/check?user=q&request_id=", "/v1/check?user=q&request_id=1&request_id=2", &long] {
        let answer = client.get(path).unwrap();
        assert_eq!(
            (answer.status, &answer.json()["field"]),
            (400, &"request_id".into()),
            "{}",
            answer.text()
        );
    }
    let reset = client.post("/v1/reset", r#"{"attributes":{"user":"q"},"request_id":"1"}"#).unwrap();
    assert_eq!((reset.status, &reset.json()["field"]), (400, &"request_id".into()));
}
