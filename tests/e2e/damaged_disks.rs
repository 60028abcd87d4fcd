//! The promise: a disk that lies costs at most its node. Whatever becomes of a file of a data directory (a bit is another, its end
//! or all of it is missing, an older copy of it is put in its place) the node starts with the newest rules and admits nothing twice,
//! or says which file is damaged and what to do; it neither hangs nor panics, and its peers do not notice.
//!
//! `TIDEGATE_CORRUPTIONS=2000` tries as many; `TIDEGATE_CORRUPTIONS_SEED` chooses others.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use crate::kit::{
    self,
    rules::{SOON, await_voters, check, get, keeping, limit, put, write},
};
use tidegate_jepsen::{
    cluster::{Cluster, Settings, free_ports, wait_for},
    history::monotonic,
};

const LIMIT: u64 = 1000;
/// What all buckets that are looked at have left in the end. What refills during a test is less than a unit in a minute.
const LEFT: u64 = 300;
const REFILL: u64 = 20;
/// For each algorithm a rule, its attribute, and a bucket that is used.
const ATTRIBUTES: [&str; 4] = ["id", "leaky", "window", "slide"];
/// How long a node may take to be ready, or to say why it does not start.
const WITHIN: Duration = Duration::from_secs(60);

fn rules(limit: u64) -> String {
    format!(
        "rules:
  - {{ name: id, key: [id], limit: {limit}/1d, on_owner_loss: deny }}
  - {{ name: leaky, key: [leaky], limit: {limit}/1d, algorithm: leaky_bucket, on_owner_loss: deny }}
  - {{ name: window, key: [window], limit: {limit}/month, algorithm: fixed_window, on_owner_loss: deny }}
  - {{ name: slide, key: [slide], limit: {limit}/1d, algorithm: sliding_window, on_owner_loss: deny }}
"
    )
}

/// What becomes of a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip {
        at: usize,
        bit: u8,
    },
    Truncate(usize),
    Delete,
    /// An older copy of it is put in its place.
    Older,
}

#[derive(Debug, Clone)]
struct Case {
    /// Which of the directories.
    directory: usize,
    file: String,
    damage: Damage,
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = ["killed", "stopped"][self.directory];
        write!(out, "{} of a node that was {how}: {:?}", self.file, self.damage)
    }
}

impl Damage {
    fn be_done(&self, file: &Path, older: &Path) {
        match self {
            Self::Flip { at, bit } => {
                let mut bytes = fs::read(file).unwrap();
                bytes[*at] ^= 1 << bit;
                fs::write(file, bytes).unwrap();
            }
            Self::Truncate(length) => {
                fs::File::options().write(true).open(file).unwrap().set_len(*length as u64).unwrap();
            }
            Self::Delete => fs::remove_file(file).unwrap(),
            Self::Older => {
                fs::copy(older, file).unwrap();
            }
        }
    }
}

/// Directories of a node that is alone: as it was killed, as it was stopped, and as it was stopped long before both.
struct Directories {
    place: tempfile::TempDir,
    revision: u64,
}

impl Directories {
    fn of(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn make() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(1, keeping());
        let data = cluster.data_of("n1");
        // There is a snapshot, and there will be a newer one.
        churn(&cluster);
        write(cluster.node("n1"), "api", &rules(LIMIT - 1));
        ATTRIBUTES.iter().for_each(|attribute| take(&cluster, attribute, 1));
        cluster.terminate("n1");
        copy(&data, &place.path().join("older"));
        cluster.restart("n1");
        cluster.await_ready();
        churn(&cluster);
        let revision = write(cluster.node("n1"), "api", &rules(LIMIT));
        kept(&cluster);
        ATTRIBUTES.iter().for_each(|attribute| take(&cluster, attribute, LIMIT - LEFT));
        cluster.kill("n1");
        copy(&data, &place.path().join("killed"));
        cluster.restart("n1");
        cluster.await_ready();
        kept(&cluster);
        cluster.terminate("n1");
        copy(&data, &place.path().join("stopped"));
        Self { place, revision }
    }

    /// At least one of each kind for each file, in an order of chance, and then as many by chance as are wanted.
    fn cases(&self, count: usize, random: &mut fastrand::Rng) -> Vec<Case> {
        let mut files = Vec::new();
        for (directory, name) in ["killed", "stopped"].into_iter().enumerate() {
            for (file, path) in files_of(&self.of(name)) {
                let bytes = fs::read(path).unwrap();
                if !bytes.is_empty() {
                    files.push((directory, file, bytes));
                }
            }
        }
        let has_older = |file: &str| self.of("older").join(file).is_file();
        let mut cases: Vec<Case> = Vec::new();
        for (directory, file, bytes) in &files {
            let end = bytes.len();
            let damages = [
                Some(Damage::Delete),
                has_older(file).then_some(Damage::Older),
                Some(Damage::Truncate(0)),
                Some(Damage::Truncate(end / 2)),
                Some(Damage::Truncate(end - 1)),
                Some(flip(bytes, 0..end.min(320), random)),
                Some(flip(bytes, 0..end, random)),
                Some(flip(bytes, end / 2..end, random)),
            ];
            let of_file = |damage| Case { directory: *directory, file: file.clone(), damage };
            cases.extend(damages.into_iter().flatten().map(of_file));
        }
        random.shuffle(&mut cases);
        while cases.len() < count {
            let (directory, file, bytes) = &files[random.usize(..files.len())];
            let end = bytes.len();
            let damage = match random.u8(..10) {
                0 => Damage::Truncate(random.usize(..end)),
                1 if end > 4096 => Damage::Truncate(random.usize(..end / 4096) * 4096),
                2 | 3 => flip(bytes, 0..end.min(320), random),
                _ => flip(bytes, 0..end, random),
            };
            cases.push(Case { directory: *directory, file: file.clone(), damage });
        }
        cases.truncate(count);
        cases
    }
}

/// A bit that is not in a part that was never written.
fn flip(bytes: &[u8], range: std::ops::Range<usize>, random: &mut fastrand::Rng) -> Damage {
    let tries = (0..1_000).map(|_| random.usize(range.clone())).collect::<Vec<_>>();
    let at = tries.iter().copied().find(|at| bytes[*at] != 0).unwrap_or(tries[0]);
    Damage::Flip { at, bit: random.u8(..8) }
}

/// So much in the log that a snapshot is made.
fn churn(cluster: &Cluster) {
    const WRITERS: u32 = 16;
    let snapshot = cluster.data_of("n1").join("raft.snapshot");
    let before = fs::metadata(&snapshot).ok().map(|file| file.modified().unwrap());
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for count in 1..=1_000 / WRITERS {
                    put(cluster.node("n1"), &format!("d{writer}"), &[], &limit(&format!("{count}/1h")));
                }
            });
        }
    });
    let mut count = 0;
    wait_for("a snapshot is written", SOON, || {
        count += 1;
        put(cluster.node("n1"), "d", &[], &limit(&format!("{count}/1h")));
        fs::metadata(&snapshot).is_ok_and(|file| Some(file.modified().unwrap()) != before)
    });
}

/// Waits until the disk has all floors.
fn kept(cluster: &Cluster) {
    wait_for("the disks have all floors", SOON, || {
        let kept = cluster.running().map(|node| node.metric("tidegate_slots_on_disk").unwrap_or(0.0));
        kept.sum::<f64>() == 4096.0
    });
}

fn take(cluster: &Cluster, attribute: &str, cost: u64) {
    let mut client = cluster.node("n1").client(Duration::from_secs(10));
    wait_for("an owner decides", SOON, || {
        let answer = client.get(&format!("/v1/check?domain=api&{attribute}=used&cost={cost}")).unwrap();
        answer.status == 200 && answer.json()["decided_by"] != "fallback"
    });
}

fn files_of(directory: &Path) -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for (name, path) in files_of(from) {
        fs::copy(path, to.join(name)).unwrap();
    }
}

/// What a node did with a damaged file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It knows what each bucket has left, to a quantum.
    Knows,
    /// It serves, and some bucket that was used starts exhausted.
    Forgets,
    Refuses,
}

/// Starts the node of a cluster of one, and judges what it does.
fn judge(cluster: &mut Cluster, file: &str, revision: u64) -> Result<Outcome, String> {
    let mut exit = None;
    let begun = monotonic();
    let is_ready = loop {
        exit = exit.or_else(|| cluster.take_exit("n1"));
        if exit.is_some() || cluster.node("n1").is_ready() {
            break exit.is_none();
        }
        if monotonic() - begun > WITHIN.as_nanos() as u64 {
            return Err(format!("it neither starts nor says why: {}", end_of(&cluster.node("n1").log())));
        }
        thread::sleep(Duration::from_millis(20));
    };
    let log = cluster.node("n1").log();
    if log.contains("panicked") {
        return Err(format!("a panic: {}", end_of(&log)));
    }
    if !is_ready {
        let says = log.contains(file) && (log.contains("move") || log.contains("remove"));
        return match exit {
            Some(1) if says => Ok(Outcome::Refuses),
            code => Err(format!("exit code {code:?}: {}", end_of(&log))),
        };
    }
    let node = cluster.node("n1");
    let rules = get(node, "/api").json();
    if rules["revision"].as_u64() != Some(revision) {
        return Err(format!("the rules are {rules}"));
    }
    let mut outcome = Outcome::Knows;
    for attribute in ATTRIBUTES {
        let mut client = node.client(Duration::from_secs(10));
        let mut answer = serde_json::Value::Null;
        wait_for("an owner decides", SOON, || {
            let asked = client.get(&format!("/v1/check?domain=api&{attribute}=used&cost=0"));
            answer = asked.map_or(serde_json::Value::Null, |answer| answer.json());
            answer["decided_by"] == "owner"
        });
        let left = answer["remaining"].as_u64().unwrap_or(0);
        if answer["limit"] != LIMIT || left > LEFT + REFILL {
            return Err(format!("{attribute} has {left} left, of {LEFT}: {answer}"));
        }
        if left + LIMIT / 16 + 1 < LEFT {
            outcome = Outcome::Forgets;
        }
    }
    Ok(outcome)
}

fn end_of(log: &str) -> String {
    log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_node_with_a_damaged_file_starts_with_what_is_certain_or_says_what_to_do() {
    const WORKERS: usize = 3;
    let _machine = kit::alone();
    let directories = Directories::make();
    let mut random = fastrand::Rng::with_seed(number("TIDEGATE_CORRUPTIONS_SEED", 19));
    let mut cases = directories.cases(number("TIDEGATE_CORRUPTIONS", 42) as usize, &mut random);
    cases.reverse();
    let cases = Mutex::new(cases);
    let outcomes: Mutex<BTreeMap<(String, Outcome), u32>> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = { cases.lock().unwrap().pop() } {
                    let from = directories.of(["killed", "stopped"][case.directory]);
                    let mut cluster = Cluster::empty(keeping());
                    let port = free_ports();
                    let data = cluster.data_dir(port);
                    copy(&from, &data);
                    case.damage.be_done(&data.join(&case.file), &directories.of("older").join(&case.file));
                    cluster.spawn(port, &[port], &["--bootstrap-expect".to_owned(), "1".to_owned()]);
                    match judge(&mut cluster, &case.file, directories.revision) {
                        Ok(outcome) => {
                            *outcomes.lock().unwrap().entry((case.file.clone(), outcome)).or_default() += 1;
                        }
                        Err(reason) => wrong.lock().unwrap().push(format!("{case}\n{reason}")),
                    }
                }
            });
        }
    });
    for ((file, outcome), count) in &*outcomes.lock().unwrap() {
        println!("{file:<16} {outcome:?}: {count}");
    }
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn one_damaged_node_of_three_changes_nothing_for_clients_of_the_others() {
    let _machine = kit::alone();
    let mut cluster = Cluster::start(3, Settings { keeps_data: true, ..kit::patient("rules: []\n") });
    await_voters(&cluster, 3);
    let place = tempfile::tempdir().unwrap();
    let data = cluster.data_of("n2");
    write(cluster.node("n1"), "api", &rules(LIMIT - 1));
    // Before: what has no floors begins exhausted where n2 was the owner.
    ATTRIBUTES.iter().for_each(|attribute| take(&cluster, attribute, LIMIT - LEFT));
    cluster.kill("n2");
    copy(&data, &place.path().join("older"));
    cluster.restart("n2");
    cluster.await_ready();
    let revision = write(cluster.node("n1"), "api", &rules(LIMIT));
    kept(&cluster);
    let mut random = fastrand::Rng::with_seed(number("TIDEGATE_CORRUPTIONS_SEED", 19));
    let mut refused = 0;
    let mut is_first = true;
    for kind in 0..number("TIDEGATE_CORRUPTIONS", 42) / 7 {
        if !is_first {
            cluster.restart("n2");
            cluster.await_ready();
        }
        is_first = false;
        cluster.kill("n2");
        copy(&data, &place.path().join("killed"));
        let names = ["raft.redb", "floors.redb", "raft.redb", "raft.witness", "floors.witness", "node-name"];
        let name = names[kind as usize % names.len()];
        let bytes = fs::read(data.join(name)).unwrap();
        let damage = match kind {
            0 | 1 => Damage::Older,
            _ if random.u8(..3) == 0 => Damage::Truncate(random.usize(..bytes.len())),
            _ => flip(&bytes, 0..bytes.len(), &mut random),
        };
        damage.be_done(&data.join(name), &place.path().join("older").join(name));
        cluster.restart("n2");
        let case = format!("{name}: {damage:?}");
        let mut is_over = false;
        wait_for(&format!("n2 is ready, or refuses ({case})"), SOON, || {
            for node in ["n1", "n3"] {
                let answer = check(cluster.node(node), "api", "nobody");
                assert_eq!(answer["allowed"], true, "{case}: {answer}");
            }
            match cluster.take_exit("n2") {
                Some(code) => {
                    assert_eq!(code, 1, "{case}: {}", end_of(&cluster.node("n2").log()));
                    refused += 1;
                    is_over = true;
                }
                None => is_over = cluster.node("n2").is_ready(),
            }
            is_over
        });
        let is_running = cluster.running().any(|node| node.name == "n2");
        assert!(
            !cluster.node("n2").log().contains("panicked"),
            "{case}: {}",
            end_of(&cluster.node("n2").log())
        );
        for node in cluster.running() {
            wait_for("the node has the rules", SOON, || get(node, "/api").json()["revision"] == revision);
            for attribute in ATTRIBUTES {
                let mut answer = serde_json::Value::Null;
                wait_for("an owner decides", SOON, || {
                    let path = format!("/v1/check?domain=api&{attribute}=used&cost=0");
                    answer = node.client(Duration::from_secs(10)).get(&path).unwrap().json();
                    answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded"
                });
                let left = answer["remaining"].as_u64().unwrap();
                assert!(left <= LEFT + REFILL, "{case}: {attribute} has {left} left, of {LEFT}");
            }
        }
        if is_running {
            cluster.kill("n2");
        } else {
            // As the message says: the node comes back as a new member.
            fs::remove_dir_all(&data).unwrap();
        }
    }
    println!("{refused} refused");
    assert!(refused > 0, "an older log is refused");
}
