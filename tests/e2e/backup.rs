//! The promise: a backup of a running cluster is one file that is whole or refused, and a new cluster that is made of it has the
//! rules with their history, the tokens, and no unit that was used before.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use serde_json::Value;
use tidegate_jepsen::cluster::{Cluster, Node, Settings, free_ports, wait_for};

use crate::kit::{
    self, binary,
    rules::{PATIENCE, SOON, await_voters, get, history, write},
    secure::{said, told},
};

const LIMIT: u64 = 1000;
const ATTRIBUTES: [&str; 4] = ["id", "leaky", "window", "slide"];
const KEYS: u64 = 60;
/// What refills while a test runs, and more.
const REFILL: u64 = 25;

fn rules(limit: u64) -> String {
    format!(
        "rules:
  - {{ name: id, key: [id], limit: {limit}/1d, on_owner_loss: deny }}
  - {{ name: leaky, key: [leaky], limit: {limit}/1d, algorithm: leaky_bucket, on_owner_loss: deny }}
  - {{ name: window, key: [window], limit: {limit}/month, algorithm: fixed_window, on_owner_loss: deny }}
  - {{ name: slide, key: [slide], limit: {limit}/1d, algorithm: sliding_log, on_owner_loss: deny }}
  - {{ name: load, key: [load], limit: 1000000/1d, on_owner_loss: deny }}
"
    )
}

fn keeping() -> Settings {
    Settings { keeps_data: true, ..kit::patient("rules: []\n") }
}

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).env_remove("TIDEGATE_TOKEN").output().unwrap()
}

fn done(arguments: &[&str]) -> String {
    let output = tidegate(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The end of a command that does not work: what it says.
fn refused(arguments: &[&str]) -> String {
    let output = tidegate(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    told(&output)
}

fn url(node: &Node) -> String {
    format!("http://{}", node.http)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What is left of a key after so many units, by whoever owns it.
fn take(node: &Node, attribute: &str, key: u64, cost: u64) -> u64 {
    let mut answer = Value::Null;
    wait_for("an owner decides", SOON, || {
        let path = format!("/v1/check?domain=api&{attribute}=k{key}&cost={cost}");
        let asked = node.client(PATIENCE).get(&path);
        answer = asked.map_or(Value::Null, |answer| answer.json());
        answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded"
    });
    answer["remaining"].as_u64().unwrap()
}

/// The used keys have another number of units left each; the last was never used.
fn cost(key: u64) -> u64 {
    if key + 1 == KEYS { 0 } else { 1 + key * 991 % LIMIT }
}

/// Restores into the directory of a node to come, starts it, and others that join it.
fn restored(backup: &Path, nodes: usize, flags: &[&str], token: Option<&Path>) -> Cluster {
    let mut cluster = Cluster::empty(keeping());
    let ports: Vec<u16> = (0..nodes).map(|_| free_ports()).collect();
    let data = cluster.data_dir(ports[0]);
    let restore = ["restore", text(backup), "--data-dir", text(&data), "--name", "n1"];
    let said = done(&[&restore[..], flags].concat());
    assert!(said.contains("n1") && said.contains("new cluster"), "{said}");
    for port in &ports {
        cluster.spawn(*port, &ports, &["--bootstrap-expect".to_owned(), nodes.to_string()]);
    }
    match token {
        None => cluster.await_ready(),
        Some(token) => await_all(&cluster, token, nodes),
    }
    cluster
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tidegate.backup");
    (place, file)
}

#[test]
fn three_nodes_backed_up_under_load_are_three_new_nodes_with_the_same_rules_tokens_and_counts() {
    let _machine = kit::alone();
    let (place, file) = place();
    let cluster = Cluster::start(3, keeping());
    await_voters(&cluster, 3);
    let first = write(cluster.node("n1"), "api", &rules(LIMIT - 1));
    let last = write(cluster.node("n2"), "api", &rules(LIMIT));
    write(cluster.node("n3"), "other", &rules(7));
    for attribute in ATTRIBUTES {
        for key in 0..KEYS {
            take(cluster.node("n1"), attribute, key, cost(key));
        }
    }
    assert_eq!(history(cluster.node("n2"), "api").len(), 2);
    let token = place.path().join("ops.token");
    let at = url(cluster.node("n1"));
    done(&["token", "create", "ops", "--role", "admin", "--save", text(&token), "--node", &at]);
    // Nobody without the token gets any of it.
    wait_for("the other nodes know of the token", SOON, || {
        cluster.nodes.iter().all(|node| node.client(PATIENCE).get("/v1/backup").unwrap().status == 401)
    });
    let output = refused(&["backup", "--output", text(&file), "--node", &at]);
    assert!(output.contains("--token-file"), "{output}");
    assert!(!file.exists());

    let wanted = AtomicBool::new(true);
    thread::scope(|scope| {
        for client in 0..3 {
            let node = cluster.node(["n1", "n2", "n3"][client]);
            let wanted = &wanted;
            scope.spawn(move || {
                let mut client = node.client(PATIENCE);
                for key in (0..).map(|key| key % 500) {
                    if !wanted.load(Relaxed) {
                        break;
                    }
                    client.get(&format!("/v1/check?domain=api&load={key}")).unwrap();
                }
            });
        }
        let _end = kit::EndOnDrop(&wanted);
        let made = done(&["backup", "-o", text(&file), "--node", &at, "--token-file", text(&token)]);
        assert!(made.contains("is whole") && made.contains("api"), "{made}");
    });
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let summary: Value =
        serde_json::from_str(&done(&["backup", "verify", text(&file), "--output", "json"])).unwrap();
    assert_eq!((&summary["slots"], &summary["tokens"][0]), (&4096.into(), &"ops".into()), "{summary}");
    assert_eq!(summary["members"].as_array().unwrap().len(), 3);
    assert_eq!(summary["domains"][0]["revision"], last);
    drop(cluster);

    let cluster = restored(&file, 3, &[], Some(&token));
    for node in cluster.running() {
        let secret = fs::read_to_string(&token).unwrap();
        let bearer = format!("Bearer {}", secret.trim());
        let mut client = node.client(PATIENCE);
        assert_eq!(client.get("/v1/rules/api").unwrap().status, 401, "the token guards the new cluster, too");
        let answer = client.request("GET", "/v1/rules/api", &[("authorization", &bearer)], "").unwrap();
        assert_eq!((answer.status, &answer.json()["revision"]), (200, &last.into()));
        let path = "/v1/rules/api/history?consistent=true&limit=1000";
        let lines = client.request("GET", path, &[("authorization", &bearer)], "").unwrap().json();
        let lines = lines["revisions"].as_array().unwrap();
        let revisions: Vec<u64> = lines.iter().map(|line| line["revision"].as_u64().unwrap()).collect();
        assert_eq!(revisions, [last, first]);
        for attribute in ATTRIBUTES {
            for key in 0..KEYS {
                let (left, used) = (take(node, attribute, key, 0), cost(key));
                let expected = LIMIT - used;
                assert!(
                    (expected..=expected + REFILL).contains(&left),
                    "{attribute} {key}: {left} left, {used} were used"
                );
            }
        }
    }
    // Revisions go on.
    let answer = tidegate_apply(&cluster, &token, &place.path().join("rules.yaml"));
    assert!(answer > last, "{answer}");
}

fn tidegate_apply(cluster: &Cluster, token: &Path, file: &Path) -> u64 {
    fs::write(file, rules(LIMIT + 1).replace("rules:", "domain: api\nrules:")).unwrap();
    let at = url(cluster.node("n2"));
    let applied = done(&[
        "rules",
        "apply",
        "-f",
        text(file),
        "--node",
        &at,
        "--token-file",
        text(token),
        "--output",
        "json",
    ]);
    let value: Value = serde_json::from_str(&applied).unwrap();
    let find = |value: &Value| value["revision"].as_u64();
    find(&value)
        .or_else(|| value.as_array()?.iter().find_map(find))
        .or_else(|| value["domains"].as_array()?.iter().find_map(find))
        .unwrap_or_else(|| panic!("{applied}"))
}

/// As [`Cluster::await_ready`], where looking needs a token.
fn await_all(cluster: &Cluster, token: &Path, count: usize) {
    for node in cluster.running() {
        let ask =
            ["cluster", "status", "--node", &url(node), "--token-file", text(token), "--output", "json"];
        wait_for(&format!("{} sees {count} voters that own their slots", node.name), SOON, || {
            let status: Value = serde_json::from_slice(&tidegate(&ask).stdout).unwrap_or_default();
            let voters = status["raft"]["voters"].as_array().map_or(0, Vec::len);
            voters == count && status["slots_to_move"] == 0 && status["slots_moving"] == 0 && node.is_ready()
        });
    }
}

#[test]
fn a_damaged_backup_is_refused_wherever_it_was_changed_and_nothing_is_made_of_it() {
    let (place, file) = place();
    let cluster = Cluster::start(1, keeping());
    write(cluster.node("n1"), "api", &rules(LIMIT));
    for key in 0..KEYS {
        take(cluster.node("n1"), "id", key, cost(key));
    }
    done(&["backup", "--output", text(&file), "--node", &url(cluster.node("n1"))]);
    let good = fs::read(&file).unwrap();
    let bad = place.path().join("bad.backup");
    let data = place.path().join("data");
    let check = |bytes: &[u8], what: &str| {
        fs::write(&bad, bytes).unwrap();
        let told = refused(&["backup", "verify", text(&bad)]);
        let says = ["damaged", "no backup", "newer version"].iter().any(|word| told.contains(word));
        assert!(says && told.contains("bad.backup"), "{what}: {told}");
    };
    let places = (0..28).chain((28..good.len()).step_by(good.len() / 40)).chain(good.len() - 48..good.len());
    for place in places {
        let mut bytes = good.clone();
        bytes[place] ^= 1 << (place % 8);
        check(&bytes, &format!("byte {place} of {}", good.len()));
    }
    for length in [0, 7, 16, 20, good.len() / 3, good.len() - 33, good.len() - 1] {
        check(&good[..length], &format!("{length} bytes"));
    }
    check(&[&good[..], b"more"].concat(), "more than there was");
    // Nothing is made of it.
    let told = refused(&["restore", text(&bad), "--data-dir", text(&data)]);
    assert!(told.contains("damaged") && !data.exists(), "{told}");
    // One of a later version is named as such.
    let mut later = good.clone();
    later[8] = 2;
    fs::write(&bad, later).unwrap();
    let told = refused(&["restore", text(&bad), "--dry-run"]);
    assert!(told.contains("newer version of Tidegate"), "{told}");
    let told = done(&["restore", text(&file), "--dry-run"]);
    assert!(told.contains("is whole"), "{told}");
}

#[test]
fn a_backup_is_restored_into_an_empty_directory_only_and_without_counts_if_so_wanted() {
    let (place, file) = place();
    let mut cluster = Cluster::start(1, keeping());
    write(cluster.node("n1"), "api", &rules(LIMIT));
    take(cluster.node("n1"), "id", 1, 400);
    let at = url(cluster.node("n1"));
    done(&["backup", "--output", text(&file), "--node", &at]);
    let smaller = place.path().join("rules.backup");
    let draft = place.path().join("rules.backup.new");
    let others = fs::File::create(&draft).unwrap();
    others.lock().unwrap();
    let told = refused(&["backup", "--output", text(&smaller), "--without-counts", "--node", &at]);
    assert!(told.contains("another backup is being written"), "{told}");
    drop(others);
    assert!(draft.exists(), "what another one writes is not taken from it");
    done(&["backup", "--output", text(&smaller), "--without-counts", "--node", &at]);
    let summary = done(&["backup", "verify", text(&smaller)]);
    assert!(summary.contains("all buckets begin full"), "{summary}");
    // It asks at the node that is named, and says which slots nobody has told of.
    let told =
        refused(&["backup", "--output", text(&smaller), "--node", "http://127.0.0.1:9", "--timeout", "1s"]);
    assert!(told.contains("127.0.0.1:9"), "{told}");

    cluster.terminate("n1");
    let used = cluster.data_of("n1");
    let told = refused(&["restore", text(&file), "--data-dir", text(&used), "--name", "n1"]);
    assert!(told.contains("not empty") && told.contains("raft.redb"), "{told}");
    cluster.restart("n1");
    cluster.await_ready();
    assert!(take(cluster.node("n1"), "id", 1, 0) <= LIMIT - 400 + REFILL, "nothing was changed");

    for (backup, flags, left) in [
        (&file, &[][..], LIMIT - 400),
        (&file, &["--without-counts"][..], LIMIT),
        (&smaller, &["--without-counts"][..], LIMIT),
        (&smaller, &[][..], LIMIT),
    ] {
        let mut cluster = restored(backup, 1, flags, None);
        let now = take(cluster.node("n1"), "id", 1, 0);
        assert!((left..=left + REFILL).contains(&now), "{flags:?}: {now}");
        assert_eq!(get(cluster.node("n1"), "/api").status, 200);
        // And it keeps what it was made of.
        cluster.kill("n1");
        cluster.restart("n1");
        cluster.await_ready();
        assert!(take(cluster.node("n1"), "id", 1, 0) <= left + REFILL);
    }
}

#[test]
fn a_restore_that_was_interrupted_is_no_empty_node() {
    let (_place, file) = place();
    let cluster = Cluster::start(1, keeping());
    write(cluster.node("n1"), "api", &rules(LIMIT));
    done(&["backup", "--output", text(&file), "--node", &url(cluster.node("n1"))]);
    drop(cluster);
    let mut cluster = Cluster::empty(keeping());
    let port = free_ports();
    let data = cluster.data_dir(port);
    done(&["restore", text(&file), "--data-dir", text(&data), "--name", "n1"]);
    // As it is before the last file has its name, and before the first one has.
    fs::create_dir(data.join("restoring")).unwrap();
    fs::rename(data.join("raft.redb"), data.join("restoring/raft.redb")).unwrap();
    cluster.spawn(port, &[port], &[]);
    assert_eq!(cluster.await_exit("n1"), Some(1));
    let log = cluster.node("n1").log();
    assert!(log.contains("raft.redb") && log.contains("`tidegate restore` again"), "{log}");
    for file in ["raft.snapshot", "raft.witness", "saved.buckets"] {
        let _ = fs::rename(data.join(file), data.join("restoring").join(file));
    }
    cluster.restart("n1");
    assert_eq!(cluster.await_exit("n1"), Some(1));
    let mine = data.join("mine");
    fs::write(&mine, "").unwrap();
    let told = refused(&["restore", text(&file), "--data-dir", text(&data), "--name", "n1"]);
    assert!(told.contains("not empty") && told.contains("mine"), "{told}");
    fs::remove_file(&mine).unwrap();
    done(&["restore", text(&file), "--data-dir", text(&data), "--name", "n1"]);
    cluster.restart("n1");
    cluster.await_ready();
    assert_eq!(get(cluster.node("n1"), "/api").status, 200);
}
