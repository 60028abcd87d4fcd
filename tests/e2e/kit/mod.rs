//! What the black-box tests share: the binary, rules, and a lock for those that load the machine.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses a part of it")]

pub mod frames;
pub mod page;
pub mod peer;
pub mod preload;
pub mod relay;
pub mod resp;
pub mod rules;
pub mod secure;

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidegate_jepsen::{
    check::bound::Bound,
    cluster::{Cluster, Settings},
    history::{History, Operation},
    network::{Choice, Form},
};

/// What a node may need on top of its check timeout, because this machine has few processors and they are all busy:
/// with a hundred runnable threads on two of them, waiting for one's turn alone takes tens of milliseconds.
pub const SCHEDULING_SLACK: Duration = Duration::from_millis(900);
/// The check timeout that nodes have by default.
pub const CHECK_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a check waits for an owner that does not answer, with that timeout: a little less than three quarters of it.
const WAITS_FOR_OWNER: Duration = Duration::from_millis(70);

/// The program that is tested: the one that cargo has built, or the one that `TIDEGATE_TEST_BINARY` names.
pub fn binary() -> PathBuf {
    std::env::var_os("TIDEGATE_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into()).into()
}

pub fn settings(rules: &str) -> Settings {
    Settings {
        binary: binary(),
        rules: rules.to_owned(),
        flags: Vec::new(),
        key: Some("the key of the black-box tests".to_owned()),
        keeps_data: false,
    }
}

/// Nodes whose checks wait long for an owner: for tests that count exactly, on a machine whose processors are all busy. An
/// owner that is missing or lost is found out at once all the same.
pub fn patient(rules: &str) -> Settings {
    Settings { flags: ["--check-timeout", "1s"].map(str::to_owned).into(), ..settings(rules) }
}

pub fn patient_nodes(count: usize, rules: &str) -> Cluster {
    Cluster::start(count, patient(rules))
}

/// What lies between nodes that are to be cut off from each other: network namespaces where they are possible, else loopback
/// proxies. `TIDEGATE_TEST_NETWORK=proxies` (or `namespaces`) says which. A plain user's test program may be started again
/// for that, so that a test asks this first.
pub fn network() -> Form {
    static SETTLED: OnceLock<Form> = OnceLock::new();
    *SETTLED.get_or_init(|| {
        let wanted = std::env::var("TIDEGATE_TEST_NETWORK");
        let wanted: Choice = wanted.as_deref().unwrap_or("auto").parse().expect("TIDEGATE_TEST_NETWORK");
        let (form, reason) = wanted.settle().expect("a network between the nodes");
        if let Some(reason) = reason {
            #[expect(clippy::print_stderr, reason = "said with the test")]
            {
                eprintln!("NOT TESTED with network namespaces, but with {form}: {reason}");
            }
        }
        form
    })
}

/// One rule: a bucket for each user.
pub fn per_user(limit: &str, burst: u64, on_owner_loss: &str) -> String {
    format!(
        "rules:\n  - {{ name: per-user, key: [user], limit: {limit}, burst: {burst}, on_owner_loss: {on_owner_loss} }}\n"
    )
}

pub fn nodes(count: usize, rules: &str) -> Cluster {
    Cluster::start(count, settings(rules))
}

/// Holds each key of a history against its limit, in every interval. Returns how many checks were admitted in all. A
/// history with a violation is kept.
pub fn assert_within(history: &History, bound: &Bound, keys: u32) -> u64 {
    let admitted = |key| {
        bound.check(history.of_key(key)).unwrap_or_else(|violation| {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("violation-{}.ndjson", std::process::id()));
            history.write(&path).unwrap();
            panic!("key {key}: {violation:?}; all that happened stands in {}", path.display())
        })
    };
    (0..keys).map(admitted).sum()
}

/// Each of these was decided by an owner, but for one in a hundred that had to wait for its turn on busy processors: without
/// an owner, a link or a session an answer comes at once.
pub fn assert_owned<'h>(all: impl Iterator<Item = &'h Operation>) {
    let (mut count, mut late) = (0, 0);
    for one in all {
        count += 1;
        if one.decided_by.as_ref().is_none_or(|(how, _)| how != "owner" && how != "forwarded") {
            assert!(
                one.completed - one.invoked >= WAITS_FOR_OWNER.as_nanos() as u64,
                "nobody decides: {one:?}"
            );
            late += 1;
        }
    }
    assert!(late * 100 <= count, "{late} of {count} had no owner");
}

/// Ends a load when it is dropped, also when the test fails.
pub struct EndOnDrop<'a>(pub &'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Tests of one file run side by side; those that load the machine must not.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed while it had the machine has given it back.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
