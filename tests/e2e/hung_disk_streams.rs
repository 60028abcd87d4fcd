//! The promise: a node whose disk hangs, and neither works nor fails, says so, gives its slots up, keeps nobody else from working,
//! and is there again when the disk goes on. The disk hangs because a small library, which is loaded before all others, lets no
//! sync of the node end while a file is there.

use std::{fs, thread, time::Duration};

use tokio::time::Instant;

use crate::kit::{
    self,
    rules::{await_voters, leader, raft, write},
};
use tidegate_jepsen::cluster::{Cluster, Node, Settings, wait_for};

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_while_hung(void) {
    char path[512];
    const char *directory = getenv("HANG_DIRECTORY");
    if (!directory) return;
    snprintf(path, sizeof path, "%s/%d", directory, (int)getpid());
    while (access(path, F_OK) == 0) usleep(10000);
}

int fsync(int fd) {
    wait_while_hung();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    wait_while_hung();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"#;

/// Streams to a node's peer port that may be open at one time: its links, and a few calls.
const MAX_STREAMS: usize = 30;
const KEYS: u32 = 30;

/// Established streams that the node's peer port has accepted.
fn streams_to(node: &Node) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", node.peer.port());
    let is_to = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next(), words.next(), words.next());
        local.is_some_and(|local| local.ends_with(&port)) && state == Some("01")
    };
    table.lines().filter(is_to).count()
}

fn is_ready(node: &Node) -> bool {
    node.client(Duration::from_secs(5)).get("/readyz").is_ok_and(|answer| answer.status == 200)
}

/// How many of the keys are decided by their owner, at this node.
fn decided(node: &Node) -> u32 {
    let decided = |key: &u32| {
        let answer = node.client(Duration::from_secs(5)).get(&format!("/v1/check?user=u{key}&cost=0"));
        let by = answer.unwrap().json()["decided_by"].as_str().unwrap().to_owned();
        by == "owner" || by == "forwarded"
    };
    (0..KEYS).filter(decided).count() as u32
}

#[test]
fn a_node_whose_disk_hangs_keeps_nobody_from_working_and_comes_back() {
    let _machine = kit::alone();
    let directory = tempfile::tempdir().unwrap();
    let rules = "rules:\n  - { name: strict, key: [user], limit: 1000/1h, consistency: strict, on_owner_loss: deny }\n";
    let mut cluster = Cluster::empty(Settings { keeps_data: true, ..kit::settings(rules) });
    cluster
        .set_environment("LD_PRELOAD", kit::preload::preloaded(directory.path(), LIBRARY).to_str().unwrap());
    cluster.set_environment("HANG_DIRECTORY", directory.path().to_str().unwrap());
    let ports: Vec<u16> = (0..3).map(|_| tidegate_jepsen::cluster::free_ports()).collect();
    for port in &ports {
        cluster.spawn(*port, &ports, &["--bootstrap-expect".to_owned(), "3".to_owned()]);
    }
    cluster.await_ready();
    await_voters(&cluster, 3);
    let leads = leader(&cluster);
    let hung = cluster.nodes.iter().find(|node| node.name != leads).unwrap().name.clone();
    let (hung, leads) = (cluster.node(&hung), cluster.node(&leads));
    let pid = hung.pid().unwrap();
    let switch = directory.path().join(pid.to_string());

    fs::write(&switch, "").unwrap();
    let (since, mut said, mut most) = (Instant::now(), None, 0);
    let mut count = 100;
    while since.elapsed() < Duration::from_secs(20) {
        count += 1;
        let started = Instant::now();
        write(leads, "api", &kit::rules::limit(&format!("{count}/1h")));
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "a write took {took:?} at the others");
        most = most.max(streams_to(hung));
        let says = raft(hung)["trouble"].to_string().contains("has not finished a write");
        if said.is_none() && says && !is_ready(hung) {
            said = Some(since.elapsed());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let said = said.expect("it says that its disk hangs");
    eprintln!("not ready after {said:?}; at most {most} streams to it, {count} writes");
    assert!(said < Duration::from_secs(6), "{said:?}");
    assert!(most <= MAX_STREAMS, "{most} streams are open to the node");
    wait_for("its slots are others' now", Duration::from_secs(1), || decided(leads) == KEYS);
    let log = hung.log();
    assert_eq!(log.matches("has not finished a write").count(), 1, "said once: {log}");
    assert!(!log.contains("streams of the Raft group"), "{log}");

    fs::remove_file(&switch).unwrap();
    let since = Instant::now();
    let limit = format!("{count}");
    wait_for("the node is ready again and has the rules", Duration::from_secs(20), || {
        is_ready(hung)
            && kit::rules::limit_at(hung, "api").map(|limit| limit.to_string()).as_ref() == Some(&limit)
    });
    wait_for("it owns slots again", Duration::from_secs(30), || {
        hung.slot_owners().iter().filter(|owner| **owner == hung.name).count() > 1000
    });
    wait_for("each key has an owner", Duration::from_secs(10), || decided(hung) == KEYS);
    eprintln!("all is as before {:?} after the disk went on", since.elapsed());
}
