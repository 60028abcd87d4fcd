//! The promise: gRPC clients in another language get along, made of our definitions or by reflection; and whoever floods the
//! port takes no more than the page says.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::kit::{
    self,
    page::{block, with},
    rules::PATIENCE,
};
use tidegate_jepsen::{cluster::Cluster, history::monotonic};

const DEFINITIONS: [&str; 5] = [
    "envoy/service/ratelimit/v3/rls.proto",
    "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
    "envoy/type/v3/ratelimit_unit.proto",
    "envoy/config/core/v3/base.proto",
    "gubernator/gubernator.proto",
];

/// Python with grpcio, if it is there.
pub(super) fn python() -> Option<PathBuf> {
    let python = root().join("target/tools/grpc-py/bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!("NOT TESTED: grpcio is not in target/tools (bash .ci/tools-grpc)");
    None
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Code made of the definitions.
pub(super) fn made_of_definitions(python: &Path) -> tempfile::TempDir {
    let made = tempfile::tempdir().unwrap();
    let output = Command::new(python)
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(root().join("proto/proto"))
        .arg(format!("--python_out={}", made.path().display()))
        .arg(format!("--grpc_python_out={}", made.path().display()))
        .args(DEFINITIONS)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    made
}

/// Runs a script with code made of the definitions, against these ports.
fn run(python: &Path, script: &str, ports: &[u16]) {
    let made = made_of_definitions(python);
    let output = Command::new(python)
        .arg(root().join("tests/python").join(script))
        .arg(made.path())
        .args(ports.iter().map(u16::to_string))
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&told).trim(), "fine", "{script}");
}

fn ports(cluster: &Cluster) -> Vec<u16> {
    cluster.nodes.iter().map(|node| node.grpc.port()).collect()
}

#[test]
fn envoys_service_answers_python() {
    let Some(python) = python() else { return };
    let cluster = kit::patient_nodes(2, &block("docs/envoy.md", "yaml rules"));
    run(&python, "ask_envoys_service.py", &ports(&cluster));
}

const TOGETHER: &str = "
domain: together
all_or_nothing: true
rules:
  - { name: per-service, key: [client, svc], limit: 2/1h }
  - { name: per-client, key: [client], limit: 10/1h }
---
domain: apart
rules:
  - { name: per-service, key: [client, svc], limit: 2/1h }
  - { name: per-client, key: [client], limit: 10/1h }
  - { name: watched, key: [watched], limit: 2/1h, mode: shadow, algorithm: fixed_window }
  - { name: slow, key: [slow], limit: 10/1h }
";

#[test]
fn envoys_service_answers_as_the_reference_does() {
    let Some(python) = python() else { return };
    let cluster = kit::patient_nodes(2, TOGETHER);
    run(&python, "ask_as_the_reference.py", &ports(&cluster));
}

#[test]
fn gubernators_service_answers_python() {
    let Some(python) = python() else { return };
    let cluster = kit::patient_nodes(2, "rules: []\n");
    run(&python, "ask_gubernators_service.py", &ports(&cluster));
}

#[test]
fn gubernators_calls_answer_over_http() {
    let cluster = kit::patient_nodes(2, "rules: []\n");
    let mut client = cluster.nodes[0].client(PATIENCE);
    let ask = block("docs/gubernator.md", "json ask");
    let answer = client.post("/v1/GetRateLimits", &ask).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let responses = &json["responses"];
    assert_eq!(responses[0]["status"], "UNDER_LIMIT");
    assert_eq!(responses[0]["limit"], "10");
    let remaining = ["9", "1", "99"].map(serde_json::Value::from);
    assert_eq!([0, 1, 2].map(|place| responses[place]["remaining"].clone()), remaining);
    assert!(responses[0]["reset_time"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000);
    // The other node knows of it; what is wrong with one is told in its place.
    let more = with(
        &ask,
        &[
            (
                "\"uploads\", \"unique_key\": \"account:12345\", \"hits\": 1",
                "\"uploads\", \"unique_key\": \"account:12345\", \"hits\": 2",
            ),
            ("\"mails\"", "\"\""),
        ],
    );
    let over = cluster.nodes[1].client(PATIENCE).post("/v1/GetRateLimits", &more).unwrap().json();
    assert_eq!(over["responses"][1]["status"], "OVER_LIMIT");
    assert_eq!(over["responses"][2]["error"], "field 'namespace' cannot be empty");

    let health = client.get("/v1/HealthCheck").unwrap().json();
    assert_eq!((&health["status"], &health["peer_count"]), (&"healthy".into(), &2.into()));
    let mut peers: Vec<_> =
        health["local_peers"].as_array().unwrap().iter().map(|peer| peer["grpc_address"].as_str()).collect();
    peers.sort_unstable();
    let mut nodes: Vec<_> = cluster.nodes.iter().map(|node| node.grpc.to_string()).collect();
    nodes.sort_unstable();
    assert_eq!(peers, nodes.iter().map(|node| Some(&**node)).collect::<Vec<_>>());
    assert_eq!(health["region_peers"], serde_json::json!([]));
    assert_eq!(client.get("/v1/LiveCheck").unwrap().text(), "{}");
    // As its gateway reads and refuses.
    let lax = r#"{"requests": [{"name": "lax", "uniqueKey": "k", "hits": 2.0, "limit": "1e1", "duration": 60000.0,
        "algorithm": null, "burst": null, "metadata": null, "unknown": [1]}]}"#;
    let answer = client.post("/v1/GetRateLimits", lax).unwrap().json();
    assert_eq!(answer["responses"][0]["remaining"], "8", "{answer}");
    assert_eq!(client.post("/v1/GetRateLimits", "").unwrap().json(), serde_json::json!({"responses": []}));
    let bad = client.post("/v1/GetRateLimits", "{").unwrap();
    assert_eq!((bad.status, bad.header("content-type")), (400, Some("application/json")));
    let json = bad.json();
    assert_eq!((&json["code"], &json["details"]), (&3.into(), &serde_json::json!([])));
    assert!(json["message"].as_str().unwrap().contains("EOF"), "{json}");
    let wrong = client.get("/v1/GetRateLimits").unwrap();
    assert_eq!((wrong.status, wrong.json()["code"].as_i64()), (501, Some(12)));
    let many = format!("{{\"requests\": [{}{{}}]}}", "{},".repeat(1_000));
    let refused = client.post("/v1/GetRateLimits", &many).unwrap();
    assert_eq!((refused.status, refused.json()["code"].as_i64()), (400, Some(11)));
    assert!(refused.text().contains("max size is '1000'"), "{}", refused.text());
}

/// A client that says and hears frames of HTTP/2.
struct Frames(TcpStream);

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

impl Frames {
    fn new(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(PREFACE).unwrap();
        let mut frames = Self(stream);
        frames.say(4, 0, 0, &[]).unwrap();
        frames
    }

    fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&frame(kind, flags, stream, payload))
    }

    /// The next frame of this kind: its stream, and what it carries.
    fn hear(&mut self, kind: u8) -> (u32, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).unwrap();
            if head[3] == kind {
                return (u32::from_be_bytes(head[5..9].try_into().unwrap()), payload);
            }
        }
    }

    /// The error code of the GOAWAY with which the node ends it; `None`: without one.
    fn ends_with(&mut self) -> Option<u32> {
        let mut all = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = self.0.read(&mut bytes) {
            all.extend_from_slice(&bytes[..read]);
        }
        let mut rest = &all[..];
        let mut told = None;
        while rest.len() >= 9 {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            if rest[3] == GOAWAY && rest.len() >= 17 {
                told = Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
            }
            rest = rest.get(9 + length..).unwrap_or_default();
        }
        told
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(super) const ENVOY: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The domain "d", and a descriptor { a: "1" }.
pub(super) const REQUEST: [u8; 13] = [0x0a, 1, b'd', 0x12, 8, 0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'1'];

/// Headers of a check, without compression of HPACK.
fn head(more: usize) -> Vec<u8> {
    head_of(ENVOY, more)
}

pub(super) fn head_of(path: &str, more: usize) -> Vec<u8> {
    let mut block = Vec::new();
    let mut header = |name: &str, value: &str| {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    };
    header(":method", "POST");
    header(":scheme", "http");
    header(":path", path);
    header("content-type", "application/grpc");
    (0..more).for_each(|number| header(&format!("x-{number}"), &"v".repeat(100)));
    block
}

#[test]
fn a_message_is_understood_however_it_comes() {
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let mut client = Frames::new(cluster.nodes[0].grpc);
    let message = [&[0, 0, 0, 0, REQUEST.len() as u8], &REQUEST[..]].concat();
    let pieces: [&[&[u8]]; 4] =
        [&[&message], &[&message, &[]], &[&message[..3], &message[3..9], &message[9..]], &[&[], &message]];
    let mut answers = Vec::new();
    for (number, pieces) in pieces.iter().enumerate() {
        let stream = number as u32 * 2 + 1;
        client.say(HEADERS, END_HEADERS, stream, &head(0)).unwrap();
        for (place, piece) in pieces.iter().enumerate() {
            let end = u8::from(place + 1 == pieces.len());
            // Some are here before the rest is sent, some are not.
            thread::sleep(Duration::from_millis(20 * place as u64));
            client.say(DATA, end, stream, piece).unwrap();
        }
        let (of, answer) = client.hear(DATA);
        assert_eq!(of, stream);
        answers.push(answer);
    }
    // All of them are OK, field 1 = 1.
    assert!(answers[0][5..].starts_with(&[8, 1]), "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");

    // Many at once on one connection, each gets its own answer.
    let mut all = Vec::new();
    for number in 0..200_u32 {
        let stream = 9 + number * 2;
        client.say(HEADERS, END_HEADERS, stream, &head(0)).unwrap();
        client.say(DATA, 1, stream, &message).unwrap();
        all.push(stream);
    }
    let mut heard: Vec<u32> = (0..200).map(|_| client.hear(DATA).0).collect();
    heard.sort_unstable();
    assert_eq!(heard, all);
}

#[test]
fn streams_without_an_end_and_requests_without_a_body_keep_nobody_else_out() {
    let mut settings = kit::patient("rules: []\n");
    settings.flags.extend(["--workers", "1"].map(str::to_owned));
    let cluster = Cluster::start(1, settings);
    let address = cluster.nodes[0].grpc;
    let ask = |path: &str, message: &[u8]| {
        let mut client = Frames::new(address);
        // In one write, as a client of gRPC sends it: a request that is only begun needs the room that is full here.
        let body = [&[0, 0, 0, 0, message.len() as u8], message].concat();
        let whole = [frame(HEADERS, END_HEADERS, 1, &head_of(path, 0)), frame(DATA, 1, 1, &body)].concat();
        client.0.write_all(&whole).unwrap();
        client.hear(DATA).1
    };
    let mut watching: Vec<Frames> = (0..20)
        .map(|_| {
            let mut client = Frames::new(address);
            for number in 0..60 {
                let stream = number * 2 + 1;
                client
                    .say(HEADERS, END_HEADERS, stream, &head_of("/grpc.health.v1.Health/Watch", 0))
                    .unwrap();
                client.say(DATA, 1, stream, &[0; 5]).unwrap();
            }
            client
        })
        .collect();
    for _ in 0..8 {
        assert_eq!(watching[0].hear(DATA).1, [0, 0, 0, 0, 2, 8, 1], "a connection has some of them");
    }
    assert_eq!(ask("/grpc.health.v1.Health/Check", &[]), [0, 0, 0, 0, 2, 8, 1]);

    // More than a worker answers at a time, if they counted.
    let _without_a_body: Vec<Frames> = (0..80)
        .map(|_| {
            let mut client = Frames::new(address);
            (0..256).for_each(|number| {
                client.say(HEADERS, END_HEADERS, number * 2 + 1, &head(0)).unwrap();
            });
            client
        })
        .collect();
    assert!(ask(ENVOY, &REQUEST)[5..].starts_with(&[8, 1]), "a whole check is answered");
    assert_eq!(ask("/grpc.health.v1.Health/Check", &[]), [0, 0, 0, 0, 2, 8, 1]);
    assert_eq!(ask("/pb.gubernator.V1/LiveCheck", &[]), [0; 5]);
}

#[test]
fn floods_of_http_2_end_and_nobody_else_notices() {
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let node = &cluster.nodes[0];
    let before = node.resident_bytes().unwrap();
    let enhance_your_calm = Some(11);

    // Requests that are reset as soon as they are made (CVE-2023-44487).
    let mut resetting = Frames::new(node.grpc);
    let mut id = 1;
    for _ in 0..20_000 {
        let said = resetting.say(HEADERS, END_HEADERS, id, &head(0));
        if said.is_err() || resetting.say(RST_STREAM, 0, id, &8_u32.to_be_bytes()).is_err() {
            break;
        }
        id += 2;
    }
    assert_eq!(resetting.ends_with(), enhance_your_calm, "rapid reset");

    // A head without an end (CVE-2024-27316 and its kin).
    let mut endless = Frames::new(node.grpc);
    endless.say(HEADERS, 0, 1, &head(0)).unwrap();
    let continued = head(100);
    for _ in 0..2_000 {
        if endless.say(9, 0, 1, &continued).is_err() {
            break;
        }
    }
    assert!(endless.ends_with().is_some_and(|code| code != 0), "a head without an end");

    // More requests at a time than allowed, none of which ever gets its body.
    let mut open = Frames::new(node.grpc);
    for number in 0..2_000 {
        if open.say(HEADERS, END_HEADERS, number * 2 + 1, &head(40)).is_err() {
            break;
        }
    }
    // No HTTP/2 at all, and a preface that never gets complete.
    let mut http1 = TcpStream::connect(node.grpc).unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: n\r\n\r\n").unwrap();
    let mut told = String::new();
    let _ = http1.read_to_string(&mut told);
    assert!(told.starts_with("HTTP/1.1 505") && told.contains("gRPC"), "{told}");
    let mut silent = TcpStream::connect(node.grpc).unwrap();
    silent.write_all(&PREFACE[..10]).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = monotonic();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!((4..15).contains(&((monotonic() - start) / 1_000_000_000)));

    let most = node.resident_bytes().unwrap();
    assert!(most < before + (32 << 20), "{before} bytes before, {most} then");
    assert!(node.is_ready());
}

#[test]
fn a_node_takes_so_many_connections_and_closes_them_when_it_stops() {
    let mut settings = kit::patient("rules: []\n");
    settings.flags.extend(["--max-connections", "4"].map(str::to_owned));
    let mut cluster = Cluster::start(1, settings);
    let address = cluster.nodes[0].grpc;
    let deadline = monotonic() + 30_000_000_000;
    // The test kit's own connection is one of them for a moment.
    let mut kept: Vec<Frames> = Vec::new();
    let refused = loop {
        assert!(monotonic() < deadline);
        let mut one = Frames::new(address);
        one.0.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        let mut bytes = [0; 512];
        let read = one.0.read(&mut bytes).unwrap_or(0);
        if bytes[..read].windows(17).any(|part| part == b"--max-connections") {
            break kept.len();
        }
        kept.push(one);
    };
    assert!((3..=4).contains(&refused), "{refused}");
    let stopping = thread::spawn(move || cluster.terminate("n1"));
    for one in &mut kept {
        one.0.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(one.ends_with(), Some(0), "it ends without an error");
    }
    assert_eq!(stopping.join().unwrap(), Some(0));
}
