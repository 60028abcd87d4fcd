//! The promise: a flood of request ids, under one key or one rule, makes nobody else's retry charged twice.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::kit::{self, EndOnDrop, rules::PATIENCE};
use tidegate_jepsen::{cluster::Node, history::monotonic};

const RULES: &str = "rules:
  - { name: x, key: [x], limit: 1000000000/1s }
  - { name: account, key: [account], limit: 1000/1d }
";
/// Requests in one write.
const BATCH: u64 = 250;
/// As many as a node remembers, of all clients.
const REMEMBERED: f64 = 65_536.0;
/// How long this machine may take to send more than that within the two seconds for which ids are known.
const WITHIN_NANOS: u64 = 20_000_000_000;

/// Asks under a new id each time, until it is enough.
fn flood(address: SocketAddr, wanted: &AtomicBool, number: &AtomicU64) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut part, mark) = (vec![0; 1 << 18], b"\"decided_by\"");
    while wanted.load(Relaxed) {
        let first = number.fetch_add(BATCH, Relaxed);
        let ask = |id| format!("GET /v1/check?x=flood&request_id=f{id} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all((first..first + BATCH).map(ask).collect::<String>().as_bytes()).unwrap();
        let (mut got, mut answers) = (Vec::new(), 0);
        while answers < BATCH {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "the node has closed the connection");
            got.extend_from_slice(&part[..read]);
            answers = got.windows(mark.len()).filter(|window| window == mark).count() as u64;
        }
    }
}

/// How many of 50 requests that are asked twice are charged twice.
fn charged_twice(node: &Node, round: &str) -> usize {
    let mut client = node.client(Duration::from_secs(5));
    let mut ask = |key: usize, more: &str| {
        let path = format!("/v1/check?account={round}{key}{more}");
        client.get(&path).unwrap().json()["remaining"].as_u64().unwrap()
    };
    // Other requests come between the two.
    for _ in 0..2 {
        (0..50).for_each(|key| _ = ask(key, &format!("&request_id={round}{key}")));
    }
    (0..50).filter(|key| ask(*key, "&cost=0") != 999).count()
}

#[test]
fn a_flood_of_ids_under_one_key_makes_no_retry_of_others_charged_twice() {
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(1, RULES);
    let node = &cluster.nodes[0];
    assert_eq!(charged_twice(node, "before"), 0);
    let (wanted, number) = (AtomicBool::new(true), AtomicU64::new(0));
    let is_full = thread::scope(|scope| {
        let end = EndOnDrop(&wanted);
        for _ in 0..2 {
            scope.spawn(|| flood(node.http, &wanted, &number));
        }
        let deadline = monotonic() + WITHIN_NANOS;
        let forgotten = || node.metric("tidegate_requests_unremembered_total").unwrap_or(0.0);
        while forgotten() < REMEMBERED && monotonic() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        let is_full = forgotten() > 0.0;
        // One bucket in 32 of one rule in 16 shares the fate of the flooded one.
        let twice = charged_twice(node, "then");
        assert!(twice <= 3, "{twice} of 50, while {} ids came", number.load(Relaxed));
        drop(end);
        is_full
    });
    if !is_full {
        println!("NOT TESTED: this machine does not send ids as fast as a node forgets them");
    }
}
