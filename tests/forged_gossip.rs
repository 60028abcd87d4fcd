//! The promise: gossip is a hint. Whoever forges it, in a cluster without a key, moves no slot and ends no node.
#![allow(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use serde_json::Value;
use tidegate_jepsen::cluster::{Cluster, Settings, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// The header of a datagram of this cluster that is not sealed.
fn plain() -> Vec<u8> {
    let tag = blake3::hash(b"tidegate");
    [&b"TGG\x01\x00"[..], &tag.as_bytes()[..8]].concat()
}

fn text(message: &mut Vec<u8>, text: &str) {
    message.extend((text.len() as u16).to_le_bytes());
    message.extend(text.as_bytes());
}

/// A node with its incarnation and its address, as the gossip library writes it.
fn node(message: &mut Vec<u8>, name: &str, incarnation: u64, address: SocketAddr) {
    let SocketAddr::V4(address) = address else { panic!("loopback") };
    text(message, name);
    message.extend(incarnation.to_le_bytes());
    message.push(4);
    message.extend(address.ip().octets());
    message.extend(address.port().to_le_bytes());
}

/// That a node says this of itself, in a version that no real one will reach.
fn says(name: &str, incarnation: u64, address: SocketAddr, key: &str, value: &str) -> Vec<u8> {
    let mut changes = vec![0];
    node(&mut changes, name, incarnation, address);
    changes.extend([0; 16]);
    changes.push(1);
    text(&mut changes, key);
    text(&mut changes, value);
    changes.extend((1u64 << 40).to_le_bytes());
    changes.push(0);
    let mut message = [plain(), vec![0x53, 0xb0, 0, 2, 2]].concat();
    message.extend((changes.len() as u16).to_le_bytes());
    message.extend(changes);
    message.push(0);
    message
}

/// That these nodes are alive.
fn lists(nodes: std::ops::Range<u32>, heartbeat: u64) -> Vec<u8> {
    let mut message = [plain(), vec![0x53, 0xb0, 0, 0]].concat();
    message.extend((nodes.len() as u16).to_le_bytes());
    for number in nodes {
        node(&mut message, &format!("forged-{number:06}"), 1, ([127, 0, 0, 1], 1).into());
        for number in [heartbeat, 0, 1] {
            message.extend(number.to_le_bytes());
        }
    }
    text(&mut message, "tidegate");
    message
}

fn member<'s>(status: &'s Value, name: &str) -> &'s Value {
    status["members"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

#[test]
fn forged_news_made_up_nodes_and_bombs_move_no_slot() {
    let settings = Settings { key: None, ..kit::settings(&kit::per_user("1000/1s", 1000, "deny")) };
    let cluster = Cluster::start(3, settings);
    let n1 = cluster.node("n1");
    let owners = n1.slot_owners();
    let memory = n1.resident_bytes().unwrap();
    let status = n1.status().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |datagram: &[u8]| assert_eq!(socket.send_to(datagram, n1.peer).unwrap(), datagram.len());

    // The others are said to leave, and to stand elsewhere.
    for other in ["n2", "n3"] {
        let known = member(&status, other);
        let incarnation = known["incarnation"].as_u64().unwrap();
        let address = known["peer"].as_str().unwrap().parse().unwrap();
        send(&says(other, incarnation, address, "state", "leaving"));
    }
    wait_for("what was forged is believed as far as gossip goes", PATIENCE, || {
        let status = n1.status().unwrap();
        ["n2", "n3"].iter().all(|other| member(&status, other)["state"] == "leaving")
    });
    // Ten thousand nodes that there are not; and what would be 59 MB when it is unpacked.
    for hundred in 0..100 {
        send(&lists(hundred * 100..hundred * 100 + 100, 1));
        send(&lists(hundred * 100..hundred * 100 + 100, 2));
        if hundred % 10 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let zeros = zstd::bulk::compress(&[0; 65_535], 19).unwrap();
    let mut bomb = [plain(), vec![0x53, 0xb0, 0, 2]].concat();
    for _ in 0..16_000 / (zeros.len() + 3) {
        bomb.push(1);
        bomb.extend((zeros.len() as u16).to_le_bytes());
        bomb.extend(&zeros);
    }
    bomb.push(0);
    (0..20).for_each(|_| send(&bomb));
    wait_for("it is refused", PATIENCE, || {
        n1.metric("tidegate_gossip_rejected_total{reason=\"malformed\"}").unwrap() >= 20.0
    });

    // Longer than a session, and than the leader waits for members to stay the same.
    std::thread::sleep(Duration::from_secs(3));
    for node in &cluster.nodes {
        assert_eq!(node.slot_owners(), owners, "{}", node.name);
        let status = node.status().unwrap();
        assert_eq!((&status["gossip"], &status["slots_moving"]), (&true.into(), &0.into()), "{status}");
    }
    let mut client = n1.client(PATIENCE);
    for user in 0..50 {
        let answer = client.get(&format!("/v1/check?user=u{user}")).unwrap().json();
        assert!(answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded", "{answer}");
    }
    let more = n1.resident_bytes().unwrap().saturating_sub(memory);
    assert!(more < 48 << 20, "{more} bytes more");
}
