//! The promise: connections are counted, capped and cheap, and those that do nothing disturb nobody.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::kit;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_jepsen::{
    cluster::{Cluster, Node, wait_for},
    history::monotonic,
    load::path_of,
};

const PATIENCE: Duration = Duration::from_secs(30);
const IDLE: u64 = 10_000;
/// What an idle connection may cost at most: hyper's first read buffer is 8 KiB.
const BYTES_EACH: u64 = 32 << 10;

fn node(max_connections: u64) -> Cluster {
    let mut settings = kit::settings(&kit::per_user("1000000/1s", 1_000_000, "share"));
    settings.flags = vec!["--max-connections".to_owned(), max_connections.to_string()];
    Cluster::start(1, settings)
}

fn open_connections(node: &Node) -> u64 {
    node.metric("tidegate_http_connections").unwrap_or_default() as u64
}

/// As many files as the system gives this process, and how many those are.
pub(super) fn raise_open_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_disturb_no_check() {
    let _machine = kit::alone();
    let idle = IDLE.min(raise_open_file_limit().saturating_sub(500));
    let cluster = node(IDLE + 100);
    let node = &cluster.nodes[0];
    let before = node.resident_bytes().unwrap();
    let connections: Vec<TcpStream> = (0..idle)
        .map(|number| {
            let mut connection = TcpStream::connect(node.http).unwrap();
            if number % 2 == 0 {
                // Half of them stand in the middle of a kept-alive connection.
                connection.set_read_timeout(Some(PATIENCE)).unwrap();
                write!(connection, "GET {} HTTP/1.1\r\nhost: n\r\n\r\n", path_of(1)).unwrap();
                let mut answer = [0; 1024];
                assert!(connection.read(&mut answer).unwrap() > 0);
            }
            connection
        })
        .collect();
    wait_for("all connections are open", PATIENCE, || open_connections(node) >= idle);
    let bytes_each = node.resident_bytes().unwrap().saturating_sub(before) / idle;
    assert!(bytes_each < BYTES_EACH, "{bytes_each} bytes for each of {idle} connections");

    let mut client = node.client(PATIENCE);
    for key in 0..500 {
        let asked = monotonic();
        assert_eq!(client.get(&path_of(key)).unwrap().status, 200);
        let waited = Duration::from_nanos(monotonic() - asked);
        assert!(waited < kit::CHECK_TIMEOUT + kit::SCHEDULING_SLACK, "a check took {waited:?}");
    }
    drop(connections);
    wait_for("closed connections are let go", PATIENCE, || open_connections(node) <= 2);
}

#[test]
fn a_connection_above_the_cap_is_told_so_and_has_a_place_when_another_one_ends() {
    let cluster = node(20);
    let node = &cluster.nodes[0];
    // Those that started the cluster may still be closing.
    wait_for("nobody else is there", PATIENCE, || open_connections(node) == 1);
    let mut connections: Vec<_> = (0..20).map(|_| node.client(PATIENCE)).collect();
    for client in &mut connections {
        assert_eq!(client.get("/healthz").unwrap().status, 200);
    }
    let refused = node.client(PATIENCE).get("/healthz").unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("connections"), "{}", refused.text());
    assert_eq!(connections[0].get(&path_of(1)).unwrap().status, 200, "those that are there stay");

    connections.pop();
    wait_for("there is a place again", PATIENCE, || {
        node.client(PATIENCE).get("/healthz").is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn who_fills_the_other_ports_leaves_places_for_http_and_one_client_has_its_part() {
    let cluster = node(40);
    let node = &cluster.nodes[0];
    wait_for("nobody else is there", PATIENCE, || open_connections(node) == 1);
    let idle: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(node.resp).unwrap()).collect();
    wait_for("the rest is refused", PATIENCE, || {
        node.metric("tidegate_resp_connections_refused_total").is_some_and(|refused| refused >= 20.0)
    });
    for path in ["/healthz", "/readyz", &path_of(1)] {
        assert_eq!(node.client(PATIENCE).get(path).unwrap().status, 200);
    }
    drop(idle);

    let mut settings = kit::settings(&kit::per_user("1000000/1s", 1_000_000, "share"));
    settings.flags = ["--max-connections-per-client", "10"].map(str::to_owned).to_vec();
    let cluster = Cluster::start(1, settings);
    let node = &cluster.nodes[0];
    wait_for("nobody else is there", PATIENCE, || open_connections(node) == 1);
    let mut kept: Vec<_> = (0..10).map(|_| node.client(PATIENCE)).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/healthz").unwrap().status, 200));
    assert_eq!(node.client(PATIENCE).get("/healthz").unwrap().status, 503);
    let refused = kept[0].get("/metrics").unwrap().text();
    assert!(refused.contains("\ntidegate_http_connections_refused_of_clients_total 1\n"), "{refused}");
}
