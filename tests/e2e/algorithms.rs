//! The promise: each algorithm means the same over HTTP, whichever node is asked.

use std::time::Duration;

use crate::kit;
use serde_json::Value;
use tidegate_jepsen::{
    client::Client,
    cluster::{Cluster, wait_for},
};

const PATIENCE: Duration = Duration::from_secs(10);

const RULES: &str = "
rules:
  - { name: token, when: { path: /token }, key: [user], limit: 10/1d, algorithm: token_bucket }
  - { name: leaky, when: { path: /leaky }, key: [user], limit: 10/1d, burst: 4, algorithm: leaky_bucket }
  - { name: fixed, when: { path: /fixed }, key: [user], limit: 10/month, algorithm: fixed_window }
  - { name: sliding, when: { path: /sliding }, key: [user], limit: 10/1d, algorithm: sliding_window }
  - { name: log, when: { path: /log }, key: [user], limit: 10/1d, algorithm: sliding_log }
";

/// Asks the nodes in turn for `count` checks of one user of an algorithm.
fn ask(clients: &mut [Client], path: &str, user: &str, count: usize) -> Vec<Value> {
    let nodes = clients.len();
    (0..count)
        .map(|n| clients[n % nodes].get(&format!("/v1/check?path=/{path}&user={user}")).unwrap().json())
        .collect()
}

fn clients(cluster: &Cluster) -> Vec<Client> {
    cluster.nodes.iter().map(|node| node.client(PATIENCE)).collect()
}

#[test]
fn each_algorithm_admits_its_limit_over_three_nodes_together() {
    let cluster = kit::patient_nodes(3, RULES);
    let mut clients = clients(&cluster);
    for path in ["token", "fixed", "sliding", "log"] {
        // Several users, so that owners on each node take part.
        for user in ["a", "b", "c", "d"] {
            let answers = ask(&mut clients, path, user, 15);
            let allowed: Vec<bool> = answers.iter().map(|answer| answer["allowed"] == true).collect();
            assert_eq!(allowed, [[true; 10].as_slice(), &[false; 5]].concat(), "{path} {user}");
            assert_eq!(answers[0]["limit"], 10, "{path}");
            assert_eq!(answers[9]["remaining"], 0, "{path}");
            assert!(answers[14]["retry_after_ms"].as_u64().unwrap() > 0, "{path}: {}", answers[14]);
        }
    }
}

#[test]
fn a_leaky_bucket_says_when_each_request_has_its_turn_and_denies_when_the_queue_is_full() {
    let cluster = kit::patient_nodes(3, RULES);
    let answers = ask(&mut clients(&cluster), "leaky", "a", 8);
    let allowed = answers.iter().take_while(|answer| answer["allowed"] == true).count();
    assert!((4..=5).contains(&allowed), "a queue of 4: {answers:?}");
    assert!(answers[allowed..].iter().all(|answer| answer["allowed"] == false));
    // One turn each 2.4 hours; what has passed between the questions is little.
    let turn = 86_400_000 / 10;
    for (place, answer) in answers[..allowed].iter().enumerate() {
        let delay = answer["delay_ms"].as_u64().unwrap();
        assert!(delay.abs_diff(place as u64 * turn) < 10_000, "turn {place}: {answer}");
    }
}

#[test]
fn several_algorithms_at_once_are_all_or_nothing_over_their_owners() {
    let rules = "
rules:
  - { name: log, key: [user], limit: 20/1d, algorithm: sliding_log }
  - { name: sliding, key: [user], limit: 20/1d, algorithm: sliding_window }
  - { name: fixed, key: [user], limit: 20/month, algorithm: fixed_window }
  - { name: team, key: [team], limit: 5/1d, algorithm: leaky_bucket }
";
    let cluster = kit::patient_nodes(3, rules);
    let mut clients = clients(&cluster);
    let admitted =
        (0..30).filter(|n| clients[n % 3].get("/v1/check?user=a&team=t").unwrap().status == 200).count();
    assert_eq!(admitted, 5);
    // Without its team nothing else binds: what the denied checks took from the user's buckets is given back. The owners
    // hear of it a moment after the denial was answered.
    wait_for("all is given back", PATIENCE, || {
        clients[0].get("/v1/check?user=a&cost=0").unwrap().json()["remaining"] == 15
    });
    let rest = (0..30).filter(|n| clients[n % 3].get("/v1/check?user=a").unwrap().status == 200).count();
    assert_eq!(rest, 15);
}
