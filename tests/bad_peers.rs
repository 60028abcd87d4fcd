//! The promise: whatever arrives at the peer port, a node says what is wrong with it and goes on.
#![allow(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use bytes::BytesMut;
use tidegate_jepsen::cluster::{Cluster, Node, free_ports, wait_for};
use tidegate_proto::{
    HEADER_BYTES, Kind, MAX_HANDSHAKE_BYTES, WIRE_VERSION, codec, frame,
    peer::{Hello, Ping, Proof, Refused, Welcome},
};

const PATIENCE: Duration = Duration::from_secs(10);

fn two_nodes() -> Cluster {
    kit::nodes(2, &kit::per_user("1000/1s", 1000, "deny"))
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes, and returns all that comes back until the node closes the stream.
fn send(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = dial(node.peer);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset counts as closed.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The reason in the node's last frame.
fn reason_in(answer: &[u8]) -> String {
    let mut rest = answer;
    while let Some(frame) = frame::first(rest, MAX_HANDSHAKE_BYTES).unwrap() {
        if frame.kind == Kind::Refused {
            return codec::decode::<Refused>(frame.payload).unwrap().reason;
        }
        rest = &rest[frame.length..];
    }
    panic!("the node did not say why: {answer:02x?}")
}

fn framed<M: frame::Message>(message: &M) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame::put(message, &mut bytes).unwrap();
    bytes.to_vec()
}

fn hello(cluster: &str) -> Hello {
    Hello { cluster: cluster.to_owned(), node: "stranger".to_owned(), incarnation: 1, nonce: [7; 16] }
}

/// The node's log must name the fault, and checks must go on, also those that are forwarded.
fn assert_undisturbed(cluster: &Cluster, words: &str) {
    wait_for(&format!("the log says {words:?}"), PATIENCE, || cluster.nodes[0].log().contains(words));
    let mut client = cluster.nodes[0].client(PATIENCE);
    let mut deciders = Vec::new();
    for user in 0..20 {
        let answer = client.get(&format!("/v1/check?user=u{user}")).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        deciders.push(answer.json()["decided_by"].as_str().unwrap().to_owned());
    }
    assert!(deciders.iter().all(|by| by == "owner" || by == "forwarded"), "{deciders:?}");
    assert!(deciders.iter().any(|by| by == "forwarded"));
}

#[test]
fn garbage_on_the_peer_port() {
    let cluster = two_nodes();
    send(&cluster.nodes[0], b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_undisturbed(&cluster, "not a Tidegate peer");
}

#[test]
fn a_frame_that_is_cut_off() {
    let cluster = two_nodes();
    let whole = framed(&hello("tidegate"));
    for end in [1, 5, HEADER_BYTES, whole.len() - 1] {
        let mut stream = dial(cluster.nodes[0].peer);
        stream.write_all(&whole[..end]).unwrap();
        drop(stream);
    }
    assert_undisturbed(&cluster, "closed the stream in the middle of the handshake");
}

#[test]
fn a_frame_that_claims_a_gigabyte_and_one_whose_bytes_were_changed() {
    let cluster = two_nodes();
    let mut large = framed(&hello("tidegate"));
    large[4..8].copy_from_slice(&(1u32 << 30).to_le_bytes());
    assert!(reason_in(&send(&cluster.nodes[0], &large)).contains("1073741824 bytes"));

    let mut changed = framed(&hello("tidegate"));
    *changed.last_mut().unwrap() ^= 1;
    assert!(reason_in(&send(&cluster.nodes[0], &changed)).contains("checksum"));
    assert_undisturbed(&cluster, "a stream to the peer port is refused");
}

#[test]
fn a_peer_of_another_wire_version() {
    let cluster = two_nodes();
    let mut newer = framed(&hello("tidegate"));
    newer[2] = WIRE_VERSION + 1;
    let reason = reason_in(&send(&cluster.nodes[0], &newer));
    assert!(reason.contains(&format!("wire version {}", WIRE_VERSION + 1)), "{reason}");
    assert_undisturbed(&cluster, "wire version");
}

#[test]
fn a_peer_of_another_cluster_and_one_with_another_key() {
    let cluster = two_nodes();
    let reason = reason_in(&send(&cluster.nodes[0], &framed(&hello("staging"))));
    assert!(reason.contains("staging"), "{reason}");

    let mut stream = dial(cluster.nodes[0].peer);
    stream.write_all(&framed(&hello("tidegate"))).unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).unwrap();
    let welcome = frame::first(&answer[..length], MAX_HANDSHAKE_BYTES).unwrap().unwrap();
    assert_eq!(welcome.kind, Kind::Welcome);
    codec::decode::<Welcome>(welcome.payload).unwrap();
    stream.write_all(&framed(&Proof { proof: [0; 32] })).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(reason_in(&rest).contains("another cluster key"));
    assert_undisturbed(&cluster, "another cluster key");
}

#[test]
fn a_peer_that_talks_before_it_has_shown_its_key() {
    let cluster = two_nodes();
    let reason = reason_in(&send(&cluster.nodes[0], &framed(&Ping { id: 1 })));
    assert!(reason.contains("Ping"), "{reason}");
    assert_undisturbed(&cluster, "instead of Hello");
}

#[test]
fn a_node_with_another_cluster_key_does_not_get_in() {
    let mut cluster = two_nodes();
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.http.port()).collect();
    let port = free_ports();
    let flags = ["--cluster-key", "some other key of sixteen"].map(str::to_owned);
    cluster.spawn(port, &ports, &flags);
    assert_undisturbed(&cluster, "sealed with another cluster key");
    let refused = |node: &Node| {
        let metrics = node.client(PATIENCE).get("/metrics").unwrap().text();
        let line = metrics
            .lines()
            .find(|line| line.contains("gossip") && line.contains("wrong_key"))
            .map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next().map(|count| count.parse::<f64>().unwrap()))
            .unwrap_or(0.0)
    };
    assert!(refused(&cluster.nodes[0]) + refused(&cluster.nodes[1]) > 0.0);
    assert_eq!(cluster.nodes[0].live_members(), ["n1", "n2"]);
    let lonely = cluster.nodes[2].client(PATIENCE);
    let mut lonely = lonely;
    wait_for("the foreign node says why it is not ready", PATIENCE, || {
        lonely.get("/readyz").is_ok_and(|answer| answer.status == 503 && answer.text().contains("--join"))
    });
    assert_eq!(lonely.get("/v1/check?user=a").unwrap().status, 503);
}

#[test]
fn garbage_gossip() {
    let cluster = two_nodes();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 13, 100, 1_400, 60_000] {
        socket.send_to(&vec![0xa5; length], cluster.nodes[0].peer).unwrap();
        let mut framed = b"TGG\x01\x01".to_vec();
        framed.resize(length + 5, 0xa5);
        socket.send_to(&framed, cluster.nodes[0].peer).unwrap();
    }
    assert_undisturbed(&cluster, "a gossip datagram is refused");
}
