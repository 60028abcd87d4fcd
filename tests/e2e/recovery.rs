//! The promise: when a quorum is permanently lost, one node that is left goes on with its rules, and who had the same log
//! is not mixed in.

use std::{fs, path::Path, process::Command};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON, await_limit, await_voters, check, history, keeping, limit, put, raft, write},
};
use tidegate_jepsen::cluster::{Cluster, wait_for};

/// The exit code, and what it printed.
fn recover(directory: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(kit::binary())
        .args(["cluster", "recover", "--data-dir"])
        .arg(directory)
        .args(flags)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

#[test]
fn one_node_goes_on_with_the_rules_when_a_quorum_is_lost_for_good() {
    let mut cluster = Cluster::start(3, keeping());
    await_voters(&cluster, 3);
    let revision = write(cluster.node("n1"), "api", &limit("4/1h"));
    await_limit(&cluster, "api", 4);
    for _ in 0..4 {
        assert_eq!(check(cluster.node("n1"), "api", "ada")["allowed"], true);
    }
    let before = raft(cluster.node("n1"));
    let directory = cluster.data_of("n1");

    let (code, said) = recover(&directory, &["--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use by another node"), "{said}");

    for name in ["n2", "n3"] {
        cluster.kill(name);
    }
    // n2 comes back with an old log after all; n3 with none.
    fs::remove_dir_all(cluster.data_of("n3")).unwrap();
    cluster.restart("n3");
    let refused = put(cluster.node("n1"), "api?timeout_ms=1500", &[], &limit("6/1h"));
    assert_eq!(refused.status, 503, "one vote of three: {}", refused.text());
    cluster.kill("n3");
    cluster.kill("n1");

    let (code, looked) = recover(&directory, &["--output", "json"]);
    assert_eq!(code, Some(0), "{looked}");
    let looked: serde_json::Value = serde_json::from_str(&looked).unwrap();
    assert_eq!((&looked["node"], &looked["cluster"]), (&"n1".into(), &before["cluster"]));
    assert_eq!(looked["voters"].as_array().unwrap().len(), 3);
    // What was refused for want of a quorum may be in the log all the same, and then it counts.
    assert!(looked["rules"]["api"].as_u64().unwrap() >= revision, "{looked}");
    assert!(looked["new_cluster"].is_null());
    let (code, said) = recover(&directory, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, again) = recover(&directory, &["--yes"]);
    assert_eq!(code, Some(1), "{again}");
    assert!(again.contains("the only voter of its cluster already"), "{again}");

    cluster.restart("n1");
    wait_for("n1 is ready by itself", SOON, || {
        cluster.node("n1").client(PATIENCE).get("/readyz").is_ok_and(|answer| answer.status == 200)
    });
    let after = raft(cluster.node("n1"));
    assert_eq!(after["id"], before["id"]);
    assert_ne!(after["cluster"], before["cluster"]);
    assert_eq!(history(cluster.node("n1"), "api").last().unwrap().0, revision);
    fs::remove_dir_all(cluster.data_of("n3")).unwrap();
    cluster.restart("n3");
    cluster.await_ready();
    await_voters(&cluster, 2);
    write(cluster.node("n3"), "api", &limit("5/1h"));
    await_limit(&cluster, "api", 5);
    // What others had admitted nobody knows any more.
    assert_eq!(check(cluster.node("n3"), "api", "ada")["allowed"], false);

    cluster.restart("n2");
    wait_for("n2 says that it belongs to another cluster", SOON, || {
        let answer = cluster.node("n2").client(PATIENCE).get("/readyz");
        answer.is_ok_and(|answer| answer.status == 503 && answer.text().contains("empty --data-dir"))
    });
    cluster.kill("n2");
    fs::remove_dir_all(cluster.data_of("n2")).unwrap();
    cluster.restart("n2");
    cluster.await_ready();
    await_voters(&cluster, 3);
    // It bears the loss of one again.
    cluster.kill("n1");
    write(cluster.node("n2"), "api", &limit("6/1h"));
    await_limit(&cluster, "api", 6);
}

/// Writes the vote of a leader of this term into the log of a node that does not run, as versions before wire version 7 did for
/// whoever said so.
fn forge_vote(directory: &Path, term: u64) {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(directory.join("raft.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let vote = [&term.to_le_bytes()[..], &0xEEEE_u64.to_le_bytes(), &[1]].concat();
    transaction.open_table(META).unwrap().insert("vote", vote.as_slice()).unwrap();
    transaction.commit().unwrap();
}

/// Attack C4 of the review, after the fact: all nodes have believed a term that no cluster comes to.
#[test]
fn a_term_that_was_forged_before_is_named_and_recover_leaves_it_behind() {
    let mut cluster = Cluster::start(3, keeping());
    await_voters(&cluster, 3);
    let revision = write(cluster.node("n1"), "api", &limit("4/1h"));
    await_limit(&cluster, "api", 4);
    for name in ["n1", "n2", "n3"] {
        cluster.kill(name);
        forge_vote(&cluster.data_of(name), u64::MAX);
    }
    cluster.restart("n1");
    assert_eq!(cluster.await_exit("n1"), Some(1));
    let log = cluster.node("n1").log();
    let said = log.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("18446744073709551615") && said.contains("tidegate cluster recover"), "{log}");
    assert!(!log.contains("panicked"), "{log}");

    let directory = cluster.data_of("n1");
    let (code, looked) = recover(&directory, &["--output", "json"]);
    assert_eq!(code, Some(0), "{looked}");
    let looked: serde_json::Value = serde_json::from_str(&looked).unwrap();
    assert_eq!(looked["forged_term"], u64::MAX);
    let (code, said) = recover(&directory, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("was forged"), "{said}");
    cluster.restart("n1");
    wait_for("n1 is ready by itself", SOON, || cluster.node("n1").is_ready());
    assert_eq!(history(cluster.node("n1"), "api").last().unwrap().0, revision);
    assert!(cluster.node("n1").metric("tidegate_raft_term").unwrap() < 10.0);
    for name in ["n2", "n3"] {
        fs::remove_dir_all(cluster.data_of(name)).unwrap();
        cluster.restart(name);
    }
    cluster.await_ready();
    await_voters(&cluster, 3);
    write(cluster.node("n3"), "api", &limit("5/1h"));
    await_limit(&cluster, "api", 5);
    // It is a cluster as any other, also when it is started again.
    cluster.kill("n1");
    cluster.restart("n1");
    cluster.await_ready();
    write(cluster.node("n1"), "api", &limit("6/1h"));
    await_limit(&cluster, "api", 6);
}

#[test]
fn a_directory_that_is_no_nodes_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("nowhere")] {
        let (code, said) = recover(&path, &["--yes"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("is not the data directory of a node that has run"), "{said}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
