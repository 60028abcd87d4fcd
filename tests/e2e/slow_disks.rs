//! The promise: a cluster is founded on slow disks too. Where all are slow it takes longer, and not many elections; where one is, the
//! others are a cluster without it, and it takes part when its disk has done what a start needs. A library that is loaded into the
//! nodes makes each sync take longer.

use std::{path::Path, time::Duration};

use crate::kit;
use tidegate_jepsen::{
    cluster::{Cluster, Node, free_ports, wait_for},
    history::monotonic,
};

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void take_long(void) {
    const char *millis = getenv("SLOW_SYNC_MS");
    if (millis != NULL) usleep(1000 * atoi(millis));
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    take_long();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    take_long();
    return real(fd);
}
"#;

/// A start makes some fifteen syncs, founding some more, one after the other.
const FOUNDED_WITHIN: Duration = Duration::from_secs(75);
const TAKES_PART_WITHIN: Duration = Duration::from_secs(90);
/// Review F14: there were 62.
const ELECTIONS: u64 = 20;

/// Three nodes that found a cluster; a sync of each takes so many milliseconds longer.
fn three(directory: &Path, slower_by: [u64; 3]) -> Cluster {
    let library = kit::preload::preloaded(directory, LIBRARY);
    let mut cluster = Cluster::empty(kit::rules::keeping());
    cluster.set_environment("LD_PRELOAD", library.to_str().unwrap());
    let ports = [free_ports(), free_ports(), free_ports()];
    let expect = ["--bootstrap-expect".to_owned(), ports.len().to_string()];
    for (port, millis) in ports.iter().zip(slower_by) {
        cluster.set_environment("SLOW_SYNC_MS", &millis.to_string());
        cluster.spawn(*port, &ports, &expect);
    }
    cluster
}

fn assert_rules_change(node: &Node, domain: &str) {
    let put = kit::rules::put(node, domain, &[], "rules: []\n");
    assert!([200, 201].contains(&put.status), "{}", put.text());
}

#[test]
fn three_nodes_with_slow_disks_found_a_cluster_in_few_elections() {
    let _machine = kit::alone();
    let directory = tempfile::tempdir().unwrap();
    let started = monotonic();
    let cluster = three(directory.path(), [300; 3]);
    wait_for("all are ready", FOUNDED_WITHIN, || cluster.running().all(Node::is_ready));
    let term = kit::rules::raft(cluster.node("n1"))["term"].as_u64().unwrap();
    eprintln!("ready after {:?}, in term {term}", Duration::from_nanos(monotonic() - started));
    assert!(term <= ELECTIONS, "{term} elections");
    assert_rules_change(cluster.node("n2"), "on-slow-disks");
}

#[test]
fn one_slow_disk_keeps_the_others_from_nothing_and_its_node_takes_part_later() {
    let _machine = kit::alone();
    let directory = tempfile::tempdir().unwrap();
    let cluster = three(directory.path(), [1_500, 0, 0]);
    let [slow, quick, other] = ["n1", "n2", "n3"].map(|name| cluster.node(name));
    wait_for("the others are ready", FOUNDED_WITHIN, || quick.is_ready() && other.is_ready());
    assert_rules_change(quick, "without-the-slow-one");
    wait_for("it is ready too", TAKES_PART_WITHIN, || slow.is_ready());
    assert_rules_change(slow, "by-the-slow-one");
    let of = |node: &Node| kit::rules::raft(node)["cluster"].clone();
    assert_eq!((of(slow), of(quick)), (of(other), of(other)));
}
