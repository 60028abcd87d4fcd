//! The promise: whoever tries, reads or sends large rules, or large bodies that do not come, takes neither the threads that answer
//! checks nor memory without a bound, and keeps no node from stopping.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use tidegate_jepsen::{client::Response, cluster::Cluster};

use crate::kit;

const PATIENCE: Duration = Duration::from_secs(60);

fn node() -> Cluster {
    kit::nodes(1, &kit::per_user("1000000/1s", 1_000_000, "share"))
}

fn put(cluster: &Cluster, path: &str, rules: &str) -> Response {
    let request = format!("PUT {path} HTTP/1.1\r\nHost: n\r\nContent-Length: {}\r\n\r\n{rules}", rules.len());
    cluster.nodes[0].client(PATIENCE).send(request.as_bytes()).unwrap()
}

fn many_rules(count: usize) -> String {
    let rule = |n| format!("  - {{ name: r{n}, when: {{ path: /p{n} }}, key: [user], limit: 10/1s }}\n");
    format!("rules:\n{}", (0..count).map(rule).collect::<String>())
}

#[test]
fn dry_runs_and_reads_of_large_rules_take_turns_while_checks_go_on() {
    let mut cluster = node();
    let rules = many_rules(20_000);
    assert_eq!(put(&cluster, "/v1/rules/large", &rules).status, 200);
    let (busy, goes_on, checks) = (AtomicUsize::new(0), AtomicBool::new(true), AtomicUsize::new(0));
    thread::scope(|scope| {
        let end = kit::EndOnDrop(&goes_on);
        let checking = scope.spawn(|| {
            let mut client = cluster.nodes[0].client(Duration::from_secs(5));
            while goes_on.load(SeqCst) {
                assert_eq!(client.get("/v1/check?user=honest").unwrap().status, 200);
                checks.fetch_add(1, SeqCst);
            }
        });
        let asking: Vec<_> = (0..40)
            .map(|n| {
                let (cluster, rules, busy) = (&cluster, &rules, &busy);
                scope.spawn(move || {
                    let response = match n % 2 {
                        0 => put(cluster, &format!("/v1/rules/d{n}?dry_run=true"), rules),
                        _ => cluster.nodes[0].client(PATIENCE).get("/v1/rules/large").unwrap(),
                    };
                    if response.status == 503 {
                        assert!(response.text().contains(":busy"), "{}", response.text());
                        assert!(response.header("retry-after").is_some());
                        busy.fetch_add(1, SeqCst);
                    } else {
                        assert_eq!(response.status, 200, "{}", response.text());
                    }
                })
            })
            .collect();
        asking.into_iter().for_each(|one| one.join().unwrap());
        drop(end);
        checking.join().unwrap();
    });
    let busy = busy.load(SeqCst);
    assert!((1..40).contains(&busy), "{busy} of 40: one has its turn, 12 wait");
    assert!(checks.load(SeqCst) > 100);
    // What has begun is not waited for when the node stops.
    let name = cluster.nodes[0].name.clone();
    thread::scope(|scope| {
        for n in 0..4 {
            let request = format!(
                "PUT /v1/rules/s{n}?dry_run=true HTTP/1.1\r\nHost: n\r\nContent-Length: {}\r\n\r\n{rules}",
                rules.len()
            );
            let mut stream = TcpStream::connect(cluster.nodes[0].http).unwrap();
            scope.spawn(move || stream.write_all(request.as_bytes()));
        }
    });
    assert_eq!(cluster.terminate(&name), Some(0));
}

#[test]
fn bodies_that_do_not_come_take_no_more_room_than_there_is() {
    let cluster = node();
    let body = "x".repeat(900 << 10);
    let head = "POST /v1/check/batch HTTP/1.1\r\nHost: n\r\nContent-Length: 1000000\r\n\r\n";
    // 88 MB, of which one client has 6 MiB.
    let mut stalled: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(cluster.nodes[0].http).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // Those without room are answered before all of it is there.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            stream
        })
        .collect();
    let mut client = cluster.nodes[0].client(PATIENCE);
    assert_eq!(client.get("/v1/check?user=honest").unwrap().status, 200);
    // Who may change rules, and who sends all at once, has room.
    assert_eq!(put(&cluster, "/v1/rules/other", &many_rules(2_000)).status, 200);
    let batch = r#"{"checks": [{"attributes": {"user": "a"}}]}"#;
    assert_eq!(client.post("/v1/check/batch", batch).unwrap().status, 200);
    let first_lines = stalled.iter_mut().map(|stream| {
        let mut first = [0; 12];
        stream.read_exact(&mut first).map(|()| String::from_utf8_lossy(&first).into_owned())
    });
    let first_lines: Vec<String> = first_lines.flatten().collect();
    assert!(first_lines.iter().any(|line| line.ends_with("503")), "{first_lines:?}");
    assert!(first_lines.iter().any(|line| line.ends_with("408")), "{first_lines:?}");
    // The room is there again.
    let many = format!(r#"{{"checks": [{}]}}"#, [r#"{"attributes": {"user": "a"}}"#; 1_000].join(", "));
    assert_eq!(client.post("/v1/check/batch", &many).unwrap().status, 200);
}
