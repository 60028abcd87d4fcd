//! The promise: three nodes enforce one limit together, exactly.

use std::time::Duration;

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    cluster::wait_for,
    history::{History, Outcome},
    load::Load,
};

/// Holds every key of a history against its limit, and all of them together against what they should have admitted.
fn assert_exact(history: &History, bound: &Bound, keys: u32, length: Duration) {
    assert_eq!(history.count(Outcome::Refused), 0);
    assert_eq!(history.count(Outcome::Unknown), 0);
    let admitted = kit::assert_within(history, bound, keys);
    let allowed = u64::from(keys) * bound.allowance(length);
    assert!(admitted * 100 >= allowed * 99, "admitted {admitted} of {allowed}");
}

#[test]
fn three_nodes_admit_of_one_key_exactly_what_its_limit_allows() {
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(3, &kit::per_user("200/1s", 100, "deny"));
    let length = Duration::from_secs(5);
    let load = Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 8,
        keys: 1,
        length,
        pause: Duration::from_millis(2),
        deadline: Duration::from_secs(5),
    };
    let history = load.run();
    let bound = Bound { burst: 100, count: 200, period: Duration::from_secs(1) };
    assert_exact(&history, &bound, 1, length);
    assert!(history.count(Outcome::Denied) > 0, "the load must be above the limit");
}

#[test]
fn three_nodes_admit_of_a_thousand_keys_at_once_exactly_what_their_limits_allow() {
    let _machine = kit::alone();
    // In five seconds each key may have 2 + 5 units, and each is asked for more often than that.
    let cluster = kit::patient_nodes(3, &kit::per_user("1/1s", 2, "deny"));
    let length = Duration::from_secs(5);
    let load = Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 8,
        keys: 1_000,
        length: length + Duration::from_millis(500),
        pause: Duration::ZERO,
        deadline: Duration::from_secs(5),
    };
    let history = load.run();
    let bound = Bound { burst: 2, count: 1, period: Duration::from_secs(1) };
    assert!(
        history.operations.len() > 20_000,
        "only {} checks: too few to use the limits up",
        history.operations.len()
    );
    assert_exact(&history, &bound, 1_000, length);
}

#[test]
fn several_rules_must_all_allow_and_a_denied_check_costs_nothing() {
    let rules = "
rules:
  - { name: per-user, key: [user], limit: 20/1h }
  - { name: per-team, key: [team], limit: 5/1h }
";
    let cluster = kit::patient_nodes(3, rules);
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.client(Duration::from_secs(5))).collect();
    // The buckets of ten users and one team lie on all nodes; the team is the bottleneck.
    let mut admitted = 0;
    for attempt in 0..60 {
        let path = format!("/v1/check?user=u{}&team=t", attempt % 10);
        let answer = clients[attempt % 3].get(&path).unwrap();
        admitted += usize::from(answer.status == 200);
        if answer.status == 429 {
            assert_eq!(answer.json()["rule"], "per-team");
        }
    }
    assert_eq!(admitted, 5);
    // What the denied checks took from the users is given back: all twenty of each user, less the five admitted. The
    // owners hear of it a moment after the denial was answered.
    let mut left = || -> u64 {
        (0..10)
            .map(|user| clients[0].get(&format!("/v1/check?user=u{user}&cost=0")).unwrap().json())
            .map(|answer| answer["remaining"].as_u64().unwrap())
            .sum()
    };
    wait_for("all is given back", Duration::from_secs(5), || left() == 195);
}
