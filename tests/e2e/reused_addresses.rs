//! The promise: what one node is known by may come to be another's, and all say so. An address of a node that is gone may be given to a node of another cluster, and each of the two clusters goes on as
//! if the other one were not there; and says that it is.

use std::{fs, time::Duration};

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

fn readyz(node: &Node) -> (u16, String) {
    let answer = Client::new(node.http, PATIENCE).get("/readyz");
    answer.map(|answer| (answer.status, answer.text())).unwrap_or_default()
}

/// Nodes of these names found a cluster of their own.
fn founded(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::empty(Settings { keeps_data: true, ..kit::patient(RULES) });
    let ports: Vec<u16> = names.iter().map(|_| free_ports()).collect();
    let expect = ["--bootstrap-expect".to_owned(), names.len().to_string()];
    for (name, port) in names.iter().zip(&ports) {
        cluster.spawn_as(name, *port, &ports, &expect);
    }
    cluster.await_ready();
    cluster
}

fn members(node: &Node) -> Vec<String> {
    let status = node.status().unwrap_or_default();
    let all = status["members"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|member| member["name"].as_str().map(str::to_owned)).collect()
}

fn assert_all_ready(cluster: &Cluster) {
    for node in cluster.running() {
        let (status, text) = readyz(node);
        assert_eq!(status, 200, "{}: {text}", node.name);
    }
}

#[test]
fn a_node_of_a_larger_cluster_at_a_former_address_keeps_none_of_the_smaller_one_from_starting_again() {
    let _machine = kit::alone();
    let mut ours = founded(&["a1", "a2", "a3"]);
    let mut theirs = founded(&["b1", "b2", "b3"]);
    let former = ours.node("a3").http.port();
    let joined: Vec<u16> = theirs.nodes.iter().map(|node| node.http.port()).collect();
    ours.kill("a3");
    theirs.spawn_as("b4", former, &joined, &[]);
    // It belongs to nothing yet, and those that are left of the smaller cluster know its address.
    theirs.await_ready();
    let newcomer = theirs.node("b4");
    wait_for("the one that has the address says who gossips with it", PATIENCE, || {
        newcomer.log().contains("a node of another cluster that has this one's name gossips with this node")
    });
    wait_for("both say that there are two", PATIENCE, || {
        let says = |node: &Node| node.metric("tidegate_foreign_cluster") == Some(1.0);
        says(newcomer) && (says(ours.node("a1")) || says(ours.node("a2")))
    });

    // It comes back with another address, and with one that other nodes of its cluster do not know.
    ours.restart_elsewhere(&["a3"]);
    wait_for("a3 is ready", PATIENCE, || ours.node("a3").is_ready());
    ours.await_ready();
    // As in a rolling restart, though b4 stands in what they join.
    for name in ["a1", "a2", "a3"] {
        assert_eq!(ours.terminate(name), Some(0));
        ours.restart(name);
        let node = ours.node(name);
        wait_for(&format!("{name} is ready: {:?}", readyz(node)), PATIENCE, || node.is_ready());
    }
    // And one more that joins the smaller one.
    let ports: Vec<u16> = ours.nodes.iter().map(|node| node.http.port()).collect();
    ours.spawn_as("a4", free_ports(), &ports, &[]);
    ours.await_ready();
    theirs.await_ready();
    for (cluster, foreign) in [(&ours, "b"), (&theirs, "a")] {
        assert_all_ready(cluster);
        for node in cluster.running() {
            let members = members(node);
            assert!(!members.iter().any(|name| name.starts_with(foreign)), "{}: {members:?}", node.name);
        }
    }
    // Each has its own counts and rules.
    let take =
        |node: &Node| -> Value { node.client(PATIENCE).get("/v1/check?user=u&cost=7").unwrap().json() };
    let left = [ours.node("a1"), theirs.node("b1")].map(|node| take(node)["remaining"].as_u64().unwrap());
    // A slot that had no owner for a moment begins less a sixteenth.
    assert!(left.iter().all(|left| (86..=93).contains(left)), "{left:?}");
    let put = kit::rules::put(ours.node("a2"), "more", &[], "rules: []\n");
    assert!([200, 201].contains(&put.status), "{}", put.text());
    assert_eq!(theirs.node("b4").client(PATIENCE).get("/v1/rules/more").unwrap().status, 404);

    // When that node is gone, nobody speaks of it any more.
    theirs.kill("b4");
    wait_for("nobody says so any more", Duration::from_secs(60), || {
        ours.running()
            .chain(theirs.running())
            .all(|node| node.metric("tidegate_foreign_cluster") == Some(0.0))
    });
}

#[test]
fn a_copy_of_a_directory_that_runs_beside_the_node_is_named_by_all_nodes() {
    let _machine = kit::alone();
    let mut cluster = founded(&["a1", "a2", "a3"]);
    assert_eq!(cluster.terminate("a3"), Some(0));
    let (port, others) =
        (free_ports(), cluster.nodes.iter().map(|node| node.http.port()).collect::<Vec<_>>());
    let (from, to) = (cluster.data_of("a3"), cluster.data_dir(port));
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    cluster.restart("a3");
    cluster.await_ready();
    for node in &cluster.nodes {
        assert!(!node.log().contains("several nodes run under one name"), "a restart is none");
    }
    cluster.spawn_as("a3", port, &others, &[]);
    for node in &cluster.nodes {
        wait_for(&format!("{} says so", node.name), Duration::from_secs(40), || {
            let log = node.log();
            log.contains("several nodes run under one name")
                && log.contains(&format!("127.0.0.1:{}", port + 3))
        });
    }
    // Whichever of the two counts, a load balancer does not ask the other one: its rules are those of when it was copied.
    let of_that_name: Vec<&Node> = cluster.nodes.iter().filter(|node| node.name == "a3").collect();
    assert_eq!(of_that_name.len(), 2);
    for _ in 0..30 {
        let ready = of_that_name.iter().filter(|node| readyz(node).0 == 200).count();
        assert!(ready <= 1, "both of one name are ready");
        std::thread::sleep(Duration::from_millis(100));
    }
}
