//! The promise: a cluster goes from one cluster key to another under load, and no check notices.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use rustix::process::Signal;
use tidegate_jepsen::cluster::{Cluster, free_ports, signal, wait_for};

use crate::kit::{
    self, EndOnDrop,
    peer::{Said, Stream},
    rules::{PATIENCE, SOON},
    secure::said,
};

const RULES: &str = "rules:\n  - { name: per-user, key: [user], limit: 1000000/1h, on_owner_loss: deny }\n";

/// Writes a key as a node takes it: its owner's alone.
fn write(path: &Path, key: &str) {
    fs::write(path, key).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Does a step, and says what it has said.
fn rotate(file: &Path) -> String {
    let output =
        Command::new(kit::binary()).args(["key", "rotate", "--cluster-key-file"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

#[test]
fn the_cluster_key_changes_under_load_and_the_old_one_is_worth_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let old = "0123456789abcdef0123456789abcdef";
    let mut settings = kit::patient(RULES);
    settings.key = None;
    let mut cluster = Cluster::empty(settings);
    let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
    for (place, port) in ports.iter().enumerate() {
        let key = file(&format!("n{}.key", place + 1));
        write(&key, old);
        cluster.set_environment("TIDEGATE_CLUSTER_KEY_FILE", key.to_str().unwrap());
        cluster.spawn(*port, &ports, &["--bootstrap-expect".to_owned(), "3".to_owned()]);
    }
    cluster.await_ready();
    let (goes_on, checks) = (AtomicBool::new(true), AtomicU64::new(0));
    let at_operator = file("operator.key");
    write(&at_operator, old);
    thread::scope(|scope| {
        let _end = EndOnDrop(&goes_on);
        for (place, node) in cluster.nodes.iter().enumerate() {
            let (goes_on, checks) = (&goes_on, &checks);
            scope.spawn(move || {
                let mut client = node.client(PATIENCE);
                while goes_on.load(Ordering::Relaxed) {
                    let user = checks.fetch_add(1, Ordering::Relaxed) % 50;
                    let path = format!("/v1/check?user=load-{place}-{user}");
                    let answer = client.get(&path).unwrap().json();
                    assert_eq!(answer["allowed"], true, "{answer}");
                    let decided_by = &answer["decided_by"];
                    assert!(decided_by == "owner" || decided_by == "forwarded", "{answer}");
                }
            });
        }
        for (step, keys) in [(1, 2.0), (2, 2.0), (3, 1.0)] {
            assert!(rotate(&at_operator).contains(&format!("step {step} of 3")));
            for node in &cluster.nodes {
                let in_force = || node.log().matches("cluster keys in force").count();
                let before = in_force();
                fs::copy(&at_operator, file(&format!("{}.key", node.name))).unwrap();
                if step == 2 {
                    signal(node.pid().unwrap(), Signal::HUP);
                }
                wait_for("the node has taken the file", SOON, || in_force() > before);
                assert_eq!(node.metric("tidegate_cluster_keys"), Some(keys));
            }
        }
    });
    assert!(checks.load(Ordering::Relaxed) > 200);
    for node in &cluster.nodes {
        for name in [
            "tidegate_peer_streams_refused_total{reason=\"wrong_key\"}",
            "tidegate_gossip_rejected_total{reason=\"wrong_key\"}",
        ] {
            assert_eq!(node.metric(name), Some(0.0), "{name}");
        }
    }

    // A changed file that others can read is refused as at the start, and what was in force stays.
    let (first, key) = (&cluster.nodes[0], file("n1.key"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    signal(first.pid().unwrap(), Signal::HUP);
    wait_for("the open file is refused", SOON, || first.log().contains("chmod 600"));
    assert_eq!(first.metric("tidegate_cluster_keys"), Some(1.0));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    // Streams that are opened from now on have the new key, and gossip has had it all the time.
    cluster.kill("n3");
    cluster.restart("n3");
    cluster.await_ready();
    write(&file("intruder.key"), old);
    cluster.set_environment("TIDEGATE_CLUSTER_KEY_FILE", file("intruder.key").to_str().unwrap());
    let port = free_ports();
    cluster.spawn_as("intruder", port, &ports, &[]);
    let refused = "tidegate_gossip_rejected_total{reason=\"wrong_key\"}";
    wait_for("whoever has the old key is not heard", SOON, || {
        cluster.nodes[..3].iter().all(|node| node.metric(refused) > Some(0.0))
    });
    let said = Said::stranger(7);
    let opened = Stream::open(cluster.nodes[0].peer, "n1", Some(old), &said).err();
    assert!(opened.is_some_and(|why| why.contains("another cluster key")), "nor let in");
    assert!(!cluster.node("intruder").is_ready());
    assert!(cluster.nodes[0].live_members().iter().all(|name| name != "intruder"));
}
