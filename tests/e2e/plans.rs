//! The promise: nodes come, go by plan, move and are replaced, and after each step the cluster tolerates as many losses as its
//! size allows.

use std::time::Duration;

use crate::kit;
use serde_json::Value;
use tidegate_jepsen::{
    client::Client,
    cluster::{Cluster, Settings, free_ports, wait_for},
    node::Node,
};

const PATIENCE: Duration = Duration::from_secs(20);
const RULES: &str = "
rules:
  - { name: day, key: [user], limit: 100/1d, on_owner_loss: deny }
";

fn settings(keeps_data: bool) -> Settings {
    Settings { keeps_data, ..kit::patient(RULES) }
}

fn status(node: &Node) -> Value {
    Client::new(node.http, PATIENCE).get("/v1/cluster").map(|answer| answer.json()).unwrap_or_default()
}

/// The names of those that vote, as a node sees them.
fn voters_of(node: &Node) -> Vec<String> {
    let all = status(node)["raft"]["voters"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<_> = all.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

/// The same of each running node.
fn voters(cluster: &Cluster) -> Vec<Vec<String>> {
    cluster.running().map(voters_of).collect()
}

fn await_voters(cluster: &Cluster, names: &[&str]) {
    wait_for(&format!("{names:?} vote"), PATIENCE, || voters(cluster).iter().all(|seen| seen == names));
}

/// What needs a quorum works, at once.
fn assert_rules_change(cluster: &Cluster, domain: &str) {
    let node = cluster.running().next().expect("one runs");
    let put = kit::rules::put(node, domain, &[], "rules: []\n");
    assert!([200, 201].contains(&put.status), "{}", put.text());
}

/// Keys that nobody has asked about are decided by their owners.
fn assert_decides(cluster: &Cluster, from: u32) {
    for node in cluster.running() {
        let mut client = node.client(PATIENCE);
        for user in from..from + 50 {
            let answer = client.get(&format!("/v1/check?user=p{user}")).unwrap();
            let json = answer.json();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(
                ["owner", "forwarded"].contains(&json["decided_by"].as_str().unwrap_or_default()),
                "{json}"
            );
        }
    }
}

fn remaining(cluster: &Cluster, user: &str) -> Option<u64> {
    let node = cluster.running().next()?;
    let answer = node.client(PATIENCE).get(&format!("/v1/check?user={user}&cost=0")).ok()?;
    answer.json()["remaining"].as_u64()
}

fn everywhere_else(count: usize, kills: bool) {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(count, settings(true));
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let mut client = cluster.node("n1").client(PATIENCE);
    assert_eq!(client.get("/v1/check?user=known&cost=7").unwrap().status, 200);
    drop(client);
    for round in 0..2 {
        if kills {
            names.iter().for_each(|name| cluster.kill(name));
        } else {
            names.iter().for_each(|name| cluster.ask_to_stop(name));
            for name in &names {
                assert_eq!(cluster.await_exit(name), Some(0), "{name}");
            }
        }
        cluster.restart_elsewhere(&names);
        cluster.await_ready();
        if kills {
            // What they had given nobody knows, so their own buckets start exhausted; new rules have new buckets.
            assert!(remaining(&cluster, "known").is_some_and(|rest| rest <= 93));
        } else {
            assert_decides(&cluster, round * 50);
            assert_eq!(remaining(&cluster, "known"), Some(93));
        }
        assert_rules_change(&cluster, &format!("after-{round}"));
    }
}

#[test]
fn all_nodes_start_again_at_other_addresses_with_all_that_they_knew() {
    everywhere_else(3, false);
}

#[test]
fn all_of_five_are_killed_and_start_again_at_other_addresses() {
    everywhere_else(5, true);
}

#[test]
fn one_becomes_five_and_one_again_and_each_step_can_be_followed_by_the_next() {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(1, settings(true));
    for count in 2..=5 {
        cluster.join();
        // Four nodes vote as three: one more could fail of neither.
        let vote: Vec<&str> = ["n1", "n2", "n3", "n4", "n5"][..if count == 4 { 3 } else { count }].into();
        await_voters(&cluster, &vote);
    }
    for count in (1..=4_u64).rev() {
        assert_eq!(cluster.terminate(&format!("n{}", count + 1)), Some(0));
        assert_rules_change(&cluster, &format!("with-{count}"));
        // As many as the size allows: of three or four one, of two or one none.
        wait_for(&format!("{count} nodes tolerate what they can"), PATIENCE, || {
            cluster.running().all(|node| status(node)["raft"]["failures_tolerated"] == (count - 1) / 2)
        });
        wait_for("all slots are decided", PATIENCE, || cluster.running().all(Node::is_settled));
        assert_decides(&cluster, count as u32 * 50);
    }
    await_voters(&cluster, &["n1"]);
    // They come back, and vote.
    for name in ["n2", "n3", "n4", "n5"] {
        cluster.restart(name);
    }
    cluster.await_ready();
    await_voters(&cluster, &["n1", "n2", "n3", "n4", "n5"]);
}

#[test]
fn three_become_five_and_three_again_and_then_one_may_crash() {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(3, settings(true));
    cluster.join();
    cluster.join();
    await_voters(&cluster, &["n1", "n2", "n3", "n4", "n5"]);
    for name in ["n5", "n4"] {
        assert_eq!(cluster.terminate(name), Some(0));
    }
    await_voters(&cluster, &["n1", "n2", "n3"]);
    assert_eq!(status(cluster.node("n1"))["raft"]["failures_tolerated"], 1);
    // Whoever reads the log at night need not look for a crash.
    wait_for("n1 says that they have left", PATIENCE, || {
        let log = cluster.node("n1").log();
        ["n4", "n5"]
            .iter()
            .all(|name| log.contains(&format!("a node has left: others have its slots node={name}")))
    });
    cluster.kill("n3");
    wait_for("the others have taken its slots over", PATIENCE, || {
        let owners = cluster.node("n1").slot_owners();
        !owners.is_empty() && owners.iter().all(|owner| owner == "n1" || owner == "n2")
    });
    assert_rules_change(&cluster, "after-the-crash");
    // They come back with their disks, and get their votes: the lost one may stay away.
    cluster.restart("n4");
    cluster.restart("n5");
    cluster.await_ready();
    wait_for("they vote", PATIENCE, || {
        voters(&cluster).iter().all(|seen| seen.contains(&"n4".to_owned()) && seen.contains(&"n5".to_owned()))
    });
}

/// Of three nodes one has crashed, and one goes by plan: the last one goes on by itself, and whoever comes back takes part again.
#[test]
fn one_of_three_has_crashed_and_another_goes_by_plan() {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(3, settings(true));
    cluster.kill("n3");
    wait_for("the others have taken its slots over", PATIENCE, || {
        let owners = cluster.node("n1").slot_owners();
        !owners.is_empty() && owners.iter().all(|owner| owner == "n1" || owner == "n2")
    });
    assert_rules_change(&cluster, "after-the-crash");
    // It has been away for so long that its vote does not count on its return.
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(cluster.terminate("n2"), Some(0));
    assert_rules_change(&cluster, "alone");
    wait_for("all slots are decided", PATIENCE, || cluster.running().all(Node::is_settled));
    assert_decides(&cluster, 0);
    cluster.restart("n3");
    cluster.restart("n2");
    cluster.await_ready();
    await_voters(&cluster, &["n1", "n2", "n3"]);
}

/// Each node ends by plan, and another one with a new name takes its place.
fn replace_all(keeps_data: bool, new_first: bool) {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(3, settings(keeps_data));
    for number in 1..=6 {
        let (old, new) = (format!("n{number}"), format!("n{}", number + 3));
        let join = |cluster: &mut Cluster| {
            let ports: Vec<u16> = cluster.running().map(|node| node.http.port()).collect();
            cluster.spawn_as(&new, free_ports(), &ports, &[]);
            let node = cluster.node(&new);
            wait_for(&format!("{new} is ready"), PATIENCE, || node.is_ready());
        };
        if new_first {
            join(&mut cluster);
        }
        assert_eq!(cluster.terminate(&old), Some(0));
        assert_rules_change(&cluster, &format!("without-{old}"));
        if !new_first {
            join(&mut cluster);
        }
    }
    await_voters(&cluster, &["n7", "n8", "n9"]);
    cluster.await_ready();
    cluster.kill("n9");
    wait_for("the others have taken its slots over", PATIENCE, || {
        cluster.node("n7").slot_owners().iter().all(|owner| owner == "n7" || owner == "n8")
    });
    assert_rules_change(&cluster, "after-the-crash");
}

#[test]
fn all_nodes_are_replaced_under_new_names_as_soon_as_each_is_ready() {
    replace_all(true, false);
}

#[test]
fn all_nodes_without_disks_are_replaced_and_the_new_one_comes_first() {
    replace_all(false, true);
}

fn remove(cluster: &Cluster, name: &str) -> (u16, String) {
    let node = cluster.node("n1");
    let answer =
        node.client(PATIENCE).request("POST", &format!("/v1/cluster/remove/{name}"), &[], "").unwrap();
    (answer.status, answer.text())
}

#[test]
fn a_drained_node_is_removed_while_it_lives_and_at_once_after_its_end() {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(3, settings(true));
    let drain = |cluster: &Cluster, name: &str| {
        let path = format!("/v1/cluster/drain/{name}");
        let answer = cluster.node("n1").client(PATIENCE).request("POST", &path, &[], "").unwrap();
        assert!(answer.status < 300, "{}", answer.text());
        wait_for("it owns nothing", PATIENCE, || {
            let owners = cluster.node("n1").slot_owners();
            !owners.is_empty() && owners.iter().all(|owner| owner != name)
        });
    };
    let (code, text) = remove(&cluster, "n3");
    assert_eq!(code, 409, "{text}");
    assert!(text.contains("it is alive"), "{text}");

    drain(&cluster, "n3");
    let (code, text) = remove(&cluster, "n3");
    assert!(code < 300, "{text}");
    await_voters_of(&cluster, "n1", &["n1", "n2"]);
    // It is not taken in again while it lingers.
    std::thread::sleep(Duration::from_secs(3));
    await_voters_of(&cluster, "n1", &["n1", "n2"]);
    assert_eq!(cluster.terminate("n3"), Some(0));

    drain(&cluster, "n2");
    assert_eq!(cluster.terminate("n2"), Some(0));
    let (code, text) = remove(&cluster, "n2");
    assert!(code < 300, "{text}");
    await_voters(&cluster, &["n1"]);
    assert_rules_change(&cluster, "alone");
}

fn await_voters_of(cluster: &Cluster, node: &str, names: &[&str]) {
    wait_for(&format!("{names:?} vote"), PATIENCE, || voters_of(cluster.node(node)) == names);
}
