//! Rate limit checks over gRPC, as Envoy asks them: decided where they arrive, and decided by another node, beside a tonic
//! service that answers a constant.
//!
//! `cargo bench --bench grpc` (five rounds of two seconds each), or `-- --rounds N --seconds N`.
//!
//! Servers run as processes of their own on one processor, the load generator runs on another: 32 connections with one
//! request at a time each, and one connection with 32 at a time, as Envoy does it. The cases take turns, so that a slow minute
//! of the machine hits all of them; medians are shown. What this does not show: several cores, clients on other machines.
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

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use prost::Message as _;
use tidegate_jepsen::{
    client::Client,
    cluster::{free_ports, wait_for},
};
use tidegate_proto::grpc::envoy::{
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse,
        rate_limit_response::{Code, DescriptorStatus, RateLimit},
        rate_limit_service_server::{RateLimitService, RateLimitServiceServer},
    },
};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for the process that is the baseline's server: where it listens.
const BASELINE: &str = "TIDEGATE_BENCH_BASELINE";
const IN_FLIGHT: usize = 32;
const KEYS: usize = 1_000;
const RULES: &str = "domain: web\nrules: [{name: per-user, key: [user], limit: 1000000/1s}]\n";

/// How the 32 requests at a time are spread.
#[derive(Debug, Clone, Copy)]
enum Connections {
    Each,
    One,
}

struct Case {
    name: &'static str,
    address: SocketAddr,
    requests: Arc<Vec<Bytes>>,
    connections: Connections,
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
    let (alone, first, second) = (free_ports(), free_ports(), free_ports());
    let alone_pid = children.node(&rules, alone, &[]);
    let first_pid = children.node(&rules, first, &[second]);
    let second_pid = children.node(&rules, second, &[first]);
    pin_to(for_load);

    for port in [alone, first, second] {
        wait_for("the nodes are ready", Duration::from_secs(30), || {
            Client::new(address(port), Duration::from_secs(1))
                .get("/readyz")
                .is_ok_and(|answer| answer.status == 200)
        });
    }
    wait_for("the baseline listens", Duration::from_secs(30), || {
        std::net::TcpStream::connect(address(baseline_port)).is_ok()
    });
    let users = |name: char| (0..KEYS).map(move |user| format!("{name}{user}"));
    let all = requests(users('u'));
    let grpc = |port: u16| port + 1;
    let mut cases = [
        Case::new("constant, 32 connections", baseline_port, &all, Connections::Each, &[baseline]),
        Case::new("check, decided locally", grpc(alone), &all, Connections::Each, &[alone_pid]),
        Case::new(
            "check, forwarded",
            grpc(first),
            &requests(forwarded(first)),
            Connections::Each,
            &[first_pid, second_pid],
        ),
        Case::new("constant, one connection", baseline_port, &all, Connections::One, &[baseline]),
        Case::new("check, one connection", grpc(alone), &all, Connections::One, &[alone_pid]),
    ];
    println!(
        "{rounds} rounds of {length:?} for each case, {IN_FLIGHT} requests at a time, servers on processor {for_servers}"
    );
    for _ in 0..rounds {
        for case in &mut cases {
            let measured = case.measure(length);
            case.results.push(measured);
        }
    }
    show(&cases[..3]);
    show(&cases[3..]);
    println!(
        "\nratio: to the constant answer, median of the rounds; CPU: user and system time of all servers of the case"
    );
}

impl Case {
    fn new(
        name: &'static str,
        port: u16,
        requests: &Arc<Vec<Bytes>>,
        connections: Connections,
        servers: &[u32],
    ) -> Self {
        Self {
            name,
            address: address(port),
            requests: Arc::clone(requests),
            connections,
            servers: servers.to_vec(),
            results: Vec::new(),
        }
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
        let until = Instant::now() + length;
        let one = match self.connections {
            Connections::Each => None,
            Connections::One => Some(connect(self.address).await),
        };
        let mut clients = Vec::new();
        for number in 0..IN_FLIGHT {
            let sender = match &one {
                Some(sender) => sender.clone(),
                None => connect(self.address).await,
            };
            clients.push(tokio::spawn(ask(sender, Arc::clone(&self.requests), number * 31, until)));
        }
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

type Sender = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends a request, reads its whole answer, and again.
async fn ask(mut sender: Sender, requests: Arc<Vec<Bytes>>, start: usize, until: Instant) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    let mut next = start;
    loop {
        let asked = Instant::now();
        if asked >= until {
            return histogram;
        }
        let body = requests[next % requests.len()].clone();
        next += 1;
        let request =
            Request::post("http://node/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(body))
                .unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        let trailers = answer.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
        let message = RateLimitResponse::decode(answer.to_bytes().slice(5..)).unwrap();
        assert_eq!(message.overall_code(), Code::Ok, "{message:?}");
        histogram.record(asked.elapsed().as_nanos() as u64).unwrap();
    }
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
}

/// One descriptor each, as a message of gRPC.
fn requests(users: impl Iterator<Item = String>) -> Arc<Vec<Bytes>> {
    let request = |user: String| {
        let entries = vec![Entry { key: "user".to_owned(), value: user }];
        let descriptor = RateLimitDescriptor { entries, ..Default::default() };
        let request =
            RateLimitRequest { domain: "web".to_owned(), descriptors: vec![descriptor], hits_addend: 0 };
        let message = request.encode_to_vec();
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        Bytes::from(framed)
    };
    Arc::new(users.map(request).collect())
}

/// Users whose buckets the node at `port` does not own.
fn forwarded(port: u16) -> impl Iterator<Item = String> {
    let mut client = Client::new(address(port), Duration::from_secs(1));
    (0..)
        .map(|user| format!("f{user}"))
        .filter(move |user| {
            let path = format!("/v1/check?domain=web&user={user}&cost=0");
            client.get(&path).unwrap().json()["decided_by"] == "forwarded"
        })
        .take(KEYS)
}

struct Constant;

#[tonic::async_trait]
impl RateLimitService for Constant {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        assert_eq!(request.get_ref().descriptors.len(), 1);
        let limit = RateLimit { name: "per-user".to_owned(), requests_per_unit: 1_000_000, unit: 1 };
        let status = DescriptorStatus {
            code: Code::Ok.into(),
            current_limit: Some(limit),
            limit_remaining: 999_999,
            duration_until_reset: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        };
        let code = Code::Ok.into();
        Ok(Response::new(RateLimitResponse {
            overall_code: code,
            statuses: vec![status],
            ..Default::default()
        }))
    }
}

fn serve_constant(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.unwrap();
        let service = TowerToHyperService::new(RateLimitServiceServer::new(Constant));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(served);
        }
    });
}
