//! Clients write and read rules at all nodes while nodes are killed and started again.
//!
//! Each write has a value that no other has, so that a history tells which writes happened. A client repeats a write that
//! was not answered, with the same idempotency key, until it is; what it then knows is held against what the nodes tell in
//! the end, and all of it against a register that one thread would have.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    check::{
        ledger::{self, Write, WriteOutcome},
        linear::{self, Act, Verdict},
    },
    client::{Client, Place, Response},
    cluster::{Cluster, wait_for},
    history::monotonic,
    node::Node,
};

const DOMAINS: usize = 4;
/// A client gives a question to one node up after this; it asks another.
const ATTEMPT: Duration = Duration::from_secs(4);
/// A client gives an operation up after this.
const PATIENCE: u64 = 30_000_000_000;
/// A cycle may take so long until each client has written in it.
const CYCLE_WITHIN: Duration = Duration::from_secs(60);
/// So long the search for an order may go on.
pub const STEPS: u64 = 20_000_000;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Kills, each followed by a restart and at least one write of each client.
    pub cycles: u32,
    /// Clients.
    pub clients: u32,
    /// What chance begins with.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Nodes killed.
    pub kills: u32,
    /// Of them those that led.
    pub leaders_killed: u32,
    /// Writes that happened.
    pub written: usize,
    /// Writes that were refused because of somebody else's.
    pub refused: usize,
    /// Attempts at writes that were not answered and repeated.
    pub repeated: usize,
    /// Writes of which nothing is known.
    pub unknown: usize,
    /// Linearizable reads that were answered.
    pub reads: usize,
    /// What is wrong.
    pub faults: Vec<String>,
    /// What could not be found out.
    pub undecided: Vec<String>,
}

impl Report {
    /// Whether the faults that were made hit anything, and all was found out: without that, no fault found says nothing.
    pub fn covers(&self) -> bool {
        let hit = self.leaders_killed > 0 && self.repeated > 0 && self.reads > 0 && self.refused > 0;
        hit && self.undecided.is_empty()
    }
}

/// What a client did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In which domain: `d0` and so on.
    pub domain: usize,
    /// When it was called.
    pub called: u64,
    /// When it was answered, if it was.
    pub answered: Option<u64>,
    /// What it did to the register that a domain is.
    pub act: Act,
    /// Of a write.
    pub write: Option<Write>,
}

/// Writes and reads rules at these nodes until it is told to stop: what each client did, and how many attempts were not
/// answered and repeated.
pub fn ask_until(nodes: &[Place], clients: u32, seed: u64, stop: &AtomicBool) -> (Vec<Done>, u64) {
    let (next_value, repeated) = (AtomicU64::new(1), AtomicU64::new(0));
    let writes: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
    let seen = Mutex::new(HashMap::new());
    let field =
        Field { nodes, stop, next_value: &next_value, writes: &writes, repeated: &repeated, seen: &seen };
    let done = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients as usize)
            .map(|client| {
                let (field, seed) = (&field, seed.wrapping_add(client as u64 + 1));
                scope.spawn(move || act(field, client, &mut fastrand::Rng::with_seed(seed)))
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
    });
    (done, repeated.load(Relaxed))
}

/// What each node tells of each domain in the end.
pub type RuleHistories = Vec<Result<BTreeMap<String, ledger::Lines>, String>>;

/// Asks all running nodes what they have of each domain, after they have all that was acknowledged.
pub fn histories_of_all(cluster: &Cluster) -> RuleHistories {
    (0..DOMAINS).map(|domain| histories(cluster, domain).map_err(|fault| fault.to_string())).collect()
}

/// What all clients share.
struct Field<'a> {
    nodes: &'a [Place],
    stop: &'a AtomicBool,
    next_value: &'a AtomicU64,
    /// Writes of each client so far.
    writes: &'a [AtomicU64],
    repeated: &'a AtomicU64,
    /// The value of each revision that some client has seen.
    seen: &'a Mutex<HashMap<(usize, u64), u64>>,
}

/// Runs the plan on a cluster whose nodes keep their data. `progress` is told after each cycle.
pub fn run(cluster: &mut Cluster, plan: Plan, mut progress: impl FnMut(u32, &Report)) -> Report {
    let nodes: Vec<_> = cluster.nodes.iter().map(Node::place).collect();
    let (stop, next_value, repeated) = (AtomicBool::new(false), AtomicU64::new(1), AtomicU64::new(0));
    let writes: Vec<AtomicU64> = (0..plan.clients).map(|_| AtomicU64::new(0)).collect();
    let seen = Mutex::new(HashMap::new());
    let field = Field {
        nodes: &nodes,
        stop: &stop,
        next_value: &next_value,
        writes: &writes,
        repeated: &repeated,
        seen: &seen,
    };
    let mut report = Report::default();
    let done: Vec<Done> = thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let clients: Vec<_> = (0..plan.clients as usize)
            .map(|client| {
                let (field, seed) = (&field, plan.seed.wrapping_add(client as u64 + 1));
                scope.spawn(move || act(field, client, &mut fastrand::Rng::with_seed(seed)))
            })
            .collect();
        let mut random = fastrand::Rng::with_seed(plan.seed);
        for cycle in 0..plan.cycles {
            let before: Vec<u64> = writes.iter().map(|count| count.load(Relaxed)).collect();
            let leader = leader_of(cluster);
            let victim = match &leader {
                // The leader is the one whose loss is felt.
                Some(leader) if cycle % 2 == 0 => leader.clone(),
                _ => cluster.nodes[random.usize(..cluster.nodes.len())].name.clone(),
            };
            cluster.kill(&victim);
            report.kills += 1;
            report.leaders_killed += u32::from(leader.as_ref() == Some(&victim));
            thread::sleep(Duration::from_millis(random.u64(50..1_500)));
            cluster.restart(&victim);
            wait_for("each client has written", CYCLE_WITHIN, || {
                writes.iter().zip(&before).all(|(now, before)| now.load(Relaxed) > *before)
            });
            progress(cycle + 1, &report);
        }
        stop.store(true, Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
    });
    report.repeated = repeated.load(Relaxed) as usize;
    cluster.await_ready();
    judge(&done, &histories_of_all(cluster), STEPS, &mut report);
    report
}

/// Ends the clients also when the run fails meanwhile.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn leader_of(cluster: &Cluster) -> Option<String> {
    cluster.running().find_map(|node| {
        let status = node.client(Duration::from_secs(1)).get("/v1/cluster").ok()?.json();
        status["raft"]["leader"].as_str().map(str::to_owned)
    })
}

/// One operation after the other until it is told to stop.
fn act(field: &Field<'_>, client: usize, random: &mut fastrand::Rng) -> Vec<Done> {
    let mut clients: Vec<Client> =
        field.nodes.iter().map(|node| Client::following(node.clone(), ATTEMPT)).collect();
    let mut done = Vec::new();
    let mut known: [Option<u64>; DOMAINS] = [None; DOMAINS];
    while !field.stop.load(Relaxed) {
        let domain = random.usize(..DOMAINS);
        let one = match random.u32(..10) {
            0..4 => read(field, &mut clients, domain, &mut known, random),
            4..7 => write(field, &mut clients, domain, None, &mut known, random),
            _ => write(field, &mut clients, domain, Some(known[domain]), &mut known, random),
        };
        if let Some(one) = one {
            if matches!(one.write, Some(Write { outcome: WriteOutcome::Written(_), .. })) {
                field.writes[client].fetch_add(1, Relaxed);
            }
            done.push(one);
        }
        thread::sleep(Duration::from_millis(random.u64(5..60)));
    }
    done
}

/// A linearizable read; `None` if there was no answer, which says nothing.
fn read(
    field: &Field<'_>,
    clients: &mut [Client],
    domain: usize,
    known: &mut [Option<u64>; DOMAINS],
    random: &mut fastrand::Rng,
) -> Option<Done> {
    let node = random.usize(..clients.len());
    let called = monotonic();
    let answer = clients[node].get(&format!("/v1/rules/d{domain}?consistent=true&timeout_ms=3000")).ok()?;
    let answered = Some(monotonic());
    let value = match answer.status {
        200 => {
            let body = answer.json();
            let (revision, value) = (body["revision"].as_u64()?, value_of(&body)?);
            field.see(domain, revision, value);
            known[domain] = Some(revision);
            Some(value)
        }
        404 => None,
        _ => return None,
    };
    Some(Done { domain, called, answered, act: Act::Read(value), write: None })
}

/// A write, on top of a revision if one is given. It is repeated until it is answered.
fn write(
    field: &Field<'_>,
    clients: &mut [Client],
    domain: usize,
    on: Option<Option<u64>>,
    known: &mut [Option<u64>; DOMAINS],
    random: &mut fastrand::Rng,
) -> Option<Done> {
    let value = field.next_value.fetch_add(1, Relaxed);
    let on_value = match on {
        Some(Some(revision)) => Some(Some(field.value_at(domain, revision)?)),
        Some(None) => Some(None),
        None => None,
    };
    let act = match on_value {
        Some(from) => Act::Swap(from, value),
        None => Act::Write(value),
    };
    let request = put(domain, value, on);
    let called = monotonic();
    let mut in_doubt = false;
    let finish = |answered, act, outcome| {
        Some(Done { domain, called, answered, act, write: Some(Write { value, outcome }) })
    };
    loop {
        let node = random.usize(..clients.len());
        let answer: Option<Response> = clients[node].send(request.as_bytes()).ok();
        match answer.as_ref().map_or(0, |answer| answer.status) {
            200 => {
                let revision = answer?.json()["revision"].as_u64()?;
                field.see(domain, revision, value);
                known[domain] = Some(revision);
                return finish(Some(monotonic()), act, WriteOutcome::Written(revision));
            }
            412 => {
                // The revision that it was to be on top of has passed, and passes only once.
                known[domain] =
                    answer?.json()["revision"].as_u64().filter(|now| field.value_at(domain, *now).is_some());
                return finish(Some(monotonic()), Act::SwapRefused(on_value?), WriteOutcome::NotWritten);
            }
            503 if answer.as_ref().is_some_and(|answer| answer.json()["applied"] == false) => {}
            // Not ready yet: it was not looked at.
            503 if answer.as_ref().is_some_and(|answer| answer.text().contains("not-ready")) => {}
            _ => in_doubt = true,
        }
        field.repeated.fetch_add(1, Relaxed);
        if monotonic() - called > PATIENCE {
            return if in_doubt { finish(None, act, WriteOutcome::Nothing) } else { None };
        }
        thread::sleep(Duration::from_millis(random.u64(10..150)));
    }
}

fn put(domain: usize, value: u64, on: Option<Option<u64>>) -> String {
    let body = format!("rules: [{{ name: v{value}, key: [], limit: 5/1s }}]\n");
    let mut head = format!(
        "PUT /v1/rules/d{domain}?message=v{value}&timeout_ms=3000 HTTP/1.1\r\nhost: node\r\nidempotency-key: k{value}\r\ncontent-length: {}\r\n",
        body.len()
    );
    let _ = match on {
        Some(Some(revision)) => write!(head, "if-match: \"{revision}\"\r\n"),
        Some(None) => write!(head, "if-none-match: *\r\n"),
        None => Ok(()),
    };
    format!("{head}\r\n{body}")
}

/// The value that a domain's rules, or a line of its history, have.
fn value_of(body: &Value) -> Option<u64> {
    body["message"].as_str()?.strip_prefix('v')?.parse().ok()
}

impl Field<'_> {
    fn see(&self, domain: usize, revision: u64, value: u64) {
        self.seen.lock().expect("nobody panics with it").insert((domain, revision), value);
    }

    fn value_at(&self, domain: usize, revision: u64) -> Option<u64> {
        self.seen.lock().expect("nobody panics with it").get(&(domain, revision)).copied()
    }
}

/// Holds what the clients know against what the nodes tell, and all of it against one register a domain.
pub fn judge(done: &[Done], rule_histories: &RuleHistories, steps: u64, report: &mut Report) {
    for (domain, histories) in rule_histories.iter().enumerate() {
        let of_domain: Vec<&Done> = done.iter().filter(|one| one.domain == domain).collect();
        let writes: Vec<Write> = of_domain.iter().filter_map(|one| one.write).collect();
        let count =
            |wanted: fn(&WriteOutcome) -> bool| writes.iter().filter(|write| wanted(&write.outcome)).count();
        report.written += count(|outcome| matches!(outcome, WriteOutcome::Written(_)));
        report.refused += count(|outcome| matches!(outcome, WriteOutcome::NotWritten));
        report.unknown += count(|outcome| matches!(outcome, WriteOutcome::Nothing));
        report.reads += of_domain.iter().filter(|one| matches!(one.act, Act::Read(_))).count();

        match histories {
            Ok(histories) => {
                if let Err(fault) = ledger::check(&writes, histories) {
                    report.faults.push(format!("d{domain}: {fault:?}"));
                }
            }
            Err(fault) => report.faults.push(format!("d{domain}: the histories cannot be read: {fault}")),
        }
        let operations: Vec<linear::Operation> = of_domain
            .iter()
            .map(|one| linear::Operation { called: one.called, answered: one.answered, act: one.act.clone() })
            .collect();
        match linear::check(&operations, steps) {
            Verdict::Linearizable => {}
            Verdict::Undecided => {
                report.undecided.push(format!(
                    "d{domain}: whether it is linearizable was not found out in {steps} steps"
                ));
            }
            Verdict::Violated { stuck_at } => {
                let stuck: Vec<&linear::Operation> =
                    stuck_at.iter().take(5).map(|place| &operations[*place]).collect();
                report
                    .faults
                    .push(format!("d{domain}: not linearizable; none of these can be next: {stuck:?}"));
            }
        }
    }
}

/// What each node tells of a domain in the end, after it has all that was acknowledged.
fn histories(cluster: &Cluster, domain: usize) -> io::Result<BTreeMap<String, ledger::Lines>> {
    let mut histories = BTreeMap::new();
    for node in cluster.running() {
        let path = format!("/v1/rules/d{domain}/history?limit=100000&consistent=true&timeout_ms=20000");
        let answer = node.client(Duration::from_secs(30)).get(&path)?;
        let lines = match answer.status {
            404 => Vec::new(),
            200 => {
                let body = answer.json();
                let lines = body["revisions"].as_array().cloned().unwrap_or_default();
                let line = |line: &Value| Some((line["revision"].as_u64()?, value_of(line)));
                lines.iter().rev().filter_map(line).collect()
            }
            status => return Err(io::Error::other(format!("{}: {status} {}", node.name, answer.text()))),
        };
        histories.insert(node.name.clone(), lines);
    }
    Ok(histories)
}

/// Keeps what the nodes logged.
///
/// # Errors
/// When a file cannot be written.
pub fn keep_logs(cluster: &Cluster, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for node in &cluster.nodes {
        std::fs::write(directory.join(format!("{}.log", node.name)), node.log())?;
    }
    Ok(())
}
