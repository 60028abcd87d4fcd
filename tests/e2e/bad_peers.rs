//! The promise: whatever arrives at the peer port, a node says what is wrong with it and goes on.

use std::{
    io::{Read as _, Write as _},
    net::UdpSocket,
    process::Command,
    time::Duration,
};

use crate::kit::{
    self,
    peer::{Raw, RawCall, Said, Stream, dial},
};
use tidegate_jepsen::cluster::{Cluster, Node, free_ports, wait_for};
use tidegate_proto::{Greeting, Refusal, WIRE_VERSION, peer::Ping};

const PATIENCE: Duration = Duration::from_secs(10);
/// That of `kit::settings`.
const KEY: Option<&str> = Some("the key of the black-box tests");

fn two_nodes() -> Cluster {
    kit::patient_nodes(2, &kit::per_user("1000/1s", 1000, "deny"))
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

/// The refusal that it ends with.
fn refusal_in(answer: &[u8]) -> Refusal {
    let (_, refusal) = answer.split_at(answer.len().saturating_sub(5));
    match Greeting::first(refusal) {
        Ok(Some((Greeting::Refusal(refusal), 5))) => refusal,
        other => panic!("the node did not say why: {other:?} in {answer:02x?}"),
    }
}

fn hello() -> Vec<u8> {
    Greeting::Hello([7; 16]).to_bytes()
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
fn a_greeting_that_is_cut_off() {
    let cluster = two_nodes();
    let whole = hello();
    for end in [1, 3, 5, whole.len() - 1, whole.len()] {
        let mut stream = dial(cluster.nodes[0].peer);
        stream.write_all(&whole[..end]).unwrap();
        drop(stream);
    }
    assert_undisturbed(&cluster, "closed the stream in the middle of the handshake");
}

#[test]
fn a_record_that_claims_a_gigabyte_and_one_that_nobody_sealed() {
    let cluster = two_nodes();
    let large = [&hello()[..], &(1u32 << 30).to_le_bytes()].concat();
    assert_eq!(refusal_in(&send(&cluster.nodes[0], &large)), Refusal::Malformed);
    let unsealed = [&hello()[..], &1u32.to_le_bytes(), &[0; 17]].concat();
    assert_eq!(refusal_in(&send(&cluster.nodes[0], &unsealed)), Refusal::WrongKey);
    assert_undisturbed(&cluster, "a stream to the peer port is refused");
}

#[test]
fn a_peer_of_another_wire_version() {
    let cluster = two_nodes();
    for theirs in [6, WIRE_VERSION + 1] {
        let mut other = hello();
        other[2] = theirs;
        assert_eq!(refusal_in(&send(&cluster.nodes[0], &other)), Refusal::WireVersion);
    }
    assert_undisturbed(&cluster, "wire version 6");
}

#[test]
fn a_peer_of_another_cluster_and_one_with_another_key() {
    let cluster = two_nodes();
    let n1 = cluster.nodes[0].peer;
    let staging = Said { cluster: "staging".to_owned(), ..Said::stranger(1) };
    let reason = Stream::open(n1, "n1", KEY, &staging).err().unwrap();
    assert!(reason.contains("staging") && reason.contains("--cluster-name"), "{reason}");

    // Who has not the key gets a nonce and a fixed word; not the name of the cluster, and nothing to guess the key with.
    for secret in [None, Some("some other key of sixteen")] {
        let reason = Stream::open(n1, "n1", secret, &Said::stranger(1)).err().unwrap();
        assert_eq!(reason, Refusal::WrongKey.to_string());
    }
    assert_undisturbed(&cluster, "another cluster key");
}

#[test]
fn a_peer_that_talks_before_it_has_shown_its_key() {
    let cluster = two_nodes();
    let challenge = Greeting::Challenge([7; 16]).to_bytes();
    assert_eq!(refusal_in(&send(&cluster.nodes[0], &challenge)), Refusal::Malformed);
    assert_undisturbed(&cluster, "instead of Hello");
}

#[test]
fn a_peer_with_the_key_that_speaks_nonsense_is_counted_and_logged_once_in_a_while() {
    let cluster = two_nodes();
    let n1 = &cluster.nodes[0];
    for _ in 0..50 {
        let mut stream = Stream::open(n1.peer, "n1", KEY, &Said::stranger(1)).unwrap();
        stream.send(&Ping { id: 1 });
        stream.receive().unwrap();
        // A call on a stream that is not one for calls, and then garbage in a call.
        stream.send(&Raw(vec![1, 2, 3]) as &RawCall);
        let reason = stream.receive().unwrap_err();
        assert!(reason.contains("unexpected Call"), "{reason}");
        let mut stream = Stream::open(n1.peer, "n1", KEY, &Said::stranger(1)).unwrap().control();
        assert!(stream.call(vec![1, 2, 3]).is_err());
        let mut stream = Stream::open(n1.peer, "n1", KEY, &Said::stranger(1)).unwrap();
        stream.stream.write_all(&[9, 0, 0, 0, 1]).unwrap();
        drop(stream);
    }
    let count =
        |reason: &str| n1.metric(&format!("tidegate_peer_streams_broken_total{{reason=\"{reason}\"}}"));
    wait_for("all are counted", PATIENCE, || {
        count("unexpected") == Some(50.0)
            && count("malformed") >= Some(50.0)
            && count("cut_off") == Some(50.0)
    });
    let lines = n1.log().lines().filter(|line| line.contains("a stream of a peer is closed")).count();
    assert!((1..=6).contains(&lines), "{lines} lines");
    assert_undisturbed(&cluster, "unexpected Call");
}

/// Whoever reaches the peer port of a node without a cluster key could do with the cluster what it likes.
#[test]
fn without_a_cluster_key_a_node_does_not_listen_beyond_loopback() {
    let serve = |flags: &[&str]| {
        let port = free_ports().to_string();
        let mut command = Command::new(kit::binary());
        command.args(["serve", "--base-port", &port]).args(flags).env_remove("TIDEGATE_CLUSTER_KEY");
        command
    };
    for flags in [&["--listen", "0.0.0.0"][..], &["--listen", "::"], &["--advertise", "192.0.2.1"]] {
        let output = serve(flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).replace(['\n', '│'], " ");
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in ["cluster key", "openssl rand -hex 32", "--insecure-no-cluster-key"] {
            let words: Vec<&str> = said.split_whitespace().collect();
            assert!(words.join(" ").contains(word), "{said}");
        }
    }
    for flags in [
        &["--listen", "0.0.0.0", "--require-token", "admin", "--insecure-no-cluster-key"][..],
        &["--listen", "0.0.0.0", "--insecure"],
        &["--listen", "0.0.0.0", "--require-token", "admin"],
    ] {
        let mut command = serve(flags);
        if flags.len() == 4 {
            command.env("TIDEGATE_CLUSTER_KEY", "the key of the black-box tests");
        }
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        assert!(ended.is_none(), "{flags:?}: {ended:?}");
    }
}

#[test]
fn a_node_with_another_cluster_key_does_not_get_in() {
    let mut cluster = two_nodes();
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.http.port()).collect();
    let port = free_ports();
    cluster.set_environment("TIDEGATE_CLUSTER_KEY", "some other key of sixteen");
    cluster.spawn(port, &ports, &[]);
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
    wait_for("what has the wrong key is counted", PATIENCE, || {
        refused(&cluster.nodes[0]) + refused(&cluster.nodes[1]) > 0.0
    });
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
