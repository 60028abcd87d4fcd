//! The promise: a key that exceeds a limit of a rule with `ban` is denied for as long as the rule says, at every node, longer each time,
//! and whatever becomes of the node that has banned it; nobody else is, and who operates the cluster can lift it.

use std::{thread, time::Duration};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON, get, put, write},
};
use serde_json::{Value, json};
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, Node, Settings, wait_for},
};

fn ask(node: &Node, query: &str) -> Response {
    node.client(PATIENCE).get(&format!("/v1/check?{query}")).unwrap()
}

/// Exceeds the limit of a user; the answer that banned it.
fn exceed(cluster: &Cluster, query: &str) -> Value {
    let nodes: Vec<&Node> = cluster.running().collect();
    for turn in 0..50 {
        let answer = ask(nodes[turn % nodes.len()], query).json();
        if answer["allowed"] == false {
            assert_eq!(answer["banned"], true, "{answer}");
            return answer;
        }
    }
    panic!("50 checks are no excess");
}

fn is_banned(node: &Node, query: &str) -> bool {
    let answer = ask(node, query);
    answer.json()["banned"] == true && answer.status == 429
}

fn bans(cluster: &Cluster) -> f64 {
    cluster.running().map(|node| node.metric("tidegate_bans_total").unwrap()).sum()
}

const RULES: &str = "rules:
  - { name: per-user, key: [user], limit: 3/1s, ban: { for: 1h, max: 1d } }
  - { name: watched, key: [user], limit: 1/1d, ban: 1h, mode: shadow }
  - { name: all, key: [], limit: 1000/1d }
";

#[test]
fn who_exceeds_a_limit_is_denied_by_every_node_until_it_is_reset() {
    let cluster = kit::patient_nodes(3, RULES);
    let [a, b, c] = [0, 1, 2].map(|place| &cluster.nodes[place]);
    for user in ["u1", "u2", "u3", "u4", "u5", "u6"] {
        let query = format!("user={user}");
        let told = exceed(&cluster, &query);
        assert_eq!((&told["rule"], &told["remaining"]), (&json!("per-user"), &json!(0)), "{told}");
    }
    assert_eq!(bans(&cluster), 6.0, "one of each excess");
    let left = |node: &Node| ask(node, "user=nobody&cost=0").header("ratelimit").unwrap().to_owned();
    let before = left(a);
    // The limit has refilled many times.
    thread::sleep(Duration::from_secs(2));
    for node in cluster.running() {
        for user in ["u1", "u2", "u3", "u4", "u5", "u6"] {
            let denied = ask(node, &format!("user={user}"));
            let told = denied.json();
            assert_eq!((denied.status, &told["banned"], &told["remaining"]), (429, &json!(true), &json!(0)));
            let wait: u64 = denied.header("retry-after").unwrap().parse().unwrap();
            assert!((3_500..=3_600).contains(&wait), "{wait}");
            assert!(told["reset_after_ms"].as_u64() >= Some(3_500_000), "{told}");
            assert!(is_banned(node, &format!("user={user}&cost=0")), "a look is told so");
        }
        assert_eq!(ask(node, &format!("user=good-{}", node.name)).status, 200);
    }
    assert!(left(b).contains("\"all\";r=9"), "{before} {}", left(b));
    let problem = a.client(PATIENCE).get("/v1/auth?user=u1").unwrap();
    assert_eq!(problem.status, 429);
    assert!(problem.json()["detail"].as_str().unwrap().contains("bans"), "{}", problem.text());

    // Units that are given back lift nothing, and a reset does.
    let body = json!({ "attributes": { "user": "u1" } }).to_string();
    assert_eq!(b.client(PATIENCE).post("/v1/refund", &body).unwrap().status, 200);
    assert!(is_banned(a, "user=u1"));
    let reset = c.client(PATIENCE).post("/v1/reset?rule=per-user", &body).unwrap();
    assert_eq!(reset.json()["buckets"][0]["remaining"], 3, "{}", reset.text());
    assert_eq!(ask(a, "user=u1").status, 200);
    let again = exceed(&cluster, "user=u1")["retry_after_ms"].as_u64().unwrap();
    assert!(again <= 3_600_001, "forgotten with the reset: {again}");
    assert_eq!(bans(&cluster), 7.0);
}

#[test]
fn each_ban_is_longer_than_the_one_before_and_who_waits_is_admitted() {
    let rules = "rules: [{ name: r, key: [user], limit: 2/1s, ban: { for: 2s, max: 5s } }]\n";
    let cluster = kit::patient_nodes(3, rules);
    for expected in [2_000, 4_000, 5_000] {
        let told = exceed(&cluster, "user=ada")["retry_after_ms"].as_u64().unwrap();
        assert!((expected..=expected + 2).contains(&told), "{told} of {expected}");
        thread::sleep(Duration::from_millis(told));
    }
    assert_eq!(ask(&cluster.nodes[0], "user=ada").status, 200);
}

#[test]
fn a_rule_that_changes_keeps_its_bans_and_one_that_loses_ban_has_none() {
    let cluster = kit::patient_nodes(3, RULES);
    let node = &cluster.nodes[0];
    exceed(&cluster, "user=ada");
    let rule = |fields: &str| format!("rules: [{{ name: per-user, key: [user], {fields} }}]\n");
    write(node, "default", &rule("limit: 100/1h, algorithm: sliding_window, ban: { for: 1h, max: 1d }"));
    for node in cluster.running() {
        wait_for("the limit is in force", SOON, || ask(node, "user=eve&cost=0").json()["limit"] == 100);
        assert!(is_banned(node, "user=ada"));
    }
    let told = get(node, "/default").json();
    assert_eq!(told["rules"][0]["ban"], json!({ "for": "1h", "max": "1d" }), "{told}");
    let answer = put(node, "default", &[], &rule("limit: 100/1h, algorithm: sliding_window")).json();
    let fields = &answer["diff"]["changed"][0]["fields"];
    assert_eq!(fields, &json!([{ "field": "ban", "from": "1h, at most 1d", "to": null }]), "{answer}");
    for node in cluster.running() {
        wait_for("the ban is gone", SOON, || ask(node, "user=ada").status == 200);
    }
    let wrong = put(node, "default", &[], &rule("limit: deny, ban: 1h"));
    assert_eq!(wrong.status, 422, "{}", wrong.text());
    for (ban, hint) in [
        ("500ms", "366d"),
        ("soon", "no time"),
        ("{ max: 1d }", "needs `for`"),
        ("{ for: 2h, max: 1h }", "shorter"),
        ("{ for: 1h, until: 2h }", "no field"),
        ("[1h]", "must be a text"),
    ] {
        let wrong = put(node, "default", &[], &rule(&format!("limit: 1/1h, ban: {ban}")));
        assert!(wrong.status == 422 && wrong.text().contains(hint), "{ban}: {}", wrong.text());
    }
}

#[test]
fn a_ban_survives_moves_and_a_restart_of_all_nodes() {
    let mut cluster = Cluster::start(3, Settings { keeps_data: true, ..kit::patient(RULES) });
    let queries: Vec<String> = (0..30).map(|user| format!("user=u{user}")).collect();
    queries.iter().for_each(|query| _ = exceed(&cluster, query));
    // Its slots go to the others, and come back.
    assert_eq!(cluster.terminate("n2"), Some(0));
    queries.iter().for_each(|query| assert!(is_banned(cluster.node("n1"), query), "{query}"));
    cluster.restart("n2");
    cluster.await_ready();
    queries.iter().for_each(|query| assert!(is_banned(cluster.node("n2"), query), "{query}"));
    for name in ["n1", "n2", "n3"] {
        assert_eq!(cluster.terminate(name), Some(0));
    }
    for name in ["n1", "n2", "n3"] {
        cluster.restart(name);
    }
    cluster.await_ready();
    queries.iter().for_each(|query| assert!(is_banned(cluster.node("n3"), query), "{query}"));
}

#[test]
fn a_ban_survives_a_crash_of_its_owner_where_floors_are_replicated() {
    let _machine = kit::alone();
    let rules = "rules: [{ name: r, key: [user], limit: 5/1d, ban: 1d, on_owner_loss: deny }]\n";
    let mut cluster = kit::patient_nodes(3, rules);
    wait_for("all successors know enough", PATIENCE, || {
        let told = cluster.running().map(|node| node.metric("tidegate_slots_told").unwrap_or(0.0));
        told.sum::<f64>() == 4096.0
    });
    let queries: Vec<String> = (0..40).map(|user| format!("user=u{user}")).collect();
    let of_n3 = queries.iter().filter(|query| exceed(&cluster, query)["node"] == "n3").count();
    assert!(of_n3 > 0, "n3 owns some of forty keys");
    // Nobody waits for floors of bans.
    thread::sleep(Duration::from_secs(1));
    cluster.kill("n3");
    for query in &queries {
        wait_for("the key has an owner, and is banned", PATIENCE, || is_banned(cluster.node("n1"), query));
    }
    // A key that was never over its limit is denied for less, and not banned.
    let fresh = (100..140).map(|user| ask(cluster.node("n1"), &format!("user=u{user}")).json());
    assert!(fresh.into_iter().all(|answer| answer.get("banned").is_none()));
}
