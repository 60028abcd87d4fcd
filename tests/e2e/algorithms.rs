//! The promise: each algorithm means the same over HTTP, whichever node is asked.

use std::time::Duration;

use crate::kit;
use chrono::{DateTime, Datelike as _, TimeZone as _, Utc};
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

/// Milliseconds from the time of an answer until the next month begins, UTC.
fn until_next_month(client: &mut Client) -> u64 {
    let answer = client.get("/healthz").unwrap();
    let now = DateTime::parse_from_rfc2822(answer.header("date").unwrap()).unwrap().to_utc();
    let (year, month) = match now.month() {
        12 => (now.year() + 1, 1),
        month => (now.year(), month + 1),
    };
    let first = Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).unwrap();
    (first - now).num_milliseconds() as u64
}

#[test]
fn a_month_without_an_algorithm_ends_with_the_calendars() {
    let rules = "rules: [{ name: r, key: [user], limit: 3/month }]";
    let cluster = kit::patient_nodes(2, rules);
    let mut clients = clients(&cluster);
    let answers = ask(&mut clients, "any", "a", 4);
    let allowed: Vec<bool> = answers.iter().map(|answer| answer["allowed"] == true).collect();
    assert_eq!(allowed, [true, true, true, false]);
    let inline = r#"{ "key": "k", "limit": "1/month", "cost": 1 }"#;
    let inline: Vec<Value> = (0..2).map(|n| clients[n].post("/v1/check", inline).unwrap().json()).collect();
    for denied in [&answers[3], &inline[1]] {
        let wait = denied["retry_after_ms"].as_u64().unwrap();
        assert!(wait.abs_diff(until_next_month(&mut clients[0])) < 60_000, "{denied}");
    }
    for (limit, algorithm, status) in
        [("9/month", "token_bucket", 400), ("9/day", "leaky_bucket", 400), ("9/day", "sliding_window", 200)]
    {
        let body = format!(r#"{{ "key": "k", "limit": "{limit}", "algorithm": "{algorithm}" }}"#);
        let answer = clients[0].post("/v1/check", &body).unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 400 {
            assert!(answer.text().contains("resets with the calendar"), "{}", answer.text());
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
