//! The promise: what an owner decides after it was stopped for longer than its session does not count.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    cluster::wait_for,
    history::{Outcome, monotonic},
    load::Load,
};

const KEYS: u32 = 40;
const BOUND: Bound = Bound { burst: 20, count: 50, period: Duration::from_secs(1) };
/// For each node.
const CLIENTS: usize = 4;

/// Half of the keys are limited by a rule that is `strict`, half by one that is `available`.
fn rules() -> String {
    let users = |rest: u32| -> String {
        let users: Vec<String> =
            (0..KEYS).filter(|key| key % 2 == rest).map(|key| format!("u{key}")).collect();
        users.join(", ")
    };
    let rule = |name: &str, rest: u32| {
        format!(
            "  - {{ name: {name}, when: {{ user: [{}] }}, key: [user], limit: 50/1s, burst: 20, on_owner_loss: deny, consistency: {name} }}\n",
            users(rest)
        )
    };
    format!("rules:\n{}{}", rule("strict", 0), rule("available", 1))
}

#[test]
fn a_limit_is_exact_through_a_pause_of_its_owner_whatever_its_consistency() {
    let _machine = kit::alone();
    let cluster = kit::nodes(3, &rules());
    let load = Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: CLIENTS,
        keys: KEYS,
        length: Duration::from_secs(60),
        pause: Duration::from_millis(1),
        // Who asks the stopped node waits for it, and hears what it decides late.
        deadline: Duration::from_secs(40),
    };
    let wanted = AtomicBool::new(true);
    let (history, resumed) = thread::scope(|scope| {
        let running = scope.spawn(|| load.run_while(|| wanted.load(Relaxed)));
        let end = kit::EndOnDrop(&wanted);
        thread::sleep(Duration::from_secs(1));
        cluster.node("n2").pause();
        wait_for("the others have taken its slots over", Duration::from_secs(8), || {
            let owners = cluster.node("n1").slot_owners();
            !owners.is_empty() && owners.iter().all(|owner| owner != "n2")
        });
        thread::sleep(Duration::from_secs(1));
        // Before it goes on: it may have answered all of them before this thread runs again.
        let resumed = monotonic();
        cluster.node("n2").resume();
        cluster.await_ready();
        thread::sleep(Duration::from_secs(1));
        drop(end);
        (running.join().unwrap(), resumed)
    });
    let late = history.operations.iter().filter(|one| one.invoked < resumed && one.completed > resumed);
    let of_n2 = late.filter(|one| one.node == 1).count();
    assert_eq!(of_n2, CLIENTS, "each client of the stopped node waited for it");
    assert_eq!(history.count(Outcome::Unknown), 0);
    kit::assert_within(&history, &BOUND, KEYS);
}
