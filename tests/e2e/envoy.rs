//! The promise: a real Envoy asks Tidegate with the configuration of docs/envoy.md, and limits as the rules say.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::kit::{
    self,
    page::{block, with},
    rules::{PATIENCE, SOON},
};
use tempfile::TempDir;
use tidegate_jepsen::{
    client::{Client, Response},
    cluster::{Cluster, wait_for},
};

/// A real Envoy, if there is one.
pub(super) fn binary() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/envoy/venv/bin/envoy");
    if path.exists() {
        return Some(path);
    }
    eprintln!("NOT TESTED: there is no Envoy in target/tools (bash .ci/tools-envoy)");
    None
}

pub(super) struct Envoy {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
    _files: TempDir,
}

impl Envoy {
    /// Starts it with the configuration of the page, at other ports, and with other changes.
    pub(super) fn start(binary: &Path, node: SocketAddr, app: SocketAddr, changes: &[(&str, &str)]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let ports = [("10000", port), ("8000", app.port()), ("7801", node.port())];
        let ports = ports.map(|(from, to)| (format!("port_value: {from} "), format!("port_value: {to} ")));
        // Answers are counted one by one here, on a machine that may be busy.
        let patience = [("timeout: 0.15s", "timeout: 2s")];
        let ports = ports.iter().map(|(from, to)| (&**from, &**to));
        let changes: Vec<(&str, &str)> = ports.chain(patience).chain(changes.iter().copied()).collect();
        let config = files.path().join("envoy.yaml");
        fs::write(&config, with(&block("docs/envoy.md", "yaml envoy"), &changes)).unwrap();
        let log = files.path().join("envoy.log");
        let process = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--log-path"])
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(fs::File::create(files.path().join("envoy.err")).unwrap()))
            .spawn()
            .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let envoy = Self { process, address, log, _files: files };
        wait_for("Envoy listens", SOON, || TcpStream::connect(address).is_ok());
        envoy
    }

    fn get(&self, path: &str) -> Response {
        self.get_with(path, &[])
    }

    fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        Client::new(self.address, PATIENCE).request("GET", path, headers, "").unwrap_or_else(|error| {
            panic!("{path}: {error}; {}", fs::read_to_string(&self.log).unwrap_or_default())
        })
    }

    /// How many of so many requests pass, all of them before the first that does not.
    pub(super) fn passing(&self, path: &str, headers: &[(&str, &str)], requests: usize) -> usize {
        let statuses: Vec<u16> = (0..requests).map(|_| self.get_with(path, headers).status).collect();
        let passed = statuses.iter().take_while(|status| **status == 200).count();
        assert!(statuses[passed..].iter().all(|status| *status == 429), "{path}: {statuses:?}");
        passed
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An application that says yes to everything. It lives as long as the test.
pub(super) fn application() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(&stream));
        }
    });
    address
}

fn answer(mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(line)) = lines.next() {
        let end_of_head = line.is_empty();
        if end_of_head && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes").is_err() {
            return;
        }
    }
}

fn nodes(count: usize, flags: &[&str]) -> Cluster {
    let mut settings = kit::patient(&block("docs/envoy.md", "yaml rules"));
    settings.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Cluster::start(count, settings)
}

/// Envoy finds the service healthy only after its first look.
pub(super) fn await_limits(envoy: &Envoy) {
    wait_for("Envoy asks", SOON, || envoy.get("/first").header("x-ratelimit-limit").is_some());
}

#[test]
fn envoy_limits_as_the_page_says() {
    let Some(binary) = binary() else { return };
    let cluster = nodes(2, &["--envoy-headers", "ratelimit"]);
    let envoy = Envoy::start(&binary, cluster.nodes[0].grpc, application(), &[]);
    await_limits(&envoy);

    let first = envoy.get("/anything");
    assert_eq!(first.status, 200);
    assert_eq!(first.text(), "yes");
    assert_eq!(first.header("x-ratelimit-limit"), Some("20, 20;w=3600;name=\"per-address\""));
    let remaining: u64 = first.header("x-ratelimit-remaining").unwrap().parse().unwrap();
    assert!((15..20).contains(&remaining), "{remaining}");
    let reset: u64 = first.header("x-ratelimit-reset").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&reset), "{reset}");
    // From --envoy-headers, beside what Envoy makes itself.
    assert_eq!(first.header("ratelimit-policy"), Some("\"per-address\";q=20;w=3600"));
    assert!(first.header("ratelimit").unwrap().starts_with(&format!("\"per-address\";r={remaining};t=")));
    assert_eq!(first.header("retry-after"), None);

    assert_eq!(envoy.passing("/login", &[], 5), 3);
    let denied = envoy.get("/login");
    assert_eq!(denied.status, 429);
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
    assert!(denied.header("x-ratelimit-limit").unwrap().contains("3;w=3600;name=\"login\""));
    assert!(denied.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1_000);
    assert_eq!(denied.header("x-envoy-ratelimited"), Some("true"));

    // A descriptor that is over its limit does not give back what another one took: 6 went to /login.
    assert_eq!(envoy.passing("/", &[], 20), usize::try_from(remaining).unwrap() - 6);

    // Five each of ten, though the address has nothing left for other requests: other rules, other descriptors.
    assert_eq!(envoy.passing("/report", &[], 4), 2);

    // A limit of the configuration of Envoy, for each value of the descriptor.
    assert_eq!(envoy.passing("/tenant", &[("x-tenant", "acme")], 4), 2);
    let other = envoy.get_with("/tenant", &[("x-tenant", "zeta")]);
    assert_eq!(other.status, 200);
    assert_eq!(other.header("x-ratelimit-limit"), Some("2, 2;w=86400"));
    assert_eq!(other.header("x-ratelimit-remaining"), Some("1"));
    let body =
        r#"{"domain": "web", "key": "tenant=zeta", "limit": "2/1d", "algorithm": "fixed_window", "cost": 0}"#;
    let over_http = cluster.nodes[1].client(PATIENCE).post("/v1/check", body).unwrap().json();
    assert_eq!(over_http["remaining"], 1, "it is the same bucket: {over_http}");
}

#[test]
fn without_an_answer_the_failure_mode_decides() {
    let Some(binary) = binary() else { return };
    let mut cluster = nodes(1, &[]);
    let (node, app) = (cluster.nodes[0].grpc, application());
    let lenient = Envoy::start(&binary, node, app, &[]);
    let strict = Envoy::start(&binary, node, app, &[("failure_mode_deny: false", "failure_mode_deny: true")]);
    for envoy in [&lenient, &strict] {
        await_limits(envoy);
        assert_eq!(envoy.get("/").status, 200);
        assert_eq!(envoy.get("/").header("ratelimit"), None, "nobody asked for it");
    }
    cluster.kill("n1");
    assert_eq!(lenient.get("/").status, 200);
    assert_eq!(strict.get("/").status, 500);
    let deadline = Duration::from_secs(5);
    let start = tidegate_jepsen::history::monotonic();
    let _ = lenient.get("/");
    assert!(tidegate_jepsen::history::monotonic() - start < deadline.as_nanos() as u64, "nothing hangs");
}
