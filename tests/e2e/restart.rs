//! The promise: a node that comes back under its name takes its part again, and nobody gets a limit twice for it.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    cluster::{free_ports, wait_for},
    history::Outcome,
    load::{Load, path_of},
};

const PATIENCE: Duration = Duration::from_secs(20);
const KEYS: u32 = 60;

#[test]
fn a_node_that_is_killed_and_comes_back_takes_its_slots_again_and_admits_nothing_twice() {
    let _machine = kit::alone();
    let mut cluster = kit::patient_nodes(3, &kit::per_user("50/1s", 20, "deny"));
    let before = cluster.node("n1").slot_owners();
    let load = Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 6,
        keys: KEYS,
        length: Duration::from_secs(60),
        pause: Duration::from_millis(1),
        deadline: Duration::from_secs(5),
    };
    let wanted = AtomicBool::new(true);
    let history = thread::scope(|scope| {
        let running = scope.spawn(|| load.run_while(|| wanted.load(Relaxed)));
        let _stop = StopOnDrop(&wanted);
        thread::sleep(Duration::from_secs(1));
        // At once, before the others have noticed; and again, after they have taken its slots over.
        cluster.kill("n2");
        cluster.restart("n2");
        cluster.await_ready();
        cluster.kill("n2");
        wait_for("the others have taken the slots over", PATIENCE, || {
            let owners = cluster.node("n1").slot_owners();
            !owners.is_empty() && owners.iter().all(|owner| owner != "n2")
        });
        cluster.restart("n2");
        cluster.await_ready();
        thread::sleep(Duration::from_secs(1));
        wanted.store(false, Relaxed);
        running.join().unwrap()
    });
    assert_eq!(cluster.node("n3").slot_owners(), before, "each has what it had");

    // Whoever asked n2 while it was not there got no answer; nobody else noticed.
    assert_eq!(history.count(Outcome::Refused), not_ready(&history));
    let without_answer = history.operations.iter().filter(|one| one.outcome == Outcome::Unknown);
    assert!(without_answer.clone().count() > 0, "n2 was asked while it was not there");
    assert_eq!(without_answer.map(|one| one.node).collect::<HashSet<_>>(), HashSet::from([1]));

    let bound = Bound { burst: 20, count: 50, period: Duration::from_secs(1) };
    kit::assert_within(&history, &bound, KEYS);
}

/// Ends the load also when the test fails meanwhile.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Checks that n2 refused: between its start and its place in the cluster it says 503.
fn not_ready(history: &tidegate_jepsen::history::History) -> usize {
    history.operations.iter().filter(|one| one.outcome == Outcome::Refused && one.node == 1).count()
}

#[test]
fn a_restart_without_a_crash_takes_part_again_too() {
    let _machine = kit::alone();
    let mut cluster = kit::patient_nodes(3, &kit::per_user("5/1h", 5, "deny"));
    let before = cluster.node("n1").slot_owners();
    assert_eq!(cluster.terminate("n3"), Some(0));
    cluster.restart("n3");
    cluster.await_ready();
    assert_eq!(cluster.node("n1").slot_owners(), before);
    let mut client = cluster.node("n3").client(PATIENCE);
    for key in 0..50 {
        let answer = client.get(&path_of(key)).unwrap();
        assert!([200, 429].contains(&answer.status), "{}", answer.text());
        assert!(["owner", "forwarded"].contains(&answer.json()["decided_by"].as_str().unwrap()));
    }
}

#[test]
fn the_newer_of_two_nodes_with_one_name_stays_and_the_older_says_so() {
    let _machine = kit::alone();
    let mut cluster = kit::patient_nodes(3, &kit::per_user("1000/1s", 1000, "deny"));
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.http.port()).collect();
    cluster.spawn_as("n1", free_ports(), &ports, &[]);
    let (older, newer) = (&cluster.nodes[0], &cluster.nodes[3]);
    wait_for("the newer one is ready", PATIENCE, || newer.is_ready());
    wait_for("the older one says why it is not", PATIENCE, || {
        let answer = older.client(PATIENCE).get("/readyz");
        answer.is_ok_and(|answer| answer.status == 503 && answer.text().contains("--name"))
    });
    assert_eq!(older.client(PATIENCE).get(&path_of(1)).unwrap().status, 503);
    wait_for("its log says so", PATIENCE, || older.log().contains("a newer node has this node's name"));
    for node in &cluster.nodes[1..] {
        wait_for(&format!("{} decides every check", node.http), PATIENCE, || {
            let mut client = node.client(PATIENCE);
            (0..50).all(|key| client.get(&path_of(key)).is_ok_and(|answer| answer.status == 200))
        });
    }
}

const LONG: &str = "
rules:
  - { name: day, key: [user], limit: 100/1d, on_owner_loss: deny }
";

fn remaining(cluster: &tidegate_jepsen::cluster::Cluster, node: &str, user: u32) -> u64 {
    let answer = cluster.node(node).client(PATIENCE).get(&format!("/v1/check?user=u{user}&cost=0")).unwrap();
    answer.json()["remaining"].as_u64().unwrap_or_else(|| panic!("{}", answer.text()))
}

#[test]
fn what_a_node_alone_knew_is_there_after_a_restart_and_after_a_crash_but_for_a_quantum() {
    let settings = tidegate_jepsen::cluster::Settings { keeps_data: true, ..kit::patient(LONG) };
    let mut cluster = tidegate_jepsen::cluster::Cluster::start(1, settings);
    let mut client = cluster.node("n1").client(PATIENCE);
    assert_eq!(client.get(&format!("{}&cost=7", path_of(1))).unwrap().status, 200);
    drop(client);
    for _ in 0..2 {
        assert_eq!(cluster.terminate("n1"), Some(0));
        cluster.restart("n1");
        cluster.await_ready();
        wait_for("it decides", PATIENCE, || remaining(&cluster, "n1", 2) == 100);
        assert_eq!(remaining(&cluster, "n1", 1), 93);
    }
    cluster.kill("n1");
    cluster.restart("n1");
    cluster.await_ready();
    wait_for("it decides, of what nobody has used", PATIENCE, || {
        (100 - 6..=100).contains(&remaining(&cluster, "n1", 2))
    });
    let left = remaining(&cluster, "n1", 1);
    assert!((93 - 6..=93).contains(&left), "{left} are left");
}

#[test]
fn all_nodes_stop_one_after_the_other_and_start_again_with_all_counts() {
    let settings = tidegate_jepsen::cluster::Settings { keeps_data: true, ..kit::patient(LONG) };
    let mut cluster = tidegate_jepsen::cluster::Cluster::start(3, settings);
    let mut client = cluster.node("n1").client(PATIENCE);
    for user in 0..50 {
        let path = format!("{}&cost={}", path_of(user), user + 1);
        assert_eq!(client.get(&path).unwrap().status, 200);
    }
    drop(client);
    for name in ["n1", "n2", "n3"] {
        assert_eq!(cluster.terminate(name), Some(0));
    }
    for name in ["n1", "n2", "n3"] {
        cluster.restart(name);
    }
    cluster.await_ready();
    for user in 0..50 {
        assert_eq!(remaining(&cluster, "n1", user), 99 - u64::from(user), "user {user}");
    }
}
