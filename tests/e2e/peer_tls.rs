//! The promise: with TLS between the nodes, neither the cluster key nor a certificate alone makes a node, and a cluster gets TLS node
//! after node, without an end.

use std::{process::Command, thread, time::Duration};

use tidegate_jepsen::cluster::{Cluster, free_ports, wait_for};

use crate::kit::{
    self,
    peer::{Said, Stream},
    rules::{PATIENCE, SOON},
    secure::{Authority, said, show_peers},
};

const RULES: &str = "rules:\n  - { name: per-user, key: [user], limit: 60/1d, algorithm: fixed_window, on_owner_loss: deny }\n";

/// Three nodes with TLS between them; for clients they are plain.
fn three(authority: &Authority, mode: &str) -> Cluster {
    let mut cluster = Cluster::empty(kit::patient(RULES));
    let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
    cluster.set_environment("TIDEGATE_PEER_TLS", mode);
    for (place, port) in ports.iter().enumerate() {
        let name = format!("n{}", place + 1);
        let files = authority.node(&name, &name);
        show_peers(&mut cluster, authority, &files, &name);
        cluster.spawn(*port, &ports, &["--bootstrap-expect".to_owned(), "3".to_owned()]);
    }
    cluster.await_ready();
    cluster
}

/// Waits until each node reaches all others.
fn await_links(cluster: &Cluster) {
    wait_for("all owners are reached", SOON, || {
        cluster.running().all(|node| {
            (0..20).all(|user| {
                let path = format!("/v1/check?user=link-{user}&cost=0");
                let answer = node.client(PATIENCE).get(&path).unwrap().json();
                answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded"
            })
        })
    });
}

/// Asks all nodes in turn, so often; how many were allowed.
fn allowed(cluster: &Cluster, user: &str, times: usize) -> usize {
    await_links(cluster);
    let ask = |turn: usize| {
        let nodes: Vec<_> = cluster.running().collect();
        let node = nodes[turn % nodes.len()];
        let answer = node.client(PATIENCE).get(&format!("/v1/check?user={user}")).unwrap().json();
        let decided_by = answer["decided_by"].as_str().unwrap().to_owned();
        assert!(["owner", "forwarded"].contains(&&*decided_by), "{answer}");
        answer["allowed"] == true
    };
    (0..times).filter(|turn| ask(*turn)).count()
}

fn refused(cluster: &Cluster, reason: &str) -> f64 {
    let name = format!("tidegate_peer_streams_refused_total{{reason=\"{reason}\"}}");
    cluster.running().filter(|node| node.name != "intruder").filter_map(|node| node.metric(&name)).sum()
}

#[test]
fn one_limit_holds_over_encrypted_streams_and_no_intruder_gets_in() {
    let (authority, others) = (Authority::new(), Authority::new());
    let mut cluster = three(&authority, "required");
    assert_eq!(allowed(&cluster, "ada", 90), 60);
    let join: Vec<u16> = cluster.nodes.iter().map(|node| node.http.port()).collect();

    // Each of them knows the cluster key.
    let foreign = others.node("intruder", "intruder");
    let theirs = authority.node("n9", "n9");
    // The second one is in each certificate of a node, as where it is found.
    for name in ["n1", "localhost"] {
        let output = Command::new(kit::binary())
            .args(["serve", "--name", name, "--base-port", &free_ports().to_string()])
            .arg("--peer-tls-cert")
            .arg(theirs.join("n9.crt"))
            .arg("--peer-tls-key")
            .arg(theirs.join("n9.key"))
            .arg("--peer-tls-ca")
            .arg(authority.path("ca.crt"))
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(1),
            "a node does not start under a name that is not its certificate's: {name}"
        );
        assert!(said(&output).contains("n9"), "{}", said(&output));
    }

    // By hand: with the key and no TLS, and with TLS and a certificate of others.
    let peer = cluster.nodes[0].peer;
    let secret = Some("the key of the black-box tests");
    assert!(Stream::open(peer, "n1", secret, &Said::stranger(7)).is_err());
    let hello = format!(
        "openssl s_client -connect {peer} -cert {0}/intruder.crt -key {0}/intruder.key </dev/null",
        foreign.display()
    );
    assert!(Command::new("sh").args(["-c", &hello]).output().is_ok());
    wait_for("both are counted", SOON, || {
        refused(&cluster, "plain_text") >= 1.0 && refused(&cluster, "tls") >= 1.0
    });

    for (what, shows) in [("none", false), ("foreign", true)] {
        for variable in ["CERT", "KEY", "CA"] {
            cluster.set_environment(&format!("TIDEGATE_PEER_TLS_{variable}"), "");
        }
        cluster.set_environment("TIDEGATE_PEER_TLS", "");
        if shows {
            show_peers(&mut cluster, &others, &foreign, "intruder");
        }
        let turned_away = |cluster: &Cluster| -> usize {
            cluster.running().map(|node| node.log().matches("is not taken in").count()).sum()
        };
        let before = turned_away(&cluster);
        cluster.spawn_as("intruder", free_ports(), &join, &[]);
        wait_for("the leader does not take it in", SOON, || turned_away(&cluster) > before);
        thread::sleep(Duration::from_secs(2));
        let intruder = cluster.node("intruder");
        assert!(!intruder.is_ready(), "{what}");
        let rules = intruder.client(PATIENCE).get("/v1/rules").unwrap().text();
        assert!(!rules.contains("per-user") || rules.contains("\"revision\":0"), "{what}: {rules}");
        let status = cluster.node("n1").status().unwrap();
        let owners: Vec<_> = cluster.node("n1").slot_owners();
        assert!(owners.iter().all(|owner| owner != "intruder"), "{what}");
        assert_eq!(status["slots_to_move"], 0, "{what}");
        cluster.kill("intruder");
        cluster.nodes.retain(|node| node.name != "intruder");
        assert_eq!(allowed(&cluster, what, 6), 6, "{what}: the others go on");
    }
}

#[test]
fn a_cluster_gets_tls_node_after_node() {
    let authority = Authority::new();
    let mut settings = kit::patient(RULES);
    settings.keeps_data = true;
    let mut cluster = Cluster::start(3, settings);
    assert_eq!(allowed(&cluster, "ada", 10), 10);
    let files: Vec<_> =
        (1..=3).map(|number| authority.node(&format!("n{number}"), &format!("n{number}"))).collect();
    for mode in ["optional", "required"] {
        cluster.set_environment("TIDEGATE_PEER_TLS", mode);
        for (place, files) in files.iter().enumerate() {
            let name = format!("n{}", place + 1);
            assert_eq!(cluster.terminate(&name), Some(0));
            show_peers(&mut cluster, &authority, files, &name);
            cluster.restart(&name);
            cluster.await_ready();
            assert_eq!(allowed(&cluster, "ada", 6), 6, "{mode} {name}");
        }
    }
    assert_eq!(allowed(&cluster, "ada", 30), 60 - 10 - 6 * 6, "no count was lost on the way");
    assert_eq!(refused(&cluster, "certificate"), 0.0);
}
