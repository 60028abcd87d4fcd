//! The promise: a batch is nothing but its checks, wherever the slots of each are owned.

use std::{collections::HashSet, fmt::Write as _, thread, time::Duration};

use crate::kit;
use serde_json::Value;
use tidegate_jepsen::{
    cluster::{Node, wait_for},
    history::monotonic,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Checks of a batch, of so many users in turn.
const CHECKS: usize = 1_000;
const USERS: usize = 100;

/// Asks for a whole batch, and returns an answer for each check.
fn ask(node: &Node) -> Vec<Value> {
    let mut body = String::from(r#"{"checks": ["#);
    for place in 0..CHECKS {
        let comma = if place == 0 { "" } else { "," };
        write!(body, r#"{comma}{{"attributes": {{"user": "u{}"}}}}"#, place % USERS).unwrap();
    }
    body.push_str("]}");
    let answer = node.client(PATIENCE).post("/v1/check/batch", &body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answers = answer.json()["answers"].as_array().unwrap().clone();
    assert_eq!(answers.len(), CHECKS);
    answers
}

fn admitted_of(user: usize, answers: &[Value]) -> usize {
    answers.iter().skip(user).step_by(USERS).filter(|answer| answer["allowed"] == true).count()
}

#[test]
fn the_checks_of_a_batch_are_decided_by_their_owners_and_answered_in_order() {
    // Without floors: a check that waits until a successor has been told may be decided after a later one of its bucket.
    let rules = kit::per_user("4/1h", 4, "deny").replace(" }", ", takeover: zero }");
    let cluster = kit::patient_nodes(3, &rules);
    let answers = ask(&cluster.nodes[0]);
    for (place, answer) in answers.iter().enumerate() {
        let turn = place / USERS;
        assert_eq!(answer["allowed"], turn < 4, "check {turn} of user {}: {answer}", place % USERS);
        assert_eq!(answer["remaining"], 3u64.saturating_sub(turn as u64), "{answer}");
    }
    let deciders: HashSet<&str> = answers.iter().map(|answer| answer["node"].as_str().unwrap()).collect();
    assert_eq!(deciders, HashSet::from(["n1", "n2", "n3"]));
}

#[test]
fn batches_at_all_nodes_at_once_admit_together_exactly_what_the_limit_allows() {
    let cluster = kit::patient_nodes(3, &kit::per_user("25/1h", 25, "deny"));
    let batches: Vec<Vec<Value>> = thread::scope(|scope| {
        let asking: Vec<_> = cluster.nodes.iter().map(|node| scope.spawn(|| ask(node))).collect();
        asking.into_iter().map(|batch| batch.join().unwrap()).collect()
    });
    // Each user is asked for 30 times.
    for user in 0..USERS {
        let admitted: usize = batches.iter().map(|answers| admitted_of(user, answers)).sum();
        assert_eq!(admitted, 25, "user {user}");
    }
}

#[test]
fn a_batch_does_not_wait_for_a_hung_owner_once_for_each_of_its_checks() {
    let _machine = kit::alone();
    let cluster = kit::nodes(3, &kit::per_user("1000000/1s", 1_000_000, "share"));
    // A node that has just begun gives out no shares: it cannot know yet who is lost.
    thread::sleep(Duration::from_millis(1500));
    ask(&cluster.nodes[0]);
    cluster.node("n3").pause();
    let asked = monotonic();
    let answers = ask(&cluster.nodes[0]);
    let waited = Duration::from_nanos(monotonic() - asked);
    cluster.node("n3").resume();
    assert!(waited < kit::CHECK_TIMEOUT * 4 + kit::SCHEDULING_SLACK, "it took {waited:?}");
    let shares = answers.iter().filter(|answer| answer["decided_by"] == "share").count();
    assert!(shares > 0, "the hung node owned some of the users");
    assert!(answers.iter().all(|answer| answer["allowed"] == true || answer["decided_by"] == "share"));
    wait_for("all owners answer again", PATIENCE, || {
        ask(&cluster.nodes[0]).iter().all(|answer| answer["decided_by"] != "share")
    });
}
