//! A run: a cluster, its load, and what is done against it, until all is healed and what the nodes tell is written down.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

mod founding;
mod settled;

use founding::Founding;
use rustix::time::{ClockId, clock_gettime};

pub use self::settled::NOT_READY;
use self::settled::{READY_WITHIN, is_settled};
use crate::{
    cluster::{Cluster, Settings},
    disk::SmallDisk,
    history::{History, monotonic},
    load::MAX_OPERATIONS,
    nemesis::{Builds, Driver, Fault, GUESTS, Kind, Phases, schedule},
    network::Form,
    node::{Node, PLANTED_BUG},
    ports::port_apart,
    record::{Record, Setup, Times},
    sampler::Watched,
    workload::{
        changes,
        checks::{self, Crowd},
        limits::Limited,
        rules,
    },
};

/// Clients of each node that ask about limits.
const CLIENTS: usize = 3;
/// Each pauses about so long between two checks while nothing is broken, and in a short run always.
const PAUSE: Duration = Duration::from_millis(5);
/// Longer than a node is ever stopped: what it decides late is heard.
const DEADLINE: Duration = Duration::from_secs(15);
/// Clients that write and read rules.
const WRITERS: u32 = 2;
const TICK: Duration = Duration::from_millis(40);
/// All must be as it should for so long: longer than a session that nobody renews.
const SETTLED_FOR: u64 = 2_500_000_000;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The node's program.
    pub binary: PathBuf,
    /// Another build, for upgrades.
    pub other_binary: Option<PathBuf>,
    /// Whether the node's program does to its clock and disk what it is told.
    pub follows_orders: bool,
    /// How many nodes, without one more that may join.
    pub nodes: u8,
    /// What lies between them.
    pub network: Form,
    /// For how long.
    pub length: Duration,
    /// Which faults.
    pub kinds: Vec<Kind>,
    /// Which were wanted but cannot be done here, and why.
    pub left_out: Vec<String>,
    /// What chance begins with.
    pub seed: u64,
    /// A bug to switch on, of a build that has switches.
    pub planted_bug: Option<String>,
    /// The command that does it again.
    pub command: String,
}

/// How far a run is.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Of the load.
    pub passed: Duration,
    /// Of the load, in all.
    pub length: Duration,
    /// How many checks there were.
    pub operations: usize,
    /// Faults so far.
    pub faults: usize,
    /// Faults that are on.
    pub on: Vec<&'a Fault>,
}

/// Runs it. `progress` is told several times a second; when `interrupted` becomes true, the run is broken off.
///
/// # Errors
/// When the network cannot be made, or the nodes do not become ready: nothing was tested then.
pub fn run(
    plan: &Plan,
    interrupted: &AtomicBool,
    mut progress: impl FnMut(&Progress<'_>),
) -> Result<Record, String> {
    let net = plan.network.create(plan.nodes + GUESTS)?;
    let settings = Settings {
        binary: plan.binary.clone(),
        rules: checks::rules_text(),
        flags: Vec::new(),
        key: Some("the key of a cluster to be broken".to_owned()),
        keeps_data: true,
    };
    let mut cluster = Cluster::empty_apart(settings, net);
    cluster.pipe_logs();
    if plan.kinds.contains(&Kind::LateDns) {
        cluster.use_names(plan.nodes)?;
    }
    if plan.follows_orders {
        cluster.follow_orders();
    }
    if let Some(bug) = &plan.planted_bug {
        cluster.set_environment(PLANTED_BUG, bug);
    }
    let mut disks = BTreeMap::new();
    if plan.kinds.contains(&Kind::FullDisk) {
        for node in 1..=plan.nodes {
            let place = cluster.directory().join(format!("disk-{node}"));
            let disk = SmallDisk::mount(&place, &cluster.data_dir(port_apart(node)))
                .map_err(|error| format!("a small disk cannot be mounted: {error}"))?;
            disks.insert(format!("n{node}"), disk);
        }
    }
    let (founding, special) =
        (Founding::of(plan.seed, plan.nodes), founding::special(&plan.kinds, plan.seed, plan.nodes));
    founding::found(&mut cluster, founding, plan.nodes, &special, interrupted)?;

    let phases = Phases::of(plan.length);
    let planned = schedule(&plan.kinds, plan.seed, &phases);
    let places: Vec<_> = cluster.nodes.iter().map(Node::place).collect();
    let hurried = PAUSE.as_nanos() as u64;
    let broken_pause = pause_while_broken(&phases, places.len() * CLIENTS).as_nanos() as u64;
    let pause = AtomicU64::new(hurried);
    let names: Vec<String> = (1..=plan.nodes + GUESTS).map(|node| format!("n{node}")).collect();
    let (stop, operations, watched) = (AtomicBool::new(false), AtomicUsize::new(0), Watched::default());
    let limits = limits_of(&cluster)?;
    let setup = Setup {
        command: plan.command.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit(),
        binary: plan.binary.display().to_string(),
        other_binary: plan.other_binary.as_ref().map(|path| path.display().to_string()),
        nodes: plan.nodes,
        network: plan.network,
        left_out: plan.left_out.clone(),
        seed: plan.seed,
        phases,
        planned: planned.clone(),
        planted_bug: plan.planted_bug.clone(),
        founded: founding.to_string(),
        idle: special.idle.clone(),
        small: special.small.clone(),
        limits,
        questions: checks::questions(),
    };

    let begun = monotonic();
    let at = |after: Duration| begun + after.as_nanos() as u64;
    let unix_ahead = unix_now() - begun as i64;
    let mut times =
        Times { unix_ahead, begun, broken: at(phases.calm), mended: at(phases.heal), ..Times::default() };
    let crowd = Crowd {
        nodes: &places,
        clients: CLIENTS,
        pause: &pause,
        deadline: DEADLINE,
        seed: plan.seed,
        stop: &stop,
        done: &operations,
        fresh: &AtomicU64::new(0),
    };
    let builds = Builds::new(plan.binary.clone(), plan.other_binary.clone());
    let mut driver = Driver::new(&mut cluster, disks, &watched, builds, special, planned, begun);
    let mut calm_since = None;
    let mut end = at(phases.end);
    let ((operations, refunds), written, changes, samples) = thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let crowd = scope.spawn(|| crowd.run());
        let writers = scope.spawn(|| rules::ask_until(&places, WRITERS, plan.seed, &stop));
        let changer = scope.spawn(|| changes::change_until(&places, plan.seed, &stop));
        let sampler = scope.spawn(|| watched.look_at(&names, &stop));
        loop {
            driver.tick();
            let now = monotonic();
            let is_broken = (times.broken..times.mended).contains(&now);
            pause.store(if is_broken { broken_pause } else { hurried }, Relaxed);
            if interrupted.load(Relaxed) && !times.interrupted {
                times.interrupted = true;
                break;
            }
            if now >= times.mended && driver.is_healed() && times.settled.is_none() {
                // What was seen by nobody is done once more, and the run takes so much longer.
                if let Some(over) = driver.repeat_unseen() {
                    end += over - now;
                    (times.mended, times.healed, calm_since) = (over, None, None);
                }
            }
            if now >= times.mended {
                driver.heal();
                if times.healed.is_none() {
                    // Where nothing was broken there was nothing to mend.
                    times.healed = driver.undone().or_else(|| driver.faults.is_empty().then_some(now));
                }
                if driver.is_healed() && times.settled.is_none() {
                    // What lasts for a moment only, because somebody has not noticed yet, does not count.
                    calm_since = is_settled(driver.cluster).then(|| calm_since.unwrap_or_else(monotonic));
                    times.settled = calm_since.filter(|since| monotonic() > since + SETTLED_FOR);
                }
            }
            // What is not healed by then is waited for, but not for ever.
            let rest = Duration::from_nanos(now.saturating_sub(end));
            if now >= end && (driver.is_healed() && times.settled.is_some() || rest > READY_WITHIN) {
                break;
            }
            progress(&Progress {
                passed: Duration::from_nanos(now - begun),
                length: phases.end,
                operations: operations.load(Relaxed),
                faults: driver.faults.len(),
                on: driver.on().collect(),
            });
            thread::sleep(TICK);
        }
        times.ended = monotonic();
        stop.store(true, Relaxed);
        if times.interrupted {
            // A node that is stopped would keep its clients waiting.
            driver.cluster.running().for_each(Node::resume);
        }
        let joined = "it does not panic";
        (
            crowd.join().expect(joined),
            writers.join().expect(joined),
            changer.join().expect(joined),
            sampler.join().expect(joined),
        )
    });
    let (faults, mut ends, repeated) = (driver.faults, driver.ends, written.1);
    let strangers = driver.stranger_logs;
    let rule_histories = if times.interrupted { Vec::new() } else { rules::histories_of_all(&cluster) };
    if !times.interrupted {
        stop_all(&mut cluster, &mut ends);
    }
    Ok(Record {
        setup,
        times,
        history: History { operations },
        refunds,
        changes,
        faults,
        samples,
        ends,
        outcries: outcries(&cluster),
        rules: written.0,
        repeated,
        rule_histories,
        logs: cluster.nodes.iter().map(|node| (node.name.clone(), node.log())).chain(strangers).collect(),
    })
}

/// How long clients pause between two checks while something is broken: a long run may not record more than a history holds.
/// Where nothing is broken each key must be asked about more often than its rate, else nobody sees whether it gets that.
fn pause_while_broken(phases: &Phases, clients: usize) -> Duration {
    let broken = phases.heal - phases.calm;
    let hurried = (phases.end - broken).as_secs_f64() * clients as f64 / PAUSE.as_secs_f64();
    let left = (MAX_OPERATIONS as f64 * 0.8 - hurried).max(1.0);
    PAUSE.max(broken.mul_f64(clients as f64 / left))
}

/// Ends the other threads also when this one fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn limits_of(cluster: &Cluster) -> Result<Vec<Limited>, String> {
    let answer = cluster
        .node("n1")
        .client(Duration::from_secs(5))
        .get("/v1/rules/default")
        .map_err(|error| format!("n1 does not tell its rules: {error}"))?
        .json();
    let rules = answer["rules"].as_array().ok_or_else(|| format!("n1 tells no rules: {answer}"))?;
    let worst = |name: &str, situation: &str| {
        let rule = rules.iter().find(|rule| rule["name"] == name)?;
        rule["worst_case"][situation].as_u64().map(|times| times as u32)
    };
    Ok(checks::limits(|name| (worst(name, "crash"), worst(name, "partition"))))
}

/// Each node is asked to stop, and should.
fn stop_all(cluster: &mut Cluster, ends: &mut Vec<crate::nemesis::Ends>) {
    let names: Vec<String> = cluster.running().map(|node| node.name.clone()).collect();
    names.iter().for_each(|name| cluster.ask_to_stop(name));
    let end = monotonic() + 20_000_000_000;
    for name in names {
        let code = loop {
            match cluster.take_exit(&name) {
                Some(code) => break Some(code),
                None if monotonic() > end => break None,
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        let wrong = match code {
            Some(0) => None,
            Some(_) => Some("SIGTERM should end it with 0".to_owned()),
            None => Some("it did not stop within 20 s of SIGTERM".to_owned()),
        };
        ends.push(crate::nemesis::Ends { node: name, at: monotonic(), code: code.unwrap_or(-1), wrong });
    }
}

/// Lines of logs that tell of a bug, whatever else happened.
fn outcries(cluster: &Cluster) -> Vec<String> {
    let mut found = Vec::new();
    for node in &cluster.nodes {
        let log = node.log();
        let lines =
            log.lines().filter(|line| line.contains("panicked at") || line.contains("RUST_BACKTRACE"));
        found.extend(lines.take(5).map(|line| format!("{}: {line}", node.name)));
    }
    found
}

/// Unix time in nanoseconds, as nodes read it when they start.
fn unix_now() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn commit() -> Option<String> {
    let ended = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    (ended.status.success() && !text.is_empty()).then_some(text)
}
