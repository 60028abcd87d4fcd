//! The promise: a planned stop costs no client a request that keeps its connection, follows its protocol, and asks another node when it is
//! told to: over HTTP, the Redis protocol and gRPC.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::{grpc, kit};
use tidegate_jepsen::{
    cluster::{Cluster, wait_for},
    history::monotonic,
};

const PATIENCE: Duration = Duration::from_secs(20);
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);

/// What a connection is after an answer.
enum After {
    Kept,
    /// The server has said that it was the last one.
    Last,
}

/// Asks once on a connection, which may be a new one, and reads the answer.
type Ask = fn(&mut TcpStream, bool) -> io::Result<After>;

fn over_http(stream: &mut TcpStream, _is_new: bool) -> io::Result<After> {
    let body = r#"{"attributes":{"user":"ada"}}"#;
    let head = format!(
        "POST /v1/check HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut answer = Vec::new();
    loop {
        read_some(stream, &mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        if body.contains("leav") || body.contains("left") {
            return Err(io::Error::other(text.into_owned()));
        }
        // A node that has just started may not be ready: who follows it asks another one then, and has lost nothing.
        let is_last = head.contains("connection: close") || head.starts_with("http/1.1 503");
        return Ok(if is_last { After::Last } else { After::Kept });
    }
}

fn over_resp(stream: &mut TcpStream, is_new: bool) -> io::Result<After> {
    if is_new {
        // As libraries do when they connect, and from a pool.
        stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
        let mut pong = Vec::new();
        read_some(stream, &mut pong)?;
        assert_eq!(pong, b"+PONG\r\n");
    }
    stream.write_all(
        b"*5\r\n$11\r\nCL.THROTTLE\r\n$3\r\nada\r\n$6\r\n100000\r\n$6\r\n100000\r\n$2\r\n60\r\n",
    )?;
    let mut answer = Vec::new();
    loop {
        read_some(stream, &mut answer)?;
        if answer.starts_with(b"-") {
            let text = String::from_utf8_lossy(&answer);
            let leaves = text.contains("leav") || text.contains("left");
            return if leaves { Err(io::Error::other(text.into_owned())) } else { Ok(After::Last) };
        }
        // A head and five numbers.
        if answer.split(|byte| *byte == b'\n').count() == 7 {
            return Ok(After::Kept);
        }
    }
}

fn read_some(stream: &mut TcpStream, to: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            to.extend_from_slice(&bytes[..read]);
            Ok(())
        }
    }
}

/// Whether the server has closed a connection on which nothing is being asked.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Asks until it is over, always on one connection as long as that lives. Counts what was answered; returns what was lost.
fn client(
    nodes: &[SocketAddr],
    first: usize,
    ask: Ask,
    over: &AtomicBool,
    answered: &AtomicUsize,
) -> Vec<String> {
    let (mut lost, mut at, mut kept) = (Vec::new(), first, None::<TcpStream>);
    while !over.load(Relaxed) {
        let (mut stream, is_new) = match kept.take().filter(|stream| !is_closed(stream)) {
            Some(stream) => (stream, false),
            None => match TcpStream::connect_timeout(&nodes[at % nodes.len()], Duration::from_secs(2)) {
                Ok(stream) => (stream, true),
                Err(_) => {
                    at += 1;
                    continue;
                }
            },
        };
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        match ask(&mut stream, is_new) {
            Ok(After::Kept) => kept = Some(stream),
            Ok(After::Last) => at += 1,
            Err(error) => {
                lost.push(format!("{}: {error}", nodes[at % nodes.len()]));
                at += 1;
                continue;
            }
        }
        answered.fetch_add(1, Relaxed);
        thread::sleep(PAUSE);
    }
    lost
}

#[test]
fn no_request_is_lost_when_nodes_are_restarted_by_plan() {
    let _machine = kit::alone();
    let rules = "rules:\n  - { name: user, key: [user], limit: 1000000/1m }\n";
    let settings = tidegate_jepsen::cluster::Settings { keeps_data: true, ..kit::patient(rules) };
    let mut cluster = Cluster::start(3, settings);
    let http: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.http).collect();
    let resp: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.resp).collect();
    let over_grpc = grpc::python().map(|python| {
        let made = grpc::made_of_definitions(&python);
        let process = Command::new(python)
            .arg(grpc::root().join("tests/python/ask_through_stops.py"))
            .arg(made.path())
            .args(cluster.nodes.iter().map(|node| node.grpc.port().to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        (made, process)
    });
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lost: Vec<String> = thread::scope(|scope| {
        let over = &over;
        let mut clients = Vec::new();
        for (nodes, ask) in [(&http, over_http as Ask), (&resp, over_resp)] {
            for first in 0..CLIENTS {
                let answered = &answered;
                clients.push(scope.spawn(move || client(nodes, first, ask, over, answered)));
            }
        }
        thread::sleep(Duration::from_secs(1));
        for name in ["n1", "n2", "n3", "n1"] {
            assert_eq!(cluster.terminate(name), Some(0));
            cluster.restart(name);
            cluster.await_ready();
            thread::sleep(Duration::from_millis(300));
        }
        over.store(true, Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(answered.load(Relaxed) > 1_000, "{answered:?}");
    assert!(lost.is_empty(), "{} of {answered:?} are lost: {lost:?}", lost.len());
    if let Some((_made, mut process)) = over_grpc {
        drop(process.stdin.take());
        let output = process.wait_with_output().unwrap();
        let told =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(" answered, 0 lost"), "{told}");
    }
}

#[test]
fn readiness_falls_at_the_signal_and_the_node_answers_for_as_long_as_it_was_told() {
    let _machine = kit::alone();
    let mut settings = kit::patient(&kit::per_user("1000/1s", 1000, "deny"));
    settings.flags.extend(["--stop-delay", "2s"].map(str::to_owned));
    let mut cluster = Cluster::start(2, settings);
    let asked = monotonic();
    cluster.ask_to_stop("n1");
    let node = cluster.node("n1");
    let readyz = || node.client(PATIENCE).get("/readyz").unwrap();
    wait_for("it is not ready", Duration::from_secs(1), || readyz().status == 503);
    assert!(readyz().text().contains("stops"), "{}", readyz().text());
    while since(asked) < Duration::from_millis(1_900) {
        // New connections are taken, and told that they are not kept.
        let answer = node.client(PATIENCE).get("/v1/check?user=ada").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(cluster.await_exit("n1"), Some(0));
    let after = since(asked);
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&after), "{after:?}");
}

fn since(begun: u64) -> Duration {
    Duration::from_nanos(monotonic() - begun)
}
