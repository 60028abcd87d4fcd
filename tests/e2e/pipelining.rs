//! The promise: whatever comes behind a request on its connection, its answer arrives; and a client that asks without reading
//! waits, and does not fill the memory.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{cluster::Cluster, history::monotonic};

const PATIENCE: Duration = Duration::from_secs(20);

fn node() -> Cluster {
    kit::nodes(1, &kit::per_user("1/1h", 80_000, "deny"))
}

fn connect(cluster: &Cluster) -> TcpStream {
    let stream = TcpStream::connect(cluster.nodes[0].http).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn check(user: &str) -> String {
    format!("GET /v1/check?user={user} HTTP/1.1\r\nhost: n\r\n\r\n")
}

/// The status of each answer that comes until the node closes the connection.
fn statuses(cluster: &Cluster, bytes: &str) -> Vec<String> {
    let mut stream = connect(cluster);
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    let answers = String::from_utf8_lossy(&answers);
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
}

#[test]
fn an_answer_is_not_lost_for_what_comes_behind_its_request() {
    let cluster = node();
    let last =
        |user: &str| format!("GET /v1/check?user={user} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n");
    assert_eq!(statuses(&cluster, &(last("a") + "\r\n")), ["200"]);
    assert_eq!(statuses(&cluster, &(last("a") + &check("b"))), ["200"]);
    assert_eq!(statuses(&cluster, &(check("a") + &check("b") + "nonsense\r\n\r\n")), ["200", "200", "400"]);
    let chunked = "POST /v1/cluster HTTP/1.1\r\nhost: n\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(statuses(&cluster, chunked), ["405"]);
}

#[test]
fn a_line_too_many_does_not_hold_an_answer_back() {
    let cluster = node();
    let mut stream = connect(&cluster);
    let body = r#"{"attributes": {"user": "a"}}"#;
    let request =
        format!("POST /v1/check HTTP/1.1\r\nhost: n\r\ncontent-length: {}\r\n\r\n{body}\r\n", body.len());
    let start = monotonic();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert!(monotonic() - start < 3_000_000_000);
}

#[test]
fn a_pipeline_that_nobody_reads_is_not_answered_into_memory() {
    let cluster = node();
    let node = &cluster.nodes[0];
    let mut stream = connect(&cluster);
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let before = node.resident_bytes().unwrap();
    // Each piece ends in the middle of a request.
    let block = check("a").repeat(1_000);
    let (begin, rest) = block.split_at(7);
    stream.write_all(begin.as_bytes()).unwrap();
    let piece = format!("{rest}{begin}");
    let (start, mut most) = (monotonic(), before);
    while monotonic() - start < 25_000_000_000 {
        let written = stream.write_all(piece.as_bytes());
        most = most.max(node.resident_bytes().unwrap());
        match written {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
            Ok(()) => {}
        }
    }
    assert!(monotonic() - start < 24_000_000_000, "a client that takes nothing is given up");
    assert!(most < before + (32 << 20), "{before} bytes before, {most} at the most");
}
