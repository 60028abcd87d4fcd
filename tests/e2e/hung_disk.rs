//! The promise: a node whose disk hangs loses its slots in the usual time, says that it is not ready, and comes back when the
//! disk does. A library that is loaded into the nodes lets `fsync` wait while a file is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{
    cluster::{Cluster, Node, free_ports, wait_for},
    history::monotonic,
};

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void hang(void) {
    const char *directory = getenv("HANG_DIRECTORY");
    char path[4096];
    if (directory == NULL) return;
    snprintf(path, sizeof path, "%s/%d", directory, (int)getpid());
    while (access(path, F_OK) == 0) usleep(10000);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    hang();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    hang();
    return real(fd);
}
"#;

/// A session, the look for it, and the takeover, on a busy machine.
const REPLACED_WITHIN: Duration = Duration::from_secs(12);

fn library(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("hang.c"), directory.join("hang.so"));
    fs::write(&source, LIBRARY).unwrap();
    let ended = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    library
}

fn slots_of(node: &Node, name: &str) -> Option<usize> {
    let owners = node.slot_owners();
    (!owners.is_empty()).then(|| owners.iter().filter(|owner| *owner == name).count())
}

fn write(cluster: &Cluster, node: &str, number: u32) {
    let text = format!(
        "rules:\n  - {{ name: per-user, key: [user], limit: 100000/1s, consistency: strict, on_owner_loss: deny }}\n# {number}\n"
    );
    kit::rules::write(cluster.node(node), "default", &text);
}

/// Review H7: strict keys were denied for as long as it hung, and /readyz said 200.
#[test]
fn a_follower_whose_disk_hangs_is_replaced_says_so_and_comes_back() {
    let _machine = kit::alone();
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    let mut cluster = Cluster::empty(kit::rules::keeping());
    cluster.set_environment("LD_PRELOAD", library.to_str().unwrap());
    cluster.set_environment("HANG_DIRECTORY", directory.path().to_str().unwrap());
    let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
    let expect = ["--bootstrap-expect".to_owned(), ports.len().to_string()];
    for port in &ports {
        cluster.spawn(*port, &ports, &expect);
    }
    cluster.await_ready();
    write(&cluster, "n1", 0);
    let other = kit::rules::leader(&cluster);
    let hung = cluster.running().find(|node| node.name != other).unwrap().name.clone();
    assert!(slots_of(cluster.node(&other), &hung).unwrap() > 1000);
    let switch = directory.path().join(cluster.node(&hung).pid().unwrap().to_string());
    fs::write(&switch, "").unwrap();
    let begun = monotonic();
    write(&cluster, &other, 1);
    wait_for("its slots are taken over", REPLACED_WITHIN, || {
        slots_of(cluster.node(&other), &hung) == Some(0)
    });
    eprintln!("its slots were taken over after {:?}", Duration::from_nanos(monotonic() - begun));
    let ready =
        |cluster: &Cluster| cluster.node(&hung).client(Duration::from_secs(5)).get("/readyz").unwrap();
    wait_for("it is not ready", REPLACED_WITHIN, || ready(&cluster).status == 503);
    let reason = ready(&cluster).text();
    assert!(reason.contains("no session") && reason.contains("disk"), "{reason}");
    // It stays so while others write and check, and no strict key is denied.
    let end = monotonic() + 6_000_000_000;
    let mut number = 2;
    while monotonic() < end {
        write(&cluster, &other, number);
        number += 1;
        assert_eq!(slots_of(cluster.node(&other), &hung), Some(0));
        assert_eq!(ready(&cluster).status, 503);
        for user in 0..40 {
            let answer = kit::rules::check(cluster.node(&other), "default", &format!("u{user}"));
            assert_eq!(answer["allowed"], true, "{answer}");
        }
        thread::sleep(Duration::from_millis(300));
    }
    fs::remove_file(&switch).unwrap();
    wait_for("it owns slots again and is ready", Duration::from_secs(30), || {
        slots_of(cluster.node(&other), &hung).is_some_and(|slots| slots > 1000)
            && ready(&cluster).status == 200
    });
}
