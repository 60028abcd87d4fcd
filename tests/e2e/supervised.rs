//! The promise: what starts a node, signals it and reads its log cannot break it by chance.

use std::{
    fs::{self, File},
    io::{PipeReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tidegate_jepsen::{
    client::Client,
    cluster::{Cluster, free_ports, signal, wait_for},
};
use tokio::time::Instant;

use crate::kit;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node that is alone, started as a manager of processes would.
struct Supervised {
    process: Killed,
    base: u16,
    log: PathBuf,
    place: TempDir,
}

impl Supervised {
    fn start(arguments: &[&str], environment: &[(&str, &str)], config: Option<&str>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let stderr = File::create(&log).unwrap();
        let base = free_ports();
        let mut command = command(base, arguments, environment);
        if let Some(text) = config {
            fs::write(place.path().join("tidegate.toml"), text).unwrap();
            command.arg("--config").arg(place.path().join("tidegate.toml"));
        }
        let process = Killed(command.stderr(stderr).spawn().unwrap());
        let node = Self { process, base, log, place };
        wait_for("the node is ready", PATIENCE, || {
            node.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        node
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.base, path)
    }

    fn says(&self, text: &str) -> bool {
        fs::read_to_string(&self.log).unwrap().contains(text)
    }

    fn signal(&self, which: Signal) {
        signal(self.process.0.id(), which);
    }
}

fn command(base: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(kit::binary());
    command.args(["serve", "--name", "n1", "--base-port", &base.to_string()]).args(arguments);
    command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn get(base: u16, path: &str) -> Option<(u16, String)> {
    let mut client = Client::new(std::net::SocketAddr::from(([127, 0, 0, 1], base)), Duration::from_secs(2));
    let response = client.get(path).ok()?;
    Some((response.status, response.text()))
}

/// The value of a number without labels.
fn metric(base: u16, name: &str) -> Option<f64> {
    let (_, page) = get(base, "/metrics")?;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// A process that is killed when nobody needs it any more.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_whose_log_nobody_reads_answers_counts_what_it_drops_and_ends_when_it_is_told() {
    let (unread, stderr) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&stderr, 4096).unwrap();
    let base = free_ports();
    // A library that says much, for each connection: here of gRPC.
    let mut command = command(base, &["--log-level", "trace"], &[]);
    let mut node = Killed(command.stdout(stderr.try_clone().unwrap()).stderr(stderr).spawn().unwrap());
    drop(command);
    wait_for("lines are dropped", Duration::from_secs(60), || {
        for _ in 0..50 {
            if let Ok(mut grpc) = TcpStream::connect(("127.0.0.1", base + 1)) {
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                let _ = grpc.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings[..]].concat());
                let _ = grpc.read(&mut [0; 64]);
            }
        }
        metric(base, "tidegate_log_lines_dropped_total").is_some_and(|dropped| dropped > 100.0)
    });
    wait_for("the node is ready", PATIENCE, || get(base, "/readyz").is_some_and(|(status, _)| status == 200));
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(get(base, "/v1/check?ip=192.0.2.1").map(|(status, _)| status), Some(200));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    signal(node.0.id(), Signal::TERM);
    let mut ended = None;
    wait_for("the node has ended", PATIENCE, || {
        ended = node.0.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
    drop(unread);
}

/// What comes out of it until nobody writes any more.
fn read_all(mut from: PipeReader) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn the_last_lines_of_a_node_that_ends_are_written() {
    let (stderr, writes) = std::io::pipe().unwrap();
    let base = free_ports();
    let mut command = command(base, &[], &[]);
    let mut node = Killed(command.stderr(writes).spawn().unwrap());
    // It keeps the end of the pipe to which the node writes.
    drop(command);
    let text = read_all(stderr);
    wait_for("the node is ready", PATIENCE, || get(base, "/readyz").is_some_and(|(status, _)| status == 200));
    signal(node.0.id(), Signal::TERM);
    assert!(node.0.wait().unwrap().success());
    let text = text.join().unwrap();
    assert!(text.trim_end().ends_with("stopped"), "{text}");
}

#[test]
fn signals_that_mean_nothing_end_no_node_and_sighup_reads_the_level_of_the_log_again() {
    let node = Supervised::start(&[], &[], Some("log-level = \"warn\"\n"));
    assert!(!node.says("listening"));
    node.signal(Signal::USR1);
    node.signal(Signal::USR2);
    node.signal(Signal::HUP);
    assert_eq!(node.get("/healthz").map(|(status, _)| status), Some(200));
    let config = |text: &str| fs::write(node.place.path().join("tidegate.toml"), text).unwrap();
    config("log-level = \"info\"\n");
    wait_for("the level is read again", PATIENCE, || {
        node.signal(Signal::HUP);
        node.says("the level of the log is read again")
    });
    node.signal(Signal::USR1);
    wait_for("what means nothing is said", PATIENCE, || node.says("SIGUSR1: it means nothing here"));
    for (wrong, says) in [("log-level = \"loud\"\n", "is no log level"), ("log-level", "cannot be used")] {
        config(wrong);
        wait_for("the fault is said", PATIENCE, || {
            node.signal(Signal::HUP);
            node.says(says)
        });
    }
    assert_eq!(node.get("/readyz").map(|(status, _)| status), Some(200));
}

#[test]
fn empty_variables_are_none_and_mistyped_ones_are_named() {
    let empty = [
        "JOIN",
        "ZONE",
        "ADVERTISE",
        "WEIGHT",
        "BOOTSTRAP_EXPECT",
        "TRUSTED_PROXIES",
        "LOG_LEVEL",
        "DATA_DIR",
    ]
    .map(|name| format!("TIDEGATE_{name}"));
    let mut environment: Vec<(&str, &str)> = empty.iter().map(|name| (&**name, "")).collect();
    environment.extend([
        ("TIDEGATE_BOOTSTRAP_EXEPCT", "3"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_MAX_MEMORY", "64Mi"),
    ]);
    let node = Supervised::start(&[], &environment, None);
    assert!(node.says("TIDEGATE_BOOTSTRAP_EXEPCT") && node.says("TIDEGATE_BOOTSTRAP_EXPECT"));
    assert!(!node.says("TIDEGATE_SERVICE_HOST"));
}

#[test]
fn what_keeps_a_node_from_being_ready_and_from_having_a_leader_is_in_its_log_when_it_lasts() {
    let (base, nobody) = (free_ports(), free_ports() + 3);
    let join = format!("127.0.0.1:{nobody}");
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let stderr = File::create(&log).unwrap();
    let _joiner = Killed(command(base, &["--join", &join], &[]).stderr(stderr).spawn().unwrap());
    let mut cluster = Cluster::start(3, kit::rules::keeping());
    kit::rules::await_voters(&cluster, 3);
    cluster.kill("n2");
    cluster.kill("n3");
    wait_for("n1 says that it has no session, and who is missing", Duration::from_secs(40), || {
        let text = cluster.node("n1").log();
        text.contains("this node has no session with a leader") && text.contains("missing=\"n2, n3\"")
    });
    cluster.restart("n2");
    wait_for("n1 says that it has one again", Duration::from_secs(40), || {
        cluster.node("n1").log().contains("this node has a session with a leader again")
    });
    wait_for("a node that finds nobody says so", PATIENCE, || {
        fs::read_to_string(&log).unwrap().contains("this node is not ready")
    });
}

#[test]
fn few_open_files_are_said_at_the_start() {
    let base = free_ports();
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let stderr = File::create(&log).unwrap();
    let serve = format!(
        "ulimit -n 200; exec {} serve --name n1 --base-port {base} --workers 2",
        kit::binary().display()
    );
    let process = Command::new("sh").args(["-c", &serve]).stderr(stderr).stdin(Stdio::null()).spawn();
    let _node = Killed(process.unwrap());
    wait_for("it says so", PATIENCE, || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("few files may be open")
            && text.contains("open_files=200")
            && text.contains("connections=72")
    });
}

#[test]
fn a_level_of_the_log_that_is_none_is_refused() {
    for level in ["verbose", "tidegate_cluster"] {
        let output = command(free_ports(), &["--log-level", level], &[]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("is no log level"), "{text}");
    }
}

#[test]
fn a_second_sigterm_ends_a_node_at_once() {
    let mut node = Supervised::start(&["--stop-delay", "30s"], &[], None);
    node.signal(Signal::TERM);
    wait_for("it stops", PATIENCE, || node.says("stopping"));
    assert_eq!(node.get("/healthz").map(|(status, _)| status), Some(200), "it goes on as before");
    node.signal(Signal::TERM);
    // Far less than the delay, also on a busy machine.
    let mut ended = None;
    wait_for("it has ended", Duration::from_secs(10), || {
        ended = node.process.0.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
    assert!(node.says("stopping at once: asked again"));
}

#[test]
fn with_log_format_json_each_line_is_an_object_with_a_level() {
    let mut node = Supervised::start(&["--log-format", "json"], &[], None);
    node.signal(Signal::TERM);
    assert!(node.process.0.wait().unwrap().success());
    let text = fs::read_to_string(&node.log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["level"].is_string()), "{text}");
    let says = |word: &str| lines.iter().any(|line| line["message"] == word);
    assert!(says("listening") && says("stopped"), "{text}");
}
