//! The promise: nodes come and go by plan, and nobody notices: no request fails, no limit is exceeded in any interval, and
//! no count is lost.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    cluster::{Cluster, Settings, wait_for},
    history::{History, Outcome},
    load::Load,
};

/// Buckets that remember for long: what they know must survive each move.
const RULES: &str = "
rules:
  - { name: per-user, key: [user], limit: 100/1s, burst: 40, on_owner_loss: deny }
  - { name: day, key: [day], limit: 100/1d, on_owner_loss: deny }
  - { name: month, key: [month], limit: 100/month, algorithm: fixed_window, on_owner_loss: deny }
  - { name: log, key: [log], limit: 100/1d, algorithm: sliding_log, on_owner_loss: deny }
  - { name: sliding, key: [sliding], limit: 100/month, algorithm: sliding_window, on_owner_loss: deny }
";
const LONG: [&str; 4] = ["day", "month", "log", "sliding"];
const ACCOUNTS: u32 = 100;
const KEYS: u32 = 60;
const BOUND: Bound = Bound { burst: 40, count: 100, period: Duration::from_secs(1) };
const PATIENCE: Duration = Duration::from_secs(5);

fn settings() -> Settings {
    Settings { keeps_data: true, ..kit::patient(RULES) }
}

/// Each account takes another number of units of each long limit.
fn use_up(cluster: &Cluster) {
    let mut client = cluster.node("n1").client(PATIENCE);
    for account in 0..ACCOUNTS {
        for limit in LONG {
            let path = format!("/v1/check?{limit}=a{account}&cost={}", 1 + account % 97);
            assert_eq!(client.get(&path).unwrap().status, 200);
        }
    }
}

fn left(cluster: &Cluster, node: &str) -> Vec<u64> {
    let mut client = cluster.node(node).client(PATIENCE);
    let mut all = Vec::new();
    for limit in LONG {
        for account in 0..ACCOUNTS {
            let answer = client.get(&format!("/v1/check?{limit}=a{account}&cost=0")).unwrap();
            all.push(answer.json()["remaining"].as_u64().unwrap_or_else(|| panic!("{}", answer.text())));
        }
    }
    all
}

/// Runs `change` under load at these nodes; none of the load may fail.
fn under_load(cluster: &mut Cluster, nodes: &[&str], change: impl FnOnce(&mut Cluster)) -> History {
    let load = Load {
        nodes: nodes.iter().map(|name| cluster.node(name).http).collect(),
        clients: 4,
        keys: KEYS,
        length: Duration::from_secs(60),
        pause: Duration::from_millis(1),
        deadline: PATIENCE,
    };
    let wanted = AtomicBool::new(true);
    let history = thread::scope(|scope| {
        let running = scope.spawn(|| load.run_while(|| wanted.load(Relaxed)));
        let end = kit::EndOnDrop(&wanted);
        thread::sleep(Duration::from_millis(300));
        change(cluster);
        thread::sleep(Duration::from_millis(300));
        drop(end);
        running.join().unwrap()
    });
    let failed = history.count(Outcome::Unknown) + history.count(Outcome::Refused);
    assert_eq!(failed, 0, "of {} requests", history.operations.len());
    let without_owner: Vec<_> = history
        .operations
        .iter()
        .filter(|one| one.decided_by.as_ref().is_none_or(|(how, _)| how != "owner" && how != "forwarded"))
        .collect();
    let count = without_owner.len();
    let some = without_owner.iter().take(9).collect::<Vec<_>>();
    assert_eq!(count, 0, "each check finds an owner, but these have not: {some:#?}");
    let is_slow = |one: &&tidegate_jepsen::history::Operation| {
        one.completed - one.invoked > kit::CHECK_TIMEOUT.as_nanos() as u64
    };
    let slow = history.operations.iter().filter(is_slow).count();
    assert!(slow * 100 <= history.operations.len(), "{slow} of {} are slow", history.operations.len());
    history
}

fn tidegate(cluster: &Cluster, arguments: &[&str]) -> String {
    let node = format!("http://{}", cluster.node("n1").http);
    let ended = Command::new(kit::binary()).args(arguments).args(["--node", &node]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    said
}

fn slots_of(cluster: &Cluster, name: &str) -> usize {
    cluster.node("n1").slot_owners().iter().filter(|owner| *owner == name).count()
}

#[test]
fn a_node_joins_drains_and_stops_under_load_and_nobody_notices() {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(3, settings());
    use_up(&cluster);
    let before = left(&cluster, "n1");

    let mut history = under_load(&mut cluster, &["n1", "n2", "n3"], |cluster| {
        cluster.join();
    });
    assert!(slots_of(&cluster, "n4") > 800);
    assert_eq!(left(&cluster, "n4"), before, "after n4 has joined");

    let drained = under_load(&mut cluster, &["n1", "n2", "n3", "n4"], |cluster| {
        let said = tidegate(cluster, &["cluster", "drain", "n2"]);
        assert!(said.contains("may be stopped"), "{said}");
        assert_eq!(slots_of(cluster, "n2"), 0);
    });
    history.operations.extend(drained.operations);
    assert_eq!(left(&cluster, "n2"), before, "after n2 was drained");
    assert!(tidegate(&cluster, &["cluster", "status"]).contains("draining"));

    let undone = under_load(&mut cluster, &["n1", "n2"], |cluster| {
        tidegate(cluster, &["cluster", "drain", "n2", "--undo"]);
        cluster.await_ready();
        assert!(slots_of(cluster, "n2") > 800);
    });
    history.operations.extend(undone.operations);

    let stopped = under_load(&mut cluster, &["n1", "n2", "n4"], |cluster| {
        assert_eq!(cluster.terminate("n3"), Some(0));
    });
    history.operations.extend(stopped.operations);
    assert_eq!(slots_of(&cluster, "n3"), 0);
    assert_eq!(left(&cluster, "n1"), before, "after n3 was asked to stop");
    kit::assert_within(&history, &BOUND, KEYS);

    wait_for("n3 is gone for n1", Duration::from_secs(20), || {
        !cluster.node("n1").live_members().iter().any(|name| name == "n3")
    });
    let said = tidegate(&cluster, &["cluster", "remove", "n3"]);
    assert!(said.contains("n3"), "{said}");
    assert_eq!(cluster.node("n1").status().unwrap()["raft"]["learners"].as_array().unwrap().len(), 0);
}

#[test]
fn all_nodes_are_restarted_one_after_the_other_and_no_count_is_lost() {
    restart_all(&["n1", "n2", "n3"]);
}

#[test]
fn five_nodes_are_restarted_one_after_the_other_and_no_count_is_lost() {
    restart_all(&["n1", "n2", "n3", "n4", "n5"]);
}

fn restart_all(names: &[&str]) {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(names.len(), settings());
    use_up(&cluster);
    let before = left(&cluster, "n1");
    let mut history = History::default();
    for name in names {
        let others: Vec<&str> = names.iter().copied().filter(|other| other != name).collect();
        let during = under_load(&mut cluster, &others, |cluster| {
            assert_eq!(cluster.terminate(name), Some(0));
            cluster.restart(name);
            cluster.await_ready();
        });
        history.operations.extend(during.operations);
        assert_eq!(left(&cluster, name), before, "after {name} was restarted");
    }
    kit::assert_within(&history, &BOUND, KEYS);
}

#[test]
fn of_two_nodes_one_is_replaced_under_load_and_nobody_notices() {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(2, settings());
    use_up(&cluster);
    let before = left(&cluster, "n2");
    let mut history = under_load(&mut cluster, &["n1", "n2"], |cluster| {
        cluster.join();
    });
    assert!(slots_of(&cluster, "n3") > 1000);
    assert_eq!(left(&cluster, "n3"), before, "after n3 has joined");

    let drained = under_load(&mut cluster, &["n1", "n2", "n3"], |cluster| {
        let said = tidegate(cluster, &["cluster", "drain", "n2"]);
        assert!(said.contains("may be stopped"), "{said}");
        assert_eq!(slots_of(cluster, "n2"), 0);
    });
    history.operations.extend(drained.operations);
    let stopped = under_load(&mut cluster, &["n1", "n3"], |cluster| {
        assert_eq!(cluster.terminate("n2"), Some(0));
    });
    history.operations.extend(stopped.operations);
    for node in ["n1", "n3"] {
        assert_eq!(left(&cluster, node), before, "after n2 was replaced");
    }
    kit::assert_within(&history, &BOUND, KEYS);
}
