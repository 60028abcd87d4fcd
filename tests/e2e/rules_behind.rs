//! The promise: once a limit is lowered and that is acknowledged, its owner admits no more than the new one, whichever
//! node asks and whatever rules that one has.

use std::{fs, process::Command};

use crate::kit::rules::{PATIENCE, SOON, await_voters, check, keeping, put, raft, write};
use serde_json::Value;
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, Node, Settings, free_ports, wait_for},
};

const USERS: u32 = 200;

fn ask(node: &Node, query: &str) -> Response {
    node.client(PATIENCE).get(&format!("/v1/check?domain=api&{query}")).unwrap()
}

/// How many of some checks a node admits, and what it said of the last.
fn admitted(node: &Node, query: &str, attempts: u32) -> (u32, Value) {
    let mut count = 0;
    let mut last = Value::Null;
    for _ in 0..attempts {
        last = ask(node, query).json();
        count += u32::from(last["allowed"] == true);
    }
    (count, last)
}

/// Users whose buckets a node owns itself.
fn users_of(node: &Node, rest: &str) -> impl Iterator<Item = String> {
    let owned: Vec<String> = (0..USERS)
        .map(|user| format!("user=u{user}{rest}"))
        .filter(|query| ask(node, &format!("{query}&cost=0")).json()["decided_by"] == "owner")
        .collect();
    owned.into_iter()
}

fn rule(more: &str) -> String {
    format!("rules:\n  - {{ name: per-user, key: [user], {more} }}\n")
}

/// Three nodes, the last one with a disk of which no more can be written: it has the rules that were written before, and no
/// later ones.
struct Behind {
    cluster: Cluster,
    disk: SmallDisk,
}

impl Behind {
    fn start(before: &str) -> Option<Self> {
        let disk = SmallDisk::mount()?;
        // Longer than a busy machine takes to forward: what its owner has not decided is no matter of this.
        let flags = vec!["--check-timeout".to_owned(), "1s".to_owned()];
        let mut cluster = Cluster::empty(Settings { flags, ..keeping() });
        let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
        let expect = ["--bootstrap-expect".to_owned(), "3".to_owned()];
        std::os::unix::fs::symlink(disk.path(), cluster.data_dir(ports[2])).unwrap();
        for port in &ports {
            cluster.spawn(*port, &ports, &expect);
        }
        cluster.await_ready();
        await_voters(&cluster, 3);
        let behind = Self { cluster, disk };
        behind.write_everywhere(before);
        Some(behind)
    }

    /// Waits until each node has them, this once.
    fn write_everywhere(&self, text: &str) {
        let answer = put(self.cluster.node("n1"), "api?wait=all", &[], text);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What is written from here on does not reach `n3`.
    fn cut_off(&self) {
        self.disk.fill();
        for count in 0..8 {
            let filler = format!("# {count} {}\nrules: []\n", "x".repeat(1 << 20));
            assert_eq!(put(self.cluster.node("n1"), "filler", &[], &filler).status, 200);
        }
        wait_for("the log of n3 has failed", SOON, || raft(self.cluster.node("n3"))["trouble"].is_string());
    }

    /// In force at both nodes that can write, when this returns.
    fn write(&self, text: &str) {
        let revision = write(self.cluster.node("n1"), "api", text);
        wait_for("n2 has the rules", SOON, || {
            raft(self.cluster.node("n2"))["in_force"].as_u64().is_some_and(|index| index >= revision)
        });
    }

    fn n1(&self) -> &Node {
        self.cluster.node("n1")
    }

    fn n3(&self) -> &Node {
        self.cluster.node("n3")
    }
}

#[test]
fn a_node_that_does_not_get_the_new_rules_admits_no_more_than_they_allow() {
    let Some(behind) = Behind::start(&rule("limit: 100/1h")) else {
        println!("NOT TESTED: no tmpfs can be mounted here");
        return;
    };
    let users: Vec<String> = users_of(behind.n1(), "").take(20).collect();
    let mut users = users.iter();
    behind.cut_off();

    // Lowered: of a bucket that nobody has used, and of one that both nodes use.
    behind.write(&rule("limit: 5/1h"));
    let user = users.next().unwrap();
    let (count, last) = admitted(behind.n3(), user, 120);
    assert_eq!(last["decided_by"], "forwarded", "n1 decides: {last}");
    assert_eq!(count, 5, "{last}");
    assert_eq!(last["limit"], 5, "the answer is that of the limit in force: {last}");
    let user = users.next().unwrap();
    let sum: u32 = (0..30).map(|_| admitted(behind.n3(), user, 1).0 + admitted(behind.n1(), user, 1).0).sum();
    assert_eq!(sum, 5);

    // Raised.
    behind.write(&rule("limit: 300/1d"));
    assert_eq!(admitted(behind.n3(), users.next().unwrap(), 320).0, 300);

    // From shadow to enforced and back: `mode` is that of the newer rules.
    behind.write(&rule("limit: 3/1h, mode: shadow"));
    assert_eq!(admitted(behind.n3(), users.next().unwrap(), 20).0, 20);
    behind.write(&rule("limit: 3/1h"));
    assert_eq!(admitted(behind.n3(), users.next().unwrap(), 20).0, 3);

    // Counted in another way: the owner knows which bucket is meant.
    behind.write(&rule("limit: 3/1h, algorithm: fixed_window"));
    let (count, last) = admitted(behind.n3(), users.next().unwrap(), 5);
    assert_eq!((count, &last["decided_by"]), (3, &Value::from("forwarded")), "{last}");

    // What cannot be carried over is not decided by the old limit, and says so.
    let newer = "limit: 3/1h, when: { path: /a }";
    behind.write(&rule(newer));
    let (count, last) = admitted(behind.n3(), users.next().unwrap(), 5);
    assert!(count <= 3, "{newer}: {last}");
    assert_eq!(last["decided_by"], "fallback", "{newer}: {last}");
    assert!(last["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{newer}: {last}");
    behind.write("rules:\n  - { name: per-customer, key: [user], limit: 3/1h }\n");
    assert!(admitted(behind.n3(), users.next().unwrap(), 5).0 <= 3);

    // It heals by itself.
    behind.write(&rule("limit: 7/1h"));
    behind.disk.free();
    wait_for("n3 has the rules", SOON, || check(behind.n3(), "api", "somebody")["limit"] == 7);
    assert_eq!(admitted(behind.n3(), users.next().unwrap(), 20).0, 7);
}

#[test]
fn an_override_is_that_of_the_newer_rules_too() {
    let with = |limit: &str, gold: &str| {
        rule(&format!("limit: {limit}, overrides: [{{ when: {{ plan: gold }}, limit: {gold} }}]"))
    };
    let Some(behind) = Behind::start(&with("50/1h", "100/1h")) else {
        println!("NOT TESTED: no tmpfs can be mounted here");
        return;
    };
    let gold: Vec<String> = users_of(behind.n1(), "&plan=gold").take(10).collect();
    let plain: Vec<String> = users_of(behind.n1(), "").take(10).collect();
    behind.cut_off();
    behind.write(&with("4/1h", "6/1h"));
    assert_eq!(admitted(behind.n3(), &gold[0], 120).0, 6);
    assert_eq!(admitted(behind.n3(), &plain[1], 60).0, 4);
    // One more override before it: nobody but the asker knows which one fits.
    let text = rule(
        "limit: 4/1h, overrides: [{ when: { plan: gold, path: /a }, limit: 2/1h }, { when: { plan: gold }, limit: 6/1h }]",
    );
    behind.write(&text);
    assert!(admitted(behind.n3(), &format!("{}&path=/a", gold[2]), 5).0 <= 2);
    // Unlimited now: it is never more than allowed.
    behind.write(&with("4/1h", "unlimited"));
    assert_eq!(admitted(behind.n3(), &gold[3], 120).0, 120);
}

/// A file system of its own with little room.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tidegate-test"])
            .arg(directory.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }

    fn path(&self) -> std::path::PathBuf {
        // The mount itself stays when the node's directory is removed.
        let data = self.0.path().join("data");
        fs::create_dir_all(&data).unwrap();
        data
    }

    fn fill(&self) {
        let mut left = vec![0; 32 << 20];
        while fs::write(self.0.path().join("filler"), &left).is_err() && left.len() > 1 << 16 {
            left.truncate(left.len() - (1 << 16));
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may have it open still.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
