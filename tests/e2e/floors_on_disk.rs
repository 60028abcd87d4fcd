//! The promise: nothing forgotten, nothing locked. Nodes with a data directory that are killed, one alone or all at once, begin again
//! with what each bucket had left, less a sixteenth of it at most, and a client that nobody has seen is allowed at once.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    cluster::{Cluster, Settings, wait_for},
    history::{History, monotonic},
    load::Load,
};

const PATIENCE: Duration = Duration::from_secs(30);
const KEYS: u32 = 24;
const BOUND: Bound = Bound { burst: 60, count: 50, period: Duration::from_secs(10) };
const IDS: u32 = 24;
const LIMIT: u64 = 1000;
const QUANTUM: u64 = LIMIT / 16;

const RULES: &str = "rules:
  - { name: load, key: [user], limit: 50/10s, burst: 60, on_owner_loss: deny, takeover: reserve }
  - { name: long, key: [id], limit: 1000/1d, on_owner_loss: deny }
  - { name: leaky, key: [leaky], limit: 1000/1d, algorithm: leaky_bucket }
  - { name: window, key: [window], limit: 1000/month, algorithm: fixed_window }
  - { name: few, key: [few], limit: 7/1h }
  - { name: day, key: [day], limit: 100/day, algorithm: fixed_window }
  - { name: open, key: [open], limit: 1000/1d, on_total_loss: full }
  - { name: slide, key: [slide], limit: 1000/1d, algorithm: sliding_window }
  - { name: log, key: [log], limit: 1000/1d, algorithm: sliding_log }
  - { name: log-open, key: [log-open], limit: 1000/1d, algorithm: sliding_log, on_total_loss: full }
  - { name: slide-open, key: [slide-open], limit: 1000/1d, algorithm: sliding_window, on_total_loss: full }
";
/// The last two are limits that come with the check.
const LONG: [&str; 6] = ["id", "leaky", "window", "slide", "own", "own-window"];

/// What a check says of a limit that it brings along.
fn own_limit(attribute: &str) -> Option<(&'static str, &'static str)> {
    match attribute {
        "own" => Some(("1000/1d", "token_bucket")),
        "own-window" => Some(("1000/month", "fixed_window")),
        "own-few" => Some(("7/1h", "token_bucket")),
        "own-slide" => Some(("100/day", "sliding_window")),
        _ => None,
    }
}

/// How often the nodes are killed: `TIDEGATE_KILLS=50` for the whole of what was promised.
fn kills() -> u32 {
    std::env::var("TIDEGATE_KILLS").ok().map_or(4, |kills| kills.parse().unwrap())
}

fn with_disks(count: usize) -> Cluster {
    Cluster::start(count, Settings { keeps_data: true, ..kit::patient(RULES) })
}

/// Waits until the disks have all floors.
fn kept(cluster: &Cluster) {
    wait_for("the disks have all floors", PATIENCE, || {
        let kept = cluster.running().map(|node| node.metric("tidegate_slots_on_disk").unwrap_or(0.0));
        kept.sum::<f64>() == 4096.0
    });
}

/// What is left of a key after so many units; `None`: no owner decided.
fn take(cluster: &Cluster, attribute: &str, key: &str, cost: u64) -> Option<(bool, u64)> {
    let mut client = cluster.node("n1").client(Duration::from_secs(5));
    let answer = match own_limit(attribute) {
        None => client.get(&format!("/v1/check?{attribute}={key}&cost={cost}")),
        Some((limit, algorithm)) => {
            let text = format!(
                r#"{{"key":"{attribute} {key}","limit":"{limit}","algorithm":"{algorithm}","cost":{cost}}}"#
            );
            client.post("/v1/check", &text)
        }
    };
    let answer = answer.ok()?.json();
    let by = answer["decided_by"].as_str()?;
    let decided = (answer["allowed"].as_bool()?, answer["remaining"].as_u64()?);
    (by == "owner" || by == "forwarded").then_some(decided)
}

fn decided(cluster: &Cluster, attribute: &str, key: &str, cost: u64) -> (bool, u64) {
    let mut found = None;
    wait_for("the key has an owner", PATIENCE, || {
        found = take(cluster, attribute, key, cost);
        found.is_some()
    });
    found.unwrap()
}

/// Kills the nodes at a moment of their load, again and again, and starts them again.
fn kill_under_load(count: usize) {
    let _machine = kit::alone();
    let mut cluster = with_disks(count);
    kept(&cluster);
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let load = Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 3,
        keys: KEYS,
        length: Duration::from_secs(1200),
        pause: Duration::from_millis(2),
        deadline: Duration::from_secs(5),
    };
    let wanted = AtomicBool::new(true);
    let history: History = thread::scope(|scope| {
        let running = scope.spawn(|| load.run_while(|| wanted.load(Relaxed)));
        let _end = kit::EndOnDrop(&wanted);
        let begun = monotonic();
        let mut left: Vec<Vec<u64>> = vec![vec![LIMIT; IDS as usize]; LONG.len()];
        for round in 0..kills() {
            // Some keys are never used; the others at their own pace.
            for (attribute, left) in LONG.iter().zip(&mut left) {
                for (key, left) in (0..IDS).zip(left).filter(|(key, _)| key % 4 != 0) {
                    let cost = 1 + u64::from(key % 7);
                    *left = decided(&cluster, attribute, &format!("k{key}"), cost).1;
                }
            }
            // The moment is another one each time, and also within what a start does.
            thread::sleep(Duration::from_millis(u64::from(round * 137 % 401)));
            names.iter().for_each(|name| cluster.kill(name));
            names.iter().for_each(|name| cluster.restart(name));
            if round % 3 == 2 {
                thread::sleep(Duration::from_millis(u64::from(round * 211 % 1_500)));
                names.iter().for_each(|name| cluster.kill(name));
                names.iter().for_each(|name| cluster.restart(name));
            }
            cluster.await_ready();
            let unseen = [("few", 7), ("day", 100), ("slide", LIMIT), ("own-few", 7), ("own-slide", 100)];
            for (attribute, limit) in unseen {
                let (allowed, now) = decided(&cluster, attribute, &format!("unseen{round}"), 1);
                assert!(allowed, "{attribute} in round {round}: nobody has seen this client");
                let quantum = (limit / 16).max(1);
                assert!(
                    (limit - 1 - 2 * quantum..limit).contains(&now),
                    "{attribute}: {now} of {limit} left"
                );
            }
            let refilled = 1 + (monotonic() - begun) / 1_000_000_000 * LIMIT / 86_400;
            for (attribute, left) in LONG.iter().zip(&mut left) {
                for (key, left) in (0..IDS).zip(left) {
                    let (_, now) = decided(&cluster, attribute, &format!("k{key}"), 0);
                    // A second kill of a round may come before the first one is made good.
                    let quanta = if round % 3 == 2 { 2 } else { 1 };
                    let least = left.saturating_sub(quanta * QUANTUM + 1);
                    assert!(
                        (least..=*left + refilled).contains(&now),
                        "round {round}: {now} units of {attribute} {key} are left, of {left} before"
                    );
                    *left = now;
                }
            }
        }
        wanted.store(false, Relaxed);
        running.join().unwrap()
    });
    let admitted = kit::assert_within(&history, &BOUND, KEYS);
    println!("{} checks, {admitted} admitted", history.operations.len());
    let from_disk: f64 =
        cluster.running().map(|node| node.metric("tidegate_slots_from_disk_total").unwrap()).sum();
    assert_eq!(from_disk, 4096.0, "each slot began from the disk");
}

#[test]
fn one_node_that_is_killed_again_and_again_forgets_nothing_and_locks_nobody_out() {
    kill_under_load(1);
}

#[test]
fn all_nodes_that_are_killed_together_forget_nothing_and_lock_nobody_out() {
    kill_under_load(3);
}

#[test]
fn what_a_damaged_file_said_counts_for_nothing_and_the_node_starts() {
    let mut cluster = with_disks(1);
    kept(&cluster);
    for attribute in ["id", "open", "slide", "slide-open", "log", "log-open", "own"] {
        assert!(decided(&cluster, attribute, "used", 500).0);
    }
    let file = cluster.data_of("n1").join("floors.redb");
    cluster.kill("n1");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[4_096..].iter_mut().for_each(|byte| *byte ^= 0x55);
    bytes.truncate(middle);
    fs::write(&file, bytes).unwrap();
    cluster.restart("n1");
    cluster.await_ready();
    wait_for("the log says so", PATIENCE, || cluster.node("n1").log().contains("cannot be read"));
    // Nobody can tell what they had given, so the rules say it.
    assert!(decided(&cluster, "id", "used", 0).1 <= 1);
    for attribute in ["slide", "log", "own"] {
        assert!(decided(&cluster, attribute, "used", 0).1 <= 1, "{attribute}");
    }
    for attribute in ["open", "slide-open", "log-open"] {
        assert_eq!(decided(&cluster, attribute, "used", 0).1, LIMIT, "{attribute}");
    }
    for attribute in ["open", "slide-open"] {
        assert!(decided(&cluster, attribute, "used", 200).0);
    }
    kept(&cluster);
    // From then on all is known of what has floors.
    cluster.kill("n1");
    cluster.restart("n1");
    cluster.await_ready();
    for attribute in ["open", "slide-open"] {
        let left = decided(&cluster, attribute, "used", 0).1;
        assert!((800 - QUANTUM..=800).contains(&left), "{attribute}: {left}");
    }
    // Of logs nothing is.
    assert_eq!(decided(&cluster, "log-open", "used", 0).1, LIMIT);
}

/// The disk has all floors of the rules before when the rules change, and the node is killed before it has those of the new ones.
#[test]
fn floors_of_other_rules_go_before_a_slot_begins_without_them() {
    let _machine = kit::alone();
    let mut cluster = with_disks(1);
    kept(&cluster);
    assert!(decided(&cluster, "id", "used", 500).0 && decided(&cluster, "open", "used", 500).0);
    let changed = RULES.replace("limit: 7/1h", "limit: 9/1h");
    let written = cluster.node("n1").client(PATIENCE).request("PUT", "/v1/rules/default", &[], &changed);
    assert_eq!(written.unwrap().status, 200);
    cluster.kill("n1");
    cluster.restart("n1");
    cluster.await_ready();
    let open = decided(&cluster, "open", "used", 0).1;
    if cluster.node("n1").log().contains("the floors on the disk are of other rules") {
        // Nobody can tell, and each rule says what that means.
        assert_eq!(open, LIMIT);
        assert!(decided(&cluster, "id", "used", 0).1 <= 1);
    } else {
        // Those of the new rules were there in time.
        assert!((500 - QUANTUM..=500).contains(&open), "{open}");
    }
    kept(&cluster);
    assert!(decided(&cluster, "open", "used", 300).0);
    let before = decided(&cluster, "open", "used", 0).1;
    cluster.kill("n1");
    cluster.restart("n1");
    cluster.await_ready();
    let after = decided(&cluster, "open", "used", 0).1;
    assert!((before - QUANTUM..=before + 1).contains(&after), "{after} after {before}");
}

#[test]
fn without_a_data_directory_a_restart_is_a_new_cluster() {
    let mut cluster = kit::patient_nodes(1, RULES);
    assert!(decided(&cluster, "id", "used", 500).0);
    assert_eq!(cluster.node("n1").metric("tidegate_slots_on_disk"), Some(0.0));
    cluster.kill("n1");
    cluster.restart("n1");
    cluster.await_ready();
    assert_eq!(decided(&cluster, "id", "used", 0).1, LIMIT);
}
