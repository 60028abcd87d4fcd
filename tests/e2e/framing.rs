//! The promise: what a request says of its host and of its body is honoured or refused, and the short way of a check answers as
//! the long way does.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::kit;
use tidegate_jepsen::{client::Response, cluster::Cluster};

const PATIENCE: Duration = Duration::from_secs(10);

fn node() -> Cluster {
    kit::nodes(1, &kit::per_user("1000000/1s", 1_000_000, "share"))
}

fn send(cluster: &Cluster, request: &str) -> Response {
    cluster.nodes[0].client(PATIENCE).send(request.as_bytes()).unwrap()
}

const CHECK: &str = "{\"attributes\":{\"user\":\"a\"}}";

/// The lines of a head, and what they lead to.
const HEADS: &[(&[&str], u16)] = &[
    (&["Host: n"], 200),
    (&["host: n:7800"], 200),
    (&["Host: [::1]:7800"], 200),
    (&["Host:"], 200),
    (&[], 400),
    (&["Host: n", "Host: n"], 400),
    (&["Host: a", "host: b"], 400),
    (&["Host: a, b"], 400),
    (&["Host: a b"], 400),
    (&["Host: a/b"], 400),
    (&["Host: user@a"], 400),
    (&["Host: n", "Transfer-Encoding: gzip, chunked"], 501),
    (&["Host: n", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"], 501),
    (&["Host: n", "Transfer-Encoding: chunked, chunked"], 501),
    (&["Host: n", "Transfer-Encoding: gzip"], 501),
    (&["Host: n", "Transfer-Encoding: identity"], 501),
];

/// Those that matter where there is a body.
const BODIES: &[(&[&str], u16)] = &[
    (&["Host: n", "Content-Encoding: gzip"], 415),
    (&["Host: n", "content-encoding: br, identity"], 415),
    (&["Host: n", "Content-Encoding: identity", "Content-Encoding: zstd"], 415),
    (&["Host: n", "Content-Encoding: identity"], 200),
];

#[test]
fn the_head_is_examined_on_the_short_way_and_on_the_long_one() {
    let cluster = node();
    // The second header of each pair leads past the short way, and means nothing.
    for detour in ["X-Nothing: here", "Connection: close"] {
        for (lines, status) in HEADS {
            let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let coded = lines.contains("Transfer-Encoding");
            let get = format!("GET /v1/check?user=a HTTP/1.1\r\n{detour}\r\n{lines}\r\n");
            let length = if coded { String::new() } else { format!("content-length: {}\r\n", CHECK.len()) };
            let body =
                if coded { format!("{:x}\r\n{CHECK}\r\n0\r\n\r\n", CHECK.len()) } else { CHECK.to_owned() };
            let post = format!("POST /v1/check HTTP/1.1\r\n{detour}\r\n{length}{lines}\r\n{body}");
            let auth = format!("GET /v1/auth HTTP/1.1\r\n{detour}\r\n{lines}\r\n");
            let batch = post.replace("/v1/check", "/healthz").replace("POST", "GET");
            for request in [get, post, auth, batch] {
                let answer = send(&cluster, &request);
                assert_eq!(answer.status, *status, "{request}\n{}", answer.text());
                if *status != 200 {
                    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{request}");
                    assert_eq!(answer.header("connection"), Some("close"), "{request}");
                }
            }
        }
        for (lines, status) in BODIES {
            let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            for (path, body) in [
                ("/v1/check", CHECK),
                ("/v1/check/batch", "{\"checks\":[]}"),
                ("/v1/refund", CHECK),
                ("/v1/reset", CHECK),
            ] {
                let request = format!(
                    "POST {path} HTTP/1.1\r\n{detour}\r\n{lines}content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let answer = send(&cluster, &request);
                assert_eq!(answer.status, *status, "{request}\n{}", answer.text());
                assert_eq!(answer.header("accept-encoding"), (*status == 415).then_some("identity"));
            }
            // No body is read, so nothing about one counts; proxies pass on what their clients have said of theirs.
            for path in ["/v1/check?user=a", "/v1/auth"] {
                let request = format!("GET {path} HTTP/1.1\r\n{detour}\r\n{lines}\r\n");
                assert_eq!(send(&cluster, &request).status, 200, "{request}");
            }
        }
    }
    let old = "GET /v1/check?user=a HTTP/1.0\r\n\r\n";
    assert_eq!(send(&cluster, old).status, 200, "HTTP/1.0 knows no Host");
}

#[test]
fn who_waits_to_send_too_much_is_told_before() {
    let cluster = node();
    for (path, max) in [("/v1/check", 64 << 10), ("/v1/check/batch", 1 << 20), ("/v1/reset", 64 << 10)] {
        for (length, first) in [(max + 1, "HTTP/1.1 413"), (CHECK.len(), "HTTP/1.1 100")] {
            let mut stream = TcpStream::connect(cluster.nodes[0].http).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: n\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), first, "{path} {length}");
        }
    }
}
