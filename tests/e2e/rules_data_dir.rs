//! The promise: what is wrong with a disk is said, and costs at most that node its place, never an acknowledged rule.

use std::{fs, path::Path, process::Command};

use crate::kit::rules::{
    PATIENCE, SOON, await_limit, await_voters, check, history, keeping, leader, limit, put, raft, write,
};
use tidegate_jepsen::cluster::{Cluster, wait_for};

fn three() -> Cluster {
    let cluster = Cluster::start(3, keeping());
    await_voters(&cluster, 3);
    cluster
}

#[test]
fn a_node_that_lost_its_disk_comes_back_as_a_new_member() {
    let mut cluster = three();
    write(cluster.node("n1"), "api", &limit("4/1h"));
    let before = raft(cluster.node("n3"));
    cluster.kill("n3");
    fs::remove_dir_all(cluster.data_of("n3")).unwrap();
    cluster.restart("n3");
    cluster.await_ready();
    let after = raft(cluster.node("n3"));
    assert_ne!(before["id"], after["id"], "it has forgotten what it promised, so it is not the same member");
    assert_eq!(before["cluster"], after["cluster"]);
    assert_eq!(check(cluster.node("n3"), "api", "u")["limit"], 4);
    // It takes the place of the one that is gone, and the group bears the loss of another.
    await_voters(&cluster, 3);
    wait_for("the lost member is nobody any more", SOON, || {
        let view = cluster.node("n1").status().unwrap();
        let voters: Vec<_> = view["raft"]["voters"].as_array().unwrap().clone();
        voters.len() == 3 && raft(cluster.node("n3"))["role"] != "learner"
    });
    let leading = leader(&cluster);
    cluster.kill(&leading);
    let other = cluster.running().next().unwrap();
    write(other, "api", &limit("5/1h"));
    await_limit(&cluster, "api", 5);
}

#[test]
fn a_data_directory_of_another_cluster_is_not_taken_along() {
    let mut ours = three();
    let mut theirs = Cluster::start(1, keeping());
    write(ours.node("n1"), "api", &limit("4/1h"));
    write(theirs.node("n1"), "api", &limit("9/1h"));
    theirs.kill("n1");
    ours.kill("n3");
    let (stranger, place) = (theirs.data_of("n1"), ours.data_of("n3"));
    fs::remove_dir_all(&place).unwrap();
    copy(&stranger, &place);
    fs::remove_file(place.join("node-name")).ok();
    ours.restart("n3");
    let node = ours.node("n3");
    wait_for("it says why it is not ready", SOON, || {
        let answer = node.client(PATIENCE).get("/readyz");
        answer.is_ok_and(|answer| {
            answer.status == 503 && answer.text().contains("the data directory belongs to the cluster")
        })
    });
    assert_eq!(node.client(PATIENCE).get("/v1/check?domain=api&user=u").unwrap().status, 503);
    // Neither the one nor the other has changed.
    write(ours.node("n1"), "api", &limit("5/1h"));
    wait_for("n2 has it", SOON, || check(ours.node("n2"), "api", "u")["limit"] == 5);
    ours.kill("n3");
    theirs.restart("n1");
    theirs.await_ready();
    assert_eq!(check(theirs.node("n1"), "api", "u")["limit"], 9);
    assert_eq!(history(theirs.node("n1"), "api").len(), 1);
}

#[test]
fn a_damaged_file_stops_the_node_with_its_name_and_the_cluster_goes_on() {
    let mut cluster = three();
    write(cluster.node("n1"), "api", &limit("4/1h"));
    type Damage = fn(&Path);
    let half: Damage = |file| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    let noise: Damage = |file| fs::write(file, vec![0x5a; 70_000]).unwrap();
    let cut_snapshot: Damage = |file| fs::write(file, b"TGS1 and then the power went").unwrap();
    for (file, damage) in [("raft.redb", half), ("raft.redb", noise), ("raft.snapshot", cut_snapshot)] {
        cluster.kill("n2");
        let path = cluster.data_of("n2").join(file);
        let whole = fs::read(&path).ok();
        damage(&path);
        cluster.restart("n2");
        assert_eq!(cluster.await_exit("n2"), Some(1), "{file}");
        let log = cluster.node("n2").log();
        let last = log.lines().rev().take(12).collect::<Vec<_>>().join("\n");
        assert!(last.contains(file) && last.contains("move the whole directory away"), "{last}");
        assert_eq!(put(cluster.node("n1"), "api", &[], &limit("4/1h")).status, 200);
        match whole {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        cluster.restart("n2");
        cluster.await_ready();
        assert_eq!(check(cluster.node("n2"), "api", "u")["limit"], 4);
    }
}

#[test]
fn a_log_whose_last_write_was_torn_begins_with_what_was_whole() {
    const PAGE: usize = 4096;
    let mut cluster = Cluster::start(1, keeping());
    for count in 1..20 {
        write(&cluster.nodes[0], "api", &limit(&format!("{count}/1h")));
    }
    let path = cluster.data_of("n1").join("raft.redb");
    // Nobody writes meanwhile: it is on the disk before it is answered, and a quiet group logs nothing.
    let before = fs::read(&path).unwrap();
    // It tells of a write only after the write is on the disk: of one that is torn it does not know yet.
    let witness = path.with_file_name("raft.witness");
    let witness_before = fs::read(&witness).unwrap();
    write(&cluster.nodes[0], "api", &limit("20/1h"));
    let after = fs::read(&path).unwrap();
    cluster.kill("n1");
    assert_eq!(before.len(), after.len());
    let changed: Vec<usize> =
        (0..after.len()).step_by(PAGE).filter(|at| before[*at..][..PAGE] != after[*at..][..PAGE]).collect();
    // The first page tells which of two states counts; all others are one of them.
    assert!(changed.len() > 2 && changed[0] == 0, "{changed:?}");
    for at in &changed[1..] {
        // All of the write has reached the disk but for one page.
        let mut torn = after.clone();
        torn[*at..][..PAGE].copy_from_slice(&before[*at..][..PAGE]);
        fs::write(&path, torn).unwrap();
        fs::write(&witness, &witness_before).unwrap();
        cluster.restart("n1");
        cluster.await_ready();
        let limit = check(&cluster.nodes[0], "api", "u")["limit"].as_u64().unwrap();
        assert!([19, 20].contains(&limit), "{limit}");
        assert_eq!(history(&cluster.nodes[0], "api").len() as u64, limit);
        cluster.kill("n1");
    }
}

#[test]
fn a_full_disk_is_told_and_the_others_go_on_and_room_heals_it() {
    let Some(disk) = SmallDisk::mount() else {
        // Said so that whoever reads the run knows: mounting needs root, or a user namespace.
        println!("NOT TESTED: no tmpfs can be mounted here");
        return;
    };
    let mut cluster = Cluster::empty(keeping());
    let ports: Vec<u16> = (0..3).map(|_| tidegate_jepsen::cluster::free_ports()).collect();
    let expect = ["--bootstrap-expect".to_owned(), "3".to_owned()];
    std::os::unix::fs::symlink(disk.path(), cluster.data_dir(ports[1])).unwrap();
    for port in &ports {
        cluster.spawn(*port, &ports, &expect);
    }
    cluster.await_ready();
    await_voters(&cluster, 3);
    write(cluster.node("n1"), "api", &limit("1/1h"));

    disk.fill();
    let large = |count: u32| format!("# {}\n{}", "x".repeat(1 << 20), limit(&format!("{count}/1h")));
    for count in 2..8 {
        let answer = put(cluster.node("n1"), "api", &[], &large(count));
        assert_eq!(answer.status, 200, "two of three are a quorum: {}", answer.text());
    }
    wait_for("the node says what is wrong with it", SOON, || {
        raft(cluster.node("n2"))["trouble"]
            .as_str()
            .is_some_and(|text| text.contains("log") && text.contains("failed"))
    });
    let limited = check(cluster.node("n2"), "api", "u");
    assert!(limited["limit"].is_u64(), "it goes on with the rules that it has: {limited}");

    disk.free();
    wait_for("it has caught up", SOON, || {
        raft(cluster.node("n2"))["trouble"].is_null() && check(cluster.node("n2"), "api", "u")["limit"] == 7
    });
    write(cluster.node("n2"), "api", &limit("8/1h"));
    await_limit(&cluster, "api", 8);
}

#[test]
fn a_clock_that_was_ahead_and_is_set_back_does_not_keep_a_node_out() {
    let mut cluster = three();
    write(cluster.node("n1"), "api", &limit("4/1h"));
    let member = |cluster: &Cluster| {
        let view = cluster.node("n1").status().unwrap();
        let members = view["members"].as_array().unwrap().clone();
        members.iter().find(|member| member["name"] == "n2").unwrap()["incarnation"].as_u64().unwrap()
    };
    let ahead = 4_000_000_000_000;
    cluster.kill("n2");
    set_incarnation(&cluster.data_of("n2").join("raft.redb"), ahead);
    cluster.restart("n2");
    cluster.await_ready();
    wait_for("its incarnation goes on from there", SOON, || member(&cluster) == ahead + 1);
    cluster.kill("n2");
    cluster.restart("n2");
    cluster.await_ready();
    wait_for("and on", SOON, || member(&cluster) == ahead + 2);
    write(cluster.node("n2"), "api", &limit("5/1h"));
    await_limit(&cluster, "api", 5);
}

/// As a start at an instant of the wall clock leaves it.
fn set_incarnation(database: &Path, milliseconds: u64) {
    let database = redb::Database::open(database).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
    transaction.open_table(table).unwrap().insert("incarnation", &milliseconds.to_be_bytes()[..]).unwrap();
    transaction.commit().unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
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
        // As much as there is room for.
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
