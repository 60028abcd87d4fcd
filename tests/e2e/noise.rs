//! The promise: what asks for nothing is bounded, whatever it is called: frames of control of HTTP/2, empty commands of the Redis
//! protocol. Whoever sends it without end is told so and closed, nobody else notices, and no client that means well is ever hit.

use std::io::Write as _;

use tidegate_jepsen::cluster::wait_for;

use crate::kit::{
    self,
    frames::{DATA, END_HEADERS, Frames, HEADERS, REQUEST, frame, head},
    resp::Client,
    rules::{PATIENCE, SOON},
};

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ENHANCE_YOUR_CALM: Option<u32> = Some(11);

/// More than a connection may send of it.
const FLOOD: usize = 20_000;

#[test]
fn frames_that_ask_for_nothing_end_a_connection_and_nobody_else_notices() {
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let node = &cluster.nodes[0];
    let floods: [(&str, Vec<u8>); 7] = [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("answers to pings that nobody has sent", frame(PING, 1, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("priorities", frame(2, 0, 3, &[0, 0, 0, 0, 9])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("empty data", frame(DATA, 0, 1, &[])),
        ("frames of an unknown kind", frame(0xfa, 0, 0, b"x")),
    ];
    for (name, one) in &floods {
        let mut client = Frames::new(node.grpc);
        // Of which only the data wants one.
        client.say(HEADERS, END_HEADERS, 1, &head(0)).unwrap();
        let hundred = one.repeat(100);
        for _ in 0..FLOOD / 100 {
            if client.0.write_all(&hundred).is_err() {
                break;
            }
        }
        assert_eq!(client.ends_with(), ENHANCE_YOUR_CALM, "{name}");
    }
    let closed = node.metric("tidegate_grpc_connections_noisy_total");
    // Of some kinds h2 itself has had enough before.
    assert!(closed.is_some_and(|closed| closed >= 5.0), "{closed:?}");
    assert!(node.log().contains("asks for nothing"), "{}", node.log());
    assert!(node.is_ready());
}

#[test]
fn a_client_that_pings_and_opens_windows_with_each_of_many_requests_is_served() {
    const AT_A_TIME: u32 = 200;
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let node = &cluster.nodes[0];
    let mut client = Frames::new(node.grpc);
    let window = 1_000_u32.to_be_bytes();
    let (mut stream, mut sent) = (1, 0);
    while sent < 2 * FLOOD {
        let mut bytes = Vec::new();
        for _ in 0..AT_A_TIME {
            let frames = [
                frame(HEADERS, END_HEADERS, stream, &head(0)),
                frame(DATA, 0, stream, &[0, 0, 0, 0, REQUEST.len() as u8]),
                frame(WINDOW_UPDATE, 0, stream, &window),
                frame(WINDOW_UPDATE, 0, 0, &window),
                frame(DATA, 0, stream, &REQUEST),
                frame(PING, 0, 0, &[1; 8]),
                frame(WINDOW_UPDATE, 0, 0, &window),
                frame(WINDOW_UPDATE, 0, stream, &window),
                frame(DATA, END_STREAM, stream, &[]),
            ];
            sent += frames.len();
            bytes.extend(frames.concat());
            stream += 2;
        }
        client.0.write_all(&bytes).unwrap();
        let mut answered = 0;
        while answered < AT_A_TIME {
            let (kind, flags, _, _) = client.any();
            answered += u32::from(kind == HEADERS && flags & END_STREAM != 0);
        }
    }
    assert_eq!(node.metric("tidegate_grpc_connections_noisy_total"), Some(0.0));
}

#[test]
fn empty_commands_without_end_end_a_connection_and_some_do_not() {
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let node = &cluster.nodes[0];
    for empty in ["\r\n", "*0\r\n", "*-1\r\n", "  \n"] {
        let mut client = Client::new(node.resp);
        let hundred = empty.repeat(100);
        for _ in 0..FLOOD / 100 {
            if client.stream.write_all(hundred.as_bytes()).is_err() {
                break;
            }
        }
        assert_eq!(client.line(), "-ERR Protocol error: too many empty commands", "{empty:?}");
        assert_eq!(client.line(), "");
    }
    wait_for("they are counted", SOON, || node.metric("tidegate_resp_connections_noisy_total") == Some(4.0));
    // As somebody types, and as a pipeline of a client that ends its lines twice.
    let mut client = Client::new(node.resp);
    for _ in 0..FLOOD / 100 {
        client.say(&"PING\r\n\r\n\r\n".repeat(100));
        assert!((0..100).all(|_| client.answer() == "+PONG"));
    }
    assert!(node.client(PATIENCE).get("/healthz").is_ok_and(|answer| answer.status == 200));
}
