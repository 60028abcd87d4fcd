//! What a check costs over HTTP: decided where it arrives, and decided by another node, beside an axum route that answers
//! a constant on the very same accept loop; and what a token adds.
//!
//! `cargo bench --bench http` (five rounds of two seconds each), or `-- --rounds N --seconds N`.
//!
//! Servers run as processes of their own on one processor, the load generator runs on another: 32 connections, each
//! asking one question after the other. The four cases take turns, so that a slow minute of the machine hits all of
//! them; medians are shown. What this does not show: several cores, pipelining, clients on other machines.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for people")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod kit;

use std::{
    net::SocketAddr,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use self::kit::{Children, address, options, pin_to, processors};

use axum::{Router, http::header, response::IntoResponse, routing::get};
use hdrhistogram::Histogram;
use hyper_util::service::TowerToHyperService;
use tidegate::{
    ending::Ending,
    http::{Limits, ServerStats, serve},
    workers::Workers,
};
use tidegate_jepsen::{
    client::Client,
    cluster::{free_ports, wait_for},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for the process that is the baseline's server: where it listens.
const BASELINE: &str = "TIDEGATE_BENCH_BASELINE";
const ADMIN_TOKEN: &str = "the-admin-token-of-the-benchmark-0123456789";
const CONNECTIONS: usize = 32;
const KEYS: usize = 1_000;
const RULES: &str = "rules: [{name: per-user, key: [user], limit: 1000000/1s}]\n";
/// As long as a real answer.
const CONSTANT: &str = r#"{"allowed":true,"rule":"per-user","limit":1000000,"remaining":999999,"reset_after_ms":0,"retry_after_ms":null,"delay_ms":0,"decided_by":"owner","node":"n1"}"#;

struct Case {
    name: &'static str,
    address: SocketAddr,
    paths: Vec<String>,
    /// Further lines of each request's head.
    headers: String,
    /// The processes that answer.
    servers: Vec<u32>,
    results: Vec<Measured>,
}

#[derive(Clone)]
struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Processor time of the servers for one check.
    cpu: Duration,
}

fn main() {
    if let Ok(address) = std::env::var(BASELINE) {
        return serve_constant(address.parse().unwrap());
    }
    let (rounds, length) = options();
    let processors = processors();
    let (for_servers, for_load) = (processors[0], processors[processors.len() - 1]);
    if for_servers == for_load {
        println!("only one processor: servers and load share it, so the figures mean little");
    }

    pin_to(for_servers);
    let scratch = tempfile::tempdir().unwrap();
    let rules = scratch.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let baseline_port = free_ports();
    let mut children = Children::default();
    let baseline = children.start(
        Command::new(std::env::current_exe().unwrap()).env(BASELINE, address(baseline_port).to_string()),
    );
    let (alone, first, second, guarded) = (free_ports(), free_ports(), free_ports(), free_ports());
    let alone_pid = children.node(&rules, alone, &[]);
    let asks_all = [("TIDEGATE_ADMIN_TOKEN", ADMIN_TOKEN), ("TIDEGATE_REQUIRE_TOKEN", "all")];
    let guarded_pid = children.node_with(&rules, guarded, &[], &asks_all);
    let first_pid = children.node(&rules, first, &[second]);
    let second_pid = children.node(&rules, second, &[first]);
    pin_to(for_load);

    for port in [alone, first, second, guarded] {
        wait_for("the nodes are ready", Duration::from_secs(30), || {
            Client::new(address(port), Duration::from_secs(1))
                .get("/readyz")
                .is_ok_and(|answer| answer.status == 200)
        });
    }
    wait_for("the baseline listens", Duration::from_secs(30), || {
        Client::new(address(baseline_port), Duration::from_secs(1)).get("/v1/check").is_ok()
    });
    let all: Vec<String> = (0..KEYS).map(|user| format!("/v1/check?user=u{user}")).collect();
    let mut cases = [
        Case::new("axum route, constant answer", baseline_port, all.clone(), &[baseline]),
        Case::new("check, decided locally", alone, all.clone(), &[alone_pid]),
        Case {
            headers: format!("authorization: Bearer {}\r\n", token(guarded)),
            ..Case::new("the same, with a token", guarded, all, &[guarded_pid])
        },
        Case::new("check, forwarded", first, forwarded_paths(first), &[first_pid, second_pid]),
    ];
    println!(
        "{rounds} rounds of {length:?} for each case, {CONNECTIONS} connections, servers on processor {for_servers}"
    );
    for _ in 0..rounds {
        for case in &mut cases {
            let measured = case.measure(length);
            case.results.push(measured);
        }
    }
    show(&cases);
}

impl Case {
    fn new(name: &'static str, port: u16, paths: Vec<String>, servers: &[u32]) -> Self {
        let (address, servers) = (address(port), servers.to_vec());
        Self { name, address, paths, headers: String::new(), servers, results: Vec::new() }
    }

    fn measure(&self, length: Duration) -> Measured {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // What the connections cost to open is not measured.
        runtime.block_on(self.load(Duration::from_millis(200)));
        let cpu_before = self.cpu();
        let started = Instant::now();
        let histogram = runtime.block_on(self.load(length));
        let (elapsed, cpu) = (started.elapsed(), self.cpu() - cpu_before);
        Measured {
            per_second: histogram.len() as f64 / elapsed.as_secs_f64(),
            p50: Duration::from_nanos(histogram.value_at_quantile(0.5)),
            p99: Duration::from_nanos(histogram.value_at_quantile(0.99)),
            cpu: cpu / histogram.len() as u32,
        }
    }

    async fn load(&self, length: Duration) -> Histogram<u64> {
        let requests: Arc<Vec<Vec<u8>>> = Arc::new(
            self.paths
                .iter()
                .map(|path| format!("GET {path} HTTP/1.1\r\nhost: n\r\n{}\r\n", self.headers).into_bytes())
                .collect(),
        );
        let until = Instant::now() + length;
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|number| tokio::spawn(ask(self.address, Arc::clone(&requests), number * 31, until)))
            .collect();
        let mut all = Histogram::new(3).unwrap();
        for client in clients {
            all.add(client.await.unwrap()).unwrap();
        }
        all
    }

    /// Processor time that the servers have used, to the hundredth of a second.
    fn cpu(&self) -> Duration {
        let of = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let after_name = stat.rsplit_once(") ").unwrap().1.to_owned();
            let ticks: u64 =
                after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
            Duration::from_millis(ticks * 10)
        };
        self.servers.iter().map(of).sum()
    }

    fn median<T: PartialOrd + Copy>(&self, figure: impl Fn(&Measured) -> T) -> T {
        let mut figures: Vec<T> = self.results.iter().map(figure).collect();
        figures.sort_by(|a, b| a.partial_cmp(b).unwrap());
        figures[figures.len() / 2]
    }
}

/// One connection: writes a request, reads its whole answer, and again.
async fn ask(
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
    start: usize,
    until: Instant,
) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = vec![0; 4096];
    let mut next = start;
    loop {
        let asked = Instant::now();
        if asked >= until {
            return histogram;
        }
        stream.write_all(&requests[next % requests.len()]).await.unwrap();
        next += 1;
        let mut length = 0;
        loop {
            let read = stream.read(&mut answer[length..]).await.unwrap();
            assert!(read > 0, "the server closed a connection");
            length += read;
            if is_whole(&answer[..length]) {
                break;
            }
        }
        histogram.record(asked.elapsed().as_nanos() as u64).unwrap();
    }
}

/// Whether an answer is there with all of its body; it must be a 200.
fn is_whole(answer: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 24];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_length) = head.parse(answer).unwrap() else { return false };
    assert_eq!(head.code, Some(200), "{}", String::from_utf8_lossy(answer));
    let length =
        head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")).unwrap();
    let length: usize = std::str::from_utf8(length.value).unwrap().parse().unwrap();
    answer.len() >= head_length + length
}

fn show(cases: &[Case]) {
    let base = &cases[0];
    println!(
        "\n{:<30} {:>10} {:>7} {:>10} {:>10} {:>14} {:>7}",
        "case", "checks/s", "ratio", "p50", "p99", "CPU a check", "ratio"
    );
    for case in cases {
        // Round by round, so that the ratio is of figures taken within seconds of each other.
        let mut ratios: Vec<f64> = case
            .results
            .iter()
            .zip(&base.results)
            .map(|(one, base)| one.per_second / base.per_second)
            .collect();
        ratios.sort_by(f64::total_cmp);
        let cpu = case.median(|one| one.cpu);
        println!(
            "{:<30} {:>10.0} {:>7.2} {:>10.1?} {:>10.1?} {:>14.1?} {:>7.2}",
            case.name,
            case.median(|one| one.per_second),
            ratios[ratios.len() / 2],
            case.median(|one| one.p50),
            case.median(|one| one.p99),
            cpu,
            cpu.as_secs_f64() / base.median(|one| one.cpu).as_secs_f64(),
        );
    }
    println!(
        "\nratio: to the constant answer, median of the rounds; CPU: user and system time of all servers of the case"
    );
}

/// Paths of keys that the node at `port` does not own.
fn forwarded_paths(port: u16) -> Vec<String> {
    let mut client = Client::new(address(port), Duration::from_secs(1));
    (0..)
        .map(|user| format!("/v1/check?user=f{user}"))
        .filter(|path| client.get(&format!("{path}&cost=0")).unwrap().json()["decided_by"] == "forwarded")
        .take(KEYS)
        .collect()
}

/// A token for checks.
fn token(port: u16) -> String {
    let headers = [("authorization", &*format!("Bearer {ADMIN_TOKEN}"))];
    let body = r#"{"name": "bench", "roles": ["check"]}"#;
    let made =
        Client::new(address(port), Duration::from_secs(5)).request("POST", "/v1/tokens", &headers, body);
    made.unwrap().json()["token"].as_str().unwrap().to_owned()
}

fn serve_constant(address: SocketAddr) {
    let constant = || async { ([(header::CONTENT_TYPE, "application/json")], CONSTANT).into_response() };
    let workers = Workers::start(1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.unwrap();
        let router = Router::new().route("/v1/check", get(constant));
        let service = |_| TowerToHyperService::new(router.clone());
        let (stats, ending) = (Arc::new(ServerStats::default()), Ending::default());
        serve(listener, workers.handles(), service, Limits::default(), stats, None, ending).await;
    });
}
