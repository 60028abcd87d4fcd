//! The promise: a node that dies takes nothing with it but its own connections.

use std::{thread, time::Duration};

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    history::{Outcome, monotonic},
    load::{Load, path_of},
};

const KEYS: u32 = 60;

#[test]
fn a_killed_node_is_replaced_within_five_seconds_and_every_check_is_answered_meanwhile() {
    let _machine = kit::alone();
    let mut cluster = kit::nodes(3, &kit::per_user("50/1s", 20, "share"));
    let survivors: Vec<_> = ["n1", "n2"].map(|name| cluster.node(name).http).into();
    let load = Load {
        nodes: survivors,
        clients: 8,
        keys: KEYS,
        length: Duration::from_secs(9),
        pause: Duration::from_millis(1),
        deadline: Duration::from_secs(5),
    };
    let (history, killed) = thread::scope(|scope| {
        let running = scope.spawn(|| load.run());
        thread::sleep(Duration::from_secs(1));
        let killed = monotonic();
        cluster.kill("n3");
        (running.join().unwrap(), killed)
    });

    assert_eq!(history.count(Outcome::Unknown), 0, "a check was not answered");
    assert_eq!(history.count(Outcome::Refused), 0);
    let slowest = Duration::from_nanos(history.slowest());
    assert!(slowest < kit::CHECK_TIMEOUT + kit::SCHEDULING_SLACK, "a check took {slowest:?}");
    let late = history
        .operations
        .iter()
        .filter(|one| one.completed - one.invoked > kit::CHECK_TIMEOUT.as_nanos() as u64)
        .count();
    assert!(late * 100 <= history.operations.len(), "{late} of {} took too long", history.operations.len());

    // How long that was, at most: from the kill to the last check that found no owner.
    let found_none = |one: &&tidegate_jepsen::history::Operation| {
        one.invoked > killed
            && one.decided_by.as_ref().is_none_or(|(how, _)| how != "owner" && how != "forwarded")
    };
    let without = history.operations.iter().filter(found_none).map(|one| one.completed - killed).max();
    eprintln!("a killed owner: its keys had no owner for {:?}", without.map(Duration::from_nanos));

    // Keys of the dead node were decided by it before, and are by another node five seconds later.
    let by = |one: &&tidegate_jepsen::history::Operation, name: &str| {
        one.decided_by.as_ref().is_some_and(|(_, node)| node == name)
    };
    let before: Vec<u32> = (0..KEYS)
        .filter(|key| history.of_key(*key).any(|one| by(&one, "n3") && one.completed < killed))
        .collect();
    assert!(before.len() > 5, "some of {KEYS} keys belong to n3: {before:?}");
    // The promise, and what waits for its turn on a busy machine.
    let replaced = killed + 5_000_000_000 + kit::SCHEDULING_SLACK.as_nanos() as u64;
    for key in &before {
        let after: Vec<_> = history.of_key(*key).filter(|one| one.invoked > replaced).collect();
        assert!(!after.is_empty());
        assert!(after.iter().all(|one| !by(one, "n3")), "key {key}: {after:?}");
        kit::assert_owned(after.into_iter());
    }

    // What took the slots over started empty, and so did the shares meanwhile.
    let bound = Bound { burst: 20, count: 50, period: Duration::from_secs(1) };
    kit::assert_within(&history, &bound, KEYS);
}

#[test]
fn a_hung_node_does_not_slow_the_others_down() {
    let _machine = kit::alone();
    let cluster = kit::nodes(3, &kit::per_user("1000/1s", 1000, "share"));
    cluster.node("n3").pause();
    let load = Load {
        nodes: ["n1", "n2"].map(|name| cluster.node(name).http).into(),
        clients: 4,
        keys: KEYS,
        length: Duration::from_secs(2),
        pause: Duration::from_millis(1),
        deadline: Duration::from_secs(5),
    };
    let history = load.run();
    cluster.node("n3").resume();
    assert_eq!(history.count(Outcome::Unknown) + history.count(Outcome::Refused), 0);
    // Only the first checks wait for the hung owner, each for less than the check timeout.
    let waited = history.operations.iter().filter(|one| one.completed - one.invoked > 50_000_000).count();
    assert!(waited * 20 <= history.operations.len(), "{waited} of {} waited", history.operations.len());
    assert!(Duration::from_nanos(history.slowest()) < kit::CHECK_TIMEOUT + kit::SCHEDULING_SLACK);
}

#[test]
fn a_node_that_is_asked_to_stop_hands_over_without_an_unanswered_check() {
    let _machine = kit::alone();
    let mut cluster = kit::nodes(3, &kit::per_user("50/1s", 20, "share"));
    let load = Load {
        nodes: ["n1", "n2"].map(|name| cluster.node(name).http).into(),
        clients: 4,
        keys: KEYS,
        length: Duration::from_secs(4),
        pause: Duration::from_millis(1),
        deadline: Duration::from_secs(5),
    };
    let history = thread::scope(|scope| {
        let running = scope.spawn(|| load.run());
        thread::sleep(Duration::from_secs(1));
        assert_eq!(cluster.terminate("n3"), Some(0));
        running.join().unwrap()
    });
    assert_eq!(history.count(Outcome::Unknown) + history.count(Outcome::Refused), 0);
    let without_owner = history
        .operations
        .iter()
        .filter(|one| one.decided_by.as_ref().is_some_and(|(how, _)| how == "share" || how == "fallback"))
        .count();
    assert!(without_owner * 100 <= history.operations.len(), "{without_owner} checks found no owner");
    assert_eq!(cluster.node("n1").slot_owners().iter().filter(|owner| *owner == "n3").count(), 0);
}

#[test]
fn a_new_node_takes_the_place_of_a_dead_one() {
    let mut cluster = kit::nodes(3, &kit::per_user("5/1h", 5, "deny"));
    cluster.kill("n2");
    cluster.join();
    let owners = cluster.node("n1").slot_owners();
    assert!(owners.iter().any(|owner| owner == "n4"));
    let answer = cluster.node("n4").client(Duration::from_secs(5)).get(&path_of(1)).unwrap();
    assert!(answer.status == 200 || answer.status == 429, "{}", answer.text());
}

#[test]
fn without_a_quorum_a_node_gives_shares_of_what_a_living_node_may_not_decide() {
    let _machine = kit::alone();
    let rules = kit::per_user("40/1s", 40, "share, consistency: strict");
    let mut cluster = kit::nodes(4, &rules);
    kit::rules::await_voters(&cluster, 3);
    let status = cluster.node("n1").status().unwrap();
    let voters: Vec<String> = serde_json::from_value(status["raft"]["voters"].clone()).unwrap();
    for name in &voters[..2] {
        cluster.kill(name);
    }
    let alive: Vec<String> = cluster.running().map(|node| node.name.clone()).collect();
    let [asked, other] = &alive[..] else { panic!("two are left: {alive:?}") };
    let check = |user: u32| kit::rules::check(cluster.node(asked), "default", &format!("u{user}"));
    let keys: Vec<u32> = (0..60)
        .filter(|user| {
            let answer = check(*user);
            answer["decided_by"] == "forwarded" && answer["node"] == **other
        })
        .collect();
    assert!(keys.len() > 3, "some of 60 keys belong to {other}, whose session still lasts: {keys:?}");
    let start = monotonic();
    let mut without = keys.clone();
    while !without.is_empty() {
        assert!(monotonic() - start < 20_000_000_000, "no share of {without:?}, whose owner {other} lives");
        without.retain(|user| {
            let answer = check(*user);
            !(answer["decided_by"] == "share" && answer["allowed"] == true)
        });
        thread::sleep(Duration::from_millis(50));
    }
    // And of what it may not decide itself.
    assert!(keys.iter().all(|user| check(*user)["decided_by"] == "share"));
}
