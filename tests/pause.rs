//! The promise: what an owner decides after it was stopped for longer than its session does not count.
#![allow(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::{thread, time::Duration};

use tidegate_jepsen::{
    check::bound::Bound,
    cluster::wait_for,
    history::{History, Outcome, monotonic},
    load::Load,
};

const KEYS: u32 = 30;
const BOUND: Bound = Bound { burst: 20, count: 50, period: Duration::from_secs(1) };

fn paused_and_resumed(consistency: &str) -> History {
    let rules = format!(
        "rules:\n  - {{ name: r, key: [user], limit: 50/1s, burst: 20, on_owner_loss: deny, consistency: {consistency} }}\n"
    );
    let cluster = kit::nodes(3, &rules);
    let load = Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 4,
        keys: KEYS,
        length: Duration::from_secs(13),
        pause: Duration::from_millis(1),
        // Who asks the stopped node waits for it, and hears what it decides late.
        deadline: Duration::from_secs(20),
    };
    thread::scope(|scope| {
        let running = scope.spawn(|| load.run());
        thread::sleep(Duration::from_secs(1));
        let owned = cluster.node("n2").slot_owners().len();
        assert_eq!(owned, 4096);
        cluster.node("n2").pause();
        wait_for("the others have taken its slots over", Duration::from_secs(8), || {
            let owners = cluster.node("n1").slot_owners();
            !owners.is_empty() && owners.iter().all(|owner| owner != "n2")
        });
        thread::sleep(Duration::from_secs(1));
        cluster.node("n2").resume();
        let resumed = monotonic();
        cluster.await_ready();
        let history = running.join().unwrap();
        let late = history.operations.iter().filter(|one| one.invoked < resumed && one.completed > resumed);
        assert!(late.clone().count() >= 4, "somebody waited for the stopped node");
        history
    })
}

#[test]
fn a_strict_rule_is_exact_through_a_pause_of_its_owner() {
    let _machine = kit::alone();
    let history = paused_and_resumed("strict");
    assert_eq!(history.count(Outcome::Unknown), 0);
    kit::assert_within(&history, &BOUND, KEYS);
}

#[test]
fn an_available_rule_is_exact_through_a_pause_of_its_owner_too() {
    let _machine = kit::alone();
    let history = paused_and_resumed("available");
    assert_eq!(history.count(Outcome::Unknown), 0);
    kit::assert_within(&history, &BOUND, KEYS);
}
